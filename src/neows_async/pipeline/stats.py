"""What a run counts while it goes on, and the receipt that comes of it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import anyio
import pyarrow as pa

from neows_async._version import __version__
from neows_async.endpoints.browse import schema
from neows_async.lake.receipt import PageCounts, RawInfo, Receipt, Requests, SourceInfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from neows_async.endpoints.browse.page_plan import PagePlan
    from neows_async.pages.values import DatasetFile, Page
    from neows_async.pipeline.admission import Admission


@dataclass(frozen=True, slots=True)
class Spent:
    """Where time went, in seconds.

    :param total_s: wall time
    :param quota_s: wall time in which the quota alone kept the next request back
    :param outage_s: the same of outages
    :param network_s: in requests, decoding and storage: summed over what ran at once
    """

    quota_s: float
    outage_s: float
    network_s: float
    concurrency: int
    total_s: float = 0.0
    decoding_s: float = 0.0
    storage_s: float = 0.0


def split_time(spent: Spent) -> dict[str, float]:
    """Wall time by what it was spent on; the parts add up to ``total``. Pure.

    Waits are measured. What is left is split by the share of each kind of work in it, requests
    counting as many times less as may be under way at once.
    """
    waited_s = spent.quota_s + spent.outage_s
    left_s = max(0.0, spent.total_s - waited_s)
    work_s = {
        "network": spent.network_s / spent.concurrency,
        "decoding": spent.decoding_s,
        "storage": spent.storage_s,
    }
    whole_s = sum(work_s.values()) or 1.0
    parts = {name: left_s * busy_s / whole_s for name, busy_s in work_s.items()}
    return {"quota": spent.quota_s, "outage": spent.outage_s, **parts, "total": spent.total_s}


class RunStats:
    """Pages, bytes and time of one run, over all its generations."""

    def __init__(self) -> None:
        self._raw_sha256 = hashlib.sha256()
        self._raw_pages = self._raw_bytes = 0
        self._rejected_because: Counter[str] = Counter()
        self._time_s: defaultdict[str, float] = defaultdict(float)
        self._under_way: Counter[str] = Counter()
        self._planned = self._kept = 0
        self._missing: list[int] = []
        self._total = 0
        self._total_changed = False
        self._started_s = anyio.current_time()

    @contextmanager
    def timing(self, what: str) -> Iterator[None]:
        """Count the time of the block as spent on ``what``."""
        started_s = anyio.current_time()
        self._under_way[what] += 1
        try:
            yield
        finally:
            self._under_way[what] -= 1
            self._time_s[what] += anyio.current_time() - started_s

    def under_way(self, what: str) -> bool:
        """Whether time is being spent on it now."""
        return self._under_way[what] > 0

    def generation_begins(self, plan: PagePlan, kept: int) -> None:
        """The pages of ``plan`` are to be read; ``kept`` of them are in already."""
        self._planned += plan.pages
        self._kept += kept
        self._total = plan.total_elements
        self._total_changed = False

    def generation_ends(self, missing: Sequence[int]) -> None:
        """All its pages were read but ``missing``."""
        self._missing += missing

    def page(self, page: Page) -> None:
        """A page was decoded; in page order."""
        self._raw_sha256.update(page.body_sha256)
        self._raw_pages += 1
        self._raw_bytes += page.raw.size
        self._total_changed |= page.info.total_elements != self._total
        self._total = page.info.total_elements

    def rejected(self, reason: str) -> None:
        """An object was rejected."""
        self._rejected_because[reason] += 1

    @property
    def total_changed(self) -> bool:
        """Whether the catalogue was seen to change its size while this generation was read."""
        return self._total_changed

    @property
    def total_elements(self) -> int:
        """How many objects the catalogue holds, by the last page read."""
        return self._total

    def complete(self, admission: Admission) -> bool | Literal["unknown"]:
        """Whether every object of the catalogue was written: the distinct ids of the last generation
        against its last total. Never claims more than is known.
        """
        if self._missing or admission.distinct_in_generation != self._total:
            return False
        return "unknown" if self._total_changed else True

    def receipt(  # noqa: PLR0913 - a receipt has so many parts, and all have names
        self,
        *,
        snapshot: str,
        parent: str | None,
        started_at: dt.datetime,
        source: SourceInfo,
        page_size: int,
        admission: Admission,
        aggregates: dict[str, dict[str, Any]],
        files: Sequence[DatasetFile],
        raw_snapshot: str | None,
        generations: int,
        requests: Requests,
        spent: Spent,
        identity: dict[str, Any],
        derivation: dict[str, Any],
        operation: dict[str, Any],
    ) -> Receipt:
        """The receipt-to-be of the run so far."""
        tally = admission.tally
        spent = dataclasses.replace(
            spent,
            total_s=anyio.current_time() - self._started_s,
            decoding_s=self._time_s["decode"] + self._time_s["aggregate"],
            storage_s=self._time_s["archive"] + self._time_s["write"],
        )
        return Receipt(
            snapshot=snapshot,
            parent=parent,
            complete=self.complete(admission),
            started_at=started_at,
            committed_at=dt.datetime.now(dt.UTC),
            source=source,
            total_elements=self._total,
            page_size=page_size,
            pages=PageCounts(
                planned=self._planned,
                fetched=self._planned - len(self._missing),
                kept=self._kept,
                missing=tuple(self._missing),
            ),
            records=tally.counts(),
            close_approaches=tally.close_approaches,
            rejected_because=dict(sorted(self._rejected_because.items())),
            nulls=dict(sorted(tally.nulls.items())),
            unknown_fields=dict(sorted(tally.unknown_fields.items())),
            aggregates=aggregates,
            files=tuple(files),
            raw=RawInfo(
                snapshot=raw_snapshot,
                generations=generations,
                pages=self._raw_pages,
                bytes=self._raw_bytes,
                sha256=self._raw_sha256.hexdigest(),
            ),
            requests=requests,
            time_s={name: round(part_s, 3) for name, part_s in split_time(spent).items()},
            identity=identity,
            derivation=derivation,
            operation=operation,
            neows_async=__version__,
            pyarrow=pa.__version__,
            schema_version=schema.VERSION,
        )

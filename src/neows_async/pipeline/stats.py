"""What a run counts: pages, bytes, and what its time was spent on."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from neows_async.endpoints.browse.page_plan import PagePlan


class RunStats:
    """Pages, bytes and time of one run, over all its generations. It only counts: nothing is decided by it."""

    def __init__(self) -> None:
        self.planned: int = 0
        self.stored_before: int = 0
        """Of the planned pages, those that were in the raw zone already."""
        self.raw_pages: int = 0
        self.raw_bytes: int = 0
        self.missing: list[int] = []
        self.rejected_because: Counter[str] = Counter()
        self._raw_sha256 = hashlib.sha256()
        self._time_s: defaultdict[str, float] = defaultdict(float)
        self._started_s = anyio.current_time()

    @contextmanager
    def timing(self, what: str) -> Iterator[None]:
        """Count the time of the block as spent on ``what``."""
        started_s = anyio.current_time()
        try:
            yield
        finally:
            self._time_s[what] += anyio.current_time() - started_s

    def generation_begins(self, plan: PagePlan, stored: int) -> None:
        """The pages of ``plan`` are to be read; ``stored`` of them are in the raw zone already."""
        self.planned += plan.pages
        self.stored_before += stored

    def generation_ends(self, missing: Sequence[int]) -> None:
        """All pages of the generation were read but ``missing``."""
        self.missing += missing

    def page_read(self, sha256: bytes, size: int) -> None:
        """A page was read; called in page order."""
        # The digest of digests depends on the order, so it is fed by the reader, not by the fetchers.
        self._raw_sha256.update(sha256)
        self.raw_pages += 1
        self.raw_bytes += size

    def rejected(self, reason: str) -> None:
        """An object was rejected."""
        self.rejected_because[reason] += 1

    @property
    def raw_sha256(self) -> str:
        """The digest over the digests of all pages read, in order; hexadecimal."""
        return self._raw_sha256.hexdigest()

    def time_s(self, *, quota_s: float, outage_s: float, network_s: float, concurrency: int) -> dict[str, float]:
        """Wall time by what it was spent on; the parts add up to ``total``. Waits are measured.

        :param quota_s: wall time in which only the quota kept the next request back; ``outage_s`` for outages
        :param network_s: in requests, summed over all that were in flight at once
        :param concurrency: requests in flight, at most
        """
        total_s = anyio.current_time() - self._started_s
        # The rest is split by each kind of work's share. The work overlaps, so its sum is not the wall time.
        work_s = {
            "network": network_s / concurrency,
            "decoding": self._time_s["decode"] + self._time_s["aggregate"],
            "storage": self._time_s["store"] + self._time_s["write"],
        }
        left_s = max(0.0, total_s - quota_s - outage_s)
        whole_s = sum(work_s.values()) or 1.0
        parts = {name: left_s * busy_s / whole_s for name, busy_s in work_s.items()}
        return {"quota": quota_s, "outage": outage_s, **parts, "total": total_s}

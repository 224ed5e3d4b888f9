"""The receipt: what a snapshot holds, where it came from, and what it cost. A snapshot exists exactly when it does."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from neows_async.page import DatasetFile

VERSION: Final = 1


class _Part(BaseModel):
    # Receipts outlive programs: an older reader lets a newer one's fields pass.
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore")


class SourceInfo(_Part):
    """Where the pages came from."""

    name: str
    origin: str
    synthetic: bool


class PageCounts(_Part):
    """:param fetched: requested from the source in all tries; ``kept`` of them by earlier tries."""

    planned: int
    fetched: int
    kept: int
    missing: tuple[int, ...]


class RecordCounts(_Part):
    """``seen = written + duplicates + rejected``."""

    seen: int
    written: int
    duplicates: int
    rejected: int


class RawInfo(_Part):
    """The raw pages that everything else was made from.

    :param snapshot: whose raw zone they lie in; None without an archive
    :param generations: how often the catalogue was read; more than once when it was seen to change
    :param sha256: over the SHA-256 digests of the pages' JSON, in page order
    """

    snapshot: str | None
    generations: int = 1
    pages: int
    bytes: int
    sha256: str


class Requests(_Part):
    """What this try spent.

    :param limit: requests an hour, as the last answer said
    :param answer_s: from a request to its answer, on average; None where nothing was sent, and in receipts
        of older versions
    """

    sent: int
    failed: int
    limit: int | None
    remaining: int | None
    answer_s: float | None = None


class Receipt(_Part):
    """One committed snapshot."""

    receipt_version: int = VERSION
    snapshot: str
    parent: str | None
    complete: bool | Literal["unknown"]
    """Whether every object of the catalogue is in it."""
    started_at: dt.datetime
    committed_at: dt.datetime
    source: SourceInfo
    total_elements: int
    page_size: int
    pages: PageCounts
    records: RecordCounts
    close_approaches: int
    rejected_because: dict[str, int]
    nulls: dict[str, int]
    unknown_fields: dict[str, int]
    aggregates: dict[str, dict[str, Any]]
    files: tuple[DatasetFile, ...]
    raw: RawInfo
    requests: Requests
    time_s: dict[str, float]
    """Wall time by what it was spent on: quota, outage, network, decoding, storage; they add up to total."""
    identity: dict[str, Any]
    derivation: dict[str, Any]
    operation: dict[str, Any]
    neows_async: str
    pyarrow: str
    schema_version: str

    def to_json(self) -> bytes:
        """The file's bytes."""
        return self.model_dump_json(indent=2).encode() + b"\n"

    @property
    def logical_at(self) -> dt.datetime:
        """The time the snapshot stands for: what its id says if it is a date or time, else its start.

        In whole seconds, as ids are: of two that begin in one second, none is before the other.
        """
        for form in ("%Y%m%dT%H%M%SZ", "%Y-%m-%d", "%Y%m%d", "%Y-%m-%dT%H%M%SZ", "%Y%m%dT%H%M%S", "%Y-%m"):
            try:
                return dt.datetime.strptime(self.snapshot, form).replace(tzinfo=dt.UTC)
            except ValueError:
                continue
        return self.started_at.replace(microsecond=0)


class Unfinished(_Part):
    """``_staging/<id>/run.json``: a snapshot that was begun. Its creation is what makes an id taken."""

    snapshot: str
    parent: str | None
    synthetic: bool
    archive: bool
    started_at: dt.datetime
    identity: Annotated[dict[str, Any], Field(description="origin, page_size, limit")]
    named: bool = False
    """Whether its id was asked for; otherwise it is the UTC start."""
    resume_at: dt.datetime | None = None
    """When it paused: from when the quota lets it go on."""

    def to_json(self) -> bytes:
        """The file's bytes."""
        return self.model_dump_json(indent=2).encode() + b"\n"

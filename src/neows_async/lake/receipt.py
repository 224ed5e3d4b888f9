"""The receipt of a snapshot: its contents, origin and cost. A snapshot exists exactly when its receipt exists."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from neows_async.pages.values import DatasetFile

VERSION: Final = 1


class _Part(BaseModel):
    # Receipts outlive programs: an older program ignores the fields that a newer one added.
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore")


class _Record(_Part):
    def to_json(self) -> bytes:
        """The file's bytes."""
        return self.model_dump_json(indent=2).encode() + b"\n"


class SourceInfo(_Part):
    """Where the pages came from.

    :param name: ``nasa``, ``archive``, ``sandbox``, or the name of a custom source
    :param origin: identifies the catalogue, see :attr:`Source.origin <neows_async.protocols.Source.origin>`
    :param synthetic: the objects are made up
    """

    name: str
    origin: str
    synthetic: bool


class PageCounts(_Part):
    """Pages of all generations.

    :param planned: needed for the snapshot
    :param fetched: received from the source, by all runs
    :param kept: received by earlier runs; part of ``fetched``
    :param missing: the numbers of the pages that could not be read, as ``max_missing_pages`` allowed
    """

    planned: int
    fetched: int
    kept: int
    missing: tuple[int, ...]


class RecordCounts(_Part):
    """Objects: ``seen = written + duplicates + rejected``.

    :param seen: positions of Browse that were read
    :param written: the first object of each id
    :param duplicates: the other objects of these ids
    :param rejected: objects that could not be read
    """

    seen: int
    written: int
    duplicates: int
    rejected: int


class RawInfo(_Part):
    """The raw pages from which everything else was computed.

    :param snapshot: the snapshot whose raw zone has them; None without an archive
    :param generations: how often the catalogue was read; more than once if it changed during the run
    :param pages: in all generations
    :param bytes: of their JSON, uncompressed
    :param sha256: over the SHA-256 digests of the pages' JSON, in page order
    """

    snapshot: str | None
    generations: int = 1
    pages: int
    bytes: int
    sha256: str


class Requests(_Part):
    """The requests of the run that committed.

    :param sent: all requests
    :param failed: those without a whole, correct page in the response
    :param limit: requests per hour by the last response's headers; None without headers
    :param remaining: of ``limit``, by the same response
    :param answer_s: average time from a request to its response; None if no request was sent, and in receipts of
        older versions
    """

    sent: int
    failed: int
    limit: int | None
    remaining: int | None
    answer_s: float | None = None


class Receipt(_Record):
    """One committed snapshot. Times are UTC."""

    receipt_version: int = VERSION
    """The version of the receipt's format; a newer one may have more fields."""
    snapshot: str
    """The snapshot's id."""
    parent: str | None
    """The snapshot from whose raw pages it was rebuilt; None if it has its own."""
    complete: bool | Literal["unknown"]
    """Whether every object of the catalogue is in it."""
    started_at: dt.datetime
    """When its first run began."""
    committed_at: dt.datetime
    """When every file was written and the commit began."""
    source: SourceInfo
    total_elements: int
    """Objects in the catalogue, by the last page's envelope."""
    page_size: int
    """Objects per page, by the source's responses; it may differ from the setting."""
    pages: PageCounts
    records: RecordCounts
    close_approaches: int
    """Close approaches of all written objects."""
    rejected_because: dict[str, int]
    """Reason → rejected objects."""
    nulls: dict[str, int]
    """``dataset.column`` → written nulls."""
    unknown_fields: dict[str, int]
    """Fields that the schema does not have: name → occurrences."""
    aggregates: dict[str, dict[str, Any]]
    """Name → result of each aggregator."""
    files: tuple[DatasetFile, ...]
    """All files except the raw pages, ascending by path."""
    raw: RawInfo
    requests: Requests
    time_s: dict[str, float]
    """Wall time of the run that committed, by cause: quota, outage, network, decoding, storage; total is their sum."""
    identity: dict[str, Any]
    """The settings that must match to resume the snapshot; see :class:`~neows_async.settings.Settings`."""
    derivation: dict[str, Any]
    """The other settings that decide what is written."""
    operation: dict[str, Any]
    """The settings that do not change what is written."""
    neows_async: str
    """The version of neows_async that wrote the snapshot."""
    pyarrow: str
    """The version of pyarrow that wrote the Parquet files."""
    schema_version: str
    """The version of the columns."""

    @property
    def logical_at(self) -> dt.datetime:
        """The snapshot's logical time: its id, if that is a date or time, else its start.

        In whole seconds, like ids: two snapshots that began in the same second have the same logical time.
        """
        # The id counts more than the clock: a snapshot named by an earlier date sorts by that date, whenever it was
        # made.
        for form in ("%Y%m%dT%H%M%SZ", "%Y-%m-%d", "%Y%m%d", "%Y-%m-%dT%H%M%SZ", "%Y%m%dT%H%M%S", "%Y-%m"):
            try:
                return dt.datetime.strptime(self.snapshot, form).replace(tzinfo=dt.UTC)
            except ValueError:
                continue
        return self.started_at.replace(microsecond=0)


class RunNote(_Record):
    """``_staging/<id>/run.json``: a snapshot that a run began. Its creation reserves the id."""

    snapshot: str
    parent: str | None
    synthetic: bool
    archive: bool
    started_at: dt.datetime
    identity: Annotated[dict[str, Any], Field(description="origin, page_size, limit")]
    named: bool = False
    """Whether the user gave the id; otherwise it is the UTC start."""
    resume_at: dt.datetime | None = None
    """After a pause: when the quota allows the next request."""

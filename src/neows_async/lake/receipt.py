"""The receipt: what a snapshot holds, where it came from, and what it cost. A snapshot exists exactly when it does."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from neows_async.pages.values import DatasetFile

VERSION: Final = 1


class _Part(BaseModel):
    # Receipts outlive programs: an older reader lets a newer one's fields pass.
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore")


class SourceInfo(_Part):
    """Where the pages came from.

    :param name: ``nasa`` for the default source, else what kind it is
    :param origin: what the pages are of, see :attr:`Source.origin <neows_async.protocols.Source.origin>`
    :param synthetic: the objects are made up
    """

    name: str
    origin: str
    synthetic: bool


class PageCounts(_Part):
    """Pages of all generations.

    :param planned: wanted
    :param fetched: requested from the source in all tries; ``kept`` of them by earlier tries
    :param missing: the numbers of those that were given up, as the settings allowed
    """

    planned: int
    fetched: int
    kept: int
    missing: tuple[int, ...]


class RecordCounts(_Part):
    """Objects: ``seen = written + duplicates + rejected``.

    :param seen: positions of Browse that were read
    :param written: of each id the first; ``duplicates`` are the others
    :param rejected: could not be read
    """

    seen: int
    written: int
    duplicates: int
    rejected: int


class RawInfo(_Part):
    """The raw pages that everything else was made from.

    :param snapshot: whose raw zone they lie in; None without an archive
    :param generations: how often the catalogue was read; more than once when it was seen to change
    :param pages: in all generations; ``bytes`` of their JSON, not compressed
    :param sha256: over the SHA-256 digests of the pages' JSON, in page order
    """

    snapshot: str | None
    generations: int = 1
    pages: int
    bytes: int
    sha256: str


class Requests(_Part):
    """What this try spent.

    :param sent: requests; ``failed`` of them brought no whole, right page
    :param limit: requests an hour, and ``remaining`` of them, as the last answer said; None if none did
    :param answer_s: from a request to its answer, on average; None where nothing was sent, and in receipts
        of older versions
    """

    sent: int
    failed: int
    limit: int | None
    remaining: int | None
    answer_s: float | None = None


class Receipt(_Part):
    """One committed snapshot. Times are UTC."""

    receipt_version: int = VERSION
    """Of this form; a newer one may have more fields."""
    snapshot: str
    """Its id."""
    parent: str | None
    """The snapshot whose raw pages it was made from; None if they are its own."""
    complete: bool | Literal["unknown"]
    """Whether every object of the catalogue is in it."""
    started_at: dt.datetime
    """When its first try began."""
    committed_at: dt.datetime
    """When everything was written and the commit began."""
    source: SourceInfo
    total_elements: int
    """How many objects the catalogue held, by the last page."""
    page_size: int
    """Objects a page, as the source answered; it need not be what was asked for."""
    pages: PageCounts
    records: RecordCounts
    close_approaches: int
    """Of the objects written, all of them."""
    rejected_because: dict[str, int]
    """Reason → objects that could not be read."""
    nulls: dict[str, int]
    """``dataset.column`` → nulls written."""
    unknown_fields: dict[str, int]
    """Fields of the source that nobody told us of: name → how often."""
    aggregates: dict[str, dict[str, Any]]
    """Name → result of each aggregator."""
    files: tuple[DatasetFile, ...]
    """All of it but the raw pages, ascending by path."""
    raw: RawInfo
    requests: Requests
    time_s: dict[str, float]
    """Wall time of this try by what it was spent on: quota, outage, network, decoding, storage; total is their sum."""
    identity: dict[str, Any]
    """The settings that had to be the same to resume; see :class:`~neows_async.settings.Settings`."""
    derivation: dict[str, Any]
    """Those that decide, besides the raw pages, what is written."""
    operation: dict[str, Any]
    """Those that do not matter to what is written."""
    neows_async: str
    """The version that wrote it."""
    pyarrow: str
    """The version that wrote the Parquet files."""
    schema_version: str
    """Of the columns."""

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


class RunNote(_Part):
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

"""The protocols of the parts that you can replace: source, sink, aggregator, aggregate writer.

A part fits by its shape; it need not import this file. :mod:`neows_async.testing` has conformance tests for yours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

    from neows_async.errors import BadPageError, NeowsError
    from neows_async.pages.values import DatasetFile, Json, Page, RawPage, StoredPage


class Source(Protocol):
    """Where pages come from. Random access: any page, at any time, several at once."""

    @property
    def origin(self) -> str:
        """What the pages are of, e.g. ``https://api.nasa.gov/neo/rest/v1``; an unfinished
        snapshot is resumed only from the same origin. Holds no secret.
        """

    @property
    def synthetic(self) -> bool:
        """True when the objects are made up; such rows never share a lake with real ones."""

    async def fetch(self, number: int, size: int) -> RawPage | StoredPage:
        """Browse page ``number`` (from 0) of ``size`` objects, as it came, in one attempt.

        Called concurrently, up to the run's concurrency. Retries, pacing, checking and
        scrubbing are the caller's.

        :raises AttemptError: this attempt failed, another may not
        :raises RefusedError: no attempt can succeed
        """


@runtime_checkable
class IdleAware(Protocol):
    """An optional method of a source that holds connections: the run closes them before a long wait."""

    async def on_idle(self) -> None:
        """Close idle connections. No request is in flight, and none follows for a while.

        Called before each long wait, so more than once in a run.
        """


@runtime_checkable
class StoredSource(Protocol):
    """Three optional methods of a source whose pages are stored already. Such a source has all three.

    Its pages are read several at once. They are neither paced nor counted against a quota, and a page that is damaged
    is not fetched again: a retry would return the same bytes.
    """

    async def fetch_several(self, numbers: Sequence[int], size: int) -> Sequence[RawPage | StoredPage]:
        """As :meth:`Source.fetch`, for each of ``numbers``, in this order.

        If it raises anything but a storage error, or takes too long, each page is fetched by :meth:`Source.fetch`.
        """

    async def next_generation(self) -> bool:
        """Switch to the pages of the next generation. If there are none, change nothing and return False."""

    def damaged(self, number: int, exc: BadPageError) -> NeowsError:
        """The error that the run raises for page ``number``, which failed its check with ``exc``."""


class Stage(Protocol):
    """Where a sink puts the files of one snapshot until the commit makes them visible."""

    @property
    def snapshot(self) -> str:
        """The snapshot's id."""

    async def open(self, dataset: str, path: str) -> StagedFile:
        """Begin the file that will be ``<dataset>/snapshot=<id>/<path>``.

        :raises StorageError: it cannot be written; nothing of this snapshot will be visible
        """


class StagedFile(Protocol):
    """One file being written aside. Never visible under its final name before the commit."""

    async def write(self, data: bytes) -> None:
        """Append ``data``.

        :raises StorageError: it could not be written
        """

    async def finish(self, rows: int | None) -> DatasetFile:
        """Make it durable and hashed; ``rows`` goes into the receipt.

        :raises StorageError: it could not be made durable
        """


class Sink(Protocol):
    """Takes admitted pages in page order. Delivery is exactly-once for files of the stage (they
    appear with the commit, or never); a sink that writes elsewhere must make ``commit``
    idempotent by snapshot id, since a run that dies after it delivers again.
    """

    @property
    def name(self) -> str:
        """How the receipt and messages call it; unique in a run."""

    async def open(self, stage: Stage) -> None:
        """Called once, before the first page."""

    async def write(self, page: Page) -> None:
        """Take the records of ``page``; they become visible at the commit, not before.

        Called once a page, in page order, never concurrently with itself.

        :raises StorageError: nothing of this snapshot will be visible
        """

    async def finish(self) -> Sequence[DatasetFile]:
        """After the last page: everything durable, nothing visible. The files go into the receipt."""

    async def commit(self) -> None:
        """Called once when every sink has finished: publish what does not lie in the stage.

        May never be called, and may be called again for the same snapshot after a crash.
        """


class Aggregator(Protocol):
    """Folds admitted pages into figures. Pure: no I/O, no clock; ``update`` runs in a thread."""

    @property
    def name(self) -> str:
        """The aggregate's name: ``aggregates/snapshot=<id>/<name>.json``; unique in a run."""

    def update(self, batches: Mapping[str, pa.RecordBatch]) -> None:
        """Add the rows of one page. Called once a page, in page order.

        :param batches: dataset name → rows: ``neos`` and ``close_approaches``, of one page
        """

    def merge(self, other: Self) -> None:
        """Take in what ``other`` folded from pages disjoint from ours; order must not matter."""

    def result(self) -> Mapping[str, Json]:
        """The figures so far. Equal pages give an equal result, key order included."""


class JsonAggregator(Protocol):
    """An aggregator that also reads the source's own JSON. Otherwise as :class:`Aggregator`.

    If one part of a run needs the JSON, each page's JSON stays in memory, compressed, until all parts have the page.
    """

    @property
    def name(self) -> str:
        """As :attr:`Aggregator.name`."""

    @property
    def needs_json(self) -> Literal[True]:
        """True: :meth:`update_json` is called, and not ``update``."""

    def update_json(self, batches: Mapping[str, pa.RecordBatch], objects: Iterator[Mapping[str, Any]]) -> None:
        """Add one page. Called once a page, in page order.

        :param batches: as for :meth:`Aggregator.update`
        :param objects: the JSON of each row of the first dataset, in order: every field, unvalidated
        """

    def merge(self, other: Self) -> None:
        """As :meth:`Aggregator.merge`."""

    def result(self) -> Mapping[str, Json]:
        """As :meth:`Aggregator.result`."""


class AggregateWriter(Protocol):
    """Writes results, however they were computed."""

    async def write(self, stage: Stage, results: Mapping[str, Mapping[str, Json]]) -> Sequence[DatasetFile]:
        """Write each named result; called once, after the last page, before the commit.

        :raises StorageError: nothing of this snapshot will be visible
        """

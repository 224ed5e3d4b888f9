"""The protocols of the parts that you can replace: source, sink, aggregator, aggregate writer.

A part fits by its shape; it need not import this file. :mod:`neows_async.testing` has conformance tests for yours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pyarrow as pa

    from neows_async.errors import BadPageError, NeowsError
    from neows_async.pages.values import DatasetFile, Json, Page, RawPage, StoredPage


class Source(Protocol):
    """Where pages come from. Random access: any page, at any time, several pages concurrently."""

    @property
    def origin(self) -> str:
        """Identifies the catalogue, e.g. ``https://api.nasa.gov/neo/rest/v1``. Receipts show it: no secrets.

        An unfinished snapshot is resumed only from the same origin.
        """

    @property
    def synthetic(self) -> bool:
        """True if the objects are made up. Synthetic and real rows are never written to the same lake."""

    async def fetch(self, number: int, size: int) -> RawPage | StoredPage:
        """Fetch Browse page ``number`` (from 0) of ``size`` objects, in one attempt.

        Called concurrently, up to the run's concurrency. The caller does the rest: pacing, retries, checks, redaction.

        :returns: the page as received
        :raises AttemptError: this attempt failed; a retry may succeed
        :raises RefusedError: no retry can succeed
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
    """Where a sink writes the files of one snapshot. The commit makes them visible."""

    @property
    def snapshot(self) -> str:
        """The snapshot's id."""

    async def open(self, dataset: str, path: str) -> StagedFile:
        """Begin the file that will be ``<dataset>/snapshot=<id>/<path>``.

        :raises StorageError: it could not be written; nothing of this snapshot will be visible
        """


class StagedFile(Protocol):
    """One file in the staging folder. It gets its final name at the commit, not before."""

    async def write(self, data: bytes) -> None:
        """Append ``data``.

        :raises StorageError: it could not be written
        """

    async def finish(self, rows: int | None) -> DatasetFile:
        """Make the file durable, and close it.

        :param rows: the number of records, for the receipt; None if the file has no rows

        :raises StorageError: it could not be made durable
        """


class Sink(Protocol):
    """Takes admitted pages in page order.

    Delivery is exactly once for files of the stage: they appear with the commit, or never. A sink that writes elsewhere
    must make ``commit`` idempotent by snapshot id: if a run dies after it, the next run delivers the same rows again.

    A sink that calls :func:`neows_async.raw_objects` has the attribute ``needs_json = True``. Without it, a page's JSON
    is not kept in memory.
    """

    @property
    def name(self) -> str:
        """The sink's name in the receipt and in messages; unique in a run."""

    async def open(self, stage: Stage) -> None:
        """Called once, before the first page."""

    async def write(self, page: Page) -> None:
        """Take the rows of ``page``. They become visible at the commit, not before.

        Called once a page, in page order, never concurrently with itself.

        :raises StorageError: nothing of this snapshot will be visible
        """

    async def finish(self) -> Sequence[DatasetFile]:
        """After the last page: make everything durable, and nothing visible.

        :returns: the files in the stage, for the receipt
        """

    async def commit(self) -> None:
        """Publish what is not in the stage. Called when every sink has finished.

        It may never be called. After a crash a new sink's ``commit`` may be called for the same snapshot.
        """


class Aggregator(Protocol):
    """Computes figures from record batches. Pure: no I/O and no clock. Its methods run in a worker thread.

    One that also needs the objects' JSON is a :class:`JsonAggregator`.
    """

    @property
    def name(self) -> str:
        """The file's name in ``aggregates/snapshot=<id>/``, without its suffix; unique in a run."""

    def update(self, batches: Mapping[str, pa.RecordBatch]) -> None:
        """Add some rows. A run calls this once for each page, in page order.

        The result must not depend on how the rows are grouped into calls: ``verify`` computes the aggregators of this
        package from files, one dataset and one row group at a time. Floats summed in another order give another sum;
        use integers or ``fractions.Fraction``.

        :param batches: dataset name → rows: ``neos`` by :data:`neows_async.NEOS`, ``close_approaches`` by
            :data:`neows_async.CLOSE_APPROACHES`
        """

    def merge(self, other: Self) -> None:
        """Add what ``other`` computed from other pages. The order of merges must not change the result."""

    def result(self) -> Mapping[str, Json]:
        """The figures so far. Equal pages give an equal result, including the order of keys."""


class JsonAggregator(Protocol):
    """An aggregator that also reads the objects' JSON; otherwise as :class:`Aggregator`.

    If a sink or an aggregator of a run has ``needs_json``, each page's JSON stays in memory, compressed, until all
    parts have the page. Otherwise it does not.
    """

    @property
    def name(self) -> str:
        """As :attr:`Aggregator.name`."""

    @property
    def needs_json(self) -> Literal[True]:
        """True: the run calls :meth:`update_json`, and not ``update``."""

    def update_json(self, batches: Mapping[str, pa.RecordBatch], objects: Iterable[Mapping[str, Any]]) -> None:
        """Add one page. Called once for each page, in page order. ``verify`` cannot call it, and skips the aggregate.

        :param batches: as for :meth:`Aggregator.update`
        :param objects: the JSON object of each row of ``neos``, in order: every field, unvalidated. Can be read once
        """

    def merge(self, other: Self) -> None:
        """As :meth:`Aggregator.merge`."""

    def result(self) -> Mapping[str, Json]:
        """As :meth:`Aggregator.result`."""


class AggregateWriter(Protocol):
    """Writes the results of the aggregators."""

    async def write(self, stage: Stage, results: Mapping[str, Mapping[str, Json]]) -> Sequence[DatasetFile]:
        """Write each named result. Called once, after the last page and before the commit.

        :raises StorageError: nothing of this snapshot will be visible
        """

"""The flow of a run into a lake, from the first request to the receipt.

::

    source ─► receive · check · decode ─► raw zone · buffer       (fetch tasks, several at once, in any order)
                                            │ in page order
                                          admit ─► [a bounded queue each] ─► sinks, aggregators ─► commit ─► receipt

Only this module and :mod:`neows_async.pipeline.stream` start tasks.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

import anyio
import pyarrow as pa
from anyio import to_thread
from anyio.lowlevel import checkpoint

from neows_async._version import __version__
from neows_async.endpoints.browse import approach_scan, schema
from neows_async.endpoints.browse.envelope import raw_objects
from neows_async.errors import NeowsError, PartError, PausedError, known_name, most_relevant
from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.inventory import ObjectNames
from neows_async.lake.raw_zone import RawZone
from neows_async.lake.receipt import PageCounts, RawInfo, Receipt, Requests, SourceInfo
from neows_async.lake.resume import SnapshotRequest, open_snapshot
from neows_async.lake.staging import LakeStage
from neows_async.outputs import registry
from neows_async.outputs.quarantine import QuarantineSink
from neows_async.pipeline.fetch_loop import UNPACED, PacedSource
from neows_async.pipeline.guards import (
    all_files,
    as_plain_json,
    blaming,
    check_names,
    needs_json,
    refuse_clashes,
)
from neows_async.pipeline.page_queue import PageQueue
from neows_async.pipeline.reader import PageReader
from neows_async.settings import identity
from neows_async.telemetry import events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from neows_async.lake.snapshot import SnapshotWriter
    from neows_async.lake.storage.interface import Storage
    from neows_async.pacing.quota_store import QuotaStore
    from neows_async.pacing.rules import PacingRules
    from neows_async.pages.values import DatasetFile, Page
    from neows_async.protocols import AggregateWriter, Aggregator, JsonAggregator, Sink, Source
    from neows_async.settings import Settings

_Results: TypeAlias = dict[str, dict[str, Any]]
_Outcome: TypeAlias = Literal["committed", "read", "stopped"]
# The aggregators' results are reported at most this often. Computing them may take at most 1/20 of the time.
_REPORT_EVERY_S: Final = 1.0
_REPORT_PAUSE: Final = 20.0
# If pages arrive fast, aggregators get several at once: a change of thread costs more than a page.
_GATHER_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Parts:
    """The swappable parts of one run.

    :param source_name: the source's name in the receipt
    :param parent: the snapshot that this one is rebuilt from, if the source is an archive
    :param raw_snapshot: the snapshot whose raw pages the archive reads: the parent, or the parent's own source
    :param pacing: the rules of the source's gateway that its responses do not show
    :param quota_store: shared with other runs that use the same key; None shares nothing
    """

    storage: Storage
    source: Source
    source_name: str
    sinks: Sequence[Sink]
    aggregators: Sequence[Aggregator | JsonAggregator]
    aggregate_writer: AggregateWriter
    parent: str | None = None
    raw_snapshot: str | None = None
    pacing: PacingRules = UNPACED
    quota_store: QuotaStore | None = None


async def ingest(settings: Settings, parts: Parts, listener: events.Listener = events.ignore) -> Receipt:
    """Fetch, save, aggregate, commit: one whole run.

    Resumes the unfinished snapshot of an earlier run, if there is one. Cancelling it leaves a state that the next call
    resumes.

    :returns: the receipt of the committed snapshot
    :raises NeowsError: one of the tree in :mod:`neows_async.errors`; never a group of exceptions
    """
    check_names(parts.source, parts.sinks, parts.aggregators)
    with run_events(parts.source, listener, lambda: "committed"):
        return await _ingest(settings, parts, listener)


@contextmanager
def run_events(source: Source, listener: events.Listener, outcome: Callable[[], _Outcome]) -> Iterator[None]:
    """Emit the first and the last event of a run.

    :param outcome: of a block that raises nothing
    """
    started_s = anyio.current_time()
    listener(events.RunStarted(source.origin, source.synthetic, approach_scan.IS_COMPILED))
    try:
        yield
    except BaseException as exc:
        reason = str(exc) if isinstance(exc, NeowsError) else None
        run_s = anyio.current_time() - started_s
        listener(events.RunEnded(_outcome(exc), known_name(exc), reason, run_s))
        raise
    listener(events.RunEnded(outcome(), None, None, anyio.current_time() - started_s))


def _outcome(exc: BaseException) -> Literal["paused", "cancelled", "failed"]:
    if isinstance(exc, PausedError):
        return "paused"
    return "cancelled" if isinstance(exc, anyio.get_cancelled_exc_class()) else "failed"


async def _ingest(settings: Settings, parts: Parts, listener: events.Listener) -> Receipt:
    storage = AsyncStorage(parts.storage, timeout_s=settings.storage_timeout_s)
    snapshot = await open_snapshot(storage, _snapshot_request(settings, parts), listener)
    async with snapshot:
        # Committed already: the result is the stored receipt, and no request is sent.
        if snapshot.committed is None:
            run = _Run(settings, parts, storage, snapshot, listener)
            try:
                async with anyio.create_task_group() as tasks:
                    # Beside the whole run: if the lock is lost, the task group cancels it at its next await.
                    tasks.start_soon(snapshot.keep_lock)
                    await run.execute()
                    tasks.cancel_scope.cancel()
            except BaseExceptionGroup as exc:
                relevant = most_relevant(exc)
                # Still within the lock: only its owner may write the note.
                if isinstance(relevant, PausedError):
                    await snapshot.note_pause(relevant.resume_at_s)
                raise relevant from relevant.__cause__
        if snapshot.committed is None:
            raise cancelled_within()
        listener(events.Committed(snapshot.id))
        return snapshot.committed


class _Run:
    """One run's state. The methods are in the order of a page's way."""

    def __init__(
        self,
        settings: Settings,
        parts: Parts,
        storage: AsyncStorage,
        snapshot: SnapshotWriter,
        listener: events.Listener,
    ) -> None:
        self._settings = settings
        self._parts = parts
        self._storage = storage
        self._snapshot = snapshot
        self._listener = listener
        # Pages of an archive are in a raw zone already.
        zone = (
            RawZone(storage, snapshot.id, max_body_bytes=settings.max_body_bytes, stores_late=lambda: snapshot.has_lock)
            if settings.archive and parts.parent is None
            else None
        )
        # Last, so that a user's sink cannot take its place; it needs each page's rejects.
        self._sinks: list[Sink] = [*parts.sinks, QuarantineSink()]
        origin = PacedSource(parts.source, parts.pacing, parts.quota_store)
        json_needed = needs_json((*self._sinks, *parts.aggregators))
        self._reader = PageReader(settings, origin, zone, listener, needs_json=json_needed)
        self._stats = self._reader.stats
        self._stores_raw = zone is not None
        self._outputs_done: Counter[tuple[int, int]] = Counter()
        self._ended = 0  # of the reader and the consumers, how many have seen the last page

    async def execute(self) -> None:
        """From the first request to the commit. Raises exception groups, as task groups do."""
        stored = await self._reader.stored()
        self._listener(events.SnapshotOpened(self._snapshot.id, self._snapshot.resumed, len(stored)))
        async with self._reader:
            await self._reader.open(stored)
            # Closed before the commit: files that no sink finished are discarded, finished ones stay.
            async with LakeStage(self._storage, self._snapshot.id) as stage:
                files, results = await self._write(stage)
        # After the stage: from here on nothing is written but the commit itself.
        receipt = self._receipt(files, results)
        self._listener(events.Committing(len(files), sum(file.bytes for file in files)))
        await self._snapshot.commit(receipt)

    async def _write(self, stage: LakeStage) -> tuple[list[DatasetFile], _Results]:
        """Everything between the plan and the commit."""
        for sink in self._sinks:
            with blaming(sink.name):
                await sink.open(stage)
        queues = [PageQueue(self._settings.queue_neos) for _ in range(len(self._sinks) + 1)]

        # One queue after the other: the slowest output limits the reader, and so the fetchers.
        async def put(page: Page) -> None:
            for queue in queues:
                await queue.put(page)

        # Outer group: consumers outlive the fetchers, since pages still wait in their queues.
        async with anyio.create_task_group() as consumers:
            for sink, queue in zip(self._sinks, queues, strict=False):
                consumers.start_soon(self._feed_sink, sink, queue)
            consumers.start_soon(self._feed_aggregators, queues[-1])
            async with anyio.create_task_group() as fetchers:
                for _ in range(self._reader.fetching.tasks):
                    fetchers.start_soon(self._reader.fetching.run)
                # Page 0 is here already. Let every task begin first: an interrupt in a sink would end asyncio's loop
                # before the others began, and each of them would then be a warning.
                await checkpoint()
                await self._reader.read_pages(put)
                self._ended += 1
                # All pages were read, so a fetch task can only be waiting, or fetching a page that nobody takes.
                fetchers.cancel_scope.cancel()
            # Only now: a closed queue shows its consumer the end, which must mean "every page", never "an error".
            for queue in queues:
                queue.close()
        # asyncio lets any code cancel any task, and a task group then ends as if its work were done: count instead.
        if self._ended != 1 + len(queues):
            raise cancelled_within()
        return await self._finish(stage)

    # -- consuming ----------------------------------------------------------------------------

    async def _feed_sink(self, sink: Sink, queue: PageQueue) -> None:
        while (page := await queue.get()) is not None:
            with self._stats.timing("write"), blaming(sink.name):
                await sink.write(page)
            # After the write: an event must not announce a page that the sink may still refuse.
            self._output_done(page)
        self._ended += 1

    async def _feed_aggregators(self, queue: PageQueue) -> None:
        def fold(pages: Sequence[Page]) -> None:
            for page in pages:
                for aggregator in self._parts.aggregators:
                    with blaming(aggregator.name):
                        if getattr(aggregator, "needs_json", False):
                            cast("JsonAggregator", aggregator).update_json(page.batches, raw_objects(page))
                        else:
                            cast("Aggregator", aggregator).update(page.batches)

        report_at_s = -math.inf
        while pages := await queue.get_all(gather_s=_GATHER_S):
            with self._stats.timing("aggregate"):
                # In a thread, and not abandoned: an update that is cancelled halfway would leave a wrong result.
                await to_thread.run_sync(fold, pages)
            for page in pages:
                self._output_done(page)
            started_s = anyio.current_time()
            if started_s >= report_at_s:
                # Between two updates by construction: this task is the only one that touches the aggregators.
                self._listener(events.Aggregated(await self._results_so_far()))
                now_s = anyio.current_time()
                report_at_s = now_s + max(_REPORT_EVERY_S, _REPORT_PAUSE * (now_s - started_s))
        self._ended += 1

    async def _results_so_far(self) -> _Results:
        """Call it between two updates, never during one."""

        def results() -> _Results:
            found: _Results = {}
            for aggregator in self._parts.aggregators:
                with blaming(aggregator.name):
                    found[aggregator.name] = as_plain_json(aggregator.result())
            return found

        with self._stats.timing("aggregate"):
            return await to_thread.run_sync(results)

    def _output_done(self, page: Page) -> None:
        """Emit an event when all sinks and the aggregators have the page."""
        key = (page.generation, page.number)
        self._outputs_done[key] += 1
        if self._outputs_done[key] == len(self._sinks) + 1:
            # Removed at once, so the counter holds only pages between the outputs.
            del self._outputs_done[key]
            self._listener(events.PageWritten(page.number, page.object_count, sum(page.approach_counts)))

    # -- commit -------------------------------------------------------------------------------

    async def _finish(self, stage: LakeStage) -> tuple[list[DatasetFile], _Results]:
        """The order matters: all files are durable before a sink commits, and the receipt is written after that."""
        files: list[DatasetFile] = []
        results = await self._results_so_far()
        self._listener(events.Aggregated(results))
        with self._stats.timing("write"):
            # 1. Every sink makes its files durable.
            for sink in self._sinks:
                with blaming(sink.name):
                    files += all_files(await sink.finish())
            # 2. The aggregates, which are files of the snapshot too.
            writer = self._parts.aggregate_writer
            with blaming(type(writer).__name__):
                files += all_files(await writer.write(stage, results))
            # 3. Checks that must fail before anything is visible.
            refuse_clashes(files)
            await self._reader.check_stored()
            # 4. Own commits of the sinks. The receipt follows, so a crash here repeats them: they are idempotent.
            for sink in self._sinks:
                with blaming(sink.name):
                    await sink.commit()
        return sorted(files, key=lambda file: file.path), results

    def _receipt(self, files: Sequence[DatasetFile], results: _Results) -> Receipt:
        settings, parts, reader, stats = self._settings, self._parts, self._reader, self._stats
        gate, fetcher, tally = reader.fetching.gate, reader.fetching.fetcher, reader.admission.tally
        time_s = stats.time_s(
            quota_s=gate.quota_wait_s,
            outage_s=gate.outage_wait_s,
            network_s=fetcher.network_s,
            concurrency=settings.concurrency,
        )
        return Receipt(
            snapshot=self._snapshot.id,
            parent=parts.parent,
            complete=reader.complete,
            started_at=self._snapshot.started_at,
            committed_at=dt.datetime.now(dt.UTC),
            source=SourceInfo(name=parts.source_name, origin=parts.source.origin, synthetic=parts.source.synthetic),
            total_elements=reader.total_elements,
            page_size=reader.page_size,
            pages=PageCounts(
                planned=stats.planned,
                fetched=stats.planned - len(stats.missing),
                kept=stats.stored_before,
                missing=tuple(stats.missing),
            ),
            records=tally.counts(),
            close_approaches=tally.close_approaches,
            rejected_because=dict(sorted(stats.rejected_because.items())),
            nulls=dict(sorted(tally.nulls.items())),
            unknown_fields=dict(sorted(tally.unknown_fields.items())),
            aggregates=results,
            files=tuple(files),
            raw=RawInfo(
                snapshot=self._snapshot.id if self._stores_raw else parts.raw_snapshot or parts.parent,
                generations=reader.generation + 1,
                pages=stats.raw_pages,
                bytes=stats.raw_bytes,
                sha256=stats.raw_sha256,
            ),
            requests=Requests(
                sent=gate.sent,
                failed=fetcher.failed,
                limit=gate.rate_limit.limit if gate.rate_limit else None,
                remaining=gate.rate_limit.remaining if gate.rate_limit else None,
                answer_s=round(fetcher.network_s / gate.sent, 3) if gate.sent else None,
            ),
            time_s={name: round(part_s, 3) for name, part_s in time_s.items()},
            identity=identity(settings, parts.source.origin),
            derivation=_derivation(settings, parts),
            operation=settings.model_dump(mode="json", include=set(settings.OPERATION)),
            neows_async=__version__,
            pyarrow=pa.__version__,
            schema_version=schema.VERSION,
        )


def cancelled_within() -> PartError:
    """The error for a task group that one of its tasks ended, by a cancellation that was not the group's."""
    return PartError("something cancelled a task within the run; run again, and cancel the call, not what it started")


def _derivation(settings: Settings, parts: Parts) -> dict[str, Any]:
    """What decides, besides the raw pages, what is written."""
    return {
        **settings.model_dump(mode="json", include=set(settings.DERIVATION)),
        "sinks": [sink.name for sink in parts.sinks],
        "aggregators": [aggregator.name for aggregator in parts.aggregators],
        "aggregate_writer": type(parts.aggregate_writer).__name__,
    }


def _snapshot_request(settings: Settings, parts: Parts) -> SnapshotRequest:
    return SnapshotRequest(
        identity=identity(settings, parts.source.origin),
        derivation=_derivation(settings, parts),
        synthetic=parts.source.synthetic,
        archive=settings.archive,
        parent=parts.parent,
        snapshot=settings.snapshot,
        fresh=settings.fresh,
        resume_within_s=settings.resume_within_s,
        now=dt.datetime.now(dt.UTC),
        names=ObjectNames(registry.file_patterns()),
    )

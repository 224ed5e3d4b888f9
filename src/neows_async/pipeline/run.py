"""The flow of a run, from the first request to the receipt. Only this module starts tasks.

::

    source ─RawPage─► check · scrub ─► raw zone            (fetchers, N at once, any order)
                                          │ in page order
                decode ─Page─► admit ─► [bounded queues] ─► sinks + aggregators ─► commit ─► receipt
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import anyio
from anyio import to_thread

from neows_async.errors import NeowsError, PartError, PausedError, known_name, most_relevant
from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.raw_zone import RawZone
from neows_async.lake.receipt import Receipt, Requests, SourceInfo
from neows_async.lake.resume import SnapshotRequest, open_snapshot
from neows_async.lake.staging import LakeStage
from neows_async.outputs.quarantine import QuarantineSink
from neows_async.pipeline.guards import (
    all_files,
    as_plain_json,
    await_part,
    blaming,
    check_names,
    needs_bodies,
    refuse_clashes,
)
from neows_async.pipeline.page_queue import PageQueue
from neows_async.pipeline.reader import UNPACED, Origin, PageReader
from neows_async.pipeline.stats import Spent
from neows_async.settings import identity
from neows_async.telemetry import events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from neows_async.lake.snapshot import Snapshot
    from neows_async.lake.storage.interface import Storage
    from neows_async.pacing.quota_store import QuotaStore
    from neows_async.pacing.rules import PacingRules
    from neows_async.pages.values import DatasetFile, Page
    from neows_async.protocols import AggregateWriter, Aggregator, Sink, Source
    from neows_async.settings import Settings

_Results: TypeAlias = dict[str, dict[str, Any]]
_Done: TypeAlias = Literal["committed", "read", "stopped"]
# How often the aggregators' figures are told, at most; where that takes long, so many times as long in between.
_TELL_EVERY_S: Final = 1.0
_TELL_REST: Final = 20.0
# Where pages come fast, aggregators are given several at once: a change of thread costs more than a page.
_GATHER_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Parts:
    """The swappable parts of one run.

    :param source_name: how the receipt calls the source
    :param parent: the snapshot that the source makes this one from, if it reads an archive
    :param raw_snapshot: whose raw pages the source then reads: the parent's own, or its ancestor's
    :param pacing: what the source's gateway demands beside what its answers tell
    :param ledger: shared with other runs that use the same key; None shares nothing
    """

    storage: Storage
    source: Source
    source_name: str
    sinks: Sequence[Sink]
    aggregators: Sequence[Aggregator]
    aggregate_writer: AggregateWriter
    parent: str | None = None
    raw_snapshot: str | None = None
    pacing: PacingRules = UNPACED
    ledger: QuotaStore | None = None


async def ingest(settings: Settings, parts: Parts, listener: events.Listener = events.ignore) -> Receipt:
    """Fetch, save, aggregate, commit: one whole run.

    Resumes the unfinished snapshot of an earlier try, if there is one. Cancelling it leaves a
    state that the next call resumes.

    :returns: the receipt of the committed snapshot
    :raises NeowsError: one of the tree in :mod:`neows_async.errors`; never a group of exceptions
    """
    check_names(parts.source, parts.sinks, parts.aggregators)
    with _telling(parts.source, listener, lambda: "committed"):
        return await _ingest(settings, parts, listener)


@contextmanager
def _telling(source: Source, listener: events.Listener, done: Callable[[], _Done]) -> Iterator[None]:
    """Say that a run begins, and how it ends: as ``done`` says, unless the block raises."""
    started_s = anyio.current_time()
    listener(events.RunStarted(source.origin, source.synthetic))
    try:
        yield
    except BaseException as exc:
        reason = str(exc) if isinstance(exc, NeowsError) else None
        run_s = anyio.current_time() - started_s
        listener(events.RunEnded(_outcome(exc), known_name(exc), reason, run_s))
        raise
    listener(events.RunEnded(done(), None, None, anyio.current_time() - started_s))


def _outcome(exc: BaseException) -> Literal["paused", "cancelled", "failed"]:
    if isinstance(exc, PausedError):
        return "paused"
    return "cancelled" if isinstance(exc, anyio.get_cancelled_exc_class()) else "failed"


async def _ingest(settings: Settings, parts: Parts, listener: events.Listener) -> Receipt:
    lake = AsyncStorage(parts.storage, timeout_s=settings.storage_timeout_s)
    snapshot = await open_snapshot(lake, _wanted(settings, parts), listener)
    async with snapshot:
        if snapshot.committed is None:
            run = _Run(settings, parts, lake, snapshot, listener)
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(snapshot.keep)
                    await run.execute()
                    tasks.cancel_scope.cancel()
            except BaseExceptionGroup as exc:
                the_one = most_relevant(exc)
                if isinstance(the_one, PausedError):
                    await snapshot.note_pause(the_one.resume_at_s)
                raise the_one from the_one.__cause__
        if snapshot.committed is None:
            raise _cancelled_within()
        listener(events.Committed(snapshot.id))
        return snapshot.committed


class _Run:
    """One run's state. The methods stand in the order of a page's way."""

    def __init__(
        self, settings: Settings, parts: Parts, lake: AsyncStorage, snapshot: Snapshot, listener: events.Listener
    ) -> None:
        self._settings = settings
        self._parts = parts
        self._lake = lake
        self._snapshot = snapshot
        self._listener = listener
        # A raw zone of one's own only for pages that are not in another one already.
        zone = (
            RawZone(lake, snapshot.id, max_body_bytes=settings.max_body_bytes, keeps_late=lambda: snapshot.is_held)
            if settings.archive and parts.parent is None
            else None
        )
        self._sinks: list[Sink] = [*parts.sinks, QuarantineSink()]
        origin = Origin(parts.source, parts.pacing, parts.ledger)
        spends = not needs_bodies((*self._sinks, *parts.aggregators))
        self._reading = PageReader(settings, origin, zone, listener, spends=spends)
        self._reckoning = self._reading.reckoning
        self._archived = zone is not None
        self._taken: Counter[tuple[int, int]] = Counter()
        self._ended = 0  # of the reader and the consumers, those that came to the end of the pages

    async def execute(self) -> None:
        """From the first request to the commit. Raises as tasks do: in groups."""
        kept = await self._reading.kept()
        self._listener(events.SnapshotOpened(self._snapshot.id, self._snapshot.resumed, len(kept)))
        async with self._reading:
            await self._reading.open(kept)
            async with LakeStage(self._lake, self._snapshot.id) as stage:
                files, results = await self._write(stage)
        receipt = self._receipt(files, results)
        self._listener(events.Committing(len(files), sum(file.bytes for file in files)))
        await self._snapshot.commit(receipt)

    async def _write(self, stage: LakeStage) -> tuple[list[DatasetFile], _Results]:
        """Everything between the plan and the commit."""
        for sink in self._sinks:
            await await_part(sink.name, sink.open(stage))
        queues = [PageQueue(self._settings.queue_neos) for _ in range(len(self._sinks) + 1)]

        async def put(page: Page) -> None:
            for queue in queues:
                await queue.put(page)

        async with anyio.create_task_group() as consumers:
            for sink, queue in zip(self._sinks, queues, strict=False):
                consumers.start_soon(self._feed_sink, sink, queue)
            consumers.start_soon(self._feed_aggregators, queues[-1])
            async with anyio.create_task_group() as fetchers:
                for _ in range(self._reading.fetchers):
                    fetchers.start_soon(self._reading.fetch_pages)
                await self._reading.read_pages(put)
                self._ended += 1
                fetchers.cancel_scope.cancel()
            for queue in queues:
                queue.close()
        if self._ended != 1 + len(queues):
            raise _cancelled_within()
        return await self._finish(stage)

    # -- consuming ----------------------------------------------------------------------------

    async def _feed_sink(self, sink: Sink, queue: PageQueue) -> None:
        while (page := await queue.get()) is not None:
            with self._reckoning.timing("write"):
                await await_part(sink.name, sink.write(page))
            self._take(page)
        self._ended += 1

    async def _feed_aggregators(self, queue: PageQueue) -> None:
        def fold(pages: Sequence[Page]) -> None:
            for page in pages:
                for aggregator in self._parts.aggregators:
                    with blaming(aggregator.name):
                        aggregator.update(page)

        tell_again_s = -math.inf
        while pages := await queue.get_all(gather_s=_GATHER_S):
            with self._reckoning.timing("aggregate"):
                await to_thread.run_sync(fold, pages)
            for page in pages:
                self._take(page)
            started_s = anyio.current_time()
            if started_s >= tell_again_s:
                self._listener(events.Aggregated(await self._results_so_far()))
                now_s = anyio.current_time()
                tell_again_s = now_s + max(_TELL_EVERY_S, _TELL_REST * (now_s - started_s))
        self._ended += 1

    async def _results_so_far(self) -> _Results:
        """Between two updates, never during one."""

        def results() -> _Results:
            found: _Results = {}
            for aggregator in self._parts.aggregators:
                with blaming(aggregator.name):
                    found[aggregator.name] = as_plain_json(aggregator.result())
            return found

        with self._reckoning.timing("aggregate"):
            return await to_thread.run_sync(results)

    def _take(self, page: Page) -> None:
        key = (page.generation, page.number)
        self._taken[key] += 1
        if self._taken[key] == len(self._sinks) + 1:
            del self._taken[key]
            self._listener(events.PageWritten(page.number, page.neos.num_rows, page.close_approaches.num_rows))

    # -- commit -------------------------------------------------------------------------------

    async def _finish(self, stage: LakeStage) -> tuple[list[DatasetFile], _Results]:
        files: list[DatasetFile] = []
        results = await self._results_so_far()
        self._listener(events.Aggregated(results))
        with self._reckoning.timing("write"):
            for sink in self._sinks:
                with blaming(sink.name):
                    files += all_files(await sink.finish())
            writer = self._parts.aggregate_writer
            with blaming(type(writer).__name__):
                files += all_files(await writer.write(stage, results))
            refuse_clashes(files)
            await self._reading.check_kept()
            for sink in self._sinks:
                await await_part(sink.name, sink.commit())
        return sorted(files, key=lambda file: file.path), results

    def _receipt(self, files: Sequence[DatasetFile], results: _Results) -> Receipt:
        settings, parts, reading = self._settings, self._parts, self._reading
        gate = reading.gate
        source = parts.source
        return self._reckoning.receipt(
            snapshot=self._snapshot.id,
            parent=parts.parent,
            started_at=self._snapshot.started_at,
            source=SourceInfo(name=parts.source_name, origin=source.origin, synthetic=source.synthetic),
            page_size=reading.page_size,
            admission=reading.admission,
            aggregates=results,
            files=files,
            raw_snapshot=self._snapshot.id if self._archived else parts.raw_snapshot or parts.parent,
            generations=reading.generation + 1,
            requests=Requests(
                sent=gate.sent,
                failed=reading.fetcher.failed,
                limit=gate.rate_limit.limit if gate.rate_limit else None,
                remaining=gate.rate_limit.remaining if gate.rate_limit else None,
                answer_s=round(reading.fetcher.network_s / gate.sent, 3) if gate.sent else None,
            ),
            spent=Spent(gate.quota_wait_s, gate.outage_wait_s, reading.fetcher.network_s, settings.concurrency),
            identity=identity(settings, parts.source.origin),
            derivation=derivation(settings, parts),
            operation=settings.model_dump(mode="json", include=set(settings.OPERATION)),
        )


def _cancelled_within() -> PartError:
    """What became of a group of tasks that one of them ended, by a cancellation that was not the group's.

    asyncio lets any code cancel any task, and to a task group that looks as if it had been told to end.
    """
    return PartError("something cancelled a task within the run; run again, and cancel the call, not what it started")


def derivation(settings: Settings, parts: Parts) -> dict[str, Any]:
    """What decides, besides the raw pages, what is written."""
    return {
        **settings.model_dump(mode="json", include=set(settings.DERIVATION)),
        "sinks": [sink.name for sink in parts.sinks],
        "aggregators": [aggregator.name for aggregator in parts.aggregators],
        "aggregate_writer": type(parts.aggregate_writer).__name__,
    }


def _wanted(settings: Settings, parts: Parts) -> SnapshotRequest:
    return SnapshotRequest(
        identity=identity(settings, parts.source.origin),
        derivation=derivation(settings, parts),
        synthetic=parts.source.synthetic,
        archive=settings.archive,
        parent=parts.parent,
        snapshot=settings.snapshot,
        fresh=settings.fresh,
        resume_within_s=settings.resume_within_s,
        now=dt.datetime.now(dt.UTC),
    )

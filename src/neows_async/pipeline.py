"""The flow of a run, from the first request to the receipt. Only this module starts tasks.

::

    source ─RawPage─► check · scrub ─► raw zone            (fetchers, N at once, any order)
                                          │ in page order
                decode ─Page─► admit ─► [bounded queues] ─► sinks + aggregators ─► commit ─► receipt
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import anyio
from anyio import to_thread

from neows_async import events
from neows_async.admit import Admission
from neows_async.breaker import Breaker
from neows_async.decode import decode
from neows_async.errors import NeowsError, PausedError, UnavailableError, known_name, most_telling
from neows_async.forecast import BURST_RATE_PER_S
from neows_async.gate import Gate, GateLimits
from neows_async.lake import Lake, LakeStage
from neows_async.landing import Landing, first_page
from neows_async.pacing import Pacing, PacingRules
from neows_async.page_queue import PageQueue
from neows_async.plan import plan
from neows_async.promises import all_files, naming, of_part, plain, refuse_clashes
from neows_async.protocols import Generations, Resting
from neows_async.raw import RawZone
from neows_async.receipt import Receipt, Requests, SourceInfo
from neows_async.reckoning import Reckoning, Spent
from neows_async.resume import Wanted, open_snapshot
from neows_async.retry import PageFetcher, take_in
from neows_async.scrub import Scrubber
from neows_async.sinks.quarantine import Quarantine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from neows_async.page import DatasetFile, Page, RawPage
    from neows_async.protocols import AggregateWriter, Aggregator, Ledger, Sink, Source, Storage
    from neows_async.settings import Settings
    from neows_async.snapshot import Snapshot

_Results: TypeAlias = dict[str, dict[str, Any]]
UNPACED: Final = PacingRules(bursts=())
# Of requests that fail one in twenty, so many in a row are no accident in any run.
FAILURES_TO_OPEN: Final = 6
# How often the aggregators' figures are told, at most; where that takes long, so many times as long in between.
_TELL_EVERY_S: Final = 1.0
_TELL_REST: Final = 20.0


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
    ledger: Ledger | None = None


async def ingest(settings: Settings, parts: Parts, listener: events.Listener = events.ignore) -> Receipt:
    """Fetch, save, aggregate, commit: one whole run.

    Resumes the unfinished snapshot of an earlier try, if there is one. Cancelling it leaves a
    state that the next call resumes.

    :returns: the receipt of the committed snapshot
    :raises NeowsError: one of the tree in :mod:`neows_async.errors`; never a group of exceptions
    """
    with _telling(parts.source, listener):
        return await _ingest(settings, parts, listener)


@contextmanager
def _telling(source: Source, listener: events.Listener) -> Iterator[None]:
    """Say that a run begins, and how it ends."""
    started_s = anyio.current_time()
    listener(events.RunStarted(source.origin, source.synthetic))
    try:
        yield
    except BaseException as exc:
        reason = str(exc) if isinstance(exc, NeowsError) else None
        run_s = anyio.current_time() - started_s
        listener(events.RunEnded(_outcome(exc), known_name(exc), reason, run_s))
        raise
    listener(events.RunEnded("committed", None, None, anyio.current_time() - started_s))


def _outcome(exc: BaseException) -> Literal["paused", "cancelled", "failed"]:
    if isinstance(exc, PausedError):
        return "paused"
    return "cancelled" if isinstance(exc, anyio.get_cancelled_exc_class()) else "failed"


async def _ingest(settings: Settings, parts: Parts, listener: events.Listener) -> Receipt:
    lake = Lake(parts.storage, timeout_s=settings.storage_timeout_s)
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
                the_one = most_telling(exc)
                if isinstance(the_one, PausedError):
                    await snapshot.note_pause(the_one.resume_at_s)
                raise the_one from the_one.__cause__
        if snapshot.committed is None:
            raise RuntimeError("a run ended without a receipt or an exception")
        listener(events.Committed(snapshot.id))
        return snapshot.committed


class _Run:
    """One run's state. The methods stand in the order of a page's way."""

    def __init__(
        self, settings: Settings, parts: Parts, lake: Lake, snapshot: Snapshot, listener: events.Listener
    ) -> None:
        self._settings = settings
        self._parts = parts
        self._lake = lake
        self._snapshot = snapshot
        self._listener = listener
        # A raw zone of one's own only for pages that are not in another one already.
        self._zone = (
            RawZone(lake, snapshot.id, max_body_bytes=settings.max_body_bytes)
            if settings.archive and parts.parent is None
            else None
        )
        # Checking and decoding hold the GIL; one at a time leaves the event loop room to breathe.
        self._decoding = anyio.CapacityLimiter(1)
        self._scrubber = Scrubber(settings.api_key.get_secret_value() if settings.api_key else "")
        self._gate = Gate(
            Pacing(dataclasses.replace(parts.pacing, max_rate_per_s=settings.max_rate_per_s)),
            Breaker(
                failures_to_open=FAILURES_TO_OPEN,
                probe_every_s=settings.probe_every_s,
                max_outage_s=settings.max_outage_s,
            ),
            GateLimits(
                concurrency=settings.concurrency,
                rate_per_s=settings.max_rate_per_s or (BURST_RATE_PER_S if parts.pacing.bursts else None),
                max_wait_s=settings.max_wait_s,
                budget_requests=settings.budget_requests,
            ),
            clock=time.time,
            listener=listener,
            ledger=parts.ledger,
        )
        if isinstance(parts.source, Resting):
            self._gate.rest = parts.source.rest
        self._fetcher = PageFetcher(
            parts.source,
            gate=self._gate,
            judge=self._judge,
            budget_s=settings.retry_budget_s,
            keep_bad=self._keep_bad,
            listener=listener,
        )
        self._sinks: list[Sink] = [*parts.sinks, Quarantine()]
        self._admission = Admission(limit=settings.limit, max_rejects=settings.max_rejects)
        self._reckoning = Reckoning()
        self._generation = 0
        self._fetching = 0
        self._paused: PausedError | None = None
        self._taken: Counter[tuple[int, int]] = Counter()
        self._landing: Landing

    async def execute(self) -> None:
        """From the first request to the commit. Raises as tasks do: in groups."""
        await self._open_generation()
        async with LakeStage(self._lake, self._snapshot.id) as stage:
            files, results = await self._write(stage)
        receipt = self._receipt(files, results)
        self._listener(events.Committing(len(files), sum(file.bytes for file in files)))
        await self._snapshot.commit(receipt)

    async def _write(self, stage: LakeStage) -> tuple[list[DatasetFile], _Results]:
        """Everything between the plan and the commit."""
        for sink in self._sinks:
            await of_part(sink.name, sink.open(stage))
        queues = [PageQueue(self._settings.queue_neos) for _ in range(len(self._sinks) + 1)]
        async with anyio.create_task_group() as consumers:
            for sink, queue in zip(self._sinks, queues, strict=False):
                consumers.start_soon(self._feed_sink, sink, queue)
            consumers.start_soon(self._feed_aggregators, queues[-1])
            async with anyio.create_task_group() as fetchers:
                for _ in range(self._settings.concurrency):
                    fetchers.start_soon(self._fetch_pages)
                await self._read_generations(queues)
                fetchers.cancel_scope.cancel()
            for queue in queues:
                queue.close()
        return await self._finish(stage)

    # -- plan ---------------------------------------------------------------------------------

    async def _open_generation(self) -> None:
        """Plan which pages to read, from page 0 of this generation."""
        lying = await self._zone.counted() if self._zone else set()
        if self._generation == 0:
            self._listener(events.SnapshotOpened(self._snapshot.id, self._snapshot.resumed, len(lying)))
        first, info, counted = await first_page(
            self._zone,
            lying,
            self._listener,
            lambda: self._fetcher.fetch(0, self._settings.page_size, exact_size=False),
        )
        planned = plan(info, self._settings.limit)
        self._reckoning.generation_begins(planned, sum(number < planned.pages for number in counted))
        self._landing = Landing(
            planned,
            self._zone,
            kept=counted | {0} if self._zone else counted,
            window_pages=self._settings.window_pages,
            max_missing_pages=self._settings.max_missing_pages,
            listener=self._listener,
        )
        self._gate.pages_left = lambda: self._landing.left
        if self._zone is None:
            self._landing.next_page()
            await self._landing.land(first)
        self._listener(
            events.Planned(
                planned.total_elements, planned.page_size, planned.pages, planned.positions, self._generation
            )
        )

    # -- fetching -----------------------------------------------------------------------------

    async def _fetch_pages(self) -> None:
        """One fetcher. Cancelled when the reader has all it needs."""
        self._fetching += 1
        while self._paused is None:
            landing = self._landing
            number = landing.next_page()
            if number is None:
                await landing.news()
                continue
            try:
                raw = await self._fetcher.fetch(number, landing.plan.page_size, exact_size=True)
            except PausedError as exc:
                self._paused = exc
                landing.announce()
            except UnavailableError as exc:
                landing.failed(number, exc)
            else:
                with self._reckoning.timing("archive"):
                    await landing.land(raw)
        # What is under way in the others is paid for: it is let come in before the run pauses.
        self._fetching -= 1
        if self._fetching == 0:
            raise self._paused

    async def _judge(self, came: RawPage, size: int | None) -> RawPage:
        return await to_thread.run_sync(take_in, came, size, self._scrubber, limiter=self._decoding)

    async def _keep_bad(self, number: int, body: bytes) -> None:
        if self._zone is not None:
            await self._zone.keep_bad(number, body)

    # -- reading, in page order ---------------------------------------------------------------

    async def _read_generations(self, queues: Sequence[PageQueue]) -> None:
        """Read the catalogue, and once more if it was seen to change its size meanwhile."""
        while True:
            for number in range(self._landing.plan.pages):
                raw = await self._landing.take(number)
                if raw is not None:
                    await self._read(raw, queues)
            self._reckoning.generation_ends(self._landing.missing)
            if not await self._next_generation():
                return
            self._generation += 1
            self._admission.begin_generation()
            # The fetchers wait for news of a generation that is all in.
            finished = self._landing
            await self._open_generation()
            finished.announce()

    async def _next_generation(self) -> bool:
        """Whether to read once more: pages shift between requests only if the catalogue changes its size."""
        if isinstance(self._parts.source, Generations):
            return await self._parts.source.next_generation()
        limit = self._settings.limit
        wants_all = limit is None or limit >= self._reckoning.total_elements
        last = self._generation + 1 >= self._settings.max_generations
        if not self._reckoning.total_changed or not wants_all or last:
            return False
        if self._zone is not None:
            self._zone = self._zone.next_generation()
        return True

    async def _read(self, raw: RawPage, queues: Sequence[PageQueue]) -> None:
        with self._reckoning.timing("decode"):
            page = await to_thread.run_sync(self._decode, raw, limiter=self._decoding)
        self._reckoning.page(page)
        admitted = self._admission.admit(page)
        for rejected in admitted.rejected:
            self._reckoning.rejected(rejected.reason)
            self._listener(events.ObjectRejected(rejected))
        for queue in queues:
            await queue.put(admitted)

    def _decode(self, raw: RawPage) -> Page:
        page = decode(raw, orbiting_body=self._settings.orbiting_body)
        return dataclasses.replace(page, generation=self._generation)

    # -- consuming ----------------------------------------------------------------------------

    async def _feed_sink(self, sink: Sink, queue: PageQueue) -> None:
        while (page := await queue.get()) is not None:
            with self._reckoning.timing("write"):
                await of_part(sink.name, sink.write(page))
            self._take(page)

    async def _feed_aggregators(self, queue: PageQueue) -> None:
        def fold(page: Page) -> None:
            for aggregator in self._parts.aggregators:
                with naming(aggregator.name):
                    aggregator.update(page)

        tell_again_s = -math.inf
        while (page := await queue.get()) is not None:
            with self._reckoning.timing("aggregate"):
                await to_thread.run_sync(fold, page)
            self._take(page)
            started_s = anyio.current_time()
            if started_s >= tell_again_s:
                self._listener(events.Aggregated(await self._results_so_far()))
                now_s = anyio.current_time()
                tell_again_s = now_s + max(_TELL_EVERY_S, _TELL_REST * (now_s - started_s))

    async def _results_so_far(self) -> _Results:
        """Between two updates, never during one."""

        def results() -> _Results:
            found: _Results = {}
            for aggregator in self._parts.aggregators:
                with naming(aggregator.name):
                    found[aggregator.name] = plain(aggregator.result())
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
                with naming(sink.name):
                    files += all_files(await sink.finish())
            writer = self._parts.aggregate_writer
            with naming(type(writer).__name__):
                files += all_files(await writer.write(stage, results))
            refuse_clashes(files)
            for sink in self._sinks:
                await of_part(sink.name, sink.commit())
        return sorted(files, key=lambda file: file.path), results

    def _receipt(self, files: Sequence[DatasetFile], results: _Results) -> Receipt:
        settings, parts, gate = self._settings, self._parts, self._gate
        source = parts.source
        return self._reckoning.receipt(
            snapshot=self._snapshot.id,
            parent=parts.parent,
            started_at=self._snapshot.started_at,
            source=SourceInfo(name=parts.source_name, origin=source.origin, synthetic=source.synthetic),
            page_size=self._landing.plan.page_size,
            admission=self._admission,
            aggregates=results,
            files=files,
            raw_snapshot=self._snapshot.id if self._zone else parts.raw_snapshot or parts.parent,
            generations=self._generation + 1,
            requests=Requests(
                sent=gate.sent,
                failed=self._fetcher.failed,
                limit=gate.rate_limit.limit if gate.rate_limit else None,
                remaining=gate.rate_limit.remaining if gate.rate_limit else None,
            ),
            spent=Spent(gate.quota_wait_s, gate.outage_wait_s, self._fetcher.network_s, settings.concurrency),
            identity=identity(settings, parts),
            derivation=derivation(settings, parts),
            operation=settings.model_dump(mode="json", include=set(settings.OPERATION)),
        )


def identity(settings: Settings, parts: Parts) -> dict[str, Any]:
    """What must be the same to resume."""
    return {"origin": parts.source.origin, "page_size": settings.page_size, "limit": settings.limit}


def derivation(settings: Settings, parts: Parts) -> dict[str, Any]:
    """What decides, besides the raw pages, what is written."""
    return {
        **settings.model_dump(mode="json", include=set(settings.DERIVATION)),
        "sinks": [sink.name for sink in parts.sinks],
        "aggregators": [aggregator.name for aggregator in parts.aggregators],
        "aggregate_writer": type(parts.aggregate_writer).__name__,
    }


def _wanted(settings: Settings, parts: Parts) -> Wanted:
    return Wanted(
        identity=identity(settings, parts),
        derivation=derivation(settings, parts),
        synthetic=parts.source.synthetic,
        archive=settings.archive,
        parent=parts.parent,
        snapshot=settings.snapshot,
        fresh=settings.fresh,
        resume_within_s=settings.resume_within_s,
        now=dt.datetime.now(dt.UTC),
    )

"""The flow of a run, from the first request to the receipt. Only this module starts tasks.

::

    source ─RawPage─► check · scrub ─► raw zone            (fetchers, N at once, any order)
                                          │ in page order
                decode ─Page─► admit ─► [bounded queues] ─► sinks + aggregators ─► commit ─► receipt
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import itertools
import json
import time
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio
import pyarrow as pa
from anyio import to_thread

from neows_async import browse, events, schema
from neows_async.admit import Admission
from neows_async.agenda import Agenda
from neows_async.breaker import Breaker
from neows_async.decode import decode
from neows_async.errors import (
    BadPageError,
    NeowsError,
    NotFoundError,
    PartError,
    PausedError,
    StorageError,
    UnavailableError,
    most_telling,
)
from neows_async.gate import Gate, GateLimits
from neows_async.lake import Lake, LakeStage
from neows_async.pacing import Pacing, PacingRules
from neows_async.page import DatasetFile
from neows_async.page_queue import PageQueue
from neows_async.plan import Plan, plan
from neows_async.raw import RawZone
from neows_async.receipt import PageCounts, RawInfo, Receipt, RecordCounts, Requests, SourceInfo
from neows_async.retry import PageFetcher, take_in
from neows_async.scrub import Scrubber
from neows_async.sinks.quarantine import Quarantine
from neows_async.snapshot import Snapshot, Wanted, open_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from neows_async.page import Page, RawPage
    from neows_async.protocols import AggregateWriter, Aggregator, Sink, Source, Storage
    from neows_async.settings import Settings

PROGRAM: Final = "neows-async"
_DAMAGES: Final = 3
_OURS: Final = ("raw", "_runs", "_staging")
UNPACED: Final = PacingRules(bursts=())


@dataclass(frozen=True, slots=True)
class Parts:
    """The swappable parts of one run.

    :param source_name: how the receipt calls the source
    :param parent: the snapshot that the source makes this one from, if it reads an archive
    :param raw_snapshot: whose raw pages the source then reads: the parent's own, or its ancestor's
    :param pacing: what the source's gateway demands beside what its answers tell
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


async def ingest(settings: Settings, parts: Parts, listener: events.Listener = events.ignore) -> Receipt:
    """Fetch, save, aggregate, commit: one whole run.

    Resumes the unfinished snapshot of an earlier try, if there is one. Cancelling it leaves a
    state that the next call resumes.

    :returns: the receipt of the committed snapshot
    :raises NeowsError: one of the tree in :mod:`neows_async.errors`; never a group of exceptions
    """
    lake = Lake(parts.storage, timeout_s=settings.storage_timeout_s)
    snapshot = await open_snapshot(lake, _wanted(settings, parts), listener)
    async with snapshot:
        if snapshot.committed is None:
            run = _Run(settings, parts, lake, snapshot, listener)
            try:
                await run.execute()
            except (PausedError, BaseExceptionGroup) as exc:
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
        self._raw_snapshot = snapshot.id if settings.archive and parts.parent is None else None
        self._zone = RawZone(lake, snapshot.id, max_body_bytes=settings.max_body_bytes)
        # Checking and decoding hold the GIL; one at a time leaves the event loop room to breathe.
        self._decoding = anyio.CapacityLimiter(1)
        self._scrubber = Scrubber(settings.api_key.get_secret_value() if settings.api_key else "")
        rules = dataclasses.replace(parts.pacing, max_rate_per_s=settings.max_rate_per_s)
        self._gate = Gate(
            Pacing(rules),
            Breaker(probe_every_s=settings.probe_every_s, max_outage_s=settings.max_outage_s),
            GateLimits(settings.max_wait_s, settings.budget_requests),
            clock=time.time,
            listener=listener,
        )
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
        self._waiting: dict[int, RawPage] = {}
        self._news = anyio.Event()
        self._raw_pages = hashlib.sha256()
        self._raw_pages_read = self._raw_bytes_read = self._pages_kept = 0
        self._total_changed = False
        self._fetching = 0
        self._paused: PausedError | None = None
        self._rejected_because: Counter[str] = Counter()
        self._taken: Counter[int] = Counter()
        self._time_s: defaultdict[str, float] = defaultdict(float)
        self._results: dict[str, dict[str, Any]] = {}
        self._plan: Plan
        self._agenda: Agenda
        self._total: int

    async def execute(self) -> None:
        """From the first request to the commit. Raises as tasks do: in groups."""
        started_s = anyio.current_time()
        await self._make_plan()
        async with LakeStage(self._lake, self._snapshot.id) as stage:
            files = await self._write(stage)
        self._time_s["total"] = anyio.current_time() - started_s
        receipt = self._receipt(files)
        self._listener(events.Committing(len(files), sum(file.bytes for file in files)))
        await self._snapshot.commit(receipt)

    async def _write(self, stage: LakeStage) -> list[DatasetFile]:
        """Everything between the plan and the commit."""
        for sink in self._sinks:
            await self._of_part(sink.name, sink.open(stage))
        queues = [PageQueue(self._settings.queue_neos) for _ in range(len(self._sinks) + 1)]
        async with anyio.create_task_group() as consumers:
            for sink, queue in zip(self._sinks, queues, strict=False):
                consumers.start_soon(self._feed_sink, sink, queue)
            consumers.start_soon(self._feed_aggregators, queues[-1])
            async with anyio.create_task_group() as fetchers:
                for _ in range(self._settings.concurrency):
                    fetchers.start_soon(self._fetch_pages)
                await self._read_pages(queues)
                fetchers.cancel_scope.cancel()
        return await self._finish(stage)

    # -- plan ---------------------------------------------------------------------------------

    async def _make_plan(self) -> None:
        """From page 0, which is a page like any other."""
        counted = await self._zone.counted() if self._raw_snapshot else set()
        self._listener(events.SnapshotOpened(self._snapshot.id, self._snapshot.resumed, len(counted)))
        first = await self._kept_page(0) if 0 in counted else None
        if first is None:
            counted.discard(0)
            first = await self._fetcher.fetch(0, self._settings.page_size, exact_size=False)
            await self._keep(first)
            counted = await self._of_size(browse.split(first.body)[0].size, counted)
        info, _ = browse.split(first.body)
        self._plan = plan(info, self._settings.limit)
        self._total = info.total_elements
        self._pages_kept = sum(number < self._plan.pages for number in counted)
        window = None if self._raw_snapshot else self._settings.window_pages
        self._agenda = Agenda(self._plan.pages, kept=frozenset(counted | {0}), window=window)
        self._listener(
            events.Planned(self._plan.total_elements, self._plan.page_size, self._plan.pages, self._plan.positions)
        )

    async def _of_size(self, page_size: int, counted: set[int]) -> set[int]:
        """What of ``counted`` goes with a first page that is newer than it: all, or nothing if the size changed."""
        for number in sorted(counted):
            kept = await self._kept_page(number)
            if kept is not None:
                if browse.split(kept.body)[0].size == page_size:
                    return counted
                for other in counted:
                    await self._zone.set_aside(other)
                return set()
        return set()

    # -- fetching -----------------------------------------------------------------------------

    async def _fetch_pages(self) -> None:
        """One fetcher. Cancelled when the reader has all it needs."""
        self._fetching += 1
        while self._paused is None:
            number = self._agenda.next_page()
            if number is None:
                await self._news.wait()
                continue
            with self._timing("fetch"):
                raw = await self._fetch_page(number)
            if raw is None:
                continue
            await self._keep(raw)
            self._agenda.landed(number)
            self._announce()
        # What is under way in the others is paid for: it is let come in before the run pauses.
        self._fetching -= 1
        if self._fetching == 0:
            raise self._paused

    async def _fetch_page(self, number: int) -> RawPage | None:
        try:
            return await self._fetcher.fetch(number, self._plan.page_size, exact_size=True)
        except PausedError as exc:
            self._paused = exc
            self._announce()
            return None
        except UnavailableError as exc:
            if self._agenda.set_back(number):
                self._listener(events.PageSetBack(number, str(exc)))
            else:
                self._give_up(number, exc)
            self._announce()
            return None

    def _give_up(self, number: int, exc: UnavailableError) -> None:
        self._agenda.give_up(number, str(exc))
        allowed = self._settings.max_missing_pages
        if allowed is not None and len(self._agenda.missing) > allowed:
            raise exc
        self._listener(events.PageMissing(number, str(exc)))

    async def _judge(self, came: RawPage, size: int | None) -> RawPage:
        return await to_thread.run_sync(take_in, came, size, self._scrubber, limiter=self._decoding)

    async def _keep(self, raw: RawPage) -> None:
        """Into the raw zone, or, without one, into the window."""
        if self._raw_snapshot is None:
            self._waiting[raw.number] = raw
            return
        with self._timing("archive"):
            await self._zone.put(raw)

    async def _keep_bad(self, number: int, body: bytes) -> None:
        if self._raw_snapshot is not None:
            await self._zone.keep_bad(number, body)

    # -- reading, in page order ---------------------------------------------------------------

    async def _read_pages(self, queues: Sequence[PageQueue]) -> None:
        for number in range(self._plan.pages):
            self._agenda.reading(number)
            self._announce()
            raw = await self._next_raw(number)
            if raw is None:
                continue
            with self._timing("decode"):
                page = await to_thread.run_sync(self._decode, raw, limiter=self._decoding)
            self._raw_pages.update(page.body_sha256)
            self._raw_pages_read += 1
            self._raw_bytes_read += len(raw.body)
            self._total_changed |= page.info.total_elements != self._total
            self._total = page.info.total_elements
            admitted = self._admission.admit(page)
            for rejected in admitted.rejected:
                self._rejected_because[rejected.reason] += 1
                self._listener(events.ObjectRejected(rejected))
            for queue in queues:
                await queue.put(admitted)
        for queue in queues:
            queue.close()

    async def _next_raw(self, number: int) -> RawPage | None:
        """Page ``number`` as soon as it is in; None if it stays a hole."""
        for damages in itertools.count(1):
            if number in self._agenda.missing:
                return None
            while not self._agenda.is_in(number):
                await self._news.wait()
                if number in self._agenda.missing:
                    return None
            if self._raw_snapshot is None:
                return self._waiting.pop(number)
            if (raw := await self._kept_page(number)) is not None:
                return raw
            if damages == _DAMAGES:
                raise StorageError(
                    f"{self._lake.uri}: raw page {number} was written {damages} times and cannot be read; check the "
                    "disk, then run the same command again"
                )
            self._agenda.damaged(number)
            self._announce()
        raise AssertionError("unreachable")

    async def _kept_page(self, number: int) -> RawPage | None:
        """From the raw zone; None if it can't be read any more: then it was set aside."""
        try:
            with self._timing("archive"):
                return await self._zone.get(number)
        except (BadPageError, NotFoundError) as exc:
            self._listener(events.PageDamaged(number, str(exc)))
            await self._zone.set_aside(number)
            return None

    def _decode(self, raw: RawPage) -> Page:
        return decode(raw, orbiting_body=self._settings.orbiting_body)

    # -- consuming ----------------------------------------------------------------------------

    async def _feed_sink(self, sink: Sink, queue: PageQueue) -> None:
        while (page := await queue.get()) is not None:
            with self._timing("write"):
                await self._of_part(sink.name, sink.write(page))
            self._take(page)

    async def _feed_aggregators(self, queue: PageQueue) -> None:
        def fold(page: Page) -> None:
            for aggregator in self._parts.aggregators:
                with _naming(aggregator.name):
                    aggregator.update(page)

        while (page := await queue.get()) is not None:
            with self._timing("aggregate"):
                await to_thread.run_sync(fold, page)
            self._take(page)

    def _take(self, page: Page) -> None:
        self._taken[page.number] += 1
        if self._taken[page.number] == len(self._sinks) + 1:
            del self._taken[page.number]
            self._listener(events.PageWritten(page.number, page.neos.num_rows, page.close_approaches.num_rows))

    # -- commit -------------------------------------------------------------------------------

    async def _finish(self, stage: LakeStage) -> list[DatasetFile]:
        files: list[DatasetFile] = []
        with self._timing("write"):
            for sink in self._sinks:
                with _naming(sink.name):
                    files += _all_files(await sink.finish())
            for aggregator in self._parts.aggregators:
                with _naming(aggregator.name):
                    self._results[aggregator.name] = _plain(aggregator.result())
            writer = self._parts.aggregate_writer
            with _naming(type(writer).__name__):
                files += _all_files(await writer.write(stage, self._results))
            _refuse_clashes(files)
            for sink in self._sinks:
                await self._of_part(sink.name, sink.commit())
        return sorted(files, key=lambda file: file.path)

    def _receipt(self, files: Sequence[DatasetFile]) -> Receipt:
        tally = self._admission.tally
        rate_limit = self._gate.rate_limit
        missing = tuple(sorted(self._agenda.missing))
        return Receipt(
            snapshot=self._snapshot.id,
            parent=self._parts.parent,
            complete=self._complete(),
            started_at=self._snapshot.started_at,
            committed_at=dt.datetime.now(dt.UTC),
            source=SourceInfo(
                name=self._parts.source_name,
                origin=self._parts.source.origin,
                synthetic=self._parts.source.synthetic,
            ),
            total_elements=self._total,
            page_size=self._plan.page_size,
            pages=PageCounts(
                planned=self._plan.pages,
                fetched=self._plan.pages - len(missing),
                kept=self._pages_kept,
                missing=missing,
            ),
            records=RecordCounts(
                seen=tally.seen, written=tally.written, duplicates=tally.duplicates, rejected=tally.rejected
            ),
            close_approaches=tally.close_approaches,
            rejected_because=dict(sorted(self._rejected_because.items())),
            nulls=dict(sorted(tally.nulls.items())),
            unknown_fields=dict(sorted(tally.unknown_fields.items())),
            aggregates=self._results,
            files=tuple(files),
            raw=RawInfo(
                snapshot=self._raw_snapshot or self._parts.raw_snapshot or self._parts.parent,
                pages=self._raw_pages_read,
                bytes=self._raw_bytes_read,
                sha256=self._raw_pages.hexdigest(),
            ),
            requests=Requests(
                sent=self._gate.sent,
                failed=self._fetcher.failed,
                limit=rate_limit.limit if rate_limit else None,
                remaining=rate_limit.remaining if rate_limit else None,
            ),
            time_s={name: round(spent_s, 3) for name, spent_s in sorted(self._time_s.items())},
            identity=identity(self._settings, self._parts),
            derivation=derivation(self._settings, self._parts),
            operation=self._settings.model_dump(mode="json", include=set(self._settings.OPERATION)),
            neows_async=version(PROGRAM),
            pyarrow=pa.__version__,
            schema_version=schema.VERSION,
        )

    def _complete(self) -> bool | Literal["unknown"]:
        """Never claims more than is known: the distinct ids against the last total."""
        if self._agenda.missing or self._admission.distinct_ids != self._total:
            return False
        return "unknown" if self._total_changed else True

    # -- between the lines --------------------------------------------------------------------

    def _announce(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    @contextmanager
    def _timing(self, what: str) -> Iterator[None]:
        started_s = anyio.current_time()
        try:
            yield
        finally:
            self._time_s[what] += anyio.current_time() - started_s

    async def _of_part(self, name: str, awaitable: Any) -> Any:
        with _naming(name):
            return await awaitable


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


@contextmanager
def _naming(part: str) -> Iterator[None]:
    """Name the part in which something went wrong that is not of our tree."""
    try:
        yield
    except NeowsError:
        raise
    except Exception as exc:
        the_one = most_telling(exc) if isinstance(exc, ExceptionGroup) else exc
        if isinstance(the_one, NeowsError):
            raise
        raise PartError(f"{part} failed: {type(the_one).__name__}: {the_one}") from exc


def _all_files(found: Sequence[DatasetFile]) -> list[DatasetFile]:
    """``found``, if it is what the protocol promises: later there would be nobody to blame."""
    files = list(found)
    for file in files:
        if not isinstance(file, DatasetFile):
            raise TypeError(f"it gave a {type(file).__name__} where a DatasetFile was expected")
    return files


def _refuse_clashes(files: Sequence[DatasetFile]) -> None:
    """Each file has one writer, and the folders of the lake itself have none but the lake."""
    paths = Counter(file.path for file in files)
    for file in files:
        if paths[file.path] > 1:
            raise PartError(f"two parts wrote {file.path}; give one of them a dataset of its own")
        if file.dataset in _OURS:
            raise PartError(f"a part wrote {file.path}; {file.dataset}/ is the lake's own, use another dataset")


def _plain(result: Mapping[str, Any]) -> dict[str, Any]:
    """``result`` as every JSON reader will see it: finite numbers, and keys that are text."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(result), allow_nan=False))
    return plain

"""What each fetch task does: take a page number, fetch the page, put it into the buffer; and how all of them end."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Final

import anyio

from neows_async.errors import (
    AttemptError,
    NeowsError,
    NotFoundError,
    OutageError,
    PausedError,
    SourceError,
    StorageError,
    UnavailableError,
)
from neows_async.pacing.breaker import CircuitBreaker
from neows_async.pacing.gate import Gate, GateLimits
from neows_async.pacing.quota import QuotaModel
from neows_async.pacing.rules import PacingRules
from neows_async.pages.values import StoredPage
from neows_async.pipeline.fetcher import FetchLimits, PageFetcher, PageRequest
from neows_async.pipeline.guards import blaming
from neows_async.protocols import IdleAware, StoredSource
from neows_async.telemetry import events

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from neows_async.pacing.quota_store import QuotaStore
    from neows_async.pages.values import Page
    from neows_async.pipeline.buffer import PageBuffer
    from neows_async.pipeline.decoder import DecoderPool
    from neows_async.pipeline.stats import RunStats
    from neows_async.protocols import Source
    from neows_async.settings import Settings

UNPACED: Final = PacingRules(bursts=())
# If 1 request in 20 fails at random, 6 in a row happen once in 64 million: the source is down.
FAILURES_TO_OPEN: Final = 6
# Fetch tasks beyond the concurrency: while some check and store pages, others send the next requests.
SPARE_TASKS: Final = 4
# Pages of an archive are read this many at once: part of the cost of decoding is the same for one page or several.
_BATCH_PAGES: Final = 4


@dataclasses.dataclass(frozen=True, slots=True)
class PacedSource:
    """Where pages come from, and how politely they are requested.

    :param pacing: the rules of the source's gateway that its responses do not show
    :param quota_store: shared with other runs that use the same key; None shares nothing
    """

    source: Source
    pacing: PacingRules = UNPACED
    quota_store: QuotaStore | None = None


class FetchLoop:
    """The fetching half of a run. :meth:`run` is one task of several.

    :param drains: when fetching fails, the pages that were fetched are read first. Otherwise requests in flight are
        completed if their pages can be stored, and then the error ends the run
    """

    def __init__(
        self,
        settings: Settings,
        origin: PacedSource,
        decoder: DecoderPool,
        stats: RunStats,
        listener: events.Listener,
        *,
        drains: bool,
    ) -> None:
        self._settings = settings
        self._stats = stats
        self._decoder = decoder
        self._listener = listener
        self._drains = drains
        self.gate: Gate = _gate(settings, origin, listener, self._pages_left)
        self.fetcher: PageFetcher = PageFetcher(
            origin.source,
            gate=self.gate,
            decoder=decoder,
            limits=FetchLimits(settings.retry_budget_s, settings.request_timeout_s),
            listener=listener,
        )
        # A rate or a budget of the user applies to an archive, too: then its pages are paced like any others.
        unpaced = settings.max_rate_per_s is None and settings.budget_requests is None
        self.archive: StoredSource | None = (
            origin.source if unpaced and isinstance(origin.source, StoredSource) else None
        )
        self.tasks: int = settings.concurrency + (SPARE_TASKS if self.archive is None else 0)
        """How many :meth:`run` to start."""
        self._running = 0
        self._error: NeowsError | None = None
        self._buffer: PageBuffer
        self._has_begun = False

    def begin_generation(self, buffer: PageBuffer) -> None:
        """From now on fetch the pages of ``buffer``."""
        self._buffer = buffer
        self._has_begun = True

    def _pages_left(self) -> int:
        # Page 0 comes first. It shows how many pages there are.
        return self._buffer.left if self._has_begun else 1

    async def run(self) -> None:
        """Fetch pages until cancelled."""
        self._running += 1
        while self._error is None:
            # Read anew each time: a new generation replaces it while this task waits.
            buffer = self._buffer
            number = buffer.next_page()
            if number is None:
                # No await between next_page and here, so no wake-up is missed.
                await buffer.wait()
                continue
            try:
                if self.archive is None:
                    await self._fetch(buffer, number)
                else:
                    await self._read_batch(buffer, self.archive, number)
            except NeowsError as exc:
                # Only with a zone is a late page worth its wait: it is stored, and the next run has it.
                completes = buffer.zone is not None and isinstance(exc, (PausedError, SourceError))
                if not (self._drains or completes):
                    raise
                # The first error is the cause; those of the other tasks follow from it.
                if self._error is None:
                    self._end(exc)
        # The last task to end reports the error: requests in flight are spent, so their pages are received first.
        self._running -= 1
        if self._running == 0 and self._drains:
            self._buffer.fail(self._error)
        elif self._running == 0:
            raise self._error

    def _end(self, exc: NeowsError) -> None:
        # The order matters: set the error, close the gate, then wake the tasks that wait for a page number.
        self._error = exc
        self.gate.close(exc)
        self._buffer.wake_all()
        if self.gate.in_flight:
            self._listener(events.Draining(str(exc), self.gate.in_flight))

    def _request(self, buffer: PageBuffer, number: int) -> PageRequest:
        return PageRequest(number, buffer.plan.page_size, zone=buffer.zone, is_near=lambda: buffer.is_near(number))

    async def _fetch(self, buffer: PageBuffer, number: int) -> None:
        try:
            page = await self.fetcher.fetch(self._request(buffer, number))
        except UnavailableError as exc:
            # The whole source is down, or the run ends: no page is given up for that.
            if isinstance(exc, OutageError) or self._error is not None:
                raise
            buffer.failed(number, exc)
        else:
            with self._stats.timing("store"):
                await buffer.put(page)

    async def _read_batch(self, buffer: PageBuffer, archive: StoredSource, first: int) -> None:
        """Read ``first`` and the next pages together; one by one if there is any trouble."""
        numbers = [first]
        while len(numbers) < _BATCH_PAGES and (number := buffer.next_page()) is not None:
            numbers.append(number)
        size = buffer.plan.page_size
        started_s = anyio.current_time()
        try:
            raws = await self.fetcher.request_several(archive, numbers, size)
            fetch_s = anyio.current_time() - started_s
            stored = [raw for raw in raws if isinstance(raw, StoredPage)]
            pages: Sequence[Page | StoredPage]
            if len(stored) == len(raws):
                pages = await self._decoder.receive_batch(stored, size)
            else:
                pages = [await self.fetcher.receive(raw, self._request(buffer, raw.number)) for raw in raws]
        except NeowsError as exc:
            if isinstance(exc, StorageError) and not isinstance(exc, NotFoundError):
                raise
            # One damaged page must not cost the others, and the error must name the right one.
            for number in numbers:
                await self._read_one(buffer, number)
            return
        await self._put(buffer, pages, fetch_s)

    async def _read_one(self, buffer: PageBuffer, number: int) -> None:
        """Not paced either: another page's error closes the gate, and must not keep this page back."""
        started_s = anyio.current_time()
        try:
            raw = await self.fetcher.request(number, buffer.plan.page_size)
            fetch_s = anyio.current_time() - started_s
            page = await self.fetcher.receive(raw, self._request(buffer, number))
        except UnavailableError as exc:
            buffer.failed(number, exc)
        except AttemptError:
            await self._fetch(buffer, number)
        else:
            await self._put(buffer, [page], fetch_s)

    async def _put(self, buffer: PageBuffer, pages: Sequence[Page | StoredPage], fetch_s: float) -> None:
        self.fetcher.received_unpaced(pages, fetch_s)
        for page in pages:
            await buffer.put(page)


def _gate(settings: Settings, origin: PacedSource, listener: events.Listener, pages_left: Callable[[], int]) -> Gate:
    source = origin.source

    async def on_idle() -> None:
        if isinstance(source, IdleAware):
            with blaming(f"the source {source.origin}"):
                await source.on_idle()

    return Gate(
        QuotaModel(dataclasses.replace(origin.pacing, max_rate_per_s=settings.max_rate_per_s)),
        CircuitBreaker(
            failures_to_open=FAILURES_TO_OPEN, probe_every_s=settings.probe_every_s, max_outage_s=settings.max_outage_s
        ),
        GateLimits(
            concurrency=settings.concurrency, max_wait_s=settings.max_wait_s, budget_requests=settings.budget_requests
        ),
        clock=time.time,
        listener=listener,
        quota_store=origin.quota_store,
        pages_left=pages_left,
        on_idle=on_idle,
    )

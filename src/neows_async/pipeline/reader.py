"""The source's side of a run: from the first request to admitted pages, in page order. It starts no task itself."""

from __future__ import annotations

import dataclasses
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal, Self

import anyio

from neows_async.endpoints.browse.page_plan import plan_pages
from neows_async.errors import (
    AttemptError,
    BadPageError,
    NeowsError,
    NotFoundError,
    OutageError,
    PausedError,
    SourceError,
    StorageError,
    UnavailableError,
)
from neows_async.lake.raw_zone import MOMENT_S
from neows_async.pacing.breaker import CircuitBreaker
from neows_async.pacing.forecast import BURST_RATE_PER_S
from neows_async.pacing.gate import Gate, GateLimits
from neows_async.pacing.quota import QuotaModel
from neows_async.pacing.rules import PacingRules
from neows_async.pages.redact import Redactor
from neows_async.pages.stored import StoredPage
from neows_async.pages.values import SpentPage
from neows_async.pipeline.admission import Admission
from neows_async.pipeline.buffer import PageBuffer, first_page
from neows_async.pipeline.decoder import DecoderPool
from neows_async.pipeline.fetcher import FetchLimits, Handling, PageFetcher
from neows_async.pipeline.stats import RunStats
from neows_async.protocols import AtHand, Generations, Lasting, Resting
from neows_async.telemetry import events

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from neows_async.lake.raw_zone import RawZone
    from neows_async.pacing.quota_store import QuotaStore
    from neows_async.pages.values import Page, RawPage
    from neows_async.protocols import Source
    from neows_async.settings import Settings

UNPACED: Final = PacingRules(bursts=())
# Of requests that fail one in twenty, so many in a row are no accident in any run.
FAILURES_TO_OPEN: Final = 6
SEEING_TO: Final = 4
# Of pages at hand: what is done for each step is then done for so many at once.
_AT_ONCE_PAGES: Final = 4
# Those that wait without their bodies, as they were kept or as columns alone, take a third of the room or less. More of
# them may: this process and its helpers have sixteen in hand, and would all wait for whichever is to be written next.
_LIGHT_WINDOWS: Final = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """Where pages come from, and how politely.

    :param pacing: what the source's gateway demands beside what its answers tell
    :param ledger: shared with other runs that use the same key; None shares nothing
    """

    source: Source
    pacing: PacingRules = UNPACED
    ledger: QuotaStore | None = None


class PageReader:
    """Fetches, checks, keeps, decodes and admits the pages of one run, over all its generations.

    After :meth:`open`, :meth:`fetch_pages` runs several times at once beside one :meth:`read_pages`. Enter it
    first: what helps it decoding ends with the block.

    :param zone: where raw pages are kept; None keeps a window of them in memory
    :param to_the_end: when fetching fails, what was fetched is read first; without it, what is under way comes in,
        if it can be kept, and then the reading ends
    :param spends: nobody will ask for a page's body once it was decoded
    """

    def __init__(
        self,
        settings: Settings,
        origin: Origin,
        zone: RawZone | None,
        listener: events.Listener,
        *,
        to_the_end: bool = False,
        spends: bool = False,
    ) -> None:
        self._settings = settings
        self._source = origin.source
        self._zone = zone
        self._listener = listener
        self._to_the_end = to_the_end
        self._decoding = DecoderPool(
            helpers=settings.workers,
            orbiting_body=settings.orbiting_body,
            keeps=zone is not None,
            spends=spends,
            busy=lambda: self.reckoning.under_way("write"),
        )
        self._scrubber = Redactor(settings.api_key.get_secret_value() if settings.api_key else "")
        self.gate: Gate = _gate(settings, origin, listener)
        self.fetcher: PageFetcher = PageFetcher(
            origin.source,
            gate=self.gate,
            handling=Handling(self._scrub, self._judge, self._keep_bad, self._keep_late),
            limits=FetchLimits(settings.retry_budget_s, settings.request_timeout_s),
            listener=listener,
        )
        self.admission: Admission = Admission(limit=settings.limit, max_rejects=settings.max_rejects)
        self.reckoning: RunStats = RunStats()
        self.generation: int = 0
        # What is to be sent slowly, or not too often, goes through the gate, at hand or not.
        unpaced = settings.max_rate_per_s is None and settings.budget_requests is None
        self._at_hand = origin.source if unpaced and isinstance(origin.source, AtHand) else None
        self._fetching = 0
        self._ends_with: NeowsError | None = None
        self._read_from: list[tuple[RawZone, set[int]]] = []
        self._landing: PageBuffer

    async def __aenter__(self) -> Self:
        await self._decoding.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._decoding.__aexit__(*exc)

    @property
    def fetchers(self) -> int:
        """How many :meth:`fetch_pages` to run: while some see to what came, others ask for the next pages."""
        return self._settings.concurrency + (SEEING_TO if self._at_hand is None else 0)

    @property
    def page_size(self) -> int:
        """Of the answers, in objects."""
        return self._landing.plan.page_size

    @property
    def complete(self) -> bool | Literal["unknown"]:
        """Whether every object of the catalogue was read; for when :meth:`read_pages` has ended."""
        return self.reckoning.complete(self.admission)

    # -- plan ---------------------------------------------------------------------------------

    async def kept(self) -> set[int]:
        """The pages that lie in the zone already, for :meth:`open`."""
        return await self._zone.counted() if self._zone else set()

    async def open(self, lying: set[int]) -> None:
        """Plan which pages to read, from page 0 of this generation."""
        self.fetcher.proven |= bool(lying)
        first, info, counted = await first_page(
            self._zone,
            lying,
            self._listener,
            lambda: self.fetcher.fetch(0, self._settings.page_size, exact_size=False),
        )
        planned = plan_pages(info, self._settings.limit)
        self.reckoning.generation_begins(planned, sum(number < planned.pages for number in counted))
        self._landing = PageBuffer(
            planned,
            self._zone,
            kept=counted | {0} if self._zone else counted,
            window_pages=self._window_pages(first),
            max_missing_pages=self._settings.max_missing_pages,
            listener=self._listener,
        )
        self.gate.expect(lambda: self._landing.left)
        if self._zone is None:
            self._landing.next_page()
            await self._landing.put(first)
        if self._at_hand is not None:
            await self._decoding.expect(planned.pages)
        self._listener(
            events.Planned(planned.total_elements, planned.page_size, planned.pages, planned.positions, self.generation)
        )

    def _window_pages(self, first: RawPage) -> int:
        light = self._at_hand is not None and _is_light(first)
        return self._settings.window_pages * (_LIGHT_WINDOWS if light else 1)

    # -- fetching -----------------------------------------------------------------------------

    async def fetch_pages(self) -> None:
        """One fetcher. Cancel it when :meth:`read_pages` has ended."""
        self._fetching += 1
        while self._ends_with is None:
            landing = self._landing
            number = landing.next_page()
            if number is None:
                await landing.news()
                continue
            try:
                if self._at_hand is None:
                    await self._fetch(landing, number)
                else:
                    await self._take_at_hand(landing, self._at_hand, number)
            except NeowsError as exc:
                lets_in = self._zone is not None and isinstance(exc, (PausedError, SourceError))
                if not (self._to_the_end or lets_in):
                    raise
                if self._ends_with is None:
                    self._end_with(exc)
        # What is under way in the others is paid for: it is let come in before the run ends.
        self._fetching -= 1
        if self._fetching == 0 and self._to_the_end:
            self._landing.fail(self._ends_with)
        elif self._fetching == 0:
            raise self._ends_with

    def _end_with(self, exc: NeowsError) -> None:
        self._ends_with = exc
        self.gate.close(exc)
        self._landing.wake_all()
        if self.gate.under_way:
            self._listener(events.Draining(str(exc), self.gate.under_way))

    async def _fetch(self, landing: PageBuffer, number: int) -> None:
        try:
            raw = await self.fetcher.fetch(number, landing.plan.page_size, exact_size=True)
        except UnavailableError as exc:
            if isinstance(exc, OutageError) or self._ends_with is not None:
                raise
            landing.failed(number, exc)
        else:
            with self.reckoning.timing("archive"):
                await landing.put(raw)

    async def _take_at_hand(self, landing: PageBuffer, source: AtHand, first: int) -> None:
        """``first`` and the pages that follow it, without asking anybody's leave. In any trouble each by itself."""
        numbers = [first]
        while len(numbers) < _AT_ONCE_PAGES and (number := landing.next_page()) is not None:
            numbers.append(number)
        size = landing.plan.page_size
        started_s = anyio.current_time()
        try:
            came = await self.fetcher.ask_at_hand(source, numbers, size)
            fetch_s = anyio.current_time() - started_s
            kept = [raw for raw in came if isinstance(raw, StoredPage)]
            if len(kept) == len(came):
                raws = await self._decoding.judged_together(kept, size)
            else:
                raws = [await self._judge(await self._scrub(raw), size) for raw in came]
        except NeowsError as exc:
            if isinstance(exc, StorageError) and not isinstance(exc, NotFoundError):
                raise
            for number in numbers:
                await self._take_one_at_hand(landing, number)
            return
        await self._landed(landing, raws, fetch_s)

    async def _take_one_at_hand(self, landing: PageBuffer, number: int) -> None:
        """Past the gate too, lest trouble with another page, which closes it, costs this one."""
        started_s = anyio.current_time()
        try:
            came = await self.fetcher.ask(number, landing.plan.page_size)
            fetch_s = anyio.current_time() - started_s
            raw = await self._judge(await self._scrub(came), landing.plan.page_size)
        except UnavailableError as exc:
            landing.failed(number, exc)
        except AttemptError:
            await self._fetch(landing, number)
        else:
            await self._landed(landing, [raw], fetch_s)

    async def _landed(self, landing: PageBuffer, raws: Sequence[RawPage], fetch_s: float) -> None:
        self.fetcher.took(raws, fetch_s)
        for raw in raws:
            if self._zone is None and not _is_light(raw):
                landing.narrow(self._settings.window_pages)
            await landing.put(raw)

    async def _scrub(self, came: RawPage) -> RawPage:
        return await self._decoding.scrubbed(came, self._scrubber)

    async def _judge(self, raw: RawPage, size: int | None) -> RawPage:
        soon = raw.number == 0 or self._landing.is_near(raw.number)
        try:
            return await self._decoding.judged(raw, size, decoded=soon)
        except BadPageError as exc:
            if isinstance(self._source, Lasting):
                raise self._source.damaged(raw.number, exc) from exc
            raise

    async def _keep_bad(self, number: int, body: bytes) -> None:
        if self._zone is not None:
            await self._zone.keep_bad(number, body)

    async def _keep_late(self, came: RawPage, size: int | None) -> None:
        zone = self._zone
        if zone is None or not zone.keeps_late():
            return
        with anyio.move_on_after(MOMENT_S, shield=True), suppress(Exception):
            await zone.put(await self._decoding.judged(await self._scrub(came), size, decoded=False), lingers=False)

    # -- reading, in page order ---------------------------------------------------------------

    async def read_pages(self, put: Callable[[Page], Awaitable[None]]) -> None:
        """Give every page to ``put``: of the catalogue, and once more if it was seen to change its size meanwhile."""
        while True:
            for number in range(self._landing.plan.pages):
                raw = await self._landing.take(number)
                if raw is not None:
                    page = await self._read(raw)
                    with self._landing.giving():
                        await put(page)
            self.reckoning.generation_ends(self._landing.missing)
            if self._zone is not None:
                self._read_from.append((self._zone, set(range(self._landing.plan.pages)) - set(self._landing.missing)))
            if not await self._next_generation():
                return
            self.generation += 1
            self.admission.begin_generation()
            # The fetchers wait for news of a generation that is all in.
            finished = self._landing
            await self.open(await self.kept())
            finished.wake_all()

    async def check_kept(self) -> None:
        """That every page that was read still lies where it is kept: a receipt must not claim one that does not.

        :raises StorageError: somebody removed some
        """
        for zone, pages in self._read_from:
            gone = pages - await zone.counted()
            if gone:
                raise StorageError(
                    f"{zone.key(min(gone))} was removed under the run, one of {len(gone):,} raw pages that are gone; "
                    "run the same command again to fetch them"
                )

    async def _next_generation(self) -> bool:
        """Whether to read once more: pages shift between requests only if the catalogue changes its size."""
        if isinstance(self._source, Generations):
            return await self._source.next_generation()
        limit = self._settings.limit
        wants_all = limit is None or limit >= self.reckoning.total_elements
        last = self.generation + 1 >= self._settings.max_generations
        if not self.reckoning.total_changed or not wants_all or last:
            return False
        if self._zone is not None:
            self._zone = self._zone.next_generation()
        return True

    async def _read(self, raw: RawPage) -> Page:
        page = raw.decoded
        if page is None:
            with self.reckoning.timing("decode"):
                page = await self._decoding.read(raw)
        if self.generation:
            page = dataclasses.replace(page, generation=self.generation)
        self.reckoning.page(page)
        admitted = self.admission.admit(page)
        for rejected in admitted.rejected:
            self.reckoning.rejected(rejected.reason)
            self._listener(events.ObjectRejected(rejected))
        return admitted


def _is_light(raw: RawPage) -> bool:
    """Whether it waits without its body."""
    return isinstance(raw.lightened(), (StoredPage, SpentPage))


def _gate(settings: Settings, origin: Origin, listener: events.Listener) -> Gate:
    gate = Gate(
        QuotaModel(dataclasses.replace(origin.pacing, max_rate_per_s=settings.max_rate_per_s)),
        CircuitBreaker(
            failures_to_open=FAILURES_TO_OPEN,
            probe_every_s=settings.probe_every_s,
            max_outage_s=settings.max_outage_s,
        ),
        GateLimits(
            concurrency=settings.concurrency,
            rate_per_s=settings.max_rate_per_s or (BURST_RATE_PER_S if origin.pacing.bursts else None),
            max_wait_s=settings.max_wait_s,
            budget_requests=settings.budget_requests,
        ),
        clock=time.time,
        listener=listener,
        ledger=origin.ledger,
    )
    if isinstance(origin.source, Resting):
        gate.rest = origin.source.rest
    return gate

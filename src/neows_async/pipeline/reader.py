"""The reading half of a run: plan the pages of a generation, then read them in page order. It starts no task."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final, Literal, Self

from neows_async.endpoints.browse.page_plan import plan_pages
from neows_async.endpoints.browse.receive import ReceiveOptions
from neows_async.errors import StorageError
from neows_async.pages.values import Page
from neows_async.pipeline.admission import Admission
from neows_async.pipeline.buffer import BufferLimits, PageBuffer, read_stored_info
from neows_async.pipeline.decoder import DecoderPool
from neows_async.pipeline.fetch_loop import FetchLoop
from neows_async.pipeline.fetcher import PageRequest
from neows_async.pipeline.guards import blaming
from neows_async.pipeline.stats import RunStats
from neows_async.protocols import StoredSource
from neows_async.telemetry import events

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from neows_async.lake.raw_zone import RawZone
    from neows_async.pages.values import PageInfo, RawPage, StoredPage
    from neows_async.pipeline.fetch_loop import PacedSource
    from neows_async.settings import Settings

# Pages of an archive wait decoded and without their JSON, in a third of the memory or less, so more of them may wait:
# with sixteen, this process and its workers all wait for the page that is written next.
_ARCHIVE_WINDOWS: Final = 4


class PageReader:
    """Reads the pages of one run, over all its generations: decoded, admitted, in page order.

    After :meth:`open`, run ``fetching.run`` in ``fetching.tasks`` tasks beside one :meth:`read_pages`. Enter it first:
    worker processes end with the block.

    :param zone: where raw pages are stored; None keeps a window of them in memory
    :param drains: see :class:`~neows_async.pipeline.fetch_loop.FetchLoop`
    :param needs_json: whether a sink or an aggregator needs the pages' JSON
    """

    def __init__(
        self,
        settings: Settings,
        origin: PacedSource,
        zone: RawZone | None,
        listener: events.Listener,
        *,
        drains: bool = False,
        needs_json: bool = False,
    ) -> None:
        self._settings = settings
        self._source = origin.source
        self._zone = zone
        self._listener = listener
        self._needs_json = needs_json
        self._decoder = DecoderPool(
            ReceiveOptions(
                api_key=settings.api_key.get_secret_value() if settings.api_key else "",
                orbiting_body=settings.orbiting_body,
                max_body_bytes=settings.max_body_bytes,
                keeps_json=needs_json or zone is not None,
            ),
            workers=settings.workers,
        )
        self.stats: RunStats = RunStats()
        self.fetching: FetchLoop = FetchLoop(settings, origin, self._decoder, self.stats, listener, drains=drains)
        self.admission: Admission = Admission(limit=settings.limit, max_rejects=settings.max_rejects)
        self.generation: int = 0
        self.total_elements: int = 0  # in the catalogue, by the last page read
        self._total_changed = False
        self._missing = 0
        self._read: list[tuple[RawZone, set[int]]] = []
        self._buffer: PageBuffer

    async def __aenter__(self) -> Self:
        await self._decoder.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._decoder.__aexit__(*exc)

    @property
    def page_size(self) -> int:
        """Objects a page, as the source sends them."""
        return self._buffer.plan.page_size

    @property
    def complete(self) -> bool | Literal["unknown"]:
        """Whether every object of the catalogue was read, once :meth:`read_pages` has ended: the distinct ids of the
        last generation against its last total. Never claims more than is known.
        """
        if self._missing or self.admission.distinct_in_generation != self.total_elements:
            return False
        return "unknown" if self._total_changed else True

    # -- plan ---------------------------------------------------------------------------------

    async def stored(self) -> set[int]:
        """The numbers of the pages that are in the zone already, for :meth:`open`."""
        return await self._zone.page_numbers() if self._zone else set()

    async def open(self, stored: set[int]) -> None:
        """Plan which pages to read, from page 0 of this generation."""
        settings, fetcher = self._settings, self.fetching.fetcher
        # Pages of an earlier run prove the address: if nothing answers now, the source is down.
        if stored:
            fetcher.prove()
        # Page 0 again: without it the number of pages is unknown.
        first, info, stored = await self._first_page(stored)
        plan = plan_pages(info, settings.limit)
        self.stats.generation_begins(plan, sum(number < plan.pages for number in stored))
        self.total_elements, self._total_changed = plan.total_elements, False
        from_archive = self.fetching.archive is not None
        self._buffer = PageBuffer(
            plan,
            self._zone,
            stored=frozenset(stored),
            limits=BufferLimits(
                settings.window_pages * (_ARCHIVE_WINDOWS if from_archive else 1), settings.max_missing_pages
            ),
            keeps_json=self._needs_json,
            listener=self._listener,
        )
        # Before the first put: fetch tasks may run as soon as this task awaits.
        self.fetching.begin_generation(self._buffer)
        if first is not None:
            # Page 0 is here: take its number, so that no task requests it again.
            self._buffer.next_page()
            await self._buffer.put(first)
        if from_archive:
            await self._decoder.expect(plan.pages)
        self._listener(events.Planned(plan.total_elements, plan.page_size, plan.pages, plan.positions, self.generation))

    async def _first_page(self, stored: set[int]) -> tuple[Page | None, PageInfo, set[int]]:
        """Page 0, if it was fetched now; its envelope; and which of ``stored`` belong to it."""
        zone = self._zone
        # Resumed: the stored page 0 and the other stored pages are of the same plan.
        if zone is not None and 0 in stored and (info := await read_stored_info(zone, 0, self._listener)) is not None:
            return None, info, stored
        request = PageRequest(0, self._settings.page_size, exact_size=False, zone=zone)
        first = await self.fetching.fetcher.fetch(request)
        assert isinstance(first, Page)  # noqa: S101 - page 0 is always near
        if zone is not None:
            stored = await self._of_size(zone, first.info.size, stored - {0})
        return first, first.info, stored

    async def _of_size(self, zone: RawZone, page_size: int, stored: set[int]) -> set[int]:
        """The pages that belong to a page 0 which is newer than them: all, or none if the page size changed."""
        for number in sorted(stored):
            if (info := await read_stored_info(zone, number, self._listener)) is not None:
                # One readable page shows the size of all: a run checks the size before it stores a page.
                if info.size == page_size:
                    return stored
                for other in stored:
                    # All of them: with another page size, a number means other positions.
                    await zone.set_aside(other)
                return set()
        return set()

    # -- reading, in page order ---------------------------------------------------------------

    async def read_pages(self, put: Callable[[Page], Awaitable[None]]) -> None:
        """Read every page and pass it to ``put``; once more if the catalogue changed its size meanwhile."""
        while True:
            for number in range(self._buffer.plan.pages):
                # In page order, so the outputs do not depend on which response was first.
                found = await self._buffer.take(number)
                if found is not None:
                    page = await self._admit(found)
                    # While the outputs are the slow part, fetchers may go ahead of the window.
                    with self._buffer.writing():
                        await put(page)
            missing = self._buffer.missing
            self._missing += len(missing)
            self.stats.generation_ends(missing)
            if self._zone is not None:
                self._read.append((self._zone, set(range(self._buffer.plan.pages)) - set(missing)))
            if not await self._next_generation():
                return
            self.generation += 1
            self.admission.begin_generation()
            # The new buffer first, then the wake-up: a task that woke earlier would get no number and wait for ever.
            # ever.
            finished = self._buffer
            await self.open(await self.stored())
            finished.wake_all()  # its fetch tasks wait for a change, and go on with the new generation

    async def _admit(self, found: Page | RawPage | StoredPage) -> Page:
        if isinstance(found, Page):
            page = found
        else:
            with self.stats.timing("decode"):
                page = await self._decoder.receive(found, None)
            if not self._needs_json:  # the decoder keeps it to be stored, and this page is stored already
                page = dataclasses.replace(page, source=None)
        if self.generation:
            page = dataclasses.replace(page, generation=self.generation)
        # Compared page by page: a total that changes and changes back still shifted some pages.
        self._total_changed |= page.info.total_elements != self.total_elements
        self.total_elements = page.info.total_elements
        self.stats.page_read(page.sha256, page.json_bytes)
        admitted = self.admission.admit(page)
        for rejected in admitted.rejected:
            self.stats.rejected(rejected.reason)
            self._listener(events.ObjectRejected(rejected))
        return admitted

    async def check_stored(self) -> None:
        """That every page that was read is still in the raw zone: a receipt must not claim a page that is gone."""
        for zone, pages in self._read:
            gone = pages - await zone.page_numbers()
            if gone:
                raise StorageError(
                    f"{zone.key(min(gone))} was removed during the run, one of {len(gone):,} raw pages that are gone; "
                    "run the same command again to fetch them"
                )

    async def _next_generation(self) -> bool:
        """Whether to read once more: pages shift between requests only if the catalogue changes its size."""
        if isinstance(self._source, StoredSource):
            with blaming(f"the source {self._source.origin}"):
                return await self._source.next_generation()
        limit = self._settings.limit
        wants_all = limit is None or limit >= self.total_elements
        last = self.generation + 1 >= self._settings.max_generations
        # With an unchanged total no position shifted, or nothing shows it: a second reading would find the same.
        if not self._total_changed or not wants_all or last:
            return False
        if self._zone is not None:
            self._zone = self._zone.next_generation()
        return True

"""Where the pages of one generation wait for the reader: in the raw zone, and the next ones also in memory."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

from neows_async._wakeup import Wakeup
from neows_async.errors import BadPageError, NotFoundError, StorageError, UnavailableError
from neows_async.pages.values import Page, StoredPage
from neows_async.pipeline.scheduler import FetchSchedule
from neows_async.telemetry import events

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from neows_async.endpoints.browse.page_plan import PagePlan
    from neows_async.errors import NeowsError
    from neows_async.lake.raw_zone import RawZone
    from neows_async.pages.values import PageInfo, RawPage

_T = TypeVar("_T")
_MAX_WRITES: Final = 3


@dataclass(frozen=True, slots=True)
class BufferLimits:
    """How much may wait, and how much may be missing.

    :param window_pages: pages that wait in memory, at most
    :param max_missing_pages: pages that may stay missing; None is no limit
    """

    window_pages: int
    max_missing_pages: int | None


class PageBuffer:
    """Fetchers get page numbers from it and put pages into it; the reader takes pages in page order.

    The next pages, a window of them, wait in memory as well as in the zone, so that a reader that keeps up reads
    nothing from the zone. Pages further ahead are in the zone alone.

    :param zone: None: no page is fetched further ahead than the window
    :param stored: pages that are in the zone already
    :param keeps_json: whether a sink or an aggregator needs the pages' JSON
    """

    def __init__(
        self,
        plan: PagePlan,
        zone: RawZone | None,
        *,
        stored: frozenset[int],
        limits: BufferLimits,
        keeps_json: bool,
        listener: events.Listener,
    ) -> None:
        self.plan = plan
        self.zone = zone
        # With a zone, memory is not the limit. But a page too far ahead is read back and checked once more, for which
        # there is no time if reading is the slow part.
        self._schedule = FetchSchedule(plan.pages, stored=stored, window=limits.window_pages, patient=zone is not None)
        self._limits = limits
        self._keeps_json = keeps_json
        self._listener = listener
        self._waiting: dict[int, Page | StoredPage] = {}
        self._changed = Wakeup()
        self._error: NeowsError | None = None

    @property
    def missing(self) -> tuple[int, ...]:
        """The pages that were given up, ascending."""
        return tuple(sorted(self._schedule.missing))

    @property
    def left(self) -> int:
        """Pages that are neither here nor given up."""
        return self._schedule.left

    # -- for fetchers -------------------------------------------------------------------------

    def next_page(self) -> int | None:
        """The page to fetch now; None if there is none until something changes."""
        return self._schedule.next_page()

    def is_near(self, number: int) -> bool:
        """Whether the reader takes page ``number`` soon: then it waits in memory, decoded."""
        return self._schedule.ahead(number) < self._limits.window_pages

    async def wait(self) -> None:
        """Wait until something changes."""
        await self._changed.wait()

    async def put(self, page: Page | StoredPage) -> None:
        """Add a page. With a zone it is durable when this returns."""
        # Durable first: a page that shows as arrived may be the last thing this process does.
        if self.zone is not None:
            stored = page if isinstance(page, StoredPage) else page.source
            assert stored is not None  # noqa: S101 - with a zone every page is received to be stored
            await self.zone.put(stored)
        # Tested again: the reader may have moved while the page was stored.
        if self.zone is None or self.is_near(page.number):
            if isinstance(page, Page) and not self._keeps_json:
                page = replace(page, source=None)
            self._waiting[page.number] = page
        # Added before the wake-up, without an await: the reader that wakes finds the page.
        self._schedule.arrived(page.number)
        self.wake_all()

    def failed(self, number: int, exc: UnavailableError) -> None:
        """The page could not be fetched: it is tried once more after all others, then given up.

        :raises UnavailableError: it was tried twice, and no more pages may be missing
        """
        never_there = isinstance(exc.__cause__, NotFoundError)  # an archive will not have it later
        reason = str(exc.__cause__ or exc)  # without the advice for the end of a run: this run goes on
        if not never_there and self._schedule.retry_later(number):
            self._listener(events.PageDeferred(number, reason))
        else:
            if (
                self._limits.max_missing_pages is not None
                and len(self._schedule.missing) >= self._limits.max_missing_pages
            ):
                raise exc
            self._schedule.give_up(number, reason)
            self._listener(events.PageMissing(number, reason))
        # Also after a deferral: the page may be the only one left, and a task must take it.
        self.wake_all()

    def fail(self, exc: NeowsError) -> None:
        """No more pages will be put: the reader gets those that are here, and then ``exc``."""
        self._error = exc
        self.wake_all()

    # -- for the reader -----------------------------------------------------------------------

    async def take(self, number: int) -> Page | RawPage | StoredPage | None:
        """Page ``number``, as soon as it is here; None if it was given up. Called in page order.

        :raises NeowsError: the error given to :meth:`fail`
        :raises StorageError: the zone loses the page each time it is stored
        """
        # The window moves here, so fetchers that waited for it may go on.
        self._schedule.reading(number)
        self.wake_all()
        for writes in itertools.count(1):
            # No await between the tests and the wait, so no change is missed.
            while not self._schedule.is_in(number):
                if number in self._schedule.missing:
                    return None
                if self._error is not None:
                    raise self._error
                await self._changed.wait()
            waiting = self._waiting.pop(number, None)
            # A page that was damaged once is read back, so that a storage that loses everything shows.
            if self.zone is None or (waiting is not None and writes == 1):
                return waiting
            if (page := await read_stored_page(self.zone, number, self._listener, self.plan.page_size)) is not None:
                return page
            if writes == _MAX_WRITES:
                break
            # The page is fetched again: the reader cannot go on without it.
            self._schedule.damaged(number)
            self.wake_all()
        raise StorageError(
            f"raw page {number} was written {_MAX_WRITES} times and cannot be read; check the disk, then run the same "
            "command again"
        )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The reader hands a page to the outputs: fetchers may go ahead of the window, as far as the zone has room."""
        self._schedule.waits_for_outputs(waits=True)
        # Only if the window held a fetcher back.
        if self._schedule.is_held:
            self.wake_all()
        try:
            yield
        finally:
            self._schedule.waits_for_outputs(waits=False)

    def wake_all(self) -> None:
        """Something changed."""
        self._changed.wake_all()


async def read_stored_page(
    zone: RawZone, number: int, listener: events.Listener, size: int | None = None
) -> RawPage | StoredPage | None:
    """A page of the zone; None if it cannot be read or has another size: then it was set aside."""
    return await _or_set_aside(zone, number, listener, zone.get(number, size))


async def read_stored_info(zone: RawZone, number: int, listener: events.Listener) -> PageInfo | None:
    """The envelope of a page of the zone; None if the page cannot be read: then it was set aside."""
    return await _or_set_aside(zone, number, listener, zone.info(number))


async def _or_set_aside(zone: RawZone, number: int, listener: events.Listener, read: Awaitable[_T]) -> _T | None:
    try:
        return await read
    except (BadPageError, NotFoundError) as exc:
        listener(events.PageDamaged(number, str(exc)))
        # Moved, not deleted: a page that cannot be read must not be counted as stored, but may be looked at.
        await zone.set_aside(number)
        return None

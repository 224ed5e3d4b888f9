"""Where the fetched pages of one generation wait for their reader: in the raw zone or, without one, in a window."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from neows_async._wakeup import Wakeup
from neows_async.endpoints.browse import envelope
from neows_async.errors import BadPageError, NotFoundError, StorageError, UnavailableError
from neows_async.pipeline.scheduler import FetchSchedule
from neows_async.telemetry import events

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from neows_async.endpoints.browse.page_plan import PagePlan
    from neows_async.errors import NeowsError
    from neows_async.lake.raw_zone import RawZone
    from neows_async.pages import values
    from neows_async.pages.values import RawPage

_DAMAGES: Final = 3


class PageBuffer:
    """Fetchers ask it what to fetch and hand it what came; the reader takes pages in page order.

    The next ``window_pages`` wait in memory as well as in the zone, so that a reader who keeps up reads nothing
    twice; those further ahead lie in the zone alone.

    :param zone: None lets nobody fetch further ahead than that
    :param kept: pages that lie in the zone already
    :param max_missing_pages: so many may stay holes; None is no limit
    """

    def __init__(
        self,
        plan: PagePlan,
        zone: RawZone | None,
        *,
        kept: frozenset[int],
        window_pages: int,
        max_missing_pages: int | None,
        listener: events.Listener,
    ) -> None:
        self.plan = plan
        self._zone = zone
        # With a zone not the memory ends. But what lies too far ahead is read back, expanded and checked once more,
        # for which there is no time if reading is the slow part.
        self._agenda = FetchSchedule(plan.pages, kept=kept, window=window_pages, patient=zone is not None)
        self._window_pages = window_pages
        self._max_missing_pages = max_missing_pages
        self._listener = listener
        self._waiting: dict[int, RawPage] = {}
        self._news = Wakeup()
        self._end: NeowsError | None = None

    @property
    def missing(self) -> tuple[int, ...]:
        """The pages that were given up, ascending."""
        return tuple(sorted(self._agenda.missing))

    @property
    def left(self) -> int:
        """Pages still to come."""
        return self._agenda.left

    # -- for fetchers -------------------------------------------------------------------------

    def next_page(self) -> int | None:
        """The page to fetch now; None if there is none until there is news."""
        return self._agenda.next_page()

    def is_near(self, number: int) -> bool:
        """Whether the reader will come to page ``number`` soon: then it waits in memory for it."""
        return self._agenda.ahead(number) < self._window_pages

    async def news(self) -> None:
        """Wait until something has changed."""
        await self._news.wait()

    async def put(self, raw: RawPage) -> None:
        """Keep a whole, right, scrubbed page. With a zone it is durable when this returns."""
        if self._zone is not None:
            raw = await self._zone.put(raw)
        if self._zone is None or self.is_near(raw.number):
            self._waiting[raw.number] = raw.lightened()
        self._agenda.arrived(raw.number)
        self.wake_all()

    def narrow(self, window_pages: int) -> None:
        """No more pages than that wait in memory from now on, and none further ahead is fetched."""
        if window_pages < self._window_pages:
            self._window_pages = self._agenda.window = window_pages

    def failed(self, number: int, exc: UnavailableError) -> None:
        """The page could not be had: the others go first, then it has one more chance.

        :raises UnavailableError: it had that, and no more pages may be missing
        """
        never_there = isinstance(exc.__cause__, NotFoundError)  # an archive will not have it later
        reason = str(exc.__cause__ or exc)  # the run itself goes on, so what to do then is not said
        if not never_there and self._agenda.retry_later(number):
            self._listener(events.PageDeferred(number, reason))
        else:
            if self._max_missing_pages is not None and len(self._agenda.missing) >= self._max_missing_pages:
                raise exc
            self._agenda.give_up(number, reason)
            self._listener(events.PageMissing(number, reason))
        self.wake_all()

    def fail(self, exc: NeowsError) -> None:
        """Nothing more comes: the reader gets what is in, and then ``exc``."""
        self._end = exc
        self.wake_all()

    # -- for the reader -----------------------------------------------------------------------

    async def take(self, number: int) -> RawPage | None:
        """Page ``number`` as soon as it is in; None if it stays a hole. Called in page order.

        :raises NeowsError: what :meth:`ends_with` was given
        """
        self._agenda.reading(number)
        self.wake_all()
        for damages in itertools.count(1):
            while not self._agenda.is_in(number):
                if number in self._agenda.missing:
                    return None
                if self._end is not None:
                    raise self._end
                await self._news.wait()
            waiting = self._waiting.pop(number, None)
            # What was damaged once is read back: a storage that loses everything must not go unseen.
            if self._zone is None or (waiting is not None and damages == 1):
                return waiting
            if (raw := await read_kept(self._zone, number, self._listener, self.plan.page_size)) is not None:
                return raw
            if damages == _DAMAGES:
                break
            self._agenda.damaged(number)
            self.wake_all()
        raise StorageError(
            f"raw page {number} was written {_DAMAGES} times and cannot be read; check the disk, then run the same "
            "command again"
        )

    @contextmanager
    def giving(self) -> Iterator[None]:
        """While the reader waits for who takes a page: fetching may go on as far as there is room to keep."""
        self._agenda.reader_waits = True
        if self._agenda.is_held:
            self.wake_all()
        try:
            yield
        finally:
            self._agenda.reader_waits = False

    def wake_all(self) -> None:
        """Wake whoever waits for news."""
        self._news.wake_all()


async def read_kept(zone: RawZone, number: int, listener: events.Listener, size: int | None = None) -> RawPage | None:
    """A page of the raw zone; None if it can't be read any more, or is of another size: then it was set aside."""
    try:
        return await zone.get(number, size)
    except (BadPageError, NotFoundError) as exc:
        listener(events.PageDamaged(number, str(exc)))
        await zone.set_aside(number)
        return None


async def first_page(
    zone: RawZone | None, counted: set[int], listener: events.Listener, fetch: Callable[[], Awaitable[RawPage]]
) -> tuple[RawPage, values.PageInfo, frozenset[int]]:
    """Page 0, from the raw zone if it lies there; what its envelope says; and which of ``counted`` go with it.

    Page 0 is a page like any other: fetched, it is kept.
    """
    first = await read_kept(zone, 0, listener) if zone is not None and 0 in counted else None
    if first is None:
        counted.discard(0)
        first = await fetch()
        if zone is not None:
            first = await zone.put(first)
            counted = await _of_size(zone, envelope.split(first.body)[0].size, counted, listener)
    info, _ = envelope.split(first.body)
    return first, info, frozenset(counted)


async def _of_size(zone: RawZone, page_size: int, counted: set[int], listener: events.Listener) -> set[int]:
    """What of ``counted`` goes with a first page that is newer than it: all, or nothing if the size changed."""
    for number in sorted(counted):
        kept = await read_kept(zone, number, listener)
        if kept is not None:
            if envelope.split(kept.body)[0].size == page_size:
                return counted
            for other in counted:
                await zone.set_aside(other)
            return set()
    return set()

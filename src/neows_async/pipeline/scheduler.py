"""Which page is fetched next. Pure."""

from __future__ import annotations

from collections import deque


class FetchSchedule:
    """The pages 0 … ``pages - 1``: to do, in flight, here, late, missing.

    A page that fails is tried again when nothing else is left to do, so that it delays no other page. If it fails
    again it is given up.

    :param stored: pages that are here already
    :param window: fetch at most this many pages ahead of the reader; None is no limit
    :param patient: go further ahead while the reader waits for a page or for the outputs, or reads pages that were
        here already: only a reader that is busy limits the fetchers
    """

    def __init__(
        self, pages: int, *, stored: frozenset[int] = frozenset(), window: int | None = None, patient: bool = False
    ) -> None:
        self._todo = deque(number for number in range(pages) if number not in stored)
        self._late: deque[int] = deque()
        self._in = set(stored)
        self._tried: set[int] = set()
        self._stored = stored
        self._window = window
        self._patient = patient
        self._reading = 0
        self._reader_waits = False
        self.is_held: bool = False
        """Whether the window was the reason of the last None."""
        self.left: int = pages - sum(number in stored for number in range(pages))
        """Pages that are neither here nor given up."""
        self.missing: dict[int, str] = {}
        """Pages given up → the reason."""

    def next_page(self) -> int | None:
        """The page to fetch now, in flight from then on; None if there is none now."""
        if self._todo and (self._window is None or self._todo[0] < self._reading + self._window or self._may_go_far()):
            return self._todo.popleft()
        # The reader's hand-over wakes the fetchers only then: a wake-up a page would cost more than it gains.
        self.is_held = bool(self._todo)
        # Either all others are here or in flight, or the window waits for a late one.
        return self._late.popleft() if self._late else None

    def _may_go_far(self) -> bool:
        # A page that was here already costs the reader no time, so it is as good as waiting.
        waits = self._reader_waits or self._reading in self._stored or self._reading not in self._in
        return self._patient and waits

    def is_in(self, number: int) -> bool:
        """Whether the page is here."""
        return number in self._in

    def arrived(self, number: int) -> None:
        """The page is here."""
        self._in.add(number)
        self.left -= 1

    def reading(self, number: int) -> None:
        """The reader has reached ``number``; the pages before it are read."""
        self._reading = number
        if not self._patient and self._window is not None:
            # Without a zone no page is ever read back, so the set stays as small as the window.
            self._in.discard(number - 1)

    def ahead(self, number: int) -> int:
        """How many pages the reader has to read before ``number``."""
        return number - self._reading

    def waits_for_outputs(self, *, waits: bool) -> None:
        """Whether the reader waits for the outputs now."""
        self._reader_waits = waits

    def retry_later(self, number: int) -> bool:
        """The page failed. True: it is tried again after all others; False: it was tried again already."""
        if number in self._tried:
            return False
        self._tried.add(number)
        # Behind all others: by then the cause may have passed, and no other page was delayed.
        self._late.append(number)
        return True

    def give_up(self, number: int, reason: str) -> None:
        """The page stays missing."""
        self.missing[number] = reason
        self.left -= 1

    def damaged(self, number: int) -> None:
        """The page was here, but cannot be read: it is fetched next, since the reader waits for it."""
        self._in.discard(number)
        self._todo.appendleft(number)
        self.left += 1

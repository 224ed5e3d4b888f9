"""Which page is fetched next. Pure: it decides, the pipeline does."""

from __future__ import annotations

from collections import deque


class FetchSchedule:
    """The pages 0 … ``pages - 1`` on their way in: to do, under way, in, late, missing.

    A page that fails is set back until nothing else can be done, so that it blocks nobody; failing
    again it is given up.

    :param kept: pages that are in already
    :param window: fetch at most so many pages ahead of the reader; None is no limit
    :param patient: further ahead as well while the reader waits, for a page or for who takes it, or reads those that
        were in already: only a reader who is at work must not be run away from
    """

    def __init__(
        self,
        pages: int,
        *,
        kept: frozenset[int] = frozenset(),
        window: int | None = None,
        patient: bool = False,
    ) -> None:
        self._todo = deque(number for number in range(pages) if number not in kept)
        self._late: deque[int] = deque()
        self._in = set(kept)
        self._tried: set[int] = set()
        self._kept = kept
        self.window: int | None = window
        self._patient = patient
        self._reading = 0
        self.reader_waits: bool = False
        """For those who take what it read."""
        self.is_held: bool = False
        """Whether the window kept the last one who asked from a page."""
        self.left: int = pages - sum(number in kept for number in range(pages))
        """Pages neither in nor given up."""
        self.missing: dict[int, str] = {}
        """Pages given up → why."""

    def next_page(self) -> int | None:
        """The page to fetch now, from then on under way; None if there is none now."""
        if self._todo and (self.window is None or self._todo[0] < self._reading + self.window or self._may_go_far()):
            return self._todo.popleft()
        self.is_held = bool(self._todo)
        # Either all others are in or under way, or the window waits for a late one.
        return self._late.popleft() if self._late else None

    def _may_go_far(self) -> bool:
        waits = self.reader_waits or self._reading in self._kept or self._reading not in self._in
        return self._patient and waits

    def is_in(self, number: int) -> bool:
        """Whether the page has come."""
        return number in self._in

    def arrived(self, number: int) -> None:
        """The page has come and is kept."""
        self._in.add(number)
        self.left -= 1

    def reading(self, number: int) -> None:
        """The reader has come to ``number``; what lies before it is done with."""
        self._reading = number
        if not self._patient and self.window is not None:
            self._in.discard(number - 1)

    def ahead(self, number: int) -> int:
        """How many pages the reader has to read before ``number``."""
        return number - self._reading

    def retry_later(self, number: int) -> bool:
        """The page failed. True: it is tried again when the others are in; False: it had that chance."""
        if number in self._tried:
            return False
        self._tried.add(number)
        self._late.append(number)
        return True

    def give_up(self, number: int, reason: str) -> None:
        """The page stays a hole."""
        self.missing[number] = reason
        self.left -= 1

    def damaged(self, number: int) -> None:
        """The page came, but can't be read any more: it comes first now, for the reader waits for it."""
        self._in.discard(number)
        self._todo.appendleft(number)
        self.left += 1

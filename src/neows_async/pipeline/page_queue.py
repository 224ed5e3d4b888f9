"""The bounded queue between the reader and one consumer. Its limit counts NEOs, since pages differ in size."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import anyio

from neows_async._wakeup import Wakeup

if TYPE_CHECKING:
    from neows_async.pages.values import Page


class PageQueue:
    """First in, first out; one task puts, one gets.

    An empty page counts as one NEO. A page that is larger than ``max_neos`` fits when the queue is empty.
    """

    def __init__(self, max_neos: int) -> None:
        self._max_neos = max_neos
        self._pages: deque[Page] = deque()
        self._closed = False
        self._changed = Wakeup()
        self.waiting_neos: int = 0

    async def put(self, page: Page) -> None:
        """Add ``page``; waits until there is room."""
        # A loop: the consumer may have taken one small page, and this one still does not fit.
        while self._pages and self.waiting_neos + _weight(page) > self._max_neos:
            await self._changed.wait()
        # No await between test and append. One task puts, so no second one can take the room.
        self._pages.append(page)
        self.waiting_neos += _weight(page)
        self._changed.wake_all()

    async def get(self) -> Page | None:
        """The next page; waits for it. None after the last one."""
        while not self._pages:
            if self._closed:
                return None
            await self._changed.wait()
        # After the last await, so a cancelled get has taken nothing.
        page = self._pages.popleft()
        self.waiting_neos -= _weight(page)
        self._changed.wake_all()
        return page

    async def get_all(self, *, gather_s: float) -> list[Page]:
        """All pages that wait, at least one; empty after the last one. If cancelled, it may lose a page.

        :param gather_s: after the first page, wait this long for more; stop when the queue is half full
        """
        if (first := await self.get()) is None:
            return []
        with anyio.move_on_after(gather_s):
            # Half full: the reader still has room, and is never held back by the gathering.
            while not self._closed and 2 * self.waiting_neos < self._max_neos:
                await self._changed.wait()
        pages = [first, *self._pages]
        self._pages.clear()
        self.waiting_neos = 0
        self._changed.wake_all()
        return pages

    def close(self) -> None:
        """No more pages will be put."""
        self._closed = True
        self._changed.wake_all()


def _weight(page: Page) -> int:
    return max(1, page.object_count)

"""The bounded queue between decoding and a consumer. It is counted in NEOs, for pages differ in size."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import anyio

from neows_async._wakeup import Wakeup

if TYPE_CHECKING:
    from neows_async.pages.values import Page


class PageQueue:
    """First in, first out; one task puts, one gets.

    A page counts as one NEO at least, since its body is there in any case. One that alone is larger
    than ``max_neos`` passes when the queue is empty.
    """

    def __init__(self, max_neos: int) -> None:
        self._max_neos = max_neos
        self._pages: deque[Page] = deque()
        self._closed = False
        self._changed = Wakeup()
        self.waiting_neos: int = 0

    async def put(self, page: Page) -> None:
        """Add ``page``; waits while there is no room for its NEOs."""
        while self._pages and self.waiting_neos + _weight(page) > self._max_neos:
            await self._changed.wait()
        self._pages.append(page)
        self.waiting_neos += _weight(page)
        self._changed.wake_all()

    async def get(self) -> Page | None:
        """The next page; waits for it. None after the last one."""
        while not self._pages:
            if self._closed:
                return None
            await self._changed.wait()
        page = self._pages.popleft()
        self.waiting_neos -= _weight(page)
        self._changed.wake_all()
        return page

    async def get_all(self, *, gather_s: float) -> list[Page]:
        """The pages that wait, one at least; empty after the last one. Cancelled, it may lose a page.

        :param gather_s: so long after the first one more may come; not once half the room is taken
        """
        if (first := await self.get()) is None:
            return []
        with anyio.move_on_after(gather_s):
            while not self._closed and 2 * self.waiting_neos < self._max_neos:
                await self._changed.wait()
        pages = [first, *self._pages]
        self._pages.clear()
        self.waiting_neos = 0
        self._changed.wake_all()
        return pages

    def close(self) -> None:
        """Nothing more is put."""
        self._closed = True
        self._changed.wake_all()


def _weight(page: Page) -> int:
    return max(1, page.object_count)

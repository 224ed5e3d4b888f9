"""Wakes whoever waits for something to change, and costs nothing while nobody does."""

from __future__ import annotations

import anyio


class Wakeup:
    """Many may wait, and all are woken at once; what they waited for, they look at again themselves."""

    def __init__(self) -> None:
        self._next: anyio.Event | None = None

    def next_event(self) -> anyio.Event:
        """Set by the next :meth:`announce`. Taken before one looks, it lets nothing pass unseen."""
        if self._next is None:
            self._next = anyio.Event()
        return self._next

    async def wait(self) -> None:
        """Until the next :meth:`announce`."""
        await self.next_event().wait()

    def wake_all(self) -> None:
        """Something has changed."""
        if self._next is not None:
            self._next.set()
            self._next = None

"""An event that can be set again and again: it wakes all tasks that wait for a change."""

from __future__ import annotations

import anyio


class Wakeup:
    """Several tasks may wait; all are woken at once, and then check their own condition."""

    def __init__(self) -> None:
        self._next: anyio.Event | None = None

    def next_event(self) -> anyio.Event:
        """Set by the next :meth:`wake_all`. Get it before you check your condition, so that no change is missed."""
        if self._next is None:
            self._next = anyio.Event()
        return self._next

    async def wait(self) -> None:
        """Wait for the next :meth:`wake_all`."""
        await self.next_event().wait()

    def wake_all(self) -> None:
        """Something changed."""
        if self._next is not None:
            self._next.set()
            self._next = None

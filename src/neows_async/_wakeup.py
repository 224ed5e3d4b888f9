"""Wakes every task that waits for a change of some state, and costs nothing while none waits."""

from __future__ import annotations

import anyio


class Wakeup:
    """Any number of tasks wait for the next change, and all wake at once. Each then reads the state itself."""

    def __init__(self) -> None:
        self._next: anyio.Event | None = None

    def next_event(self) -> anyio.Event:
        """Return the event that the next :meth:`wake_all` sets.

        Take it before reading the state: otherwise a change between the two would be missed.
        """
        if self._next is None:
            self._next = anyio.Event()
        return self._next

    async def wait(self) -> None:
        """Wait for the next :meth:`wake_all`."""
        await self.next_event().wait()

    def wake_all(self) -> None:
        """Wake all tasks that wait."""
        if self._next is not None:
            # Set, then forgotten: a task that waits from now on waits for the next change.
            self._next.set()
            self._next = None

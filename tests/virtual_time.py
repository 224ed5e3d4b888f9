"""Virtual time: a clock that stands still while anything can run, and then jumps to the next timer.

A test of hours takes milliseconds and gives the same answer every time. Sockets and threads live in
real time, so a test with either must not use it. Trio brings its own clock; asyncio gets this loop.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

import trio.testing


class Deadlock(Exception):  # noqa: N818 - what happened, not what was raised
    """Nothing can run and no timer is set: every task waits for another."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop that never waits for a timer.

    :param patience_s: with no timer left only a thread can still wake the loop; after this long
        it is called a deadlock
    """

    def __init__(self, patience_s: float = 5.0) -> None:
        self.now_s = 0.0
        self.patience_s = patience_s
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self.now_s


class _JumpingSelector(selectors.DefaultSelector):
    """Is asked to wait only when nothing can run, and for as long as until the next timer."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(self._loop.patience_s if timeout is None else 0)
        if ready:
            return ready
        if timeout is None:
            raise Deadlock("every task waits for another, and no timer is set")
        self._loop.now_s += timeout
        return []


def backend(name: str) -> tuple[str, dict[str, Any]]:
    """anyio's options for a run of ``name`` (asyncio or trio) in virtual time, from a new clock."""
    if name == "trio":
        return name, {"clock": trio.testing.MockClock(autojump_threshold=0)}
    return name, {"loop_factory": VirtualTimeLoop}

"""Virtual time for tests: no timer waits for the wall clock, so a busy machine decides nothing.

- ``virtual_time``: the clock stands still while anything can run, and then jumps to the next timer. A test of hours
  takes milliseconds and gives the same result every time. Sockets and threads run in real time, so such a test must
  use neither.
- ``held_time``: the clock stands still, so no time limit ends before a slow thread or socket. Within
  :func:`jumping`, it jumps as above, and shows how long the code waits at most for something that hangs. Outside it,
  nothing may sleep: ``anyio.wait_all_tasks_blocked`` does, on asyncio.

Trio has such a clock; asyncio gets :class:`VirtualTimeLoop`. uvloop has none.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import sniffio
import trio.lowlevel
import trio.testing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


class Deadlock(Exception):  # noqa: N818 - what happened, not what was raised
    """Nothing can run, and no timer will change that: every task waits for another."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop that never waits for a timer.

    :param patience_s: real seconds to wait for a thread or a socket if nothing else can wake the loop
    :param jumps: whether the clock jumps to the next timer when nothing can run; else it stands still
    :raises Deadlock: nothing woke the loop within ``patience_s``
    """

    def __init__(self, patience_s: float = 30.0, *, jumps: bool = True) -> None:
        self.now_s = 0.0
        self.patience_s = patience_s
        self.jumps = jumps
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self.now_s


class HeldTimeLoop(VirtualTimeLoop):
    """The same, which stands still outside :func:`jumping`."""

    def __init__(self) -> None:
        super().__init__(patience_s=60.0, jumps=False)


class _JumpingSelector(selectors.DefaultSelector):
    """The event loop calls :meth:`select` with a timeout only when nothing can run: the time to the next timer."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout == 0:
            return super().select(0)
        may_jump = timeout is not None and self._loop.jumps
        ready = super().select(0 if may_jump else self._loop.patience_s)
        if not ready:
            if timeout is None or not may_jump:
                raise Deadlock("every task waits for another, and no timer will end that")
            self._loop.now_s += timeout
        return ready


def backend(name: str) -> tuple[str, dict[str, Any]]:
    """anyio's options for a run of ``name`` (asyncio or trio) in virtual time, from a new clock."""
    if name == "trio":
        return name, {"clock": trio.testing.MockClock(autojump_threshold=0)}
    return name, {"loop_factory": VirtualTimeLoop}


def held_backend(name: str) -> tuple[str, dict[str, Any]]:
    """The same, in held time."""
    if name == "trio":
        return name, {"clock": trio.testing.MockClock()}
    return name, {"loop_factory": HeldTimeLoop}


@contextmanager
def jumping() -> Iterator[None]:
    """Within, the clock of a held test jumps to the next timer when nothing can run."""
    _set_jumps(jumps=True)
    try:
        yield
    finally:
        _set_jumps(jumps=False)


async def wait_after_cancel_s(run: Callable[[], Awaitable[object]], until: Callable[[], Awaitable[object]]) -> float:
    """Cancel ``run()`` once ``until()`` has returned, in held time.

    :returns: the seconds for which ``run`` waits at most before it ends
    """
    scope, ended = anyio.CancelScope(), anyio.Event()

    async def cancelled() -> None:
        with scope:
            await run()
        ended.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancelled)
        await until()
        began_s = anyio.current_time()
        with jumping():
            scope.cancel()
            await ended.wait()
            took_s = anyio.current_time() - began_s
    assert scope.cancelled_caught, "it ended before it was cancelled"
    return took_s


def _set_jumps(*, jumps: bool) -> None:
    if sniffio.current_async_library() == "trio":
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        clock.autojump_threshold = 0 if jumps else math.inf
        return
    loop = asyncio.get_running_loop()
    assert isinstance(loop, HeldTimeLoop)
    loop.jumps = jumps

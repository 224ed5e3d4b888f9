"""The virtual clock of the tests is itself right, and the same on both event loops."""

from __future__ import annotations

import asyncio
import threading
import time

import anyio
import pytest
from anyio import to_thread

from tests import virtual_time
from tests.virtual_time import Deadlock, VirtualTimeLoop

HOUR_S = 3600.0


@pytest.mark.virtual_time
async def test_hours_pass_at_once() -> None:
    began_s, virtual_s = time.monotonic(), anyio.current_time()

    await anyio.sleep(HOUR_S)

    assert anyio.current_time() - virtual_s == pytest.approx(HOUR_S)
    assert time.monotonic() - began_s < HOUR_S / 60


@pytest.mark.virtual_time
async def test_sleepers_wake_in_the_order_of_their_timers() -> None:
    woken: list[tuple[float, str]] = []
    start_s = anyio.current_time()

    async def sleep(name: str, delay_s: float) -> None:
        await anyio.sleep(delay_s)
        woken.append((anyio.current_time() - start_s, name))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sleep, "late", 2 * HOUR_S)
        tasks.start_soon(sleep, "early", 1.0)
        tasks.start_soon(sleep, "between", HOUR_S)

    assert woken == [(pytest.approx(1.0), "early"), (pytest.approx(HOUR_S), "between"), (pytest.approx(7200.0), "late")]


@pytest.mark.virtual_time
async def test_the_clock_stands_still_while_something_can_run() -> None:
    start_s = anyio.current_time()

    for _ in range(100):
        await anyio.lowlevel.checkpoint()

    assert anyio.current_time() == start_s


@pytest.mark.virtual_time
async def test_a_time_limit_ends_what_never_would() -> None:
    start_s = anyio.current_time()

    with anyio.move_on_after(HOUR_S) as scope:
        await anyio.Event().wait()

    assert scope.cancelled_caught
    assert anyio.current_time() - start_s == pytest.approx(HOUR_S)


@pytest.mark.held_time
async def test_held_time_stands_still_while_a_thread_runs() -> None:
    start_s = anyio.current_time()

    with anyio.fail_after(0.001):
        await to_thread.run_sync(threading.Event().wait, 0.05)

    assert anyio.current_time() == start_s


@pytest.mark.held_time
async def test_held_time_jumps_where_the_test_lets_it() -> None:
    start_s = anyio.current_time()

    with virtual_time.jumping():
        await anyio.sleep(HOUR_S)
    assert anyio.current_time() - start_s == pytest.approx(HOUR_S)

    with anyio.fail_after(0.001):
        await to_thread.run_sync(threading.Event().wait, 0.05)
    assert anyio.current_time() - start_s == pytest.approx(HOUR_S)


@pytest.mark.held_time
async def test_the_wait_after_a_cancellation_is_measured_whatever_the_machine_does() -> None:
    hanging, let_go = threading.Event(), threading.Event()

    def hang() -> None:
        hanging.set()
        let_go.wait(60)

    async def run() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.move_on_after(0.5, shield=True):
                await to_thread.run_sync(hang, abandon_on_cancel=True)

    waited_s = await virtual_time.wait_after_cancel_s(run, anyio.wait_all_tasks_blocked)
    let_go.set()
    assert waited_s == pytest.approx(0.5)


async def test_without_the_marker_time_is_real() -> None:
    began_s = time.monotonic()

    await anyio.sleep(0.01)

    assert time.monotonic() - began_s >= 0.01


def test_a_deadlock_raises() -> None:
    async def wait_for_nobody() -> None:
        await asyncio.Event().wait()

    loop = VirtualTimeLoop(patience_s=0)
    waiting = loop.create_task(wait_for_nobody())
    with pytest.raises(Deadlock):
        loop.run_until_complete(waiting)

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(waiting)
    loop.close()

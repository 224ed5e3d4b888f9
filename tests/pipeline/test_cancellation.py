"""A program can cancel a run in several ways: the program gets its own exception, and the next call resumes the run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint

from neows_async import PartError, Settings, ingest, open_neos
from neows_async.testing import ListSource
from tests import virtual_time
from tests.conftest import ROOT
from tests.neos import catalogue
from tests.program import LIMIT_S

if TYPE_CHECKING:
    from pathlib import Path

    from neows_async import RawPage


class Stuck(ListSource):
    """Answers for page 3 only after a signal."""

    free = False

    async def fetch(self, number: int, size: int) -> RawPage:
        if number == 3 and not self.free:
            await anyio.sleep_forever()
        return await super().fetch(number, size)


async def goes_on(settings: Settings, source: Stuck) -> None:
    asked = set(source.asked)
    assert asked == {0, 1, 2, 4}
    source.free = True
    source.asked.clear()
    receipt = await ingest(settings, source=source)
    assert receipt.records.written == 100
    assert source.asked == [3], "what was fetched is not fetched again"


async def until_stuck(source: Stuck, root: Path) -> None:
    while not {0, 1, 2, 4} <= set(source.asked) or len(list(root.rglob("page=*.zst"))) < 4:  # noqa: ASYNC240 - it is a test
        await checkpoint()


@pytest.mark.asyncio_only
@pytest.mark.uvloop
async def test_a_task_that_is_cancelled(tmp_path: Path) -> None:
    source, settings = Stuck(catalogue(100)), Settings(root=str(tmp_path))
    task = asyncio.create_task(ingest(settings, source=source))
    await until_stuck(source, tmp_path)
    task.cancel("by the service")
    with pytest.raises(asyncio.CancelledError):
        await task
    await goes_on(settings, source)


@pytest.mark.held_time
async def test_a_cancelled_run_waits_for_nothing(tmp_path: Path) -> None:
    source, settings = Stuck(catalogue(100)), Settings(root=str(tmp_path))
    waited_s = await virtual_time.wait_after_cancel_s(
        lambda: ingest(settings, source=source), lambda: until_stuck(source, tmp_path)
    )
    assert waited_s < 1


async def expire(limit: asyncio.Timeout, source: Stuck, root: Path) -> None:
    """Let ``limit`` end once the run is stuck."""
    await until_stuck(source, root)
    limit.reschedule(asyncio.get_running_loop().time())


@pytest.mark.asyncio_only
@pytest.mark.uvloop
async def test_a_time_limit_of_asyncio(tmp_path: Path) -> None:
    source, settings = Stuck(catalogue(100)), Settings(root=str(tmp_path))

    async def run() -> None:
        async with asyncio.timeout(None) as limit, anyio.create_task_group() as tasks:
            tasks.start_soon(expire, limit, source, tmp_path)
            await ingest(settings, source=source)

    with pytest.raises(TimeoutError):
        await run()
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0
    await goes_on(settings, source)


@pytest.mark.asyncio_only
@pytest.mark.uvloop
async def test_a_time_limit_of_asyncio_around_a_stream() -> None:
    source = Stuck(catalogue(100))
    found: list[str] = []
    tasks = asyncio.all_tasks()

    async def use() -> None:
        async with asyncio.timeout(None) as limit, open_neos(Settings(), source=source) as neos:
            async for known in neos:
                found.append(known.id)
                if len(found) == 60:  # the next one does not come
                    limit.reschedule(asyncio.get_running_loop().time())

    with pytest.raises(TimeoutError):
        await use()
    assert len(found) == 60
    assert asyncio.all_tasks() == tasks


@pytest.mark.asyncio_only
@pytest.mark.uvloop
async def test_a_task_within_that_is_cancelled_by_a_stranger_ends_the_run_and_not_its_pages(tmp_path: Path) -> None:
    others = asyncio.all_tasks()
    for number in range(13):
        source, settings = Stuck(catalogue(100)), Settings(root=str(tmp_path / str(number)))
        task = asyncio.create_task(ingest(settings, source=source))
        await until_stuck(source, tmp_path / str(number))
        within = sorted(asyncio.all_tasks() - others - {task}, key=lambda one: one.get_name())
        assert len(within) == 13, "the keeper of the lock, eight fetchers, three that feed sinks, one the aggregators"
        within[number].cancel()
        with pytest.raises(PartError, match="something cancelled a task within the run"):
            await task
        assert asyncio.all_tasks() == others
        await goes_on(settings, source)


INTERRUPTED = """
import os, sys, anyio
from neows_async import Settings, ingest
from neows_async.testing import ListSink, ListSource
from tests.conftest import ROOT
from tests.neos import catalogue

class Interrupted(ListSink):
    async def write(self, page):
        raise KeyboardInterrupt(page.number)

async def run():
    await ingest(Settings(root=sys.argv[1]), source=ListSource(catalogue(100)), sinks=[Interrupted()])

try:
    anyio.run(run, backend=sys.argv[2])
except KeyboardInterrupt:
    os._exit(3)  # an asyncio loop that ends so leaves the threads of anyio waiting
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_interrupt_comes_out_alone(tmp_path: Path, backend: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path), backend]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    assert ended.returncode == 3, ended.stderr

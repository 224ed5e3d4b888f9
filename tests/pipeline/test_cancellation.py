"""The ways a program around us ends what it began: what comes out is its own, and the next call goes on."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import anyio
import pytest

from neows_async import PartError, Settings, ingest, open_neos
from neows_async.testing import ListSink, ListSource
from tests.neos import catalogue

if TYPE_CHECKING:
    from pathlib import Path

    from neows_async import Page, RawPage


class Stuck(ListSource):
    """Never answers for page 3, until it is told to."""

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
        await anyio.wait_all_tasks_blocked()


@pytest.mark.asyncio_only
@pytest.mark.uvloop
async def test_a_task_that_is_cancelled(tmp_path: Path) -> None:
    source, settings = Stuck(catalogue(100)), Settings(root=str(tmp_path))
    task = asyncio.create_task(ingest(settings, source=source))
    await until_stuck(source, tmp_path)
    began_s = time.perf_counter()
    task.cancel("by the service")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.perf_counter() - began_s < 1
    await goes_on(settings, source)


@pytest.mark.asyncio_only
@pytest.mark.uvloop
async def test_a_time_limit_of_asyncio(tmp_path: Path) -> None:
    source, settings = Stuck(catalogue(100)), Settings(root=str(tmp_path))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await ingest(settings, source=source)
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
        async with asyncio.timeout(0.3), open_neos(Settings(), source=source) as neos:
            async for known in neos:
                found.append(known.id)  # noqa: PERF401 - a comprehension would lose them

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


def test_an_interrupt_comes_out_alone(tmp_path: Path) -> None:
    class Interrupted(ListSink):
        async def write(self, page: Page) -> None:
            raise KeyboardInterrupt(page.number)

    async def run() -> None:
        await ingest(Settings(root=str(tmp_path)), source=ListSource(catalogue(100)), sinks=[Interrupted()])

    for backend in ("asyncio", "trio"):
        with pytest.raises(KeyboardInterrupt):
            anyio.run(run, backend=backend)

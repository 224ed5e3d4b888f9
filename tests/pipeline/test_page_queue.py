from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint

from neows_async.pipeline.admission import Admission
from neows_async.pipeline.page_queue import PageQueue
from tests.decoded_pages import pages
from tests.neos import catalogue

if TYPE_CHECKING:
    from neows_async.pages.values import Page

TEN = pages(catalogue(200))


def empty_pages(count: int) -> list[Page]:
    door = Admission(limit=None, max_rejects=None)
    door.admit(TEN[0])
    return [door.admit(TEN[0]) for _ in range(count)]


async def put_all(queue: PageQueue, all_pages: list[Page]) -> None:
    for page in all_pages:
        await queue.put(page)
    queue.close()


async def test_first_in_first_out_and_none_at_the_end() -> None:
    queue = PageQueue(60)
    came = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put_all, queue, TEN)
        while (page := await queue.get()) is not None:
            came.append(page.number)
    assert came == list(range(10))
    assert await queue.get() is None
    assert await queue.get() is None


async def test_it_holds_no_more_neos_than_it_may() -> None:
    queue = PageQueue(50)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put_all, queue, TEN)
        await anyio.wait_all_tasks_blocked()
        assert queue.waiting_neos == 40
        for number in range(10):
            page = await queue.get()
            assert page is not None
            assert page.number == number
            await anyio.wait_all_tasks_blocked()
            assert queue.waiting_neos == 20 * min(2, 9 - number)


async def test_a_page_larger_than_the_queue_passes_alone() -> None:
    queue = PageQueue(1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put_all, queue, TEN[:3])
        for _ in range(3):
            await anyio.wait_all_tasks_blocked()
            assert queue.waiting_neos == 20
            assert await queue.get() is not None
        assert await queue.get() is None


async def test_pages_without_neos_do_not_pile_up_either() -> None:
    queue = PageQueue(5)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put_all, queue, empty_pages(50))
        await anyio.wait_all_tasks_blocked()
        assert queue.waiting_neos == len(queue._pages) == 5
        came = 0
        while await queue.get() is not None:
            came += 1
    assert came == 50
    assert queue.waiting_neos == 0


async def test_who_waits_can_be_cancelled_and_nothing_is_lost() -> None:
    queue = PageQueue(20)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(queue.get)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    await queue.put(TEN[0])
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(queue.put, TEN[1])
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    page = await queue.get()
    assert page is TEN[0]
    queue.close()
    assert await queue.get() is None
    assert queue.waiting_neos == 0


@pytest.mark.parametrize("max_neos", [1, 20, 21, 1_000])
async def test_a_slow_consumer_slows_what_feeds_it(max_neos: int) -> None:
    queue = PageQueue(max_neos)
    most = 0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put_all, queue, TEN)
        came = 0
        while True:
            for _ in range(5):
                await checkpoint()
            most = max(most, queue.waiting_neos)
            if await queue.get() is None:
                break
            came += 1
    assert came == 10
    assert most <= max(20, max_neos)


async def test_pages_that_come_soon_after_one_another_are_given_together() -> None:
    queue = PageQueue(200)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(put_all, queue, TEN[:3])
            came = await queue.get_all(gather_s=600)  # not so long: there are no more
        assert [page.number for page in came] == [0, 1, 2]
        assert queue.waiting_neos == 0
        assert await queue.get_all(gather_s=600) == []


async def test_gathering_ends_when_half_the_room_is_taken() -> None:
    queue = PageQueue(100)
    with anyio.fail_after(60):
        for page in TEN[:4]:  # one of them is taken out first
            await queue.put(page)
        assert [page.number for page in await queue.get_all(gather_s=600)] == [0, 1, 2, 3]


async def test_one_page_alone_is_given_when_its_time_is_over() -> None:
    queue = PageQueue(100)
    await queue.put(TEN[0])
    with anyio.fail_after(60):
        assert [page.number for page in await queue.get_all(gather_s=0.01)] == [0]

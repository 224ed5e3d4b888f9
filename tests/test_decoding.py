from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from neows_async.decode import check_and_decode, decode
from neows_async.decoding import AT_ONCE, Decoding
from neows_async.errors import BadPageError
from neows_async.page import RawPage
from neows_async.testing import browse_page
from tests.neos import approach, catalogue, neo

if TYPE_CHECKING:
    from collections.abc import Iterator

REGULAR = RawPage(0, browse_page(catalogue(40), 0, 20))
TROUBLE = RawPage(0, browse_page([neo(1, [approach(km="?")])], 0, 20))
SPACED = RawPage(0, REGULAR.body.replace(b",", b", "))


class Alone:
    """Counts how often somebody wanted to be alone."""

    def __init__(self) -> None:
        self.times = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self.times += 1
        yield


@pytest.mark.parametrize(("raw", "times"), [(REGULAR, 0), (SPACED, 1), (TROUBLE, 1)])
def test_only_what_holds_the_gil_for_long_is_done_alone(raw: RawPage, times: int) -> None:
    alone = Alone()
    page = check_and_decode(raw, 20, alone=alone())
    assert alone.times == times
    assert page.neos.equals(decode(raw).neos)
    assert page.close_approaches.equals(decode(raw).close_approaches)


async def test_a_page_is_read_for_the_body_that_was_asked_for() -> None:
    decoding = Decoding(orbiting_body="Venus")
    page = await decoding.run(lambda read: read(REGULAR, 20))
    assert page.neos.equals(decode(REGULAR, orbiting_body="Venus").neos)
    with pytest.raises(BadPageError, match="planned with 3"):
        await decoding.run(lambda read: read(REGULAR, 3))


async def test_so_many_at_once_and_no_more() -> None:
    decoding = Decoding(orbiting_body=None)
    all_there, go_on = threading.Barrier(AT_ONCE + 1), threading.Event()
    at_once: list[int] = []
    running = 0

    def job(_: object) -> None:
        nonlocal running
        running += 1
        at_once.append(running)
        if len(at_once) <= AT_ONCE:
            all_there.wait(10)
        go_on.wait(10)
        running -= 1

    async with anyio.create_task_group() as tasks:
        for _ in range(4 * AT_ONCE):
            tasks.start_soon(decoding.run, job)
        await anyio.to_thread.run_sync(all_there.wait, 10)
        go_on.set()
    assert len(at_once) == 4 * AT_ONCE
    assert max(at_once) == AT_ONCE


async def test_cancelled_it_waits_for_no_thread() -> None:
    decoding = Decoding(orbiting_body=None)
    begun, go_on = threading.Event(), threading.Event()

    def job(_: object) -> None:
        begun.set()
        go_on.wait(10)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(decoding.run, job)
        await anyio.to_thread.run_sync(begun.wait, 10)
        tasks.cancel_scope.cancel()
    assert not go_on.is_set()
    go_on.set()

"""Where pages wait for the reader, and for how many of them there is room."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import pytest

from neows_async.endpoints.browse import envelope
from neows_async.endpoints.browse.page_plan import plan_pages
from neows_async.errors import AttemptError, NotFoundError, StorageError, UnavailableError
from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.raw_zone import RawZone
from neows_async.lake.storage.local import LocalStorage
from neows_async.pages.values import StoredPage
from neows_async.pipeline.buffer import BufferLimits, PageBuffer
from neows_async.telemetry import events
from neows_async.testing import browse_page
from tests.decoded_pages import pages, stored_page
from tests.neos import catalogue

if TYPE_CHECKING:
    from pathlib import Path

OBJECTS = catalogue(400)
PAGES = pages(OBJECTS)


def buffer_of(
    window_pages: int,
    zone: RawZone | None = None,
    *,
    stored: frozenset[int] = frozenset(),
    keeps_json: bool = False,
    max_missing_pages: int | None = 0,
    listener: events.Listener = events.ignore,
) -> PageBuffer:
    return PageBuffer(
        plan_pages(envelope.split(browse_page(OBJECTS, 0, 20))[0], None),
        zone,
        stored=stored,
        limits=BufferLimits(window_pages, max_missing_pages),
        keeps_json=keeps_json,
        listener=listener,
    )


def zone_of(root: Path) -> RawZone:
    return RawZone(AsyncStorage(LocalStorage(root)), "a", max_body_bytes=1 << 20)


@pytest.mark.parametrize("keeps_json", [False, True])
@pytest.mark.parametrize("archive", [False, True])
async def test_a_decoded_page_waits_without_its_json_unless_a_part_needs_it(
    tmp_path: Path, keeps_json: bool, archive: bool
) -> None:
    buffer = buffer_of(4, zone_of(tmp_path) if archive else None, keeps_json=keeps_json)
    assert buffer.next_page() == 0
    await buffer.put(PAGES[0])
    taken = await buffer.take(0)
    assert taken == replace(PAGES[0], source=PAGES[0].source if keeps_json else None)


async def test_without_a_zone_no_page_is_fetched_further_ahead_than_the_window() -> None:
    buffer = buffer_of(8)
    assert [buffer.next_page() for _ in range(9)] == [*range(8), None]
    for number in range(8):
        await buffer.put(PAGES[number])
    for number in range(6):
        assert await buffer.take(number) is not None
    assert buffer.is_near(12)
    assert not buffer.is_near(13)
    assert [buffer.next_page() for _ in range(6)] == [8, 9, 10, 11, 12, None]


async def test_with_a_zone_pages_beyond_the_window_are_stored_and_read_back(tmp_path: Path) -> None:
    zone = zone_of(tmp_path)
    buffer = buffer_of(2, zone)
    for number in range(6):
        assert buffer.next_page() == number
    far = PAGES[5].source
    assert far is not None
    await buffer.put(far)
    for number in range(5):
        await buffer.put(PAGES[number])
    assert await zone.page_numbers() == {*range(6)}
    taken = [await buffer.take(number) for number in range(6)]
    # Those of the window are still in memory, decoded.
    assert taken[:2] == [replace(page, source=None) for page in PAGES[:2]]
    assert taken[2:] == [page.source for page in PAGES[2:6]]


async def test_a_damaged_page_is_set_aside_and_fetched_next(tmp_path: Path) -> None:
    seen: list[events.Event] = []
    zone = zone_of(tmp_path)
    await zone.put(stored_page(browse_page(OBJECTS, 0, 20)))
    (tmp_path / zone.key(0)).write_bytes(b"rubbish")
    buffer = buffer_of(2, zone, stored=frozenset({0}), listener=seen.append)
    taken: list[object] = []

    async def read() -> None:
        taken.append(await buffer.take(0))

    assert buffer.next_page() == 1
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        while (number := buffer.next_page()) != 0:
            assert number is None or number > 1
            await buffer.wait()
        await buffer.put(PAGES[0])
    assert [event.number for event in seen if isinstance(event, events.PageDamaged)] == [0]
    # Of a storage that lost the page once, it is read back.
    assert isinstance(taken[0], StoredPage)
    assert taken == [PAGES[0].source]


async def test_a_storage_that_loses_a_page_each_time_ends_the_run(tmp_path: Path) -> None:
    class Losing(LocalStorage):
        def put(self, key: str, data: bytes) -> None:
            super().put(key, data[:-1])

    zone = RawZone(AsyncStorage(Losing(tmp_path)), "a", max_body_bytes=1 << 20)
    buffer = buffer_of(2, zone, stored=frozenset({0}))
    await zone.put(stored_page(browse_page(OBJECTS, 0, 20)))

    async def fetch() -> None:
        while True:
            if (number := buffer.next_page()) is None:
                await buffer.wait()
            elif number == 0:
                await buffer.put(PAGES[0])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fetch)
        with pytest.raises(StorageError, match="raw page 0 was written 3 times and cannot be read"):
            await buffer.take(0)
        tasks.cancel_scope.cancel()


async def test_a_page_that_fails_twice_is_given_up_if_it_may_be_missing() -> None:
    seen: list[events.Event] = []
    buffer = buffer_of(4, max_missing_pages=1, listener=seen.append)
    gone = UnavailableError("page 0 could not be fetched; run again")
    gone.__cause__ = AttemptError("gone for good")
    assert buffer.next_page() == 0
    buffer.failed(0, gone)
    assert [buffer.next_page() for _ in range(5)] == [1, 2, 3, 0, None]
    buffer.failed(0, gone)
    assert await buffer.take(0) is None
    assert (buffer.missing, buffer.left) == ((0,), 19)
    assert seen == [events.PageDeferred(0, "gone for good"), events.PageMissing(0, "gone for good")]
    # A page that an archive does not have is not tried again; and no more than one may be missing.
    never = UnavailableError("the archive has no page 1")
    never.__cause__ = NotFoundError("no such file")
    with pytest.raises(UnavailableError, match="no page 1"):
        buffer.failed(1, never)


async def test_the_reader_gets_the_pages_that_are_here_before_the_error() -> None:
    buffer = buffer_of(4)
    for number in (0, 1, 3):
        await buffer.put(PAGES[number])
    buffer.fail(UnavailableError("no more"))
    for number in (0, 1):
        assert await buffer.take(number) == replace(PAGES[number], source=None)
    with pytest.raises(UnavailableError, match="no more"):
        await buffer.take(2)

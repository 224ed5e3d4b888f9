from __future__ import annotations

import gzip
import threading
from typing import TYPE_CHECKING

import anyio
import pytest
import zstandard
from anyio import to_thread
from hypothesis import given
from hypothesis import strategies as st

from neows_async.errors import BadPageError, NotFoundError, StorageError
from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.raw_zone import RawZone
from neows_async.lake.storage.local import LocalStorage
from neows_async.pages.stored import compress, expand, json_of, seal
from neows_async.pages.values import StoredPage
from neows_async.testing import browse_page
from tests import virtual_time
from tests.decoded_pages import stored_page
from tests.neos import catalogue

if TYPE_CHECKING:
    from pathlib import Path

BODY = browse_page([{"id": "1", "name": "\u00e9"}, {"id": "2"}], 0, 2)
PAGE = browse_page(catalogue(20), 0, 20)
MAX_BYTES = 1 << 20


def expanded(data: bytes) -> bytes | None:
    """None where the damage shows."""
    try:
        return expand(data, MAX_BYTES)
    except BadPageError as exc:
        said = str(exc)
    assert said
    assert "\n" not in said
    return None


@given(st.binary(min_size=1, max_size=2_000))
def test_there_and_back(body: bytes) -> None:
    assert expand(compress(body), len(body)) == body
    assert compress(body) == compress(bytes(bytearray(body)))


def test_any_change_of_any_byte_shows() -> None:
    data = compress(BODY)
    for at in range(len(data)):
        for flipped in range(1, 256):
            damaged = bytearray(data)
            damaged[at] ^= flipped
            assert expanded(bytes(damaged)) in {None, BODY}


def test_any_lost_or_added_byte_shows() -> None:
    data = compress(PAGE)
    for at in range(len(data)):
        assert expanded(data[:at]) is None
        assert expanded(data[:at] + data[at + 1 :]) in {None, PAGE}
    for added in (b"\0", b"x", data, zstandard.ZstdCompressor().compress(b"x")):
        assert expanded(data + added) is None


@given(st.data())
def test_any_damage_to_a_recorded_page_shows(recorded_pages: Path, data: st.DataObject) -> None:
    body = gzip.decompress((recorded_pages / "page_00000.json.gz").read_bytes())
    damaged = bytearray(compress(body))
    for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=3, unique=True)):
        damaged[at] ^= data.draw(st.integers(1, 255))
    assert expanded(bytes(damaged)) in {None, body}


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: b"\x28\xb5\x2f\xfd" + tail))
def test_what_is_no_raw_page(data: bytes) -> None:
    found = expanded(data)
    assert found is None or len(found) <= MAX_BYTES


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "damaged"),
        (BODY, "damaged"),
        (gzip.compress(BODY), "damaged"),
        (compress(b""), "damaged: its size is 0"),
        (b"\x50\x2a\x4d\x18\x04\0\0\0abcd", "damaged"),
        (zstandard.ZstdCompressor(write_content_size=False).compress(BODY), "damaged"),
        # Bombs: half a kilobyte that says, or does not say, what it becomes.
        (zstandard.ZstdCompressor().compress(bytes(1 << 24)), "larger than 1048576 bytes when decompressed"),
        (zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 24)), "damaged"),
    ],
)
def test_why(data: bytes, said: str) -> None:
    with pytest.raises(BadPageError, match=said):
        expand(data, MAX_BYTES)


def test_a_frame_that_says_less_than_it_holds_is_refused() -> None:
    data = bytearray(zstandard.ZstdCompressor().compress(bytes(1 << 20)))
    assert zstandard.frame_content_size(bytes(data)) == 1 << 20
    size_at = bytes(data).index((1 << 20).to_bytes(4, "little"))
    data[size_at : size_at + 4] = (10).to_bytes(4, "little")
    assert zstandard.frame_content_size(bytes(data)) == 10
    with pytest.raises(BadPageError, match="damaged"):
        expand(bytes(data), MAX_BYTES)


def zone(root: Path, *, max_body_bytes: int = MAX_BYTES) -> RawZone:
    return RawZone(AsyncStorage(LocalStorage(root)), "one", max_body_bytes=max_body_bytes)


def page_file(root: Path, number: int = 0) -> Path:
    return root / f"raw/snapshot=one/gen=0/page={number:05}.json.zst"


async def test_a_page_that_was_put_is_counted_and_comes_back(tmp_path: Path) -> None:
    raw = zone(tmp_path)
    assert await raw.page_numbers() == set()
    with pytest.raises(NotFoundError):
        await raw.get(0)
    last = stored_page(browse_page([], 123_456, 20), 123_456)
    await raw.put(stored_page(PAGE, 0))
    await raw.put(last)
    assert await raw.page_numbers() == {0, 123_456}
    assert await raw.get(0) == stored_page(PAGE)
    assert await raw.get(123_456) == last


async def test_a_damaged_page_is_reported_and_set_aside(tmp_path: Path) -> None:
    raw = zone(tmp_path)
    await raw.put(stored_page(PAGE, 0))
    for data in (b"", page_file(tmp_path).read_bytes()[:-1], compress(PAGE.replace(b'"number":0', b'"number":1'))):
        page_file(tmp_path).write_bytes(data)
        with pytest.raises(BadPageError):
            await raw.get(0)
    assert await raw.page_numbers() == {0}
    await raw.set_aside(0)
    await raw.set_aside(0)
    assert await raw.page_numbers() == set()
    assert [file.read_bytes() for file in (tmp_path / "_staging").rglob("*.zst")] == [data]


async def test_a_page_beyond_the_bound_is_not_read(tmp_path: Path) -> None:
    await zone(tmp_path).put(stored_page(PAGE, 0))
    with pytest.raises(BadPageError, match="larger than"):
        await zone(tmp_path, max_body_bytes=len(PAGE) - 1).get(0)
    with pytest.raises(StorageError):
        await zone(tmp_path, max_body_bytes=10).get(0)


async def test_of_bodies_that_were_no_pages_the_last_five_are_kept(tmp_path: Path) -> None:
    raw = zone(tmp_path)
    await raw.put_bad(0, b"")
    for number in range(8):
        await raw.put_bad(number % 3, b"body %d" % number)
    kept = sorted((tmp_path / "_staging").rglob("*.body"))
    assert [file.read_bytes() for file in kept] == [b"body %d" % number for number in range(3, 8)]
    assert await raw.page_numbers() == set()


async def test_other_files_are_not_counted_as_pages(tmp_path: Path) -> None:
    raw = zone(tmp_path)
    await raw.put(stored_page(PAGE.replace(b'"number":0', b'"number":7'), 7))
    for name in (
        "page=00001.json",
        "page=x.json.zst",
        "xpage=00001.json.zst",
        "page=00001.json.zst.tmp",
        "page=-0001.json.zst",
    ):
        (page_file(tmp_path).parent / name).write_bytes(b"")
    assert await raw.page_numbers() == {7}


class Waiting(LocalStorage):
    """Its `put` waits for a signal."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.began, self.go_on = threading.Event(), threading.Event()

    def put(self, key: str, data: bytes) -> None:
        self.began.set()
        assert self.go_on.wait(60)
        super().put(key, data)


@pytest.mark.held_time
async def test_a_page_whose_put_is_under_way_is_kept_also_if_that_is_cancelled(tmp_path: Path) -> None:
    storage = Waiting(tmp_path)
    zone = RawZone(AsyncStorage(storage), "a", max_body_bytes=MAX_BYTES)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(zone.put, stored_page(PAGE, 3))
        await to_thread.run_sync(storage.began.wait)
        tasks.cancel_scope.cancel()
        storage.go_on.set()
    assert await zone.page_numbers() == {3}


@pytest.mark.held_time
async def test_a_storage_that_hangs_does_not_hold_up_who_is_cancelled(tmp_path: Path) -> None:
    storage = Waiting(tmp_path)
    zone = RawZone(AsyncStorage(storage), "a", max_body_bytes=MAX_BYTES)
    waited_s = await virtual_time.wait_after_cancel_s(
        lambda: zone.put(stored_page(PAGE, 3)), lambda: to_thread.run_sync(storage.began.wait)
    )
    assert waited_s < 1.0
    assert await zone.page_numbers() == set()
    storage.go_on.set()


async def test_a_page_is_written_as_it_is(tmp_path: Path) -> None:
    ours = stored_page(PAGE)
    other = zstandard.ZstdCompressor(level=9, write_checksum=True).compress(PAGE)
    theirs = StoredPage(0, seal(other, ours.sha256), len(PAGE), ours.sha256)
    for page in (ours, theirs):
        await zone(tmp_path).put(page)
        assert page_file(tmp_path).read_bytes() == page.data
        found = await zone(tmp_path).get(0)
        assert isinstance(found, StoredPage)
        assert json_of(found) == PAGE

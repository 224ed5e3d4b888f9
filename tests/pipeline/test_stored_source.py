"""Pages of an archive are read several at once: the same bytes, each read once, and a bad page affects no other."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import zstandard

from neows_async.errors import DataError, PausedError
from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.raw_zone import RawZone
from neows_async.lake.storage.local import LocalStorage
from neows_async.maintenance.verify import verify
from neows_async.outputs.aggregate_files import JsonAggregates
from neows_async.pages.stored import compress, json_of
from neows_async.pages.values import PageInfo, RawPage, StoredPage
from neows_async.pipeline import run
from neows_async.pipeline.fetch_loop import PacedSource
from neows_async.pipeline.stream import open_pages
from neows_async.settings import Settings
from neows_async.sources.archive import ArchiveSource
from neows_async.testing import ListSink
from neows_async.testing.faulty_storage import CountingStorage
from tests import lakes
from tests.neos import catalogue, neo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from neows_async.lake.receipt import Receipt
    from neows_async.pages.values import Page

OBJECTS = [*catalogue(225), neo(225, absolute_magnitude_h="bright"), *catalogue(7), *catalogue(600)[240:]]
PAGES = 30


def page_file(root: Path, number: int) -> Path:
    return root / f"raw/snapshot=a/gen=0/page={number:05}.json.zst"


def unsealed(root: Path, numbers: range) -> None:
    """Store pages without a seal, as another program would."""
    for number in numbers:
        file = page_file(root, number)
        file.write_bytes(compress(zstandard.decompress(file.read_bytes())))


def made(receipt: Receipt) -> object:
    """Everything that is made from the raw pages."""
    files = {file.path.replace(f"snapshot={receipt.snapshot}", ""): file.sha256 for file in receipt.files}
    raw = (receipt.raw.pages, receipt.raw.bytes, receipt.raw.sha256)
    return files, raw, receipt.records, receipt.nulls, receipt.aggregates, receipt.complete, receipt.rejected_because


class Reads:
    """Which raw pages were read, and how often."""

    def __init__(self) -> None:
        self.keys: Counter[str] = Counter()

    def __call__(self, _: int, verb: str, key: str) -> None:
        if verb == "get" and key.startswith("raw/"):
            self.keys[key] += 1


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("bare", [range(0), range(PAGES), range(5, 20)], ids=["sealed", "unsealed", "some sealed"])
async def test_a_rebuild_is_the_same_with_seals_and_without_at_any_concurrency(
    tmp_path: Path, bare: range, workers: int
) -> None:
    expected = await lakes.make(LocalStorage(tmp_path), OBJECTS, "a")
    unsealed(tmp_path, bare)
    reads = Reads()
    storage = CountingStorage(LocalStorage(tmp_path), reads)
    for concurrency in (1, 8):
        snapshot = f"b{concurrency}"
        receipt = await lakes.rebuild(storage, "a", snapshot, concurrency=concurrency, workers=workers)
        assert made(receipt) == made(expected)
        assert (receipt.requests.sent, receipt.requests.failed) == (PAGES, 0)
        assert (receipt.pages.planned, receipt.pages.fetched) == (PAGES, PAGES)
        assert (await verify(AsyncStorage(storage), snapshot)).differences == ()
    assert len(reads.keys) == PAGES
    # Twice to rebuild, twice to verify.
    assert set(reads.keys.values()) == {4}


async def test_missing_pages_of_an_archive_are_recorded_and_the_others_are_read(tmp_path: Path) -> None:
    await lakes.make(LocalStorage(tmp_path), OBJECTS, "a")
    for number in (9, 10, 29):
        page_file(tmp_path, number).unlink()
    receipt = await lakes.rebuild(LocalStorage(tmp_path), "a", "b", max_missing_pages=None)
    assert receipt.pages.missing == (9, 10, 29)
    assert receipt.records.seen == len(OBJECTS) - 2 * 20 - len(OBJECTS) % 20
    assert receipt.complete is False


def cut(data: bytes) -> bytes:
    return data[:-1]


def flipped(data: bytes) -> bytes:
    return data[:1000] + bytes([data[1000] ^ 1]) + data[1001:]


def another(_: bytes) -> bytes:
    return compress(b'{"page": {}}')


@pytest.mark.parametrize("damage", [cut, flipped, another])
@pytest.mark.parametrize("workers", [0, 1])
async def test_a_damaged_page_of_an_archive_is_named(
    tmp_path: Path, damage: Callable[[bytes], bytes], workers: int
) -> None:
    await lakes.make(LocalStorage(tmp_path), OBJECTS, "a")
    file = page_file(tmp_path, 14)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=r"raw page 14 of snapshot a is damaged \("):
        await lakes.rebuild(LocalStorage(tmp_path), "a", "b", workers=workers)


async def test_a_budget_of_requests_applies_to_an_archive(tmp_path: Path) -> None:
    await lakes.make(LocalStorage(tmp_path), OBJECTS, "a")
    with pytest.raises(PausedError, match="the budget of 7 requests is spent"):
        await lakes.rebuild(LocalStorage(tmp_path), "a", "b", budget_requests=7)


class Waiting(ListSink):
    """Takes a page when as many were read as may be, and checks that there were never more.

    :param ahead: pages in the window, which begins with the page that is read, and in the queue
    """

    def __init__(self, reads: Reads, ahead: int) -> None:
        super().__init__()
        self._reads = reads
        self._ahead = ahead

    async def write(self, page: Page) -> None:
        await super().write(page)
        may = min(len(self.pages) + self._ahead, PAGES)
        with anyio.fail_after(60):
            while len(self._reads.keys) < may:
                await anyio.wait_all_tasks_blocked()
        assert len(self._reads.keys) <= may


class WaitingForJson(Waiting):
    needs_json = True


@pytest.mark.parametrize("kind", [Waiting, WaitingForJson])
@pytest.mark.parametrize("bare", [range(0), range(PAGES), range(1, PAGES)], ids=["sealed", "unsealed", "but the first"])
async def test_four_windows_of_pages_of_an_archive_wait_in_memory_and_no_more(
    tmp_path: Path, bare: range, kind: type[Waiting]
) -> None:
    window = 3
    await lakes.make(LocalStorage(tmp_path), OBJECTS, "a")
    unsealed(tmp_path, bare)
    reads = Reads()
    storage = CountingStorage(LocalStorage(tmp_path), reads)
    sink = kind(reads, 4 * window + 1)
    parts = run.Parts(
        storage=storage,
        source=ArchiveSource(RawZone(AsyncStorage(storage), "a", max_body_bytes=1 << 24), snapshot="a", synthetic=True),
        source_name="test",
        sinks=[sink],
        aggregators=[],
        aggregate_writer=JsonAggregates(),
        parent="a",
        raw_snapshot="a",
    )
    settings = Settings(limit=None, snapshot="b", window_pages=window, queue_neos=20, concurrency=1)
    await run.ingest(settings, parts)
    assert sink.pages == [*range(PAGES)]


class Confused(ArchiveSource):
    """Returns other pages than requested, in batches."""

    async def fetch_several(self, numbers: object, size: int) -> list[RawPage | StoredPage]:  # noqa: ARG002 - as it is called
        return [await self.fetch(0, size), await self.fetch(1, size)]


class Broken(ArchiveSource):
    """Returns no batches."""

    async def fetch_several(self, numbers: object, size: int) -> list[RawPage]:
        raise TypeError(f"{numbers} of {size}")


class Others(ArchiveSource):
    """Returns values with a number that are no pages."""

    async def fetch_several(self, numbers: Sequence[int], size: int) -> list[Any]:
        return [PageInfo(size, 0, number) for number in numbers]


@pytest.mark.parametrize("kind", [Confused, Broken, Others])
async def test_an_archive_that_returns_no_batches_is_read_page_by_page(
    tmp_path: Path, kind: type[ArchiveSource]
) -> None:
    storage = LocalStorage(tmp_path)
    expected = await lakes.make(storage, OBJECTS, "a")
    zone = RawZone(AsyncStorage(storage), "a", max_body_bytes=1 << 24)
    source = kind(zone, snapshot="a", synthetic=True)
    receipt = await lakes.write(storage, source, Settings(snapshot="b", limit=None), parent="a")
    assert made(receipt) == made(expected)


class Silent(ArchiveSource):
    """Never returns a batch."""

    async def fetch_several(self, numbers: object, size: int) -> list[RawPage]:  # noqa: ARG002 - as it is called
        await anyio.sleep_forever()
        raise AssertionError


async def test_an_archive_whose_batches_time_out_is_read_page_by_page(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    expected = await lakes.make(storage, OBJECTS, "a")
    source = Silent(RawZone(AsyncStorage(storage), "a", max_body_bytes=1 << 24), snapshot="a", synthetic=True)
    settings = Settings(snapshot="b", limit=None, request_timeout_s=0.1, concurrency=8)
    receipt = await lakes.write(storage, source, settings, parent="a")
    assert made(receipt) == made(expected)


@pytest.mark.parametrize("concurrency", [1, 4, 8])
async def test_a_stream_gives_all_pages_before_a_damaged_one(tmp_path: Path, concurrency: int) -> None:
    storage = LocalStorage(tmp_path)
    await lakes.make(storage, OBJECTS, "a")
    page_file(tmp_path, 2).unlink()
    page_file(tmp_path, 14).write_bytes(b"rubbish")
    source = ArchiveSource(RawZone(AsyncStorage(storage), "a", max_body_bytes=1 << 24), snapshot="a", synthetic=True)
    settings = Settings(limit=None, concurrency=concurrency, max_missing_pages=None)
    read: list[int] = []
    async with open_pages(settings, PacedSource(source), lambda _: None) as stream:
        for _ in range(13):
            page = await stream.next_page()
            assert page is not None
            read.append(page.number)
        with pytest.raises(DataError, match="raw page 14 of snapshot a is damaged"):
            await stream.next_page()
    assert read == [number for number in range(14) if number != 2]


async def test_unsealed_pages_of_another_archive_are_redacted_and_stored(tmp_path: Path) -> None:
    """They have no seal, and keys that nobody redacted."""

    class Theirs(ArchiveSource):
        async def fetch_several(self, numbers: object, size: int) -> list[RawPage]:
            assert isinstance(numbers, tuple)
            asked.append([*numbers])
            return [self._with_key(await self.fetch(number, size)) for number in numbers]

        @staticmethod
        def _with_key(page: RawPage | StoredPage) -> RawPage:
            assert isinstance(page, StoredPage)
            return RawPage(page.number, json_of(page).replace(b'"links"', b'"?api_key=secret": 1, "links"', 1))

    asked: list[list[int]] = []
    storage = LocalStorage(tmp_path)
    await lakes.make(storage, OBJECTS, "a")
    source = Theirs(RawZone(AsyncStorage(storage), "a", max_body_bytes=1 << 24), snapshot="a", synthetic=True)
    await lakes.write(storage, source, Settings(limit=None, snapshot="b"))
    zone = RawZone(AsyncStorage(storage), "b", max_body_bytes=1 << 24)
    pages = [await zone.get(number) for number in range(PAGES)]
    bodies = [json_of(page) for page in pages if isinstance(page, StoredPage)]
    assert len(bodies) == PAGES
    assert sorted(number for numbers in asked for number in numbers) == [*range(1, PAGES)]
    assert all(b"?api_key=REDACTED" in body and b"secret" not in body for body in bodies[1:])

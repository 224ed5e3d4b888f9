"""Worker processes decode as the main process does, and their loss costs no page."""

from __future__ import annotations

import gzip
import mmap
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio import to_thread

from neows_async.endpoints.browse.receive import ReceiveOptions, Receiver
from neows_async.errors import BadPageError
from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.raw_zone import RawZone
from neows_async.lake.storage.local import LocalStorage
from neows_async.pages.content import GZIP
from neows_async.pages.stored import compress, json_of
from neows_async.pages.values import Page, RawPage, StoredPage
from neows_async.pipeline.decode_worker import (
    _LENGTH,
    _PAGE_OUT,
    _REQUEST,
    _REQUESTS_AT_ONCE,
    SLOT_BYTES,
    DeclinedError,
    DecodeWorker,
    _parts_of,
    fits,
)
from neows_async.pipeline.decoder import DecoderPool
from neows_async.pipeline.fetch_loop import PacedSource
from neows_async.pipeline.reader import PageReader
from neows_async.settings import Settings
from neows_async.testing import ListSource, browse_page
from tests import lakes
from tests.decoded_pages import stored_page
from tests.neos import approach, catalogue, neo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

KEY = "a-key-that-is-long-enough-to-be-found"
OPTIONS = ReceiveOptions(api_key=KEY, orbiting_body="Venus", max_body_bytes=64 << 20, keeps_json=True)
RECEIVER = Receiver(OPTIONS)
REGULAR = browse_page(catalogue(40), 0, 20)
IRREGULAR = browse_page(
    [neo(1, [approach(km="?")], name="\u00e9"), neo(2, [approach(), approach(orbiting_body="Venus")], new={"x": 1})],
    0,
    2,
)
BODIES = {
    "regular": REGULAR,
    "without objects": browse_page([], 0, 20),
    "rejected and unknown": IRREGULAR,
    "another page": browse_page(catalogue(40), 1, 20),
    "short": REGULAR.replace(b'"total_elements":40', b'"total_elements":41').replace(b'"size":20', b'"size":21'),
    "with a key": REGULAR.replace(b'"(0 TEST)"', b'"%s"' % KEY.encode()),
    "no JSON": REGULAR + b"}",
    "no JSON, with a key": REGULAR + KEY.encode(),
    "no UTF-8": REGULAR + b"\xff",
    "NaN": IRREGULAR.replace(b'"?"', b"NaN"),
    "empty": b"",
}
PAGES: dict[str, RawPage | StoredPage] = {
    **{f"{name}, plain": RawPage(0, body) for name, body in BODIES.items()},
    **{f"{name}, gzip": RawPage(0, gzip.compress(body), GZIP) for name, body in BODIES.items()},
    **{f"{name}, stored": stored_page(body) for name, body in BODIES.items() if body},
    "truncated gzip": RawPage(0, gzip.compress(REGULAR)[:-9], GZIP),
    "another encoding": RawPage(0, REGULAR, "br"),
    "damaged": StoredPage(0, b"rubbish", 7, bytes(32)),
}


@pytest.fixture
async def worker() -> AsyncIterator[DecodeWorker]:
    async with DecoderPool(OPTIONS, workers=1) as pool:
        yield await started(pool)


async def started(pool: DecoderPool) -> DecodeWorker:
    await pool._start()
    (worker,) = pool._workers
    while not worker.is_ready():
        assert worker._process.poll() is None, "the worker's process ended"
        await anyio.wait_readable(worker._socket)
    return worker


def pool_of(worker: DecodeWorker) -> DecoderPool:
    """A pool of this one worker, which somebody else ends."""
    pool = DecoderPool(OPTIONS, workers=0)
    pool._workers.append(worker)
    return pool


def here(page: RawPage | StoredPage, size: int | None) -> Page | BadPageError:
    """What the main process decodes."""
    try:
        return RECEIVER.receive(page, size)
    except BadPageError as exc:
        return exc


async def from_pool(pool: DecoderPool, page: RawPage | StoredPage, size: int | None) -> Page | BadPageError:
    try:
        return await pool.receive(page, size)
    except BadPageError as exc:
        return exc


def same(found: Page | BadPageError, expected: Page | BadPageError) -> bool:
    if isinstance(found, Page) or isinstance(expected, Page):
        return found == expected and repr(found) == repr(expected)
    return (str(found), found.body) == (str(expected), expected.body)


def numbered(numbers: Sequence[int]) -> list[StoredPage]:
    return [stored_page(browse_page(catalogue(200), number, 20), number) for number in numbers]


async def test_a_worker_decodes_as_the_main_process_does() -> None:
    async with DecoderPool(OPTIONS, workers=1) as pool:
        worker = await started(pool)
        for name, page in PAGES.items():
            for size in (None, 20, 3):
                expected = here(page, size)
                assert same(await from_pool(pool, page, size), expected), name
                if isinstance(expected, Page) and fits([page]):
                    assert await worker.decode([page], size) == [expected], name
        assert worker.alive


async def test_a_worker_leaves_a_bad_page_to_the_main_process_which_says_what_is_wrong(worker: DecodeWorker) -> None:
    bad = {name: exc for name, page in PAGES.items() if isinstance(exc := here(page, 20), BadPageError)}
    assert len(bad) > 20
    pool = pool_of(worker)
    for name, expected in bad.items():
        if fits([PAGES[name]]):
            with pytest.raises(DeclinedError):
                await worker.decode([PAGES[name]], 20)
        with pytest.raises(BadPageError, match=re.escape(str(expected))) as caught:
            await pool.receive(PAGES[name], 20)
        assert caught.value.body == expected.body
        assert KEY.encode() not in caught.value.body
    assert worker.alive


async def test_a_page_without_its_json_is_the_same_from_a_worker() -> None:
    options = ReceiveOptions(orbiting_body="Venus")
    async with DecoderPool(options, workers=1) as pool:
        worker = await started(pool)
        for body in (REGULAR, IRREGULAR):
            [found] = await worker.decode([RawPage(0, body)], None)
            assert found == Receiver(options).receive(RawPage(0, body), None)
            assert found.source is None


@pytest.mark.parametrize("workers", [0, 1])
async def test_checking_a_page_makes_the_same_stored_page_as_decoding_it(workers: int) -> None:
    async with DecoderPool(OPTIONS, workers=workers) as pool:
        if workers:
            await started(pool)
        for name, page in PAGES.items():
            expected = here(page, 20)
            if isinstance(expected, Page):
                assert await pool.check(page, 20) == expected.source, name
                continue
            with pytest.raises(BadPageError) as caught:
                await pool.check(page, 20)
            assert same(caught.value, expected), name


@pytest.mark.parametrize("workers", [0, 1])
async def test_several_stored_pages_are_decoded_as_each_by_itself(workers: int) -> None:
    good = numbered(range(7))
    bad = {
        name: page for name, page in PAGES.items() if name.endswith(", stored") and not isinstance(here(page, 20), Page)
    }
    assert len(bad) == 7
    async with DecoderPool(OPTIONS, workers=workers) as pool:
        if workers:
            await started(pool)
        for count in range(1, len(good) + 1):
            assert await pool.receive_batch(good[:count], 20) == [here(page, 20) for page in good[:count]]
        for name, page in bad.items():
            assert isinstance(page, StoredPage)
            for at in range(3):
                with pytest.raises(BadPageError) as caught:
                    await pool.receive_batch([*good[:at], page, *good[at:2]], 20)
                assert str(caught.value) == str(here(page, 20)), name
        assert [worker.alive for worker in pool._workers] == [True] * workers


async def test_a_stored_page_with_a_damaged_seal_costs_no_worker() -> None:
    good, other = numbered(range(2))
    data = good.data[:-1] + bytes([good.data[-1] ^ 1])  # in the seal's own checksum: the frame is whole
    odd = StoredPage(0, data, good.json_bytes, good.sha256)
    async with DecoderPool(OPTIONS, workers=1) as pool:
        worker = await started(pool)
        with pytest.raises(DeclinedError):
            await worker.decode([odd], 20)
        assert [page.sha256 for page in await pool.receive_batch([odd, other], 20)] == [
            RECEIVER.receive(page, 20).sha256 for page in (odd, other)
        ]
        assert worker.alive
        assert await worker.decode([good], 20) == [here(good, 20)]


async def test_pages_are_decoded_here_while_the_worker_is_busy(worker: DecodeWorker) -> None:
    pages = numbered(range(3))
    pool = pool_of(worker)
    worker._process.send_signal(signal.SIGSTOP)
    async with anyio.create_task_group() as tasks:
        for page in pages[:2]:
            tasks.start_soon(pool.receive_batch, [page], 20)
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(60):
            assert await pool.receive_batch([pages[2]], 20) == [here(pages[2], 20)]
        assert worker.requests == 2
        worker._process.send_signal(signal.SIGCONT)


async def test_pages_go_to_a_busy_worker_while_a_page_is_decoded_here(worker: DecodeWorker) -> None:
    pages = numbered(range(4))
    pool = pool_of(worker)
    read: list[int] = []

    async def read_one(page: StoredPage) -> None:
        [found] = await pool.receive_batch([page], 20)
        read.append(found.number)

    worker._process.send_signal(signal.SIGSTOP)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for page in pages[:2]:
                tasks.start_soon(read_one, page)
            await anyio.wait_all_tasks_blocked()
            async with pool._one_here:  # as if a page were decoded here
                tasks.start_soon(read_one, pages[2])
                await anyio.wait_all_tasks_blocked()
                assert (worker.requests, read) == (3, [])
            await read_one(pages[3])
            assert read == [3]
            worker._process.send_signal(signal.SIGCONT)
    assert sorted(read) == [0, 1, 2, 3]


async def test_requests_at_the_same_time_each_get_their_own_response(worker: DecodeWorker) -> None:
    pages = [page for page in PAGES.values() if fits([page])] * 2
    responses: dict[int, Page | None] = {}

    async def request(index: int) -> None:
        try:
            [responses[index]] = await worker.decode([pages[index]], 20)
        except DeclinedError:
            responses[index] = None

    async with anyio.create_task_group() as tasks:
        for index in range(len(pages)):
            tasks.start_soon(request, index)
    expected = [found if isinstance(found := here(page, 20), Page) else None for page in pages]
    assert [responses[index] for index in range(len(pages))] == expected
    assert worker.requests == 0
    assert len(worker._free) == _REQUESTS_AT_ONCE


async def test_all_requests_end_when_their_worker_is_killed(worker: DecodeWorker) -> None:
    ended: list[BaseException] = []

    async def request() -> None:
        try:
            await worker.decode([RawPage(0, REGULAR)], 20)
        except (OSError, EOFError) as exc:
            ended.append(exc)

    worker._process.send_signal(signal.SIGSTOP)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(request)
            await anyio.wait_all_tasks_blocked()
            worker._process.kill()
    assert len(ended) == 5
    assert not worker.alive


async def test_after_a_cancelled_request_no_other_gets_its_response(worker: DecodeWorker) -> None:
    worker._process.send_signal(signal.SIGSTOP)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.decode, [RawPage(0, REGULAR)], 20)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    worker._process.send_signal(signal.SIGCONT)
    with pytest.raises(EOFError):
        await worker.decode([RawPage(0, IRREGULAR)], 2)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux shows what another process loaded")
async def test_a_worker_loads_no_pandas(worker: DecodeWorker) -> None:
    await worker.decode([RawPage(0, REGULAR)], 20)
    mapped = await anyio.Path(f"/proc/{worker._process.pid}/maps").read_text()
    assert "/pyarrow/" in mapped
    assert "/pandas/" not in mapped


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="only Linux shows the arguments as a file")
async def test_neither_arguments_nor_environment_of_a_worker_hold_the_key(worker: DecodeWorker) -> None:
    for name in ("cmdline", "environ"):
        assert KEY.encode() not in await anyio.Path(f"/proc/{worker._process.pid}/{name}").read_bytes()
    assert KEY not in repr(worker._process.args)
    # It has the key nevertheless.
    [page] = await worker.decode([RawPage(0, BODIES["with a key"])], 20)
    assert page.batches["neos"]["name"][0].as_py() == "REDACTED"


async def test_a_worker_ends_with_its_socket_and_not_by_an_interrupt(worker: DecodeWorker) -> None:
    page = RawPage(0, REGULAR)
    worker._process.send_signal(signal.SIGINT)
    assert await worker.decode([page], 20) == [here(page, 20)]
    worker._socket.close()
    assert await to_thread.run_sync(worker._process.wait, 10) == 0


async def test_a_pool_that_loses_its_worker_goes_on_without_it() -> None:
    page = RawPage(0, REGULAR)
    async with DecoderPool(OPTIONS, workers=1) as pool:
        worker = await started(pool)
        for _ in range(2):
            assert await pool.receive(page, 20) == here(page, 20)
        assert await pool._worker() is worker
        worker._process.kill()
        for _ in range(2):
            assert await pool.receive(page, 20) == here(page, 20)
        assert await pool._worker() is None


async def test_a_page_that_does_not_fit_into_a_slot_is_decoded_here() -> None:
    large = RawPage(0, REGULAR + b" " * SLOT_BYTES)
    assert not fits([large])
    async with DecoderPool(OPTIONS, workers=1) as pool:
        worker = await started(pool)
        assert await pool.receive(large, None) == here(large, None)
        assert worker.alive


async def test_a_gzip_body_that_grows_beyond_a_slot_leaves_the_other_slots_alone() -> None:
    # Incompressible text in a field that is not read: the JSON fits into no slot, and its columns do.
    other, grows = RawPage(0, REGULAR), RawPage(0, gzip.compress(REGULAR + b" " * (2 * SLOT_BYTES)), GZIP)
    names = [neo(number, name="x" * (SLOT_BYTES // 10)) for number in range(20)]
    columns_grow = RawPage(0, gzip.compress(browse_page(names, 0, 20)), GZIP)
    assert fits([grows])
    assert fits([columns_grow])
    async with DecoderPool(OPTIONS, workers=1) as pool:
        worker = await started(pool)
        with pytest.raises(DeclinedError):
            await worker.decode([columns_grow], 20)
        for page in (grows, columns_grow):
            for _ in range(_REQUESTS_AT_ONCE):
                worker._free.append(worker._free.pop(0))
                found: list[Page] = []

                async def receive(of: RawPage, into: list[Page] = found) -> None:
                    into.append(await pool.receive(of, 20))

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(receive, other)
                    tasks.start_soon(receive, page)
                assert sorted(found, key=lambda one: one.json_bytes) == [here(other, 20), here(page, 20)]
        assert worker.alive


async def test_workers_are_started_when_pages_have_to_wait_and_end_with_the_block() -> None:
    page = RawPage(0, REGULAR)
    expected = here(page, 20)
    async with DecoderPool(OPTIONS, workers=2) as pool:

        async def read_many() -> None:
            for _ in range(30):
                assert await pool.receive(page, 20) == expected

        await read_many()
        assert pool._workers == []  # one after the other, no page has to wait
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(read_many)
        workers = pool._workers
        assert len(workers) == 2
    assert [worker._process.returncode for worker in workers] == [-signal.SIGKILL] * 2


async def test_workers_are_started_at_once_for_a_large_archive() -> None:
    async with DecoderPool(OPTIONS, workers=2) as pool:
        await pool.expect(149)
        assert pool._workers == []
        await pool.expect(150)
        assert len(pool._workers) == 2


def worker_that_responds(response: bytes, length: int | None) -> DecodeWorker:
    """A worker that gives the same response to every request.

    :param length: the length that it claims
    """
    worker = DecodeWorker(OPTIONS)
    worker._socket, theirs = socket.socketpair()
    worker._socket.settimeout(0)
    worker._slots = mmap.mmap(-1, _REQUESTS_AT_ONCE * SLOT_BYTES)
    worker._process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    worker.ready = True

    def respond() -> None:
        with theirs:
            request = theirs.recv(_REQUEST.size, socket.MSG_WAITALL)
            start = _REQUEST.unpack(request)[0] * SLOT_BYTES
            worker._slots[start : start + len(response)] = response
            theirs.sendall(_LENGTH.pack(len(response) if length is None else length))
            theirs.recv(1)  # until the socket ends

    threading.Thread(target=respond, daemon=True).start()
    return worker


def in_slot(parts: Sequence[bytes], sizes: tuple[int, int, int, int] | None = None) -> bytes:
    """A response for one page: the sizes, then the parts."""
    return b"".join((_PAGE_OUT.pack(*(sizes or map(len, parts))), *parts))


RIGHT = _parts_of(RECEIVER.receive(RawPage(0, REGULAR), 20))
OTHERS = _parts_of(RECEIVER.receive(RawPage(0, browse_page(catalogue(3), 0, 3)), 3))
DAMAGED = RIGHT[3].replace(b"neows-async seal", b"neows-async-seal")
GARBAGE: dict[str, tuple[bytes, int | None]] = {
    "declined": (b"", 0),
    "less than the sizes": (in_slot(RIGHT), _PAGE_OUT.size - 1),
    "nothing but sizes": (in_slot((b"", b"", b"", b""), (64, 64, 64, 64)), None),
    "sizes of more than there is": (in_slot(RIGHT, (1 << 63, 1 << 62, 5, 0)), None),
    "a length of more than there is": (in_slot(RIGHT, (1 << 63, 1 << 62, 5, 0)), 1 << 63),
    "nothing about the page": (in_slot((RIGHT[0], RIGHT[1], b"\x90", RIGHT[3])), None),
    "another page": (in_slot(_parts_of(RECEIVER.receive(RawPage(1, BODIES["another page"]), 20))), None),
    "text that is not UTF-8": (in_slot((b"", b"", b"\x91\xa1\xff", b"")), None),
    "no message": (in_slot((RIGHT[0], RIGHT[1], b"\xc1", RIGHT[3])), None),
    "columns of another page": (in_slot((OTHERS[0], *RIGHT[1:])), None),
    "approaches of another page": (in_slot((RIGHT[0], OTHERS[1], *RIGHT[2:])), None),
    "the columns swapped": (in_slot((RIGHT[1], RIGHT[0], *RIGHT[2:])), None),
    "another stored page": (in_slot((*RIGHT[:3], OTHERS[3])), None),
    "a damaged stored page": (in_slot((*RIGHT[:3], DAMAGED)), None),
    "a part of a stored page": (in_slot((*RIGHT[:3], RIGHT[3][:100])), None),
    "a stored page without a seal": (in_slot((*RIGHT[:3], compress(REGULAR))), None),
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_a_wrong_response_costs_the_worker_and_not_the_page(name: str) -> None:
    async with DecoderPool(OPTIONS, workers=0) as pool:
        worker = worker_that_responds(*GARBAGE[name])
        pool._workers.append(worker)
        page = await pool.receive(RawPage(0, REGULAR), 20)
        assert page == here(RawPage(0, REGULAR), 20)
        assert worker.alive is (name == "declined")


class Noting(RawZone):
    """A zone that notes which pages are stored."""

    def __init__(self, lake: AsyncStorage) -> None:
        super().__init__(lake, "a", max_body_bytes=1 << 24)
        self.stored: list[int] = []

    async def put(self, page: StoredPage, *, lingers: bool = True) -> None:
        self.stored.append(page.number)
        await super().put(page, lingers=lingers)


@pytest.mark.parametrize("needs_json", [False, True])
async def test_a_run_stores_the_same_bytes_with_a_worker_and_without(tmp_path: Path, needs_json: bool) -> None:
    objects = [*catalogue(200), neo(200, absolute_magnitude_h="bright")]
    settings = Settings(limit=None, workers=1, concurrency=2)
    read: list[Page] = []

    async def take(page: Page) -> None:
        read.append(page)

    zone = Noting(AsyncStorage(LocalStorage(tmp_path / "helped")))
    reader = PageReader(settings, PacedSource(ListSource(objects)), zone, lambda _: None, needs_json=needs_json)
    async with reader:
        worker = await started(reader._decoder)
        await reader.open(set())
        async with anyio.create_task_group() as fetchers:
            for _ in range(reader.fetching.tasks):
                fetchers.start_soon(reader.fetching.run)
            await reader.read_pages(take)
            fetchers.cancel_scope.cancel()
        assert worker.alive
    assert [page.number for page in read] == [*range(11)]
    assert [page.source is not None for page in read] == [needs_json] * 11
    assert sorted(zone.stored) == [*range(11)]

    await lakes.make(LocalStorage(tmp_path / "alone"), objects, "a", workers=0)
    alone, helped = (sorted((tmp_path / name / "raw").rglob("page=*")) for name in ("alone", "helped"))
    assert [file.read_bytes() for file in helped] == [file.read_bytes() for file in alone]
    assert len(alone) == 11
    for page in read:
        assert page.source is None or page.source.data == alone[page.number].read_bytes()
        assert page.source is None or len(json_of(page.source)) == page.json_bytes

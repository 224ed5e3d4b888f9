from __future__ import annotations

import json
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
from neows_async.endpoints.browse.check import take_in

from neows_async.endpoints.browse.decode import decode_checked
from neows_async.errors import BadPageError
from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.raw_zone import RawZone
from neows_async.lake.storage.local import LocalStorage
from neows_async.pages.redact import Redactor
from neows_async.pages.values import Page, RawPage, SpentPage, StoredPage, compress, read_stored, seal
from neows_async.pipeline.decode_worker import (
    _ANSWER,
    _ASKED_AT_ONCE,
    _QUESTION,
    _TOLD,
    PLACE_BYTES,
    DecodeWorker,
    NotReadError,
    _answer,
    _read,
)
from neows_async.pipeline.decoder import DecoderPool
from neows_async.pipeline.reader import Origin, PageReader
from neows_async.settings import Settings
from neows_async.testing import ListSource, browse_page
from tests import lakes
from tests.neos import approach, catalogue, neo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REGULAR = browse_page(catalogue(40), 0, 20)
TROUBLE = browse_page(
    [neo(1, [approach(km="?")], name="\u00e9"), neo(2, [approach(), approach(orbiting_body="Venus")], new={"x": 1})],
    0,
    2,
)
BODIES = {
    "regular": REGULAR,
    "without objects": browse_page([], 0, 20),
    "rejected and unknown": TROUBLE,
    "another page": browse_page(catalogue(40), 1, 20),
    "short": REGULAR.replace(b'"total_elements": 40', b'"total_elements": 41').replace(b'"size": 20', b'"size": 21'),
    "no JSON": REGULAR + b"}",
    "no UTF-8": REGULAR + b"\xff",
    "NaN": TROUBLE.replace(b'"?"', b"NaN"),
    "nothing": b"",
}


@pytest.fixture
async def helper() -> AsyncIterator[DecodeWorker]:
    async with DecoderPool(helpers=1, orbiting_body="Venus") as decoding:
        yield await started(decoding)


async def started(decoding: DecoderPool) -> DecodeWorker:
    await decoding._start()
    (helper,) = decoding._helpers
    while not helper.is_ready():
        await anyio.wait_readable(helper._socket)
    return helper


def outcome(page: Page | str) -> object:
    if isinstance(page, str):
        return page
    rest = (page.info, page.body, page.sha256, page.indices, page.approach_counts, page.rejected)
    return (
        rest,
        page.unknown_fields,
        page.batches["neos"].to_pylist(),
        page.batches["close_approaches"].to_pylist(),
        page.batches["neos"].schema,
    )


def here(raw: RawPage, size: int | None) -> Page | str:
    try:
        return decode_checked(raw, size, orbiting_body="Venus")
    except BadPageError as exc:
        return str(exc)


async def there(helper: DecodeWorker, raw: RawPage, size: int | None) -> Page | str:
    try:
        (page,) = await helper.ask([raw], size)
    except BadPageError as exc:
        return str(exc)
    return page


async def test_a_helper_says_what_would_be_said_here(helper: DecodeWorker) -> None:
    for name, body in BODIES.items():
        for size in (None, 20, 3):
            raw = RawPage(0, body)
            assert outcome(await there(helper, raw, size)) == outcome(here(raw, size)), name


def kept(raw: RawPage) -> StoredPage:
    page = read_stored(raw.number, seal(compress(raw.body), raw.sha256()), 1 << 30)
    assert isinstance(page, StoredPage)
    return page


async def test_a_helper_makes_of_a_page_what_would_be_kept_here() -> None:
    async with DecoderPool(helpers=1, orbiting_body="Venus", keeps=True) as decoding:
        await started(decoding)
        for name, body in BODIES.items():
            raw = RawPage(0, body)
            expected = here(raw, 20)
            if isinstance(expected, str):
                with pytest.raises(BadPageError, match=re.escape(expected)) as caught:
                    await decoding.judged(raw, 20, decoded=True)
                assert caught.value.body == body
                continue
            found = await decoding.judged(raw, 20, decoded=True)
            assert isinstance(found, StoredPage), name
            assert found.data == kept(raw).data
            assert (found.number, found.size, found.sha256(), found.body) == (0, raw.size, raw.sha256(), body)
            assert found.decoded is not None
            assert outcome(found.decoded) == outcome(expected)
            # What is read back, and what nobody wants soon, are none to be kept by it.
            assert (await decoding.read(raw)).raw is raw
            assert await decoding.judged(raw, 20, decoded=False) is raw


@pytest.mark.parametrize("helpers", [0, 1])
async def test_several_kept_pages_are_read_as_each_by_itself(helpers: int) -> None:
    good = [RawPage(number, browse_page(catalogue(200), number, 20)) for number in range(7)]
    bad = {
        name: RawPage(0, body) for name, body in BODIES.items() if isinstance(here(RawPage(0, body), 20), str) and body
    }
    assert len(bad) == 5
    async with DecoderPool(helpers=helpers, orbiting_body="Venus") as decoding:
        if helpers:
            await started(decoding)
        for count in range(1, len(good) + 1):
            raws = await decoding.judged_together([kept(raw) for raw in good[:count]], 20)
            assert [raw.number for raw in raws] == [*range(count)]
            pages = [raw.decoded for raw in raws]
            assert [page and outcome(page) for page in pages] == [outcome(here(raw, 20)) for raw in good[:count]]
        for name, raw in bad.items():
            for place in range(3):
                raws = [*good[:place], raw, *good[place:2]]
                with pytest.raises(BadPageError) as caught:
                    await decoding.judged_together([kept(raw) for raw in raws], 20)
                assert str(caught.value) == here(raw, 20), name
        assert [helper.alive for helper in decoding._helpers] == [True] * helpers


async def test_a_kept_page_that_is_not_as_it_was_kept_costs_no_helper() -> None:
    good, other = (kept(RawPage(number, browse_page(catalogue(200), number, 20))) for number in range(2))
    data = good.data[:-1] + bytes([good.data[-1] ^ 1])  # in its seal's own checksum: what is in the frame is whole
    odd = StoredPage(0, data, good.size, good.sha256())
    async with DecoderPool(helpers=1, orbiting_body="Venus") as decoding:
        helper = await started(decoding)
        with pytest.raises(NotReadError):
            await helper.ask([odd], 20)
        raws = await decoding.judged_together([odd, other], 20)
        assert [raw.decoded and outcome(raw.decoded) for raw in raws] == [
            outcome(here(raw, 20)) for raw in (good, other)
        ]
        assert helper.alive
        assert outcome(await there(helper, good, 20)) == outcome(here(good, 20))


async def test_a_busy_helper_leaves_kept_pages_to_its_own_program(helper: DecodeWorker) -> None:
    pages = [kept(RawPage(number, browse_page(catalogue(200), number, 20))) for number in range(6)]
    async with DecoderPool(helpers=0, orbiting_body="Venus") as decoding:
        decoding._helpers.append(helper)
        helper._process.send_signal(signal.SIGSTOP)
        async with anyio.create_task_group() as tasks:
            for page in pages[:2]:
                tasks.start_soon(decoding.judged_together, [page], 20)
            await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(10):
                (raw,) = await decoding.judged_together([pages[2]], 20)
            assert raw.decoded is not None
            assert helper.asked == 2
            helper._process.send_signal(signal.SIGCONT)
        decoding._helpers.clear()


async def test_a_busy_program_leaves_kept_pages_to_a_busy_helper(helper: DecodeWorker) -> None:
    pages = [kept(RawPage(number, browse_page(catalogue(200), number, 20))) for number in range(4)]
    busy = False
    read: list[int] = []
    async with DecoderPool(helpers=0, orbiting_body="Venus", busy=lambda: busy) as decoding:
        decoding._helpers.append(helper)

        async def read_one(page: StoredPage) -> None:
            (raw,) = await decoding.judged_together([page], 20)
            assert raw.decoded is not None
            read.append(raw.number)

        helper._process.send_signal(signal.SIGSTOP)
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                for page in pages[:2]:
                    tasks.start_soon(read_one, page)
                await anyio.wait_all_tasks_blocked()
                busy = True
                tasks.start_soon(read_one, pages[2])
                await anyio.wait_all_tasks_blocked()
                assert (helper.asked, read) == (3, [])
                busy = False
                await read_one(pages[3])
                assert read == [3]
                helper._process.send_signal(signal.SIGCONT)
        assert sorted(read) == [0, 1, 2, 3]
        decoding._helpers.clear()


async def test_several_who_ask_at_once_each_get_their_own_answer(helper: DecodeWorker) -> None:
    raws = [RawPage(0, body) for body in BODIES.values()] * 4
    answers: dict[int, object] = {}

    async def ask(index: int) -> None:
        answers[index] = outcome(await there(helper, raws[index], 20))

    async with anyio.create_task_group() as tasks:
        for index in range(len(raws)):
            tasks.start_soon(ask, index)
    assert [answers[index] for index in range(len(raws))] == [outcome(here(raw, 20)) for raw in raws]
    assert helper.asked == 0
    assert len(helper._free) == _ASKED_AT_ONCE


async def test_whoever_waits_for_an_answer_is_told_when_there_will_be_none(helper: DecodeWorker) -> None:
    told: list[BaseException] = []

    async def ask() -> None:
        try:
            await helper.ask([RawPage(0, REGULAR)], 20)
        except (OSError, EOFError) as exc:
            told.append(exc)

    helper._process.send_signal(signal.SIGSTOP)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            helper._process.kill()
    assert len(told) == 5
    assert not helper.alive


async def test_after_a_cancelled_question_nobody_is_given_its_answer(helper: DecodeWorker) -> None:
    helper._process.send_signal(signal.SIGSTOP)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(helper.ask, [RawPage(0, REGULAR)], 20)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    helper._process.send_signal(signal.SIGCONT)
    with pytest.raises(EOFError):
        await helper.ask([RawPage(0, TROUBLE)], 2)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="what another process loaded is seen on Linux alone")
async def test_a_helper_loads_no_pandas(helper: DecodeWorker) -> None:
    await helper.ask([RawPage(0, REGULAR)], 20)
    mapped = await anyio.Path(f"/proc/{helper._process.pid}/maps").read_text()
    assert "/pyarrow/" in mapped
    assert "/pandas/" not in mapped


async def test_a_helper_ends_with_its_socket_and_not_by_an_interrupt(helper: DecodeWorker) -> None:
    helper._process.send_signal(signal.SIGINT)
    assert outcome(await there(helper, RawPage(0, REGULAR), 20)) == outcome(here(RawPage(0, REGULAR), 20))
    helper._socket.close()
    assert await to_thread.run_sync(helper._process.wait, 10) == 0


async def test_who_loses_its_helper_goes_on_alone() -> None:
    raw = RawPage(0, REGULAR)
    async with DecoderPool(helpers=1, orbiting_body="Venus") as decoding:
        helper = await started(decoding)
        expected = outcome(here(raw, 20))
        for _ in range(2):
            assert outcome(await decoding.read(raw)) == expected
        assert await decoding._helper_for([raw]) is helper
        helper._process.kill()
        for _ in range(2):
            assert outcome(await decoding.read(raw)) == expected
        assert await decoding._helper_for([raw]) is None


async def test_what_is_too_large_for_a_helpers_memory_is_read_here() -> None:
    large = RawPage(0, REGULAR + b" " * PLACE_BYTES)
    async with DecoderPool(helpers=1, orbiting_body="Venus") as decoding:
        await started(decoding)
        assert await decoding._helper_for([large]) is None
        assert outcome(await decoding.read(large)) == outcome(here(large, None))


@pytest.mark.parametrize("helpers", [0, 1])
@pytest.mark.parametrize("decoded", [False, True])
async def test_what_came_is_taken_in_alike_with_helpers_and_without(helpers: int, decoded: bool) -> None:
    key = "a-key-that-is-long-enough-to-be-found"
    async with DecoderPool(helpers=helpers, orbiting_body="Venus") as decoding:
        if helpers:
            await started(decoding)
        for name, body in BODIES.items():
            came = RawPage(0, body.replace(b"neo", key.encode() + b"neo") + key.encode() * (name == "no JSON"))
            expected: RawPage | BadPageError
            found: RawPage | BadPageError
            try:
                expected = take_in(came, 20, Redactor(key))
            except BadPageError as exc:
                expected = exc
            try:
                found = await decoding.judged(await decoding.scrubbed(came, Redactor(key)), 20, decoded=decoded)
            except BadPageError as exc:
                found = exc
            if isinstance(expected, BadPageError):
                assert isinstance(found, BadPageError), name
                assert (str(found), found.body) == (str(expected), expected.body)
                assert key.encode() not in found.body
            else:
                assert found == expected, name
                assert isinstance(found, RawPage)
                assert (found.decoded is not None) == decoded
                assert found.decoded is None or outcome(found.decoded) == outcome(here(found, 20))


async def test_helpers_are_started_when_pages_have_to_wait_and_end_with_the_run() -> None:
    raw = RawPage(0, REGULAR)
    async with DecoderPool(helpers=2, orbiting_body=None) as decoding:

        async def read_many() -> None:
            for _ in range(30):
                page = await decoding.read(raw)
                assert json.loads(page.body) == json.loads(REGULAR)

        await read_many()
        assert decoding._helpers == []  # one after the other none has to wait
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(read_many)
        helpers = decoding._helpers
        assert len(helpers) == 2
    assert [helper._process.returncode for helper in helpers] == [-signal.SIGKILL] * 2


async def test_what_grows_by_scrubbing_leaves_the_memory_of_others_alone() -> None:
    scrubber = Redactor("a-key-that-is-long-enough-to-be-found")
    others = RawPage(0, REGULAR)
    keys = b"api_key=x&" * (PLACE_BYTES // 12)  # as it comes it has room, and no more when it says REDACTED
    grows = RawPage(0, REGULAR + keys + b" " * (PLACE_BYTES - len(REGULAR) - len(keys)))
    async with DecoderPool(helpers=1, orbiting_body="Venus") as decoding:
        helper = await started(decoding)
        for place in range(len(helper._free)):
            helper._free.append(helper._free.pop(0))
            found: list[RawPage] = []

            async def take(came: RawPage, into: list[RawPage] = found) -> None:
                into.append(await decoding.judged(await decoding.scrubbed(came, scrubber), 20, decoded=True))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(take, others)
                with pytest.raises(BadPageError):
                    await decoding.judged(await decoding.scrubbed(grows, scrubber), 20, decoded=True)
            assert found[0].decoded is not None, place
            assert outcome(found[0].decoded) == outcome(here(RawPage(0, scrubber(others.body)), 20))
        assert await decoding._helper_for([others]) is helper


@pytest.mark.parametrize("odd", [b"=", b"api_key=key&", b"a-key-that-is-long-enough-to-be-foun_", b"%20", b"\\n"])
async def test_what_takes_long_to_scrub_is_not_scrubbed_on_the_loop(odd: bytes) -> None:
    scrubber = Redactor("a-key-that-is-long-enough-to-be-found")
    body = odd * (PLACE_BYTES // len(odd) // 2)
    assert scrubber.at_once(body) is None
    assert scrubber.at_once(b'{"self":"?api_key=' + body.replace(b"&", b"-")) is None
    assert scrubber.at_once(REGULAR) == scrubber(REGULAR)


def answered_with(said: bytes, length: int | None) -> DecodeWorker:
    """A helper that says the same to every question, whatever that was.

    :param length: how long it says that is
    """
    helper = DecodeWorker("Venus")
    helper._socket, theirs = socket.socketpair()
    helper._socket.settimeout(0)
    helper._places = mmap.mmap(-1, _ASKED_AT_ONCE * PLACE_BYTES)
    helper._process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    helper.ready = True

    def answer() -> None:
        with theirs:
            question = theirs.recv(_QUESTION.size, socket.MSG_WAITALL)
            start = _QUESTION.unpack(question)[0] * PLACE_BYTES
            helper._places[start : start + len(said)] = said
            theirs.sendall(_ANSWER.pack(len(said) if length is None else length))
            theirs.recv(1)  # until its socket ends

    threading.Thread(target=answer, daemon=True).start()
    return helper


def told(parts: tuple[bytes, bytes, bytes, bytes], sizes: tuple[int, int, int, int] | None = None) -> bytes:
    """What lies in a place: of one page the sizes, then the parts."""
    return b"".join((_TOLD.pack(*(sizes or map(len, parts))), *parts))


def answer_of(raw: RawPage, size: int) -> tuple[bytes, bytes, bytes, bytes]:
    """What a helper says of it."""
    (page,) = _read([raw], size, "Venus")
    return _answer(page, keep=True)


RIGHT = answer_of(RawPage(0, REGULAR), 20)
OTHERS = answer_of(RawPage(0, browse_page(catalogue(3), 0, 3)), 3)
DAMAGED = RIGHT[3].replace(b"neows-async seal", b"neows-async-seal")
GARBAGE: dict[str, tuple[bytes, int | None]] = {
    "no room": (b"", 0),
    "less than the sizes": (told(RIGHT), _TOLD.size - 1),
    "nothing but sizes": (told((b"", b"", b"", b""), (64, 64, 64, 64)), None),
    "sizes of more than there is": (told(RIGHT, (1 << 63, 1 << 62, 5, 0)), None),
    "a length of more than there is": (told(RIGHT, (1 << 63, 1 << 62, 5, 0)), 1 << 63),
    "nothing about the page": (told((RIGHT[0], RIGHT[1], b"\x90", RIGHT[3])), None),
    "another page": (told(answer_of(RawPage(1, BODIES["another page"]), 20)), None),
    "text that is not UTF-8": (told((b"", b"", b"\x91\xa1\xff", b"")), None),
    "no message": (told((RIGHT[0], RIGHT[1], b"\xc1", RIGHT[3])), None),
    "columns of another page": (told((OTHERS[0], *RIGHT[1:])), None),
    "approaches of another page": (told((RIGHT[0], OTHERS[1], *RIGHT[2:])), None),
    "the columns changed over": (told((RIGHT[1], RIGHT[0], *RIGHT[2:])), None),
    "another page to keep": (told((*RIGHT[:3], OTHERS[3])), None),
    "a damaged page to keep": (told((*RIGHT[:3], DAMAGED)), None),
    "a part of a page to keep": (told((*RIGHT[:3], RIGHT[3][:100])), None),
    "a page to keep without a seal": (told((*RIGHT[:3], compress(REGULAR))), None),
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_an_answer_that_is_none_costs_the_helper_and_not_the_page(name: str) -> None:
    raw = RawPage(0, REGULAR)
    async with DecoderPool(helpers=0, orbiting_body="Venus", keeps=True) as decoding:
        helper = answered_with(*GARBAGE[name])
        decoding._helpers.append(helper)
        judged = await decoding.judged(raw, 20, decoded=True)
        assert judged.body == REGULAR
        assert judged.decoded is not None
        assert outcome(judged.decoded) == outcome(here(raw, 20))
        assert helper.alive is (name == "no room"), "what has no room is read here, and the next is asked again"


class Noting(RawZone):
    """A zone that notes in what form pages come to be kept."""

    def __init__(self, lake: AsyncStorage) -> None:
        super().__init__(lake, "a", max_body_bytes=1 << 24)
        self.came: list[type[RawPage]] = []

    async def put(self, page: RawPage, *, lingers: bool = True) -> StoredPage:
        self.came.append(type(page))
        return await super().put(page, lingers=lingers)


@pytest.mark.parametrize("spends", [False, True])
async def test_in_a_run_the_helper_makes_pages_what_is_kept_the_same_as_here(tmp_path: Path, spends: bool) -> None:
    objects = [*catalogue(200), neo(200, absolute_magnitude_h="bright")]
    settings = Settings(limit=None, workers=1, concurrency=2)
    read: list[Page] = []

    async def take(page: Page) -> None:
        read.append(page)

    zone = Noting(AsyncStorage(LocalStorage(tmp_path / "helped")))
    reading = PageReader(settings, Origin(ListSource(objects)), zone, lambda _: None, spends=spends)
    async with reading:
        await started(reading._decoding)
        await reading.open(set())
        async with anyio.create_task_group() as fetchers:
            for _ in range(reading.fetchers):
                fetchers.start_soon(reading.fetch_pages)
            await reading.read_pages(take)
            fetchers.cancel_scope.cancel()
    assert [page.number for page in read] == [*range(11)]
    assert all(isinstance(page.raw, SpentPage if spends else StoredPage) for page in read)
    assert zone.came == [StoredPage] * 11

    await lakes.make(LocalStorage(tmp_path / "alone"), objects, "a", workers=0)
    alone, helped = (sorted((tmp_path / name / "raw").rglob("page=*")) for name in ("alone", "helped"))
    assert [file.read_bytes() for file in helped] == [file.read_bytes() for file in alone]
    assert len(alone) == 11

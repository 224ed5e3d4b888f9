"""A process that decodes pages, and its answers: this very program, asked over a socket and memory that is shared.

It finds bodies in that memory, scrubbed or as they were kept, and puts the columns in their place, and behind them the
page as it is to be kept. It is asked from the event loop itself: a thread that asks and waits would take and leave the
GIL ten times a page, and the loop would wait for it as often.

A helper ends when its socket does, so also when whoever asks it is killed.
"""

from __future__ import annotations

import itertools
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import msgspec
import pyarrow as pa

from neows_async.endpoints.browse.decode import decode_checked_batch
from neows_async.endpoints.browse.schema import CLOSE_APPROACHES, NEOS
from neows_async.errors import BadPageError
from neows_async.pages import stored
from neows_async.pages.stored import StoredPage, read_stored
from neows_async.pages.values import Page, PageInfo, RawPage, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# While a helper reads one page, the next two are on their way to it.
_ASKED_AT_ONCE: Final = 3
# Of the memory that is shared with a helper, for what one question or its answer takes; a larger page is read here.
PLACE_BYTES: Final = 4 << 20
_ANSWER_S: Final = 20
_UNCHECKED: Final = 0  # no page has no objects to a page
# What goes through the socket: in which place of the memory so many pages lie, their size, and whether they are to be
# kept; then how long the answer is that lies in the same place.
_QUESTION: Final = struct.Struct("<QQQ?")
_ANSWER: Final = struct.Struct("<Q")
_NOT_READ: Final = _ANSWER.pack(0)
# What a place holds: of each page the number, how many bytes, and whether they are as they were kept; then those bytes.
# Or of each page how many bytes either batch, the rest and the page as it is to be kept have; then those.
_ASKED: Final = struct.Struct("<QQQ")
_TOLD: Final = struct.Struct("<QQQQ")
_READY: Final = b"+"
_PROGRAM: Final = (
    # What multiplies matrices is imported with numpy, and would start a thread for each processor.
    "import json, os, sys; os.environ['OPENBLAS_NUM_THREADS'] = '1'; sys.path[:] = json.loads(sys.argv[1]); "
    "from neows_async._process import collect_seldom, keep_flat, leave_pandas_out, spare_the_collector; "
    "collect_seldom(); keep_flat(); leave_pandas_out(); "
    "from neows_async.pipeline.decode_worker import serve; spare_the_collector(); serve()"
)


class _Rest(msgspec.Struct, array_like=True):
    """All of a page but its body and its batches; or why it is none."""

    bad: str | None = None
    info: PageInfo | None = None
    body_sha256: bytes = b""
    indices: tuple[int, ...] = ()
    approach_counts: tuple[int, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    unknown_fields: dict[int, dict[str, int]] = {}


_rest = msgspec.msgpack.Decoder(_Rest)


class NotReadError(Exception):
    """It leaves these pages to whoever asks.

    Their columns take more than a place in the shared memory, or one that is to be as it was kept is not.
    """


class DecodeWorker:
    """A process that decodes one page after the other. It may be asked several times at once, and answers in turn.

    It is this very program, and believed: of its answers the form is looked at, and not each value.
    """

    def __init__(self, orbiting_body: str | None) -> None:
        self.ready: bool = False
        self.alive: bool = True
        self.asked: int = 0  # questions that it is to answer, for those who choose one
        self._room = anyio.Semaphore(_ASKED_AT_ONCE, fast_acquire=True)
        self._free = list(range(_ASKED_AT_ONCE))
        self._answers = anyio.Lock(fast_acquire=True)
        self._orbiting_body = orbiting_body

    def start(self) -> None:
        """Blocks for some milliseconds.

        :raises OSError: it cannot be started
        """
        if not sys.executable:
            raise FileNotFoundError("this program does not know its interpreter")
        ours, theirs = socket.socketpair()
        with theirs, _shared_memory(_ASKED_AT_ONCE * PLACE_BYTES) as shared:
            try:
                self._places = mmap.mmap(shared, _ASKED_AT_ONCE * PLACE_BYTES)
                self._process = subprocess.Popen(  # noqa: S603 - this very program
                    [
                        sys.executable,
                        "-c",
                        _PROGRAM,
                        *map(json.dumps, ([*map(str, sys.path)], self._orbiting_body, shared)),
                    ],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[shared],
                )
            except BaseException:
                ours.close()
                raise
        ours.settimeout(0)
        self._socket = ours

    def is_ready(self) -> bool:
        """Whether it has started; never blocks."""
        with suppress(OSError):
            self.ready = self.ready or self._socket.recv(1) == _READY
        return self.ready

    async def ask(self, raws: Sequence[RawPage], size: int | None, *, keep: bool = False) -> list[Page]:
        """Of each, as ``check_and_decode``; for bodies that have room in one place.

        :param keep: the pages' ``raw`` are then as ``keep`` makes them, if they are not already
        :raises BadPageError: as that does, of the first that is none
        :raises NotReadError: whoever asks has to read them
        :raises OSError, EOFError: it gave no answer; nobody will get one any more
        """
        self.asked += 1
        try:
            async with self._room:
                place = self._free.pop()
                try:
                    self._send(raws, size, place, keep=keep)
                    async with self._answers:  # fair: in the order in which it was asked
                        length = await self._receive()
                    answers = self._taken(place, length, len(raws))
                except BaseException:  # also if we are cancelled: the next answer would be taken for another's
                    self.alive = False
                    raise
                finally:
                    self._free.append(place)
        finally:
            self.asked -= 1
        if not answers:
            raise NotReadError
        return [_page_of(raw, *parts) for raw, parts in zip(raws, answers, strict=True)]

    def _send(self, raws: Sequence[RawPage], size: int | None, place: int, *, keep: bool) -> None:
        if not self.alive:
            raise EOFError
        at = place * PLACE_BYTES
        parts = [_handed_over(raw) for raw in raws]
        for raw, part in zip(raws, parts, strict=True):
            _ASKED.pack_into(self._places, at, raw.number, len(part), isinstance(raw, StoredPage))
            at += _ASKED.size
        for part in parts:
            self._places[at : at + len(part)] = part
            at += len(part)
        # A few bytes, and few of them are under way: the socket has room for them.
        self._socket.send(_QUESTION.pack(place, len(raws), size or _UNCHECKED, keep))

    def _taken(self, place: int, length: int, count: int) -> list[tuple[bytes, ...]]:
        """Of each page its parts, each in memory of its own, since the one outlives the other; none if it read none."""
        if not self.alive:
            raise EOFError
        if not length:
            return []
        at = place * PLACE_BYTES
        end = at + length
        sizes = [*_TOLD.iter_unpack(self._places[at : (at := at + count * _TOLD.size)])]
        answers: list[tuple[bytes, ...]] = []
        for lengths in sizes:
            borders = [*itertools.accumulate(lengths, initial=at)]
            if borders[-1] > end:
                raise EOFError("no answer to this question")
            answers.append(tuple([self._places[start:stop] for start, stop in itertools.pairwise(borders)]))
            at = borders[-1]
        return answers

    async def _receive(self) -> int:
        if not self.alive:
            raise EOFError
        with anyio.fail_after(_ANSWER_S):
            length = b""
            while len(length) < _ANSWER.size:
                try:
                    received = self._socket.recv(_ANSWER.size - len(length))
                except BlockingIOError:
                    await anyio.wait_readable(self._socket)
                    continue
                if not received:
                    raise EOFError
                length += received
        return int.from_bytes(length, "little")

    def end(self) -> None:
        """Blocks until the process is gone. Nobody may be waiting for an answer, and nobody gets one any more."""
        self.alive = False
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._process.kill()
        self._process.wait()
        self._socket.close()
        self._places.close()


def _handed_over(raw: RawPage) -> bytes:
    """What a helper reads; it expands what is still as it was kept."""
    return raw.data if isinstance(raw, StoredPage) else raw.body


def handed_over_bytes(raws: Sequence[RawPage]) -> int:
    """What all of it takes in a place."""
    return sum(_ASKED.size + len(_handed_over(raw)) for raw in raws)


def _page_of(raw: RawPage, neos: bytes, close_approaches: bytes, rest: bytes, kept: bytes) -> Page:
    """What was told of ``raw``; raises as :meth:`Helper.ask` does."""
    said = _rest.decode(rest)
    if said.bad is not None:
        raise BadPageError(said.bad)
    if said.info is None or said.info.number != raw.number:
        raise EOFError("no answer to this question")
    page = Page(
        info=said.info,
        raw=_kept(raw, kept, said.body_sha256) if kept else raw,
        body_sha256=said.body_sha256,
        indices=said.indices,
        neos=pa.ipc.read_record_batch(neos, NEOS),
        close_approaches=pa.ipc.read_record_batch(close_approaches, CLOSE_APPROACHES),
        approach_counts=said.approach_counts,
        rejected=said.rejected,
        unknown_fields=said.unknown_fields,
    )
    rows = {len(page.indices), len(page.approach_counts), page.neos.num_rows}
    if len(rows) != 1 or sum(page.approach_counts) != page.close_approaches.num_rows:
        raise EOFError("no answer to this question")
    return page


def _kept(raw: RawPage, data: bytes, body_sha256: bytes) -> StoredPage:
    page = StoredPage(raw.number, data, raw.size, body_sha256)
    if not stored.is_sound(page):
        raise EOFError("no answer to this question")
    return page


@contextmanager
def _shared_memory(length: int) -> Iterator[int]:
    """A descriptor of memory that another process can be handed; where there is none, of a file without a name."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("neows-pages")
    else:
        descriptor, path = tempfile.mkstemp()
        Path(path).unlink()
    try:
        os.ftruncate(descriptor, length)
        if not hasattr(os, "memfd_create"):
            # Its room is taken now: a disk that is full later would end us with a signal.
            with open(descriptor, "wb", closefd=False) as file:
                file.write(bytes(length))
        yield descriptor
    finally:
        os.close(descriptor)


def serve() -> None:
    """A helper's whole life: answer questions until the socket on its standard input ends."""
    # An interrupt is for the one who asks; we end when that one does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    orbiting_body: str | None = json.loads(sys.argv[2])
    places = mmap.mmap(int(sys.argv[3]), 0)
    with socket.socket(fileno=0) as asked, suppress(OSError):
        asked.sendall(_READY)
        while len(question := asked.recv(_QUESTION.size, socket.MSG_WAITALL)) == _QUESTION.size:
            place, count, size, keep = _QUESTION.unpack(question)
            try:
                raws = _asked(places, place * PLACE_BYTES, count)
            except BadPageError:
                asked.sendall(_NOT_READ)
                continue
            pages = _read(raws, None if size == _UNCHECKED else size, orbiting_body)
            answers = [_answer(page, keep=keep) for page in pages]
            told = b"".join(_TOLD.pack(*map(len, parts)) for parts in answers)
            parts = [told, *itertools.chain.from_iterable(answers)]
            length = sum(map(len, parts))
            if length > PLACE_BYTES:
                asked.sendall(_NOT_READ)
                continue
            at = place * PLACE_BYTES
            for part in parts:
                places[at : at + len(part)] = part
                at += len(part)
            asked.sendall(_ANSWER.pack(length))


def _asked(places: mmap.mmap, start: int, count: int) -> list[RawPage]:
    at = start + count * _ASKED.size
    raws: list[RawPage] = []
    for number, length, as_kept in _ASKED.iter_unpack(places[start:at]):
        data = places[at : at + length]
        raws.append(read_stored(number, data, sys.maxsize) if as_kept else RawPage(number, data))
        at += length
    return raws


def _read(raws: Sequence[RawPage], size: int | None, orbiting_body: str | None) -> list[Page | BadPageError]:
    """Of each the page, or why it is none."""
    try:
        return [*decode_checked_batch(raws, size, orbiting_body=orbiting_body)]
    except BadPageError as exc:
        if len(raws) == 1:
            return [exc]
    return [page for raw in raws for page in _read([raw], size, orbiting_body)]


def _answer(page: Page | BadPageError, *, keep: bool) -> tuple[bytes, bytes, bytes, bytes]:
    if isinstance(page, BadPageError):
        return b"", b"", msgspec.msgpack.encode(_Rest(bad=str(page))), b""
    rest = msgspec.msgpack.encode(
        _Rest(
            info=page.info,
            body_sha256=page.body_sha256,
            indices=page.indices,
            approach_counts=page.approach_counts,
            rejected=page.rejected,
            unknown_fields={index: dict(found) for index, found in page.unknown_fields.items()},
        )
    )
    kept = stored.store(page.raw, page.body_sha256).data if keep and not isinstance(page.raw, StoredPage) else b""
    return bytes(page.neos.serialize()), bytes(page.close_approaches.serialize()), rest, kept

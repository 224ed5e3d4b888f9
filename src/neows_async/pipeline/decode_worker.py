"""A process that decodes pages beside the main one: this very program, over a socket and shared memory.

The main process puts pages into a slot of the memory, as received or as stored; the worker puts the columns into the
same slot, and behind them the page's stored form. The main process sends and receives in its event loop, without a
thread: a thread would take and release the interpreter's lock ten times a page.

A worker ends with its socket, so also when the main process is killed.
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

from neows_async.endpoints.browse.receive import ReceiveOptions, Receiver
from neows_async.endpoints.browse.schema import DATASETS
from neows_async.errors import BadPageError
from neows_async.pages.content import GZIP
from neows_async.pages.stored import is_sound, read_stored
from neows_async.pages.values import Page, PageInfo, RawPage, Rejected, StoredPage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# While a worker decodes one page, the next two are on their way to it.
_REQUESTS_AT_ONCE: Final = 3
# Of the shared memory, for one request or its response. A larger page is decoded in the main process.
SLOT_BYTES: Final = 4 << 20
_RESPONSE_S: Final = 20
_ANY_SIZE: Final = 0  # no page has a size of 0
# Through the socket: first the length of the options and the options; then, for each request, the slot, how many pages
# are in it, and the page size; then, for each response, its length in the same slot.
_LENGTH: Final = struct.Struct("<Q")
_REQUEST: Final = struct.Struct("<QQQ")
_DECLINED: Final = _LENGTH.pack(0)
# In a slot: for each page its number, how many bytes it has, and its form; then those bytes.
# Or for each page how many bytes its two batches, the rest and its stored form have; then those bytes.
_PAGE_IN: Final = struct.Struct("<QQQ")
_PAGE_OUT: Final = struct.Struct("<QQQQ")
_FORMS: Final = ("plain", GZIP, "stored")
_READY: Final = b"+"
_PROGRAM: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from neows_async._process import leave_pandas_out, tune_allocators; tune_allocators(); leave_pandas_out(); "
    "from neows_async.pipeline.decode_worker import serve; serve()"
)


class _Rest(msgspec.Struct, array_like=True):
    """All of a page but its batches and its stored form."""

    info: PageInfo
    indices: tuple[int, ...]
    approach_counts: tuple[int, ...]
    rejected: tuple[Rejected, ...]
    unknown_fields: dict[int, dict[str, int]]
    json_bytes: int
    sha256: bytes


_rest = msgspec.msgpack.Decoder(_Rest)
_options = msgspec.msgpack.Decoder(ReceiveOptions)


class DeclinedError(Exception):
    """The worker leaves these pages to the main process: one is bad, or their columns do not fit into a slot."""


class DecodeWorker:
    """A process that decodes one page after the other. Several requests may wait; it responds in their order.

    It runs this very program, so the form of its responses is checked, and not each value.
    """

    def __init__(self, options: ReceiveOptions) -> None:
        self.ready: bool = False
        self.alive: bool = True
        self.requests: int = 0  # without a response, for those who choose a worker
        self._slots_left = anyio.Semaphore(_REQUESTS_AT_ONCE, fast_acquire=True)
        self._free = list(range(_REQUESTS_AT_ONCE))
        self._responses = anyio.Lock(fast_acquire=True)
        self._options = options

    def start(self) -> None:
        """Blocks for some milliseconds."""
        if not sys.executable:
            raise FileNotFoundError("this program does not know its interpreter")
        # The socket is the worker's life: it reads to its end, and the end comes also if this process is killed.
        ours, theirs = socket.socketpair()
        with theirs, _shared_memory(_REQUESTS_AT_ONCE * SLOT_BYTES) as shared:
            try:
                self._slots = mmap.mmap(shared, _REQUESTS_AT_ONCE * SLOT_BYTES)
                self._process = subprocess.Popen(  # noqa: S603 - this very program
                    # -c and not -m: the worker needs our sys.path before it can import anything.
                    [sys.executable, "-c", _PROGRAM, *map(json.dumps, ([*map(str, sys.path)], shared))],
                    # Its standard input, so that no further descriptor has to be passed or named.
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[shared],
                )
                # Through the socket: they hold the key, and everybody on the machine can read a process's arguments.
                options = msgspec.msgpack.encode(self._options)
                ours.sendall(_LENGTH.pack(len(options)) + options)
            except BaseException:
                ours.close()
                raise
        # From here on the event loop drives the socket.
        ours.settimeout(0)
        self._socket = ours

    def is_ready(self) -> bool:
        """Whether it has started; never blocks."""
        with suppress(OSError):
            self.ready = self.ready or self._socket.recv(1) == _READY
        return self.ready

    async def decode(self, pages: Sequence[RawPage | StoredPage], size: int | None) -> list[Page]:
        """As :meth:`neows_async.endpoints.browse.receive.Receiver.receive`, for pages for which :func:`fits` is true.

        :raises DeclinedError: the caller has to decode them
        :raises OSError, EOFError: there is no response, and there will be none to any request
        """
        # Counted before any await, so that the next task sees this worker as busier.
        self.requests += 1
        try:
            # A slot is one request's from the send to the copied response; nobody else writes there.
            async with self._slots_left:
                # No await up to the lock: requests are sent in the order in which responses are awaited.
                slot = self._free.pop()
                try:
                    self._send(pages, size, slot)
                    async with self._responses:  # fair: in the order of the requests
                        length = await self._receive()
                    # Copied before the slot is free again: the next request overwrites it.
                    parts = self._parts(slot, length, len(pages))
                except BaseException:  # cancelled, too: the next response would be taken for another request's
                    self.alive = False
                    raise
                finally:
                    self._free.append(slot)
        finally:
            self.requests -= 1
        if not parts:
            raise DeclinedError
        decoded = [_page_of(page, *of) for page, of in zip(pages, parts, strict=True)]
        if self._options.keeps_json and any(page.source is None for page in decoded):
            raise EOFError("not a response to this request")
        return decoded

    def _send(self, pages: Sequence[RawPage | StoredPage], size: int | None, slot: int) -> None:
        # It may have died while this task waited for the slot.
        if not self.alive:
            raise EOFError
        at = slot * SLOT_BYTES
        bodies = [_bytes_of(page) for page in pages]
        for page, body in zip(pages, bodies, strict=True):
            _PAGE_IN.pack_into(self._slots, at, page.number, len(body), _form(page))
            at += _PAGE_IN.size
        for body in bodies:
            self._slots[at : at + len(body)] = body
            at += len(body)
        # A few bytes, at most three times: the socket's buffer has room for them, so this does not block.
        self._socket.send(_REQUEST.pack(slot, len(pages), size or _ANY_SIZE))

    def _parts(self, slot: int, length: int, count: int) -> list[tuple[bytes, ...]]:
        """For each page its parts, each in memory of its own, since one outlives the other; none if it declined."""
        if not self.alive:
            raise EOFError
        if not length:
            return []
        at = slot * SLOT_BYTES
        end = at + length
        sizes = [*_PAGE_OUT.iter_unpack(self._slots[at : (at := at + count * _PAGE_OUT.size)])]
        pages: list[tuple[bytes, ...]] = []
        for lengths in sizes:
            borders = [*itertools.accumulate(lengths, initial=at)]
            if borders[-1] > end:
                raise EOFError("not a response to this request")
            pages.append(tuple([self._slots[start:stop] for start, stop in itertools.pairwise(borders)]))
            at = borders[-1]
        return pages

    async def _receive(self) -> int:
        if not self.alive:
            raise EOFError
        # A worker that hangs is as good as dead: the pages are decoded here, and the run goes on.
        with anyio.fail_after(_RESPONSE_S):
            length = b""
            while len(length) < _LENGTH.size:
                try:
                    received = self._socket.recv(_LENGTH.size - len(length))
                except BlockingIOError:
                    await anyio.wait_readable(self._socket)
                    continue
                if not received:
                    raise EOFError
                length += received
        return int.from_bytes(length, "little")

    def abandon(self) -> None:
        """No request gets a response from now on."""
        self.alive = False

    def end(self) -> None:
        """Blocks until the process is gone. Call it when nobody waits for a response."""
        self.abandon()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        # Killed, not stopped politely: it holds nothing that could be lost.
        self._process.kill()
        self._process.wait()
        self._socket.close()
        # Last: the process that wrote there is gone.
        self._slots.close()


def fits(pages: Sequence[RawPage | StoredPage]) -> bool:
    """Whether a worker can decode ``pages`` in one request."""
    known = all(isinstance(page, StoredPage) or page.content_encoding in (None, GZIP) for page in pages)
    return known and sum(_PAGE_IN.size + len(_bytes_of(page)) for page in pages) <= SLOT_BYTES


def _bytes_of(page: RawPage | StoredPage) -> bytes:
    return page.data if isinstance(page, StoredPage) else page.body


def _form(page: RawPage | StoredPage) -> int:
    return _FORMS.index("stored" if isinstance(page, StoredPage) else page.content_encoding or "plain")


def _page_of(page: RawPage | StoredPage, neos: bytes, close_approaches: bytes, rest: bytes, stored: bytes) -> Page:
    """The response for ``page``; raises as :meth:`DecodeWorker.decode` does."""
    found = _rest.decode(rest)
    batches = {
        name: pa.ipc.read_record_batch(data, schema)
        for (name, schema), data in zip(DATASETS.items(), (neos, close_approaches), strict=True)
    }
    source = StoredPage(found.info.number, stored, found.json_bytes, found.sha256) if stored else None
    rows = {len(found.indices), len(found.approach_counts), batches["neos"].num_rows}
    # Cheap checks of the protocol: a response to another request must never pass as this page.
    if (
        found.info.number != page.number
        or len(rows) != 1
        or sum(found.approach_counts) != batches["close_approaches"].num_rows
        or not (source is None or is_sound(source))
    ):
        raise EOFError("not a response to this request")
    return Page(
        info=found.info,
        batches=batches,
        indices=found.indices,
        approach_counts=found.approach_counts,
        rejected=found.rejected,
        unknown_fields=found.unknown_fields,
        json_bytes=found.json_bytes,
        sha256=found.sha256,
        source=source,
    )


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
    """The worker's whole life: respond to requests until the socket on its standard input ends."""
    # An interrupt is for the main process; this one ends when that one does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    slots = mmap.mmap(int(sys.argv[2]), 0)
    # The end of the socket, or an error on it, is the end of this process.
    with socket.socket(fileno=0) as requests, suppress(OSError):
        (length,) = _LENGTH.unpack(requests.recv(_LENGTH.size, socket.MSG_WAITALL))
        receiver = Receiver(_options.decode(requests.recv(length, socket.MSG_WAITALL)))
        # The imports took a third of a second: until this byte, no request is sent here.
        requests.sendall(_READY)
        while len(request := requests.recv(_REQUEST.size, socket.MSG_WAITALL)) == _REQUEST.size:
            slot, count, size = _REQUEST.unpack(request)
            try:
                pages = _received(slots, slot * SLOT_BYTES, count)
                decoded = _decode(receiver, pages, None if size == _ANY_SIZE else size)
            except BadPageError:
                requests.sendall(_DECLINED)  # the main process decodes it again, and says what is wrong
                continue
            parts = [_parts_of(page) for page in decoded]
            heads = b"".join(_PAGE_OUT.pack(*map(len, of)) for of in parts)
            response = [heads, *itertools.chain.from_iterable(parts)]
            length = sum(map(len, response))
            if length > SLOT_BYTES:
                requests.sendall(_DECLINED)
                continue
            at = slot * SLOT_BYTES
            for part in response:
                # Over the request's own bytes, which are decoded by now.
                slots[at : at + len(part)] = part
                at += len(part)
            # After the slot is filled: this is what makes it readable for the main process.
            requests.sendall(_LENGTH.pack(length))


def _received(slots: mmap.mmap, start: int, count: int) -> list[RawPage | StoredPage]:
    at = start + count * _PAGE_IN.size
    pages: list[RawPage | StoredPage] = []
    for number, length, form in _PAGE_IN.iter_unpack(slots[start:at]):
        data, name = slots[at : at + length], _FORMS[form]
        if name == "stored":
            pages.append(read_stored(number, data, sys.maxsize))
        else:
            pages.append(RawPage(number, data, name if name == GZIP else None))
        at += length
    return pages


def _decode(receiver: Receiver, pages: list[RawPage | StoredPage], size: int | None) -> list[Page]:
    stored = [page for page in pages if isinstance(page, StoredPage)]
    if len(stored) == len(pages):
        return receiver.receive_batch(stored, size)
    return [receiver.receive(page, size) for page in pages]


def _parts_of(page: Page) -> tuple[bytes, ...]:
    rest = msgspec.msgpack.encode(
        _Rest(
            info=page.info,
            indices=page.indices,
            approach_counts=page.approach_counts,
            rejected=page.rejected,
            unknown_fields={index: dict(found) for index, found in page.unknown_fields.items()},
            json_bytes=page.json_bytes,
            sha256=page.sha256,
        )
    )
    batches = [bytes(batch.serialize()) for batch in page.batches.values()]
    return *batches, rest, page.source.data if page.source else b""

"""Where pages are checked and decoded: one after the other in threads, or in processes of their own.

Reading JSON holds the GIL, so that however many threads there are, one page is read at a time and the event
loop waits its turn. When pages come faster than that, helpers are started: processes that are handed a
scrubbed body and hand back the columns. They are a matter of speed alone. A helper that dies, hangs or cannot
be started is done without: its page is decoded here, by the same function.

Nothing outlives the ``async with``. A helper ends when its socket does, so also when we are killed.
"""

from __future__ import annotations

import json
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self, TypeVar

import anyio
import msgspec
import pyarrow as pa
from anyio import to_thread

from neows_async.browse import PageInfo
from neows_async.decode import check_and_decode
from neows_async.errors import BadPageError
from neows_async.page import Page, RawPage, Rejected
from neows_async.schema import CLOSE_APPROACHES, NEOS

if TYPE_CHECKING:
    from collections.abc import Callable

    Read = Callable[[RawPage, int | None], Page]

_T = TypeVar("_T")
# So many pages that had to wait for another one are worth a second of a processor's time.
_WAITED_PAGES: Final = 24
# While a helper reads one page, the next two are on their way to it.
_ASKED_AT_ONCE: Final = 3
_ANSWER_S: Final = 20
_GRACE_S: Final = 0.4
_UNCHECKED: Final = 0  # no page has no objects to a page
_QUESTION: Final = struct.Struct("<QQQ")  # number, size, bytes of the body
_ANSWER: Final = struct.Struct("<QQQ")  # bytes of each batch and of the rest
_READY: Final = b"+"
_ALIGNED: Final = 64
_PROGRAM: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from neows_async.allocators import keep_flat, spare_the_collector; keep_flat(); "
    "from neows_async.decoding import serve; spare_the_collector(); serve()"
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


class Decoding:
    """At most one page at a time in this process, or one in each helper.

    :param helpers: so many processes at most, started when pages have to wait
    :param orbiting_body: see :func:`neows_async.decode.decode`
    """

    def __init__(self, *, helpers: int, orbiting_body: str | None) -> None:
        self._to_start = helpers
        self._orbiting_body = orbiting_body
        self._at_once = anyio.CapacityLimiter(1)
        self._waited = 0
        self._helpers: list[_Helper] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        def end() -> None:
            for helper in self._helpers:
                helper.end()

        if self._helpers:
            with anyio.move_on_after(_GRACE_S, shield=True):
                await to_thread.run_sync(end, abandon_on_cancel=True)

    async def run(self, job: Callable[[Read], _T]) -> _T:
        """Run ``job`` in a thread. It is given the function that checks and decodes a page."""
        if self._at_once.available_tokens < 1:
            self._waited += 1
        if self._to_start and self._waited >= _WAITED_PAGES:
            await self._start()
        async with self._at_once:
            helper = self._least_busy()
            if helper is not None:
                helper.asked += 1
            try:
                return await to_thread.run_sync(
                    lambda: job(self._read_by(helper)), abandon_on_cancel=True, limiter=_many()
                )
            finally:  # also after a body that is no page
                if helper is not None:
                    helper.asked -= 1

    async def _start(self) -> None:
        helpers, self._to_start = self._to_start, 0
        with suppress(OSError):  # then it goes on as it did
            for _ in range(helpers):
                self._helpers.append(await to_thread.run_sync(_Helper, self._orbiting_body))

    def _least_busy(self) -> _Helper | None:
        ready = [helper for helper in self._helpers if helper.alive and helper.is_ready()]
        self._at_once.total_tokens = max(1, _ASKED_AT_ONCE * len(ready))
        return min(ready, key=lambda helper: helper.asked, default=None)

    def _read_by(self, helper: _Helper | None) -> Read:
        def read(raw: RawPage, size: int | None) -> Page:
            if helper is not None:
                try:
                    return helper.ask(raw, size)
                except (OSError, EOFError, msgspec.MsgspecError, pa.ArrowException):
                    helper.end()
            return check_and_decode(raw, size, orbiting_body=self._orbiting_body)

        return read


def _many() -> anyio.CapacityLimiter:
    return to_thread.current_default_thread_limiter()


class _Helper:
    """A process that decodes one page at a time. Blocking; several threads may ask, and are answered in turn.

    :raises OSError: it cannot be started
    """

    def __init__(self, orbiting_body: str | None) -> None:
        self.ready = False
        self.alive = True
        self.asked = 0  # jobs that it is to answer, for those who choose one
        self._sending = threading.Lock()
        self._answers = threading.Condition()
        self._sent = self._answered = 0
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - this very program
                    [sys.executable, "-c", _PROGRAM, json.dumps(sys.path), json.dumps(orbiting_body)],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            except BaseException:
                ours.close()
                raise
        self._socket = ours
        limit = struct.pack("ll", _ANSWER_S, 0)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def is_ready(self) -> bool:
        """Whether it has started; never blocks."""
        with suppress(OSError):
            self.ready = self.ready or self._socket.recv(1, socket.MSG_DONTWAIT) == _READY
        return self.ready

    def ask(self, raw: RawPage, size: int | None) -> Page:
        """As :func:`neows_async.decode.check_and_decode`.

        :raises BadPageError: as that does
        :raises OSError, EOFError: it gave no answer
        """
        with self._sending:
            self._socket.sendall(_QUESTION.pack(raw.number, size or _UNCHECKED, len(raw.body)))
            self._socket.sendall(raw.body)
            turn, self._sent = self._sent, self._sent + 1
        with self._answers:
            self._answers.wait_for(lambda: self._answered == turn)
        try:
            sizes = _ANSWER.unpack(_receive(self._socket, _ANSWER.size))
            answer = pa.py_buffer(_receive(self._socket, sum(sizes)))
        finally:  # whoever is next is told the same, if there is no answer
            with self._answers:
                self._answered += 1
                self._answers.notify_all()
        rest = _rest.decode(answer[sizes[0] + sizes[1] :])
        if rest.bad is not None or rest.info is None:
            raise BadPageError(rest.bad or "no page")
        return Page(
            info=rest.info,
            body=raw.body,
            body_sha256=rest.body_sha256,
            indices=rest.indices,
            neos=pa.ipc.read_record_batch(answer[: sizes[0]], NEOS),
            close_approaches=pa.ipc.read_record_batch(answer[sizes[0] : sizes[0] + sizes[1]], CLOSE_APPROACHES),
            approach_counts=rest.approach_counts,
            rejected=rest.rejected,
            unknown_fields=rest.unknown_fields,
        )

    def end(self) -> None:
        """Whoever waits for an answer is told at once."""
        self.alive = False
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._process.kill()
        self._process.wait()
        self._socket.close()


def serve() -> None:
    """A helper's whole life: answer questions until the socket on its standard input ends."""
    # An interrupt is for the one who asks; we end when that one does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    orbiting_body: str | None = json.loads(sys.argv[2])
    with socket.socket(fileno=0) as asked, suppress(OSError, EOFError):
        asked.sendall(_READY)
        while True:
            number, size, length = _QUESTION.unpack(_receive(asked, _QUESTION.size))
            raw = RawPage(number, _receive(asked, length))
            asked.sendall(_answer(raw, None if size == _UNCHECKED else size, orbiting_body))


def _answer(raw: RawPage, size: int | None, orbiting_body: str | None) -> bytes:
    try:
        page = check_and_decode(raw, size, orbiting_body=orbiting_body)
    except BadPageError as exc:
        rest = msgspec.msgpack.encode(_Rest(bad=str(exc)))
        return _ANSWER.pack(0, 0, len(rest)) + rest
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
    batches = [bytes(batch.serialize()) for batch in (page.neos, page.close_approaches)]
    padded = [batch + bytes(-len(batch) % _ALIGNED) for batch in batches]
    return b"".join((_ANSWER.pack(len(padded[0]), len(padded[1]), len(rest)), *padded, rest))


def _receive(connection: socket.socket, length: int) -> bytes:
    """Exactly so many bytes.

    :raises EOFError: there are no more
    """
    parts: list[bytes] = []
    while length > 0:
        part = connection.recv(length, socket.MSG_WAITALL)
        if not part:
            raise EOFError
        length -= len(part)
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)

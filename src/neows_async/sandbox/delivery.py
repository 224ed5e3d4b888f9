"""Send a response: in chunks, compressed if the client accepts gzip, and up to the point where a fault ends it."""

from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

import anyio

from neows_async.sandbox.scenario import Cut, Endless, Hang, TruncatedGzip

if TYPE_CHECKING:
    from neows_async.sandbox.responses import SandboxResponse
    from neows_async.sandbox.scenario import After, Fault

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
InThread: TypeAlias = "Callable[[Callable[[], bytes]], Awaitable[bytes]]"

CUT: Final = "neows_async.cut"
"""An extension of the ASGI scope: a function without arguments that closes the connection. ASGI defines none."""

_CHUNK_BYTES: Final = 16 << 10
_GZIP_LEVEL: Final = 1


@dataclass(frozen=True, slots=True)
class Delivery:
    """Sends one response.

    :param cut: closes the connection; None if the server cannot
    :param gzip: whether the client accepts gzip
    :param in_thread: runs a function that takes milliseconds
    :param sleep: waits a number of seconds
    """

    send: Send
    cut: Callable[[], None] | None
    gzip: bool
    in_thread: InThread
    sleep: Callable[[float], Awaitable[None]]

    async def deliver(self, response: SandboxResponse, fault: Fault | None) -> None:
        """Send ``response``, up to the point where ``fault`` ends it."""
        # Before the head: the client sees no response at all.
        if isinstance(fault, Hang | Cut) and fault.after == "request":
            await self._end(fault)
        headers = [(b"content-type", response.content_type.encode("latin-1"))]
        headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
        body = response.body
        if self.gzip and body and not isinstance(fault, Endless):
            body = await self.in_thread(lambda: gzip.compress(response.body, _GZIP_LEVEL, mtime=0))
            headers += [(b"content-encoding", b"gzip"), (b"vary", b"Accept-Encoding")]
        # No Content-Length: NASA sends chunked responses.
        await self.send({"type": "http.response.start", "status": response.status, "headers": headers})
        await self._send_body(body, fault)

    async def _send_body(self, body: bytes, fault: Fault | None) -> None:
        # A complete response for HTTP: only the decompression can find out.
        if isinstance(fault, TruncatedGzip):
            body = body[: len(body) // 2]
        end = len(body)
        if isinstance(fault, Hang | Cut):
            end = _sent_bytes(len(body), fault.after)
        for start in range(0, end, _CHUNK_BYTES):
            await self._send_part(body[start : min(start + _CHUNK_BYTES, end)])
        if isinstance(fault, Hang | Cut):
            await self._end(fault)
        while isinstance(fault, Endless):
            await self._send_part(b" " * _CHUNK_BYTES)
            await self.sleep(fault.interval_s)
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_part(self, part: bytes) -> None:
        await self.send({"type": "http.response.body", "body": part, "more_body": True})

    async def _end(self, fault: Hang | Cut) -> NoReturn:
        if isinstance(fault, Cut):
            if self.cut is None:
                raise ConnectionAbortedError("the scenario cuts the connection here")
            self.cut()
        # The client's disconnect cancels this: see SandboxApp.__call__.
        await anyio.sleep_forever()
        raise AssertionError


def _sent_bytes(length: int, after: After) -> int:
    return length // 2 if after == "body" else 0

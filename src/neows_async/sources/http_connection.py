"""One HTTP/1.1 connection: a request goes out, and its answer comes in as h11 reads it.

h11 reads the head of every answer, and every body but one: that of a 200 whose head tells its length. Such a
body is what comes next from the network, and nothing else, so it is handed on as it comes. Through h11's
buffer, where each piece is copied three times, a page of a megabyte would take half as long again.
"""

from __future__ import annotations

import select
import ssl
from collections.abc import AsyncIterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import anyio
import h11
import httpcore
from anyio.abc import SocketAttribute

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from anyio.abc import ByteStream

_READ_BYTES: Final = 256 << 10  # as much as asyncio takes from a socket at once
_HEAD_BYTES: Final = 100 << 10
_OK: Final = 200
# What anyio raises of a stream that is of no use any more; of an encrypted one OpenSSL's own errors come as they are.
_BROKEN: Final = (anyio.BrokenResourceError, anyio.ClosedResourceError, ssl.SSLError)


class Connection:
    """Carries one request after the other.

    :param stream: to the host; closed by :meth:`close`
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        # Looked for once: it lies beneath layers of attributes.
        self._socket = stream.extra(SocketAttribute.raw_socket, None)  # noqa: S610 - no database

    def is_quiet(self) -> bool:
        """Whether nothing came since the last answer. What comes unasked is its end, or not to be trusted."""
        if self._socket is None or self._socket.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    async def close(self) -> None:
        """At once, also if we are cancelled; whoever reads from it is told."""
        with anyio.CancelScope(shield=True):
            await anyio.aclose_forcefully(self._stream)

    async def ask(self, request: httpcore.Request, ended: Callable[[Connection], Awaitable[None]]) -> httpcore.Response:
        """Send ``request`` and wait for the head of its answer, whose body is read from what comes back.

        :param ended: is called when the answer has been read whole, and the next request may go out
        :raises httpcore.NetworkError: the connection broke
        :raises httpcore.ProtocolError: that is no HTTP
        """
        protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)
        await self._send(protocol, request)
        head = await self._head(protocol)
        body = _Body(self, protocol, _told_bytes(request, head), ended)
        said = {"http_version": b"HTTP/" + head.http_version, "reason_phrase": bytes(head.reason)}
        return httpcore.Response(head.status_code, headers=head.headers.raw_items(), content=body, extensions=said)

    async def _send(self, protocol: h11.Connection, request: httpcore.Request) -> None:
        content: list[h11.Event] = []
        if isinstance(request.stream, AsyncIterable):
            content = [h11.Data(data=chunk) async for chunk in request.stream]
        try:
            head = h11.Request(method=request.method, target=request.url.target, headers=request.headers)
            sent = b"".join([protocol.send(event) or b"" for event in (head, *content, h11.EndOfMessage())])
        except h11.LocalProtocolError as exc:
            raise httpcore.LocalProtocolError(str(exc)) from exc
        with suppress(anyio.EndOfStream, *_BROKEN):
            # A server that refuses may close before it has read all; what it said is still to be read.
            await self._stream.send(sent)

    async def _head(self, protocol: h11.Connection) -> h11.Response:
        while True:
            event = await self.event(protocol)
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise httpcore.RemoteProtocolError("Server disconnected without sending a response.")

    async def event(self, protocol: h11.Connection) -> object:
        """The next thing that h11 finds in what comes."""
        while True:
            try:
                event = protocol.next_event()
                if event is not h11.NEED_DATA:
                    return event
                came = await self.receive()
                if not came and protocol.their_state is h11.SEND_RESPONSE:
                    raise httpcore.RemoteProtocolError("Server disconnected without sending a response.")
                protocol.receive_data(came)
            except h11.RemoteProtocolError as exc:
                raise httpcore.RemoteProtocolError(str(exc)) from exc

    async def receive(self) -> bytes:
        """What has come; nothing is the end.

        :raises httpcore.ReadError: the connection broke
        """
        try:
            return await self._stream.receive(_READ_BYTES)
        except anyio.EndOfStream:
            return b""
        except _BROKEN as exc:
            raise httpcore.ReadError(str(exc)) from exc


def _told_bytes(request: httpcore.Request, head: h11.Response) -> int | None:
    """The length of the body, if the head alone tells it. h11 has seen to it that there is one, or several alike."""
    if request.method != b"GET" or head.status_code != _OK:
        return None
    names = dict(head.headers)
    if b"transfer-encoding" in names or b"content-length" not in names:
        return None
    return int(names[b"content-length"])


class _Body:
    """The body of one answer, as httpx reads it."""

    def __init__(
        self,
        connection: Connection,
        protocol: h11.Connection,
        told_bytes: int | None,
        ended: Callable[[Connection], Awaitable[None]],
    ) -> None:
        self._connection = connection
        self._protocol = protocol
        self._told_bytes = told_bytes
        self._ended = ended
        self._is_read = self._is_closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._by_h11() if self._told_bytes is None else self._as_told(self._told_bytes)

    async def _by_h11(self) -> AsyncIterator[bytes]:
        while isinstance(event := await self._connection.event(self._protocol), h11.Data):
            yield bytes(event.data)
        over, _ = self._protocol.trailing_data
        self._is_read = self._protocol.our_state is h11.DONE and self._protocol.their_state is h11.DONE and not over

    async def _as_told(self, told_bytes: int) -> AsyncIterator[bytes]:
        chunk, _ = self._protocol.trailing_data  # came with the head
        left_bytes = told_bytes - len(chunk)
        while True:
            if left_bytes < 0:
                chunk = chunk[:left_bytes]
            if chunk:
                yield chunk
            if left_bytes <= 0:
                break
            chunk = await self._connection.receive()
            if not chunk:
                raise httpcore.RemoteProtocolError(
                    "peer closed connection without sending complete message body "
                    f"(received {told_bytes - left_bytes} bytes, expected {told_bytes})"
                )
            left_bytes -= len(chunk)
        # Of a server that closes, or speaks HTTP/1.0, h11 has said so.
        self._is_read = self._protocol.our_state is h11.DONE and left_bytes == 0

    async def aclose(self) -> None:
        """What was not read whole is not waited for."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._is_read:
            await self._ended(self._connection)
        else:
            await self._connection.close()

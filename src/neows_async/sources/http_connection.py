"""One HTTP/1.1 connection: it sends a request, and h11 parses the response.

h11 parses every head, and every body except one kind: the body of a 200 with a Content-Length. The bytes of such a body
are passed on as they are received. h11 would copy each piece three times.
"""

from __future__ import annotations

import select
import ssl
from collections.abc import AsyncIterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import anyio
import h11
import httpx
from anyio.abc import SocketAttribute

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from anyio.abc import ByteStream

_READ_BYTES: Final = 256 << 10  # as much as asyncio reads from a socket at once
_HEAD_BYTES: Final = 100 << 10
# A broken stream raises one of these: anyio's errors, and OpenSSL's own, which anyio does not translate.
_BROKEN: Final = (anyio.BrokenResourceError, anyio.ClosedResourceError, ssl.SSLError)


class HttpConnection:
    """Sends one request after the other.

    :param stream: an open stream to the host; :meth:`close` closes it
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        # Looked up once: an encrypted stream searches several layers for it.
        self._socket = stream.extra(SocketAttribute.raw_socket, None)  # noqa: S610 - no database

    def is_reusable(self) -> bool:
        """Whether nothing was received since the last response.

        Bytes that no request caused are the end of the connection, or cannot be trusted.
        """
        if self._socket is None or self._socket.fileno() < 0:
            return False
        # Without an await, and without reading: readable means closed, or bytes that nobody requested.
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    async def close(self) -> None:
        """Close the stream at once, also during a cancellation."""
        with anyio.CancelScope(shield=True):
            await anyio.aclose_forcefully(self._stream)

    async def send(
        self, request: httpx.Request, on_reusable: Callable[[HttpConnection], Awaitable[None]]
    ) -> httpx.Response:
        """Send ``request`` and return the response, with an unread body, once its head is received.

        :param on_reusable: called with this connection when the response is closed and the next request may be sent
        :raises httpx.NetworkError: the connection broke
        :raises httpx.ProtocolError: the request or the response is not HTTP
        """
        # A parser for each request: h11 refuses to reuse one whose body it did not see.
        parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)
        await self._send(parser, request)
        head = await self._receive_head(parser)
        # The head alone: the body stays on the wire until the caller reads it, within its own limits.
        return httpx.Response(
            head.status_code,
            headers=head.headers.raw_items(),
            stream=_ResponseStream(self, parser, _content_length(request, head), on_reusable),
            extensions={"http_version": b"HTTP/" + head.http_version, "reason_phrase": bytes(head.reason)},
            request=request,
        )

    async def _send(self, parser: h11.Connection, request: httpx.Request) -> None:
        content: list[h11.Event] = []
        if isinstance(request.stream, AsyncIterable):
            content = [h11.Data(data=chunk) async for chunk in request.stream]
        try:
            head = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
            # In one piece: a head without its end could be cancelled in between, and the server would wait.
            sent = b"".join([parser.send(event) or b"" for event in (head, *content, h11.EndOfMessage())])
        except h11.LocalProtocolError as exc:
            raise httpx.LocalProtocolError(str(exc)) from exc
        with suppress(anyio.EndOfStream, *_BROKEN):
            # A server that refuses a request may close before it has read all of it. Its response can still be read.
            await self._stream.send(sent)

    async def _receive_head(self, parser: h11.Connection) -> h11.Response:
        while True:
            event = await self.next_event(parser)
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise httpx.RemoteProtocolError("Server disconnected without sending a response.")

    async def next_event(self, parser: h11.Connection) -> object:
        """The next event that h11 parses from the received bytes. Errors become httpx's."""
        while True:
            try:
                event = parser.next_event()
                if event is not h11.NEED_DATA:
                    return event
                received = await self.receive()
                # The usual end of an idle connection; h11's own message would hide it.
                if not received and parser.their_state is h11.SEND_RESPONSE:
                    raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
                parser.receive_data(received)
            except h11.RemoteProtocolError as exc:
                raise httpx.RemoteProtocolError(str(exc)) from exc

    async def receive(self) -> bytes:
        """The next bytes; none at the end of the stream."""
        try:
            return await self._stream.receive(_READ_BYTES)
        except anyio.EndOfStream:
            return b""
        except _BROKEN as exc:
            raise httpx.ReadError(str(exc)) from exc


def _content_length(request: httpx.Request, head: h11.Response) -> int | None:
    """The length of the body, if it is given by the head alone.

    h11 has checked that the header is a whole number, and that repeated headers are equal.
    """
    if request.method != "GET" or head.status_code != httpx.codes.OK:
        return None
    headers = dict(head.headers)
    if b"transfer-encoding" in headers or b"content-length" not in headers:
        return None
    return int(headers[b"content-length"])


class _ResponseStream(httpx.AsyncByteStream):
    """The body of one response, and what becomes of its connection."""

    def __init__(
        self,
        connection: HttpConnection,
        parser: h11.Connection,
        content_length: int | None,
        on_reusable: Callable[[HttpConnection], Awaitable[None]],
    ) -> None:
        self._connection = connection
        self._parser = parser
        self._content_length = content_length
        self._on_reusable = on_reusable
        # Reusable only after the last byte of the body: any earlier end leaves bytes for the next response.
        self._is_reusable = self._is_closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._parsed() if self._content_length is None else self._passed_on(self._content_length)

    async def _parsed(self) -> AsyncIterator[bytes]:
        while isinstance(event := await self._connection.next_event(self._parser), h11.Data):
            yield bytes(event.data)
        surplus, _ = self._parser.trailing_data
        is_done = self._parser.our_state is h11.DONE and self._parser.their_state is h11.DONE
        self._is_reusable = is_done and not surplus

    async def _passed_on(self, content_length: int) -> AsyncIterator[bytes]:
        chunk, _ = self._parser.trailing_data  # received with the head
        left_bytes = content_length - len(chunk)
        while True:
            # More than announced: cut, and the connection is not used again.
            if left_bytes < 0:
                chunk = chunk[:left_bytes]
            if chunk:
                yield chunk
            if left_bytes <= 0:
                break
            chunk = await self._connection.receive()
            if not chunk:
                # A short body is never a page, even if it happens to be valid JSON.
                raise httpx.RemoteProtocolError(
                    "peer closed connection without sending complete message body "
                    f"(received {content_length - left_bytes} bytes, expected {content_length})"
                )
            left_bytes -= len(chunk)
        # After "Connection: close" or HTTP/1.0, h11's state is not DONE. Fewer than 0 bytes left are surplus bytes.
        self._is_reusable = self._parser.our_state is h11.DONE and left_bytes == 0

    async def aclose(self) -> None:
        """Hand the connection back, or close it: an unread rest of the body is never awaited."""
        # httpx closes a response more than once. By then the connection may carry the next request.
        if self._is_closed:
            return
        # Before the await: a second call must find it closed.
        self._is_closed = True
        if self._is_reusable:
            await self._on_reusable(self._connection)
        else:
            await self._connection.close()

"""An httpx transport to an ASGI application that streams and applies timeouts.

httpx's own ASGI transport runs the application to its end before the client reads a byte, and ignores timeouts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import anyio
import httpx

from neows_async.sandbox.delivery import CUT, Message, Receive, Send

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from types import TracebackType

    from anyio.abc import TaskGroup

    AsgiApp: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]


class AsgiTransport(httpx.AsyncBaseTransport):
    """Runs ``app`` in tasks of its own. The application waits until the client has read its last chunk.

    The tasks run between ``__aenter__`` and ``__aexit__``, which the client calls. A request's ``read`` timeout limits
    each wait for the application, and ``pool`` the wait for a free connection. Other timeouts are not used.

    :param max_connections: the most requests in flight, others wait; None is no limit
    """

    def __init__(self, app: AsgiApp, *, max_connections: int | None = None) -> None:
        self._app = app
        self._tasks: TaskGroup | None = None
        self._connections = anyio.CapacityLimiter(math.inf if max_connections is None else max_connections)
        self._open: set[_Exchange] = set()

    async def __aenter__(self) -> Self:
        if self._tasks is not None:
            raise RuntimeError("the transport is entered already")
        # Entered by hand: the client's own block is the task group's lifetime.
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        tasks, self._tasks = self._tasks, None
        if tasks is None:
            return
        # Wakes the clients that still wait for a message: they see a closed connection.
        for exchange in list(self._open):
            exchange.close()
        tasks.cancel_scope.cancel()
        # Without the caller's exception: the task group would raise it in an exception group.
        await tasks.__aexit__(None, None, None)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The application's response, once it has begun.

        :raises httpx.ReadTimeout: the application sent nothing within the ``read`` timeout
        :raises httpx.PoolTimeout: no connection became free within the ``pool`` timeout
        :raises httpx.RemoteProtocolError: the application ended without a complete response; its exception is the cause
        """
        if self._tasks is None:
            raise RuntimeError("the transport is not entered: use the client in an `async with`")
        body = await request.aread()
        timeouts: dict[str, float | None] = request.extensions.get("timeout", {})
        exchange = _Exchange(timeouts.get("read"), self._end)
        # A connection first: a request that waits for one must not run the application.
        await self._begin(exchange, timeouts.get("pool"))
        try:
            self._tasks.start_soon(exchange.run, self._app, _scope(request), body)
            start = await exchange.next_message()
        except BaseException:
            # Also when cancelled: otherwise its connection would never be free again.
            exchange.close()
            raise
        return httpx.Response(start["status"], headers=start["headers"], stream=_AsgiStream(exchange), request=request)

    async def _begin(self, exchange: _Exchange, pool_s: float | None) -> None:
        try:
            with anyio.fail_after(pool_s):
                await self._connections.acquire_on_behalf_of(exchange)
        except TimeoutError as exc:
            raise httpx.PoolTimeout(f"no connection became free within {pool_s:g} s") from exc
        # No await from the acquired connection on, so none is lost.
        self._open.add(exchange)
        exchange.open()

    def _end(self, exchange: _Exchange) -> None:
        self._open.discard(exchange)
        self._connections.release_on_behalf_of(exchange)


class _Exchange:
    """One request between the client and the application."""

    def __init__(self, timeout_s: float | None, on_end: Callable[[_Exchange], None]) -> None:
        self._timeout_s = timeout_s
        self._on_end = on_end
        self._is_open = False
        self._scope = anyio.CancelScope()
        self._disconnected = anyio.Event()
        self._failure: Exception | None = None
        self._started = False

    def open(self) -> None:
        # No buffer: the application continues when the client has received its chunk.
        self._send, self._receive = anyio.create_memory_object_stream[Any](0)
        self._is_open = True

    async def run(self, app: AsgiApp, scope: Message, body: bytes) -> None:
        """Run the application, until it ends or the client closes the response."""
        unread = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            if unread:
                return unread.pop()
            await self._disconnected.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            try:
                await self._send.send(message)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return  # the connection is closed: like a server, drop the message

        def cut() -> None:
            self._send.close()
            self._disconnected.set()

        scope["extensions"] = {CUT: cut}
        with self._scope, self._send:
            try:
                await app(scope, receive, send)
            except Exception as exc:  # noqa: BLE001 - the client sees a broken connection, with this exception as the cause
                self._failure = exc

    async def next_message(self) -> Message:
        """The application's next message."""
        try:
            with anyio.fail_after(self._timeout_s):
                message: Message = await self._receive.receive()
        except TimeoutError as exc:
            raise httpx.ReadTimeout(f"nothing received within {self._timeout_s:g} s") from exc
        except anyio.EndOfStream as exc:
            whole = "complete message body" if self._started else "a response"
            text = f"the peer closed the connection without sending {whole}"
            raise httpx.RemoteProtocolError(text) from self._failure or exc
        self._started = True
        return message

    def close(self) -> None:
        """End the exchange: cancel the application and free the connection."""
        if not self._is_open:
            return
        # First: the callbacks below may close it again.
        self._is_open = False
        self._disconnected.set()
        self._scope.cancel()
        self._receive.close()
        self._send.close()
        self._on_end(self)


class _AsgiStream(httpx.AsyncByteStream):
    # Not a generator: httpx does not close one that is not read to its end.
    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange
        self._ended = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        message = await self._exchange.next_message()
        self._ended = not message.get("more_body", False)
        return bytes(message.get("body", b""))

    async def aclose(self) -> None:
        self._exchange.close()


def _scope(request: httpx.Request) -> Message:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.url.scheme,
        "path": request.url.path,
        "raw_path": request.url.raw_path.split(b"?")[0],
        "query_string": request.url.query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "server": (request.url.host, request.url.port),
        "client": ("127.0.0.1", 0),
    }

"""An ASGI application as an httpx transport that streams and honours timeouts.

httpx's own runs the application to its end before the first byte is read, and ignores timeouts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import anyio
import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from anyio.abc import TaskGroup

    from neows_async.sandbox.app import Message, SandboxApp


class AsgiTransport(httpx.AsyncBaseTransport):
    """Runs ``app`` beside the client: it waits until its chunks are read.

    Its tasks live between ``__aenter__`` and ``__aexit__``, which the client's own do; leaving ends them.
    """

    def __init__(self, app: SandboxApp) -> None:
        self._app = app
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        tasks, self._tasks = self._tasks, None
        if tasks is not None:
            tasks.cancel_scope.cancel()
            await tasks.__aexit__(exc_type, exc_value, traceback)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The application's answer, as soon as it begins.

        :raises httpx.ReadTimeout: nothing came within the request's ``read`` timeout
        :raises httpx.RemoteProtocolError: the application ended without a whole answer
        """
        if self._tasks is None:
            raise RuntimeError("the transport is not entered: use the client in an `async with`")
        timeout_s: float | None = request.extensions.get("timeout", {}).get("read")
        body = await request.aread()
        exchange = _Exchange(timeout_s)
        self._tasks.start_soon(exchange.run, self._app, _scope(request), body)
        try:
            start = await exchange.next_message()
        except BaseException:
            exchange.close()
            raise
        return httpx.Response(start["status"], headers=start["headers"], stream=_Body(exchange), request=request)


class _Exchange:
    """One request: the application on one side, the client on the other."""

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        # No buffer: a chunk leaves the application when the client takes it.
        self._send, self._receive = anyio.create_memory_object_stream[Any](0)
        self._scope = anyio.CancelScope()
        self._body_sent = False
        self._closed = anyio.Event()

    async def run(self, app: SandboxApp, scope: Message, body: bytes) -> None:
        async def receive() -> Message:
            if not self._body_sent:
                self._body_sent = True
                return {"type": "http.request", "body": body, "more_body": False}
            await self._closed.wait()
            return {"type": "http.disconnect"}

        with self._scope, self._send:
            try:
                await app(scope, receive, self._send.send)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return  # the client has left
            except Exception:  # noqa: BLE001 - what a server does then: the connection breaks
                return

    async def next_message(self) -> Message:
        try:
            with anyio.fail_after(self._timeout_s):
                message: Message = await self._receive.receive()
        except TimeoutError as exc:
            raise httpx.ReadTimeout(f"nothing came within {self._timeout_s:g} s") from exc
        except anyio.EndOfStream as exc:
            raise httpx.RemoteProtocolError("the peer closed the connection without a whole answer") from exc
        return message

    def close(self) -> None:
        self._closed.set()
        self._scope.cancel()
        self._receive.close()


class _Body(httpx.AsyncByteStream):
    # No generator: one that is left in the middle would have to be closed by httpx, which does not.
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

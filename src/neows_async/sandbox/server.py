"""Serves the sandbox on loopback, with uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from neows_async.errors import SettingsError
from neows_async.sandbox.delivery import CUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from neows_async.sandbox.transport import AsgiApp

_HOST = "127.0.0.1"
_BACKLOG = 128
_GRACE_S = 1


class _CuttableProtocol(H11Protocol):
    """Lets the application close its connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own signature
        super().connection_made(transport)
        app: Any = self.app

        async def with_cut(scope: Any, receive: Any, send: Any) -> None:
            scope.setdefault("extensions", {})[CUT] = transport.close
            await app(scope, receive, send)

        self.app = with_cut


class _QuietServer(uvicorn.Server):
    """uvicorn without signal handlers, and without a wait for hung connections at the end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in list(self.server_state.connections):
            # Aborted first: uvicorn would wait for a connection that a scenario lets hang.
            connection.transport.abort()
        await super().shutdown(sockets)


def listen(port: int) -> socket.socket:
    """A socket that listens on loopback; port 0 is a free one. Requests wait in its backlog until it is served."""
    # asyncio turns off Nagle's algorithm, which costs 40 ms a page, only if the socket names TCP as its protocol.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((_HOST, port))
        listening.listen(_BACKLOG)
    except (OSError, OverflowError) as exc:
        listening.close()
        reason = getattr(exc, "strerror", None) or exc
        raise SettingsError(f"--port {port}: {reason}; choose another, or 0 for a free one") from exc
    return listening


def url_of(listening: socket.socket) -> str:
    """The URL to pass as ``--base-url``."""
    return f"http://{_HOST}:{listening.getsockname()[1]}"


async def serve(
    app: AsgiApp, listening: socket.socket, on_started: Callable[[uvicorn.Server], None] = lambda _: None
) -> None:
    """Serve on ``listening`` until cancelled, on asyncio. Then close every connection and the socket.

    :param on_started: receives the server; setting its ``should_exit`` ends it, from any thread
    """
    config = uvicorn.Config(
        app,
        http=_CuttableProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _QuietServer(config)
    # Before serving: a caller may stop it at once.
    on_started(server)
    try:
        await server.serve(sockets=[listening])
    except asyncio.CancelledError:
        if server.started:
            # Shielded, or the cancellation would leave connections open; limited, or a hung one would block the exit.
            with anyio.move_on_after(2 * _GRACE_S, shield=True):
                await server.shutdown([listening])
        raise


@contextmanager
def serving(app: AsgiApp, port: int = 0) -> Iterator[str]:
    """Serve from a thread until the block ends, and yield the URL. For tests and benchmarks, on any event loop."""
    started: Future[uvicorn.Server] = Future()

    def run() -> None:
        try:
            asyncio.run(serve(app, listening, started.set_result))
        except BaseException as exc:
            if started.done():
                raise
            started.set_exception(exc)

    with listen(port) as listening:
        thread = threading.Thread(target=run, name="neows-sandbox", daemon=True)
        thread.start()
        # Blocks until the server exists, or raises what kept it from starting.
        server = started.result()
        try:
            yield url_of(listening)
        finally:
            server.should_exit = True
            thread.join()

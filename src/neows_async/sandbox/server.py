"""The imitation on loopback, by uvicorn."""

from __future__ import annotations

import contextlib
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn

from neows_async.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from neows_async.sandbox.app import SandboxApp

_HOST = "127.0.0.1"


class _Server(uvicorn.Server):
    """uvicorn without a hand on the process's signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(port: int) -> socket.socket:
    """A socket on loopback; 0 chooses a free port.

    :raises SettingsError: the port is taken or not allowed
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((_HOST, port))
    except OSError as exc:
        listening.close()
        raise SettingsError(f"--port {port}: {exc.strerror}; choose another, or 0 for a free one") from exc
    return listening


def url_of(listening: socket.socket) -> str:
    """What to give as ``--base-url``."""
    return f"http://{_HOST}:{listening.getsockname()[1]}"


async def serve(app: SandboxApp, listening: socket.socket, on_started: Callable[[Any], None] = lambda _: None) -> None:
    """Serve until cancelled, on asyncio.

    :param on_started: is given the server, whose ``should_exit`` ends it from any thread
    """
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    server = _Server(config)
    on_started(server)
    await server.serve(sockets=[listening])


@contextmanager
def serving(app: SandboxApp) -> Iterator[str]:
    """Serve from a thread until the block ends; gives the URL. For tests and benchmarks."""
    import asyncio  # noqa: PLC0415 - uvicorn's loop, here alone

    servers: list[Any] = []
    started = threading.Event()

    def keep(server: Any) -> None:
        servers.append(server)
        started.set()

    with listen(0) as listening:
        # It listens from here on: requests wait until the server takes them.
        listening.listen(128)
        thread = threading.Thread(target=lambda: asyncio.run(serve(app, listening, keep)), daemon=True)
        thread.start()
        try:
            started.wait()
            yield url_of(listening)
        finally:
            servers[0].should_exit = True
            thread.join()

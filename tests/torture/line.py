"""A proxy to an object store that sees every request. It can kill the client at a request, or stop forwarding."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterator

_REQUEST: Final = re.compile(rb"(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1\.1\r\n")
_COPY: Final = re.compile(rb"x-amz-copy-source:", re.IGNORECASE)


@dataclass(frozen=True)
class Request:
    """A request that passed; ``COPY`` is a put that copies."""

    number: int
    verb: str
    path: str


class Line:
    """Forwards bytes to the port ``target``, both on loopback.

    :ivar seen: the requests since the last :meth:`arm`
    :ivar dead: set when the line stopped forwarding
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._seeing = threading.Lock()
        self.port: int = self._listener.getsockname()[1]
        self.seen: list[Request] = []
        self.dead = threading.Event()
        self._alive = threading.Event()
        self.arm()
        self._threads = [threading.Thread(target=self._listen, daemon=True)]
        self._threads[0].start()

    def arm(self, *, kill_at: int | None = None, after: bool = False, die_at: tuple[str, str] | None = None) -> None:
        """Forget the requests so far, and set the fault.

        :param kill_at: kill :attr:`victim` at the request of this number
        :param after: kill after the server has the request, and drop the response
        :param die_at: stop forwarding at the first request of this verb whose path ends with this text
        """
        with self._seeing:
            self._kill_at, self._after, self._die_at = kill_at, after, die_at
            self.victim: int | None = None
            self.named = threading.Event()
            self.hit: Request | None = None
            self.seen = []
            self.revive()

    def name(self, victim: int) -> None:
        """Set the process to kill."""
        self.victim = victim
        self.named.set()

    def revive(self) -> None:
        """Forward again, also what arrived meanwhile, as a server that was paused."""
        self.dead.clear()
        self._alive.set()

    def close(self) -> None:
        """Close all connections and the listener."""
        for one in (self._listener, *self._open):
            _cut(one)
        self.revive()
        for thread in self._threads:
            thread.join(10)

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._open += [client, server]
                losing = threading.Event()
                for pump in (self._forward_request, self._forward_response):
                    thread = threading.Thread(target=pump, args=(client, server, losing), daemon=True)
                    self._threads.append(thread)
                    thread.start()

    def _forward_request(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                found = _REQUEST.match(data)
                if found is not None and self._is_target(self._note(found, data)):
                    if not self._after:
                        self._kill()
                        break
                    losing.set()
                if self.dead.is_set():
                    self._alive.wait()
                server.sendall(data)
        _cut(server)

    def _note(self, found: re.Match[bytes], data: bytes) -> Request:
        verb = "COPY" if _COPY.search(data) else found[1].decode()
        with self._seeing:
            request = Request(len(self.seen), verb, unquote(found[2].decode()))
            self.seen.append(request)
        if (
            self._die_at is not None
            and not self.dead.is_set()
            and verb == self._die_at[0]
            and request.path.endswith(self._die_at[1])
        ):
            self._alive.clear()
            self.dead.set()
        return request

    def _is_target(self, request: Request) -> bool:
        if request.number == self._kill_at:
            self.hit = request
        return request.number == self._kill_at

    def _kill(self) -> None:
        self.named.wait(10)
        assert self.victim is not None
        os.kill(self.victim, signal.SIGKILL)

    def _forward_response(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65_536):
                if losing.is_set():
                    self._kill()
                    break
                client.sendall(data)
        _cut(client)
        _cut(server)


@contextlib.contextmanager
def line_to(target: int) -> Iterator[Line]:
    """A line to the port ``target`` for the block."""
    line = Line(target)
    try:
        yield line
    finally:
        line.close()


def _cut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()

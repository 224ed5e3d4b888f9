"""A proxy to a server that can lose requests or responses."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Literal


class BrokenLine:
    """Listens on ``port`` and forwards bytes to ``target``, both on loopback.

    :ivar cuts: number of the next requests with ``method`` that lose their response
    :ivar mode: ``pass`` forwards requests; ``silence`` receives them and never responds
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.method = b"PUT "
        self.cuts = 0
        self.mode: Literal["pass", "silence"] = "pass"
        self._threads = [threading.Thread(target=self._listen)]
        self._threads[0].start()

    def close(self) -> None:
        """Close all connections and the listener."""
        for one in (self._listener, *self._open):
            _cut(one)
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
                    thread = threading.Thread(target=pump, args=(client, server, losing))
                    self._threads.append(thread)
                    thread.start()

    def _forward_request(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                if self.mode == "silence":
                    continue
                if self.cuts > 0 and data.startswith(self.method):
                    self.cuts -= 1
                    losing.set()
                server.sendall(data)
        _cut(server)

    def _forward_response(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while (data := server.recv(65_536)) and not losing.is_set():
                client.sendall(data)
        _cut(client)
        _cut(server)


def _cut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()

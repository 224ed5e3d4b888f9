"""httpx's connections, read in larger pieces.

httpcore asks its network for 64 KB at a time, though more lies there already: a page of a megabyte then
takes fifteen rounds through four layers, and what was received is cut up and copied again. With all that
lies there at once a page costs a third less.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any, Final

import httpcore
import httpx
from typing_extensions import override

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

_READ_BYTES: Final = 256 << 10  # as much as asyncio takes from a socket at once


class Connections(httpx.AsyncHTTPTransport):
    """Takes nothing from the environment.

    :param connections: at once, at most
    """

    def __init__(self, *, connections: int, proxy: str | None) -> None:
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        super().__init__(trust_env=False, proxy=proxy, limits=limits)
        # httpx hands its own backend to httpcore, whose public seam this is, and lets nobody else.
        self._pool._network_backend = _Backend(self._pool._network_backend)  # noqa: SLF001 - as above


class _Backend(httpcore.AsyncNetworkBackend):
    """Another backend, whose streams are read in larger pieces."""

    def __init__(self, inner: httpcore.AsyncNetworkBackend) -> None:
        self._inner = inner

    @override
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._inner.connect_tcp(host, port, timeout, local_address, socket_options))

    @override
    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    """Another stream. Whether it can be read from is asked of every idle connection before each request."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner
        self._socket = inner.get_extra_info("socket")

    @override
    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._inner.read(max(max_bytes, _READ_BYTES), timeout)

    @override
    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._inner.write(buffer, timeout)

    @override
    async def aclose(self) -> None:
        await self._inner.aclose()

    @override
    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    @override
    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            # As httpcore would say, without looking for the socket in layers of attributes each time.
            descriptor = self._socket.fileno()
            if descriptor < 0:  # it was closed
                return True
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            return bool(poll.poll(0))
        return self._inner.get_extra_info(info)

"""The connections to NASA's host, as an httpx transport: opened when none is idle, reused, closed when idle too long.

It uses httpx's public transport interface only. httpx passes each piece of a body through eight layers of httpcore;
docs/decisions/0012 says what that costs. Requests through a proxy use httpx's own transport.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import anyio
import httpx
from anyio.streams.tls import TLSStream

from neows_async.sources.http_connection import HttpConnection

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from anyio.abc import ByteStream

    Connect: TypeAlias = Callable[[httpx.URL], Awaitable[ByteStream]]
    _Origin: TypeAlias = tuple[str, str, int]

# A server may close a connection that was idle for longer, without a notice.
_IDLE_S: Final = 5.0
_PORTS: Final = {"http": 80, "https": 443}


def open_transport(
    *, connections: int, proxy: str | None = None, tls: ssl.SSLContext | None = None
) -> httpx.AsyncBaseTransport:
    """A transport for HTTP/1.1 that takes nothing from the environment. It may be closed, and used again after that.

    :param connections: the most idle connections that are kept
    :param proxy: the URL of a proxy for all requests
    :param tls: the trusted certificates; None is certifi's list
    """
    tls = tls or httpx.create_ssl_context(trust_env=False)
    if proxy is not None:
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        return httpx.AsyncHTTPTransport(verify=tls, trust_env=False, proxy=proxy, limits=limits)
    return HttpTransport(connector(tls), connections=connections)


class HttpTransport(httpx.AsyncBaseTransport):
    """Opens a connection when a request finds none idle. The caller limits the number of requests in flight.

    Of a request's time limits only ``connect`` is applied; the caller limits the time of the whole request.

    :param connect: opens a stream to the host of a URL
    :param connections: the most idle connections that are kept
    :param idle_s: seconds after which an idle connection is not used again
    """

    def __init__(self, connect: Connect, *, connections: int, idle_s: float = _IDLE_S) -> None:
        self._connect = connect
        self._connections = connections
        self._idle_s = idle_s
        # The last used is last and is taken first, so that the others can expire.
        self._idle: list[tuple[_Origin, float, HttpConnection]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request`` and return the response once its head is received. Close the response.

        :raises httpx.ConnectTimeout: no connection within the ``connect`` timeout
        :raises httpx.NetworkError: the host cannot be reached, or the connection broke
        :raises httpx.ProtocolError: the response is not HTTP
        """
        url = request.url
        origin = (url.scheme, url.host, _port(url))
        # Taken before the first await: no other request can get the same connection.
        connection, unusable = self._take(origin)
        try:
            # Closed here, when a request passes by: no task of its own watches idle connections.
            for other in unusable:
                await other.close()
            if connection is None:
                connection = HttpConnection(await self._open(request))
            return await connection.send(request, lambda reusable: self._put_back(origin, reusable))
        except BaseException:
            # After an error or a cancellation, part of a response may still arrive: never reuse the connection.
            if connection is not None:
                await connection.close()
            raise

    async def aclose(self) -> None:
        """Close the idle connections. Requests in flight go on, and new ones may be sent."""
        # Emptied first: a request that arrives during the closing opens a new connection.
        idle, self._idle = self._idle, []
        with anyio.CancelScope(shield=True):
            for _, _, connection in idle:
                await connection.close()

    def _take(self, origin: _Origin) -> tuple[HttpConnection | None, list[HttpConnection]]:
        """An idle connection to ``origin``, if there is one, and the idle connections to close.

        Without an await, so that no other task sees or takes from a half-sorted list.
        """
        now_s = anyio.current_time()
        taken: HttpConnection | None = None
        unusable: list[HttpConnection] = []
        kept: list[tuple[_Origin, float, HttpConnection]] = []
        for entry in reversed(self._idle):
            to, until_s, connection = entry
            if now_s < until_s and (taken is not None or to != origin):
                kept.append(entry)
            # Checked last, right before the use: the server may close at any moment.
            elif now_s < until_s and connection.is_reusable():
                taken = connection
            else:
                unusable.append(connection)
        self._idle = kept[::-1]
        return taken, unusable

    async def _put_back(self, origin: _Origin, connection: HttpConnection) -> None:
        if len(self._idle) < self._connections:
            self._idle.append((origin, anyio.current_time() + self._idle_s, connection))
        else:
            await connection.close()

    async def _open(self, request: httpx.Request) -> ByteStream:
        try:
            with anyio.fail_after(request.extensions.get("timeout", {}).get("connect")):
                return await self._connect(request.url)
        except TimeoutError as exc:
            raise httpx.ConnectTimeout(str(exc)) from exc
        except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as exc:
            raise httpx.ConnectError(str(exc)) from exc


def connector(tls: ssl.SSLContext) -> Connect:
    """Opens TCP streams, encrypted where the URL is ``https``."""
    tls.set_alpn_protocols(["http/1.1"])

    async def connect(url: httpx.URL) -> ByteStream:
        host = url.raw_host.decode("ascii")
        stream = await anyio.connect_tcp(host, _port(url))
        if url.scheme == "http":
            return stream
        try:
            # Not standard-compatible: servers end without a TLS goodbye; Content-Length shows a body that is cut
            # short.
            return await TLSStream.wrap(stream, hostname=host, ssl_context=tls, standard_compatible=False)
        except BaseException:
            await anyio.aclose_forcefully(stream)
            raise

    return connect


def _port(url: httpx.URL) -> int:
    return url.port or _PORTS[url.scheme]

"""The connections to a host: opened when there is none free, used again, closed when they are not needed.

httpx stays what is talked to: its requests, answers and errors, and through a proxy its own connections too.
Beneath it httpcore would take eight layers to hand on a piece of 64 KB; see ``docs/decisions`` for what that costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

import anyio
import httpcore
import httpx
from anyio.streams.tls import TLSStream

from neows_async.sources.http_connection import Connection

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from anyio.abc import ByteStream

# Later than this a server may have gone without a word.
_KEPT_S: Final = 5.0


class HttpTransport(httpx.AsyncHTTPTransport):
    """HTTP/1.1 only. Takes nothing from the environment. Of a request's time limits only ``connect`` is looked at.

    There are as many connections as requests under way; ``connections`` of them are kept for the next ones.

    :param proxy: through which all requests go
    :param tls: what is trusted; None is what certifi lists
    """

    def __init__(self, *, connections: int, proxy: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        tls = tls or httpx.create_ssl_context(trust_env=False)
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        super().__init__(verify=tls, trust_env=False, proxy=proxy, limits=limits)
        if proxy is None:
            # Its transport makes its pool itself, and has no other seam for one.
            self._pool = Pool(_Connector(tls).connect, kept=connections)  # type: ignore[assignment]  # as above


class Pool:
    """What httpx's transport asks, in the words of httpcore's pool. HTTP has no more than it needs for pages.

    :param connect: opens a stream to the host of a request, as long as its ``connect`` timeout allows
    :param kept: so many connections wait for the next request, at most
    """

    def __init__(self, connect: Callable[[httpcore.Request], Awaitable[ByteStream]], *, kept: int) -> None:
        self._connect = connect
        self._kept = kept
        # The one that was used last comes first: the others get the time to be closed.
        self._free: list[tuple[httpcore.Origin, float, Connection]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close those that are free. Requests may be sent again afterwards."""
        free, self._free = self._free, []
        with anyio.CancelScope(shield=True):
            for _, _, connection in free:
                await connection.close()

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send it, and wait for the head of the answer. Close the answer's stream, or its connection stays open.

        :raises httpcore.NetworkError: there is no connection, or it broke
        :raises httpcore.ProtocolError: what came is no HTTP
        :raises httpcore.ConnectTimeout: no connection in time. Of all else the caller limits the time
        """
        origin = request.url.origin
        connection = await self._take(origin) or Connection(await self._connect(request))
        try:
            return await connection.ask(request, lambda ended: self._give_back(origin, ended))
        except BaseException:
            await connection.close()
            raise

    async def _take(self, origin: httpcore.Origin) -> Connection | None:
        now_s = anyio.current_time()
        free, self._free = self._free, []
        taken: Connection | None = None
        with anyio.CancelScope(shield=True):
            for for_origin, until_s, connection in reversed(free):
                if now_s >= until_s:
                    await connection.close()
                elif taken is not None or for_origin != origin:
                    self._free.insert(0, (for_origin, until_s, connection))
                elif connection.is_quiet():
                    taken = connection
                else:
                    await connection.close()
        return taken

    async def _give_back(self, origin: httpcore.Origin, connection: Connection) -> None:
        if len(self._free) < self._kept:
            self._free.append((origin, anyio.current_time() + _KEPT_S, connection))
        else:
            await connection.close()


class _Connector:
    def __init__(self, tls: ssl.SSLContext) -> None:
        tls.set_alpn_protocols(["http/1.1"])
        self._tls = tls

    async def connect(self, request: httpcore.Request) -> ByteStream:
        """A stream to the host of ``request``, encrypted where its URL asks for it."""
        origin = request.url.origin
        host = origin.host.decode("ascii")
        try:
            with anyio.fail_after(request.extensions.get("timeout", {}).get("connect")):
                plain = await anyio.connect_tcp(host, origin.port)
                return plain if origin.scheme == b"http" else await self._encrypted(plain, host)
        except TimeoutError as exc:
            raise httpcore.ConnectTimeout(str(exc)) from exc
        except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as exc:
            raise httpcore.ConnectError(str(exc)) from exc

    async def _encrypted(self, plain: ByteStream, host: str) -> ByteStream:
        try:
            return await TLSStream.wrap(plain, hostname=host, ssl_context=self._tls, standard_compatible=False)
        except BaseException:
            await anyio.aclose_forcefully(plain)
            raise

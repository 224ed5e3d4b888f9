"""Our transport against real servers: bytes on a socket, TLS, a proxy."""

from __future__ import annotations

import gzip
import ssl
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import httpx
import pytest
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSListener

from neows_async.errors import AttemptError, RefusedError, UnreachableError
from neows_async.pages.content import decompress
from neows_async.sources.http_pool import HttpTransport, connector, open_transport
from neows_async.sources.nasa import NasaSource, open_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from anyio.abc import ByteStream

    from neows_async.pages.values import RawPage

TLS: Final = Path(__file__).parents[1] / "tls"
KEY: Final = "a-key-of-more-than-sixteen-letters"
BODY: Final = b'{"page": ' + b"7" * 300_000 + b"}"
GZIPPED: Final = gzip.compress(BODY)


class Raw(bytes):
    """Bytes that the server sends unencrypted."""


@dataclass
class Host:
    """A server that sends each request the next response, piece by piece, and keeps the connection open.

    An empty piece closes the connection. After the last response the server repeats it.
    """

    responses: Sequence[Sequence[bytes]]
    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    closed: int = 0
    changed: anyio.Event = field(default_factory=anyio.Event)

    async def serve(self, stream: ByteStream) -> None:
        self.connections += 1
        async with stream:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                while True:
                    await self._respond(stream)
        self.closed += 1
        self.changed.set()
        self.changed = anyio.Event()

    async def _respond(self, stream: Any) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += await stream.receive()
        self.requests.append(request)
        for piece in self.responses[min(len(self.requests), len(self.responses)) - 1]:
            if not piece:
                await stream.aclose()
            await (stream.transport_stream if isinstance(piece, Raw) else stream).send(piece)

    async def wait_closed(self, connections: int) -> None:
        """Wait until ``connections`` of them are closed."""
        while self.closed < connections:
            await self.changed.wait()


@asynccontextmanager
async def host_of(*responses: Sequence[bytes], tls: ssl.SSLContext | None = None) -> AsyncIterator[Host]:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        host = Host(responses, port=listener.extra(SocketAttribute.local_port))  # noqa: S610 - no database
        tasks.start_soon((TLSListener(listener, tls, standard_compatible=False) if tls else listener).serve, host.serve)
        yield host
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def source_at(
    base_url: str, transport: httpx.AsyncBaseTransport | None = None, max_body_bytes: int = 1 << 20
) -> AsyncIterator[NasaSource]:
    transport = transport or open_transport(connections=2)
    async with open_client(transport, connect_timeout_s=60, timeout_s=60) as client:
        yield NasaSource(
            client, base_url=base_url, api_key=KEY, transport=transport, timeout_s=60, max_body_bytes=max_body_bytes
        )


def json_of(page: RawPage) -> bytes:
    return decompress(page.body, page.content_encoding, 1 << 20)


def response(body: bytes = BODY, *headers: bytes, status: bytes = b"200 OK", version: bytes = b"1.1") -> bytes:
    head = [b"HTTP/%b %b" % (version, status), *(headers or (b"Content-Length: %d" % len(body),))]
    return b"\r\n".join([*head, b"", body])


def chunked(body: bytes, size: int = 70_000) -> bytes:
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return response(framed + b"0\r\n\r\n", b"Transfer-Encoding: chunked")


GOOD: Final = response()
WHOLE: Final = {
    "Content-Length": [GOOD],
    "in two pieces": [GOOD[:20], GOOD[20:]],
    "in many pieces": [GOOD[at : at + 4_001] for at in range(0, len(GOOD), 4_001)],
    "chunked": [chunked(BODY)],
    "chunked in many pieces": [chunked(BODY)[at : at + 4_001] for at in range(0, len(chunked(BODY)), 4_001)],
    "gzip": [response(GZIPPED, b"Content-Encoding: gzip", b"Content-Length: %d" % len(GZIPPED))],
    "after informational responses": [
        b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
        GOOD,
    ],
    "Content-Length twice": [response(BODY, *[b"Content-Length: %d" % len(BODY)] * 2)],
}
NOT_REUSABLE: Final = {
    "Connection: close": [response(BODY, b"Connection: close", b"Content-Length: %d" % len(BODY))],
    "HTTP/1.0": [response(version=b"1.0")],
    "body until the end of the connection": [response(BODY, b"X: y"), b""],
    "surplus bytes after the body": [GOOD + b"HTTP/1.1 200 OK\r\n"],
    "surplus bytes after the chunks": [chunked(BODY) + b"X"],
}


@pytest.mark.parametrize("pieces", WHOLE.values(), ids=WHOLE)
async def test_requests_in_sequence_reuse_one_connection(pieces: list[bytes]) -> None:
    async with host_of(pieces) as host, source_at(f"http://127.0.0.1:{host.port}") as source:
        for number in range(3):
            assert json_of(await source.fetch(number, 20)) == BODY
    assert host.connections == 1
    assert [request.split()[1] for request in host.requests] == [
        b"/neo/rest/v1/neo/browse?page=%d&size=20" % number for number in range(3)
    ]


@pytest.mark.parametrize("pieces", NOT_REUSABLE.values(), ids=NOT_REUSABLE)
async def test_unusable_connection_is_not_reused(pieces: list[bytes]) -> None:
    async with host_of(pieces) as host, source_at(f"http://127.0.0.1:{host.port}") as source:
        for number in range(3):
            assert (await source.fetch(number, 20)).body == BODY
        assert host.connections == 3
        await host.wait_closed(3)


async def test_connection_closed_by_the_server_costs_no_attempt() -> None:
    async with host_of([GOOD, b""]) as host, source_at(f"http://127.0.0.1:{host.port}") as source:
        for number in range(3):
            await source.fetch(number, 20)
            await host.wait_closed(number + 1)
    assert host.connections == 3


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ([b""], "disconnected without sending a response"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", b""], "disconnected without sending a response"),
        ([b"HTTP/1.1 101 Switching Protocols\r\n\r\n"], "the connection broke"),
        ([GOOD[:-1], b""], r"\(received 300009 bytes, expected 300010\)"),
        ([response(b"", b"Content-Length: 5"), b""], r"\(received 0 bytes, expected 5\)"),
        ([chunked(BODY)[:-9], b""], "incomplete chunked read"),
        ([response(b"xy", b"Content-Length: 2", b"Content-Length: 3")], "the connection broke"),
        ([response(b"xy", b"Content-Length: -2")], "the connection broke"),
        ([response(b"xy", b"Content-Length: " + b"9" * 21)], "the connection broke"),
        ([response(b"X" * 2_000_000)], "the body is larger than 1048576 bytes"),
        ([response(b"", b"Content-Length: 99999999999999999999"), b"x" * 2_000_000], "larger than 1048576 bytes"),
        ([b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000], "the connection broke"),
        ([b"\x16\x03\x01\r\n\r\n"], "the connection broke"),
    ],
)
async def test_incomplete_response_fails_the_attempt_and_closes_its_connection(
    pieces: list[bytes], reason: str
) -> None:
    async with host_of(pieces, [GOOD]) as host, source_at(f"http://127.0.0.1:{host.port}") as source:
        with pytest.raises(AttemptError, match=reason):
            await source.fetch(0, 20)
        await host.wait_closed(1)
        assert (await source.fetch(0, 20)).body == BODY
    assert host.connections == 2


async def test_cancelled_fetch_closes_its_connection() -> None:
    async with host_of([GOOD[:1_000]]) as host, source_at(f"http://127.0.0.1:{host.port}") as source:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(source.fetch, 0, 20)
                while not host.requests:
                    await anyio.lowlevel.checkpoint()
                scope.cancel()
        await host.wait_closed(1)


async def test_at_most_the_set_number_of_connections_stays_idle() -> None:
    async with host_of([GOOD]) as host, source_at(f"http://127.0.0.1:{host.port}") as source:
        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(source.fetch, number, 20)
        assert host.connections <= 4
        await host.wait_closed(host.connections - 2)
        await source.on_idle()
        await host.wait_closed(host.connections)
        assert (await source.fetch(4, 20)).body == BODY


@pytest.mark.parametrize("encrypted", [False, True])
async def test_on_idle_closes_all_connections_during_cancellation(encrypted: bool) -> None:
    tls, scheme = (server_tls(), "https") if encrypted else (None, "http")
    transport = trusting(connections=3)
    async with host_of([GOOD], tls=tls) as host, source_at(f"{scheme}://localhost:{host.port}", transport) as source:
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(source.fetch, number, 20)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await source.on_idle()
        await host.wait_closed(host.connections)


async def test_expired_idle_connections_are_closed_at_the_next_request() -> None:
    transport = HttpTransport(connector(ssl.create_default_context()), connections=3, idle_s=0)
    async with host_of([GOOD]) as host, source_at(f"http://127.0.0.1:{host.port}", transport) as source:
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(source.fetch, number, 20)
        expired = host.connections
        await source.fetch(3, 20)
        await host.wait_closed(expired)
        assert host.connections == expired + 1


async def test_an_unused_idle_connection_stays_while_another_is_reused() -> None:
    async with host_of([GOOD]) as host, source_at(f"http://127.0.0.1:{host.port}") as source:
        async with anyio.create_task_group() as tasks:
            for number in range(2):
                tasks.start_soon(source.fetch, number, 20)
        opened = host.connections
        for number in range(2, 5):
            await source.fetch(number, 20)
        assert (host.connections, host.closed) == (opened, 0)


async def test_head_and_post_requests_work() -> None:
    async with (
        host_of([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"], [response(b"12345")]) as host,
        httpx.AsyncClient(transport=open_transport(connections=1)) as client,
    ):
        with anyio.fail_after(60):
            assert (await client.head(f"http://127.0.0.1:{host.port}/")).headers["content-length"] == "5"
            received = await client.post(f"http://127.0.0.1:{host.port}/", content=b"much\r\n\r\n")
    assert received.content == b"12345"
    assert host.requests[1].endswith(b"\r\n\r\nmuch\r\n\r\n")
    assert host.connections == 1


async def test_closing_a_response_twice_keeps_the_connection_reusable() -> None:
    async with host_of([GOOD]) as host, httpx.AsyncClient(transport=open_transport(connections=1)) as client:
        for _ in range(2):
            received = await client.get(f"http://127.0.0.1:{host.port}/")
            for _ in range(2):
                await received.stream.aclose()  # type: ignore[union-attr]  # of an AsyncClient it is an AsyncByteStream
    assert host.connections == 1


async def test_error_about_an_invalid_key_does_not_show_the_key() -> None:
    key = "a-key-that-is-long\nenough-to-be-found"
    async with (
        host_of([GOOD]) as host,
        open_client(open_transport(connections=1), connect_timeout_s=60, timeout_s=60) as own,
    ):
        source = NasaSource(own, base_url=f"http://127.0.0.1:{host.port}", api_key=key)
        with pytest.raises(AttemptError) as caught:
            await source.fetch(0, 20)
        await host.wait_closed(1)
    assert "enough-to-be-found" not in repr(caught.value) + str(caught.value)
    assert not host.requests


async def test_unreachable_when_no_server_listens() -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - no database
    async with source_at(f"http://127.0.0.1:{port}") as source:
        with pytest.raises(UnreachableError, match="cannot be reached"):
            await source.fetch(0, 20)


# -- encrypted ------------------------------------------------------------------------------------


def server_tls() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(TLS / "localhost.pem")
    return context


def trusting(connections: int = 1) -> httpx.AsyncBaseTransport:
    tls = ssl.create_default_context(cafile=str(TLS / "authority.pem"))
    return open_transport(connections=connections, tls=tls)


@pytest.mark.parametrize("pieces", WHOLE.values(), ids=WHOLE)
async def test_encrypted_requests_reuse_one_connection(pieces: list[bytes]) -> None:
    async with (
        host_of(pieces, tls=server_tls()) as host,
        source_at(f"https://localhost:{host.port}", trusting()) as source,
    ):
        for number in range(3):
            assert json_of(await source.fetch(number, 20)) == BODY
    assert host.connections == 1


async def test_encrypted_body_cut_short_fails_the_attempt() -> None:
    async with (
        host_of([GOOD[:-1], b""], [GOOD], tls=server_tls()) as host,
        source_at(f"https://localhost:{host.port}", trusting()) as source,
    ):
        with pytest.raises(AttemptError, match="received 300009 bytes, expected 300010"):
            await source.fetch(0, 20)
        assert (await source.fetch(0, 20)).body == BODY


@pytest.mark.parametrize(
    "pieces", [[Raw(b"no record at all" * 9)], [GOOD[:-1], Raw(b"\x17\x03\x03\0\x20" + b"bad record" * 9)]]
)
async def test_damaged_tls_record_fails_the_attempt(pieces: list[bytes]) -> None:
    async with (
        host_of(pieces, [GOOD], tls=server_tls()) as host,
        source_at(f"https://localhost:{host.port}", trusting()) as source,
    ):
        with pytest.raises(AttemptError, match="the connection broke"):
            await source.fetch(0, 20)
        assert (await source.fetch(0, 20)).body == BODY


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_untrusted_host_receives_no_key(name: str) -> None:
    async with host_of([GOOD], tls=server_tls()) as host, source_at(f"https://{name}:{host.port}") as source:
        with pytest.raises(RefusedError, match="secure connection failed"):
            await source.fetch(0, 20)
    assert not host.requests


async def test_host_with_another_name_receives_no_key() -> None:
    async with (
        host_of([GOOD], tls=server_tls()) as host,
        source_at(f"https://127.0.0.2:{host.port}", trusting()) as source,
    ):
        with pytest.raises((RefusedError, UnreachableError)):
            await source.fetch(0, 20)
    assert not host.requests


# -- through a proxy ------------------------------------------------------------------------------


async def test_all_requests_go_through_the_proxy() -> None:
    async with host_of([GOOD]) as proxy:
        transport = open_transport(connections=1, proxy=f"http://127.0.0.1:{proxy.port}")
        async with source_at("http://127.0.0.1:9", transport) as source:
            for number in range(2):
                assert (await source.fetch(number, 20)).body == BODY
    assert proxy.connections == 1
    assert proxy.requests[0].startswith(b"GET http://127.0.0.1:9/neo/rest/v1/neo/browse?page=0&size=20 HTTP/1.1\r\n")

"""Our own connections, held to real servers: bytes on a socket, TLS, a proxy."""

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
from neows_async.sources.http_pool import HttpTransport
from neows_async.sources.nasa import NasaSource, open_client, open_transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from anyio.abc import ByteStream

TLS: Final = Path(__file__).parents[1] / "tls"
KEY: Final = "a-key-of-more-than-sixteen-letters"
BODY: Final = b'{"page": ' + b"7" * 300_000 + b"}"
GZIPPED: Final = gzip.compress(BODY)


class Raw(bytes):
    """Goes past the encryption."""


@dataclass
class Host:
    """A server that gives each request the next answer, in the pieces it is written in, and then keeps the line open.

    A piece of nothing closes it; after the last answer the last one is given again.
    """

    answers: Sequence[Sequence[bytes]]
    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    lines: int = 0
    ended: int = 0
    news: anyio.Event = field(default_factory=anyio.Event)

    async def serve(self, stream: ByteStream) -> None:
        self.lines += 1
        async with stream:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                while True:
                    await self._answer(stream)
        self.ended += 1
        self.news.set()
        self.news = anyio.Event()

    async def _answer(self, stream: Any) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += await stream.receive()
        self.requests.append(request)
        for piece in self.answers[min(len(self.requests), len(self.answers)) - 1]:
            if not piece:
                await stream.aclose()
            await (stream.transport_stream if isinstance(piece, Raw) else stream).send(piece)

    async def ends(self, lines: int) -> None:
        """Wait until so many connections have ended."""
        while self.ended < lines:
            await self.news.wait()


@asynccontextmanager
async def host_of(*answers: Sequence[bytes], tls: ssl.SSLContext | None = None) -> AsyncIterator[Host]:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        host = Host(answers, port=listener.extra(SocketAttribute.local_port))  # noqa: S610 - no database
        tasks.start_soon((TLSListener(listener, tls, standard_compatible=False) if tls else listener).serve, host.serve)
        yield host
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def source_at(
    base_url: str, transport: httpx.AsyncBaseTransport | None = None, max_body_bytes: int = 1 << 20
) -> AsyncIterator[NasaSource]:
    transport = transport or open_transport(connections=2)
    async with open_client(transport, connect_timeout_s=5, timeout_s=5) as client:
        yield NasaSource(
            client, base_url=base_url, api_key=KEY, transport=transport, timeout_s=5, max_body_bytes=max_body_bytes
        )


def answer(body: bytes = BODY, *headers: bytes, status: bytes = b"200 OK", version: bytes = b"1.1") -> bytes:
    head = [b"HTTP/%b %b" % (version, status), *(headers or (b"Content-Length: %d" % len(body),))]
    return b"\r\n".join([*head, b"", body])


def chunked(body: bytes, size: int = 70_000) -> bytes:
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return answer(framed + b"0\r\n\r\n", b"Transfer-Encoding: chunked")


GOOD: Final = answer()
WHOLE: Final = {
    "its length is told": [GOOD],
    "in two pieces": [GOOD[:20], GOOD[20:]],
    "in many pieces": [GOOD[at : at + 4_001] for at in range(0, len(GOOD), 4_001)],
    "in chunks": [chunked(BODY)],
    "in chunks in many pieces": [chunked(BODY)[at : at + 4_001] for at in range(0, len(chunked(BODY)), 4_001)],
    "gzipped": [answer(GZIPPED, b"Content-Encoding: gzip", b"Content-Length: %d" % len(GZIPPED))],
    "after another word": [b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n", GOOD],
    "its length is told twice": [answer(BODY, *[b"Content-Length: %d" % len(BODY)] * 2)],
}
LAST: Final = {
    "the server will close": [answer(BODY, b"Connection: close", b"Content-Length: %d" % len(BODY))],
    "an old server": [answer(version=b"1.0")],
    "until the end": [answer(BODY, b"X: y"), b""],
    "something follows": [GOOD + b"HTTP/1.1 200 OK\r\n"],
    "something follows the chunks": [chunked(BODY) + b"X"],
}


@pytest.mark.parametrize("pieces", WHOLE.values(), ids=WHOLE)
async def test_one_connection_serves_one_request_after_the_other(pieces: list[bytes]) -> None:
    async with host_of(pieces) as host, source_at(f"http://127.0.0.1:{host.port}") as source:
        for number in range(3):
            assert (await source.fetch(number, 20)).body == BODY
    assert host.lines == 1
    assert [request.split()[1] for request in host.requests] == [
        b"/neo/rest/v1/neo/browse?page=%d&size=20" % number for number in range(3)
    ]


@pytest.mark.parametrize("pieces", LAST.values(), ids=LAST)
async def test_a_connection_that_cannot_be_used_again_is_not(pieces: list[bytes]) -> None:
    async with host_of(pieces) as host, source_at(f"http://127.0.0.1:{host.port}") as source:
        for number in range(3):
            assert (await source.fetch(number, 20)).body == BODY
        assert host.lines == 3
        await host.ends(3)


async def test_a_server_that_closed_meanwhile_costs_no_attempt() -> None:
    async with host_of([GOOD, b""]) as host, source_at(f"http://127.0.0.1:{host.port}") as source:
        for number in range(3):
            await source.fetch(number, 20)
            await host.ends(number + 1)
    assert host.lines == 3


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ([b""], "disconnected without sending a response"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", b""], "disconnected without sending a response"),
        ([b"HTTP/1.1 101 Switching Protocols\r\n\r\n"], "the connection broke"),
        ([GOOD[:-1], b""], r"\(received 300009 bytes, expected 300010\)"),
        ([answer(b"", b"Content-Length: 5"), b""], r"\(received 0 bytes, expected 5\)"),
        ([chunked(BODY)[:-9], b""], "incomplete chunked read"),
        ([answer(b"xy", b"Content-Length: 2", b"Content-Length: 3")], "the connection broke"),
        ([answer(b"xy", b"Content-Length: -2")], "the connection broke"),
        ([answer(b"xy", b"Content-Length: " + b"9" * 21)], "the connection broke"),
        ([answer(b"X" * 2_000_000)], "the body is larger than 1048576 bytes"),
        ([answer(b"", b"Content-Length: 99999999999999999999"), b"x" * 2_000_000], "larger than 1048576 bytes"),
        ([b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000], "the connection broke"),
        ([b"\x16\x03\x01\r\n\r\n"], "the connection broke"),
    ],
)
async def test_what_is_no_whole_answer_ends_the_attempt_and_its_connection(pieces: list[bytes], said: str) -> None:
    async with host_of(pieces, [GOOD]) as host, source_at(f"http://127.0.0.1:{host.port}") as source:
        with pytest.raises(AttemptError, match=said):
            await source.fetch(0, 20)
        await host.ends(1)
        assert (await source.fetch(0, 20)).body == BODY
    assert host.lines == 2


async def test_who_is_cancelled_leaves_no_connection_behind() -> None:
    async with host_of([GOOD[:1_000]]) as host, source_at(f"http://127.0.0.1:{host.port}") as source:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(source.fetch, 0, 20)
                while not host.requests:
                    await anyio.lowlevel.checkpoint()
                scope.cancel()
        await host.ends(1)


async def test_no_more_connections_are_kept_than_were_asked_for() -> None:
    async with host_of([GOOD]) as host, source_at(f"http://127.0.0.1:{host.port}") as source:
        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(source.fetch, number, 20)
        assert host.lines <= 4
        await host.ends(host.lines - 2)
        await source.on_idle()
        await host.ends(host.lines)
        assert (await source.fetch(4, 20)).body == BODY


@pytest.mark.parametrize("encrypted", [False, True])
async def test_all_are_closed_also_by_who_is_cancelled(encrypted: bool) -> None:
    tls, scheme, transport = None, "http", HttpTransport(connections=3)
    if encrypted:
        tls, scheme = server_tls(), "https"
        transport = HttpTransport(connections=3, tls=ssl.create_default_context(cafile=str(TLS / "authority.pem")))
    async with host_of([GOOD], tls=tls) as host, source_at(f"{scheme}://localhost:{host.port}", transport) as source:
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(source.fetch, number, 20)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await source.on_idle()
        await host.ends(host.lines)


async def test_a_connection_that_waited_too_long_is_closed_whichever_is_used() -> None:
    transport = HttpTransport(connections=3)
    async with host_of([GOOD]) as host, source_at(f"http://127.0.0.1:{host.port}", transport) as source:
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(source.fetch, number, 20)
        pool: Any = transport._pool
        pool._free = [(origin, until_s if at else 0.0, one) for at, (origin, until_s, one) in enumerate(pool._free)]
        before = host.lines
        await source.fetch(3, 20)
        assert host.lines == before
        await host.ends(1)


async def test_what_else_a_client_may_ask_is_answered_too() -> None:
    async with (
        host_of([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"], [answer(b"12345")]) as host,
        httpx.AsyncClient(transport=HttpTransport(connections=1)) as client,
    ):
        with anyio.fail_after(5):
            assert (await client.head(f"http://127.0.0.1:{host.port}/")).headers["content-length"] == "5"
            said = await client.post(f"http://127.0.0.1:{host.port}/", content=b"much\r\n\r\n")
    assert said.content == b"12345"
    assert host.requests[1].endswith(b"\r\n\r\nmuch\r\n\r\n")
    assert host.lines == 1


async def test_a_body_that_is_closed_twice_closes_nothing_of_others() -> None:
    async with host_of([GOOD]) as host, httpx.AsyncClient(transport=HttpTransport(connections=1)) as client:
        for _ in range(2):
            said = await client.get(f"http://127.0.0.1:{host.port}/")
            for _ in range(2):
                await said.stream.aclose()  # type: ignore[union-attr]  # of an AsyncClient it is an AsyncByteStream
    assert host.lines == 1


async def test_a_key_that_no_header_can_hold_is_told_without_it() -> None:
    key = "a-key-that-is-long\nenough-to-be-found"
    async with (
        host_of([GOOD]) as host,
        open_client(open_transport(connections=1), connect_timeout_s=5, timeout_s=5) as own,
    ):
        source = NasaSource(own, base_url=f"http://127.0.0.1:{host.port}", api_key=key)
        with pytest.raises(AttemptError) as caught:
            await source.fetch(0, 20)
        await host.ends(1)
    assert "enough-to-be-found" not in repr(caught.value) + str(caught.value)
    assert not host.requests


async def test_nobody_listens() -> None:
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


def trusting() -> HttpTransport:
    return HttpTransport(connections=1, tls=ssl.create_default_context(cafile=str(TLS / "authority.pem")))


@pytest.mark.parametrize("pieces", WHOLE.values(), ids=WHOLE)
async def test_an_encrypted_connection_serves_one_request_after_the_other(pieces: list[bytes]) -> None:
    async with (
        host_of(pieces, tls=server_tls()) as host,
        source_at(f"https://localhost:{host.port}", trusting()) as source,
    ):
        for number in range(3):
            assert (await source.fetch(number, 20)).body == BODY
    assert host.lines == 1


async def test_an_encrypted_body_that_is_cut_short_is_not_whole() -> None:
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
async def test_what_is_damaged_beneath_the_encryption_ends_the_attempt(pieces: list[bytes]) -> None:
    async with (
        host_of(pieces, [GOOD], tls=server_tls()) as host,
        source_at(f"https://localhost:{host.port}", trusting()) as source,
    ):
        with pytest.raises(AttemptError, match="the connection broke"):
            await source.fetch(0, 20)
        assert (await source.fetch(0, 20)).body == BODY


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_a_host_that_is_not_trusted_gets_no_key(name: str) -> None:
    async with host_of([GOOD], tls=server_tls()) as host, source_at(f"https://{name}:{host.port}") as source:
        with pytest.raises(RefusedError, match="secure connection failed"):
            await source.fetch(0, 20)
    assert not host.requests


async def test_a_host_of_another_name_gets_no_key() -> None:
    async with (
        host_of([GOOD], tls=server_tls()) as host,
        source_at(f"https://127.0.0.2:{host.port}", trusting()) as source,
    ):
        with pytest.raises((RefusedError, UnreachableError)):
            await source.fetch(0, 20)
    assert not host.requests


# -- through a proxy ------------------------------------------------------------------------------


async def test_all_goes_through_the_proxy_if_there_is_one() -> None:
    async with host_of([GOOD]) as proxy:
        transport = HttpTransport(connections=1, proxy=f"http://127.0.0.1:{proxy.port}")
        async with source_at("http://127.0.0.1:9", transport) as source:
            for number in range(2):
                assert (await source.fetch(number, 20)).body == BODY
    assert proxy.lines == 1
    assert proxy.requests[0].startswith(b"GET http://127.0.0.1:9/neo/rest/v1/neo/browse?page=0&size=20 HTTP/1.1\r\n")

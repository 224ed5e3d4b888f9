"""Responses of a hostile server: with the key in them, or without an end."""

from __future__ import annotations

import gc
import gzip
import re
import secrets
import traceback
import tracemalloc
import zlib
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest
from anyio.abc import SocketAttribute, SocketStream

from neows_async.errors import AttemptError, BadPageError, KeyRefusedError, NeowsError, RateLimitedError, RefusedError
from neows_async.pages.content import decompress
from neows_async.sources.http_pool import open_transport
from neows_async.sources.nasa import NasaSource, open_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEY = secrets.token_hex(20)


@asynccontextmanager
async def source_of(
    response: bytes, *, hang: bool = False, max_body_bytes: int = 64 << 20, client: httpx.AsyncClient | None = None
) -> AsyncIterator[NasaSource]:
    """A source whose server sends ``response``, with the received key in place of ``KEY``, and may never end it."""

    async def serve(stream: SocketStream) -> None:
        async with stream:
            request = b""
            while b"\r\n\r\n" not in request:
                request += await stream.receive()
            found = re.search(rb"x-api-key: (\S+)", request, re.IGNORECASE)
            assert found is not None
            with suppress(anyio.BrokenResourceError):  # the client may close early
                await stream.send(response.replace(b"KEY", found[1]))
            if hang:
                await anyio.sleep_forever()

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
        open_client(open_transport(connections=1), connect_timeout_s=60, timeout_s=60) as own,
    ):
        tasks.start_soon(listener.serve, serve)
        port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - no database
        yield NasaSource(
            client or own, base_url=f"http://127.0.0.1:{port}", api_key=KEY, timeout_s=60, max_body_bytes=max_body_bytes
        )
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("response", "kind", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nno header KEY\r\n\r\n", AttemptError, "the connection broke"),
        (b"HTTP/9 KEY\r\n\r\n", AttemptError, "the connection broke"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: KEY\r\n\r\n", AttemptError, "encoded as 'REDACTED'"),
        (b"HTTP/1.1 301 Moved\r\nLocation: http://KEY.org/\r\n\r\n", RefusedError, "a redirect to REDACTED.org"),
        (b"HTTP/1.1 400 Bad\r\nContent-Length: 43\r\n\r\n?api_key=KEY", RefusedError, "400"),
    ],
)
async def test_no_error_of_the_connection_holds_the_key(response: bytes, kind: type[NeowsError], reason: str) -> None:
    async with source_of(response) as source:
        with pytest.raises(kind, match=re.escape(reason)) as caught:
            await source.fetch(0, 20)
    assert KEY not in str(caught.value)
    assert KEY not in repr(caught.value)


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (
            b"503 Down\r\n\r\n<!DOCTYPE html>\n<html><head>\n<title lang='en'>Application\n error</title><p>Text",
            "503 Application error",
        ),
        (
            b'403 No\r\n\r\n{"error": {"code": "API_ROLE_UNKNOWN", "message": "Write to\\nus"}}',
            "403 API_ROLE_UNKNOWN: Write to us; check",
        ),
        (
            b'400 No\r\n\r\n{"code": 400, "http_error": "BAD_REQUEST", "error_message": "Bad page", "request": "http://KEY"}',
            "400 BAD_REQUEST: Bad page",
        ),
        (b'502 Bad\r\n\r\n{"status": 502, "error": "Bad Gateway"}', '502 {"status": 502, "error": "Bad Gateway"}'),
        (b"500 Oh\r\n\r\n" + b"<title>" * 9_000, "500 <title><title>"),
        (b"500 Oh\r\n\r\n" + b"[" * 60_000, "500 [[["),
        (b"500 Oh\r\n\r\n<title>KEY</title>", "500 REDACTED"),
    ],
    ids=["a title", "a code", "the backend's", "as it is", "titles without end", "deep", "a key"],
)
async def test_error_shows_the_readable_part_of_the_body(response: bytes, reason: str) -> None:
    body = response.partition(b"\r\n\r\n")[2].replace(b"KEY", KEY.encode())
    length = b"\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with source_of(b"HTTP/1.1 " + response.replace(b"\r\n\r\n", length, 1)) as source:
        with pytest.raises(NeowsError, match=re.escape(reason)):
            await source.fetch(0, 20)


async def test_escaped_key_in_an_error_body_is_redacted_before_it_is_cut() -> None:
    escaped = "".join(f"\\u{ord(char):04x}" for char in KEY)
    for before in (0, 80, 100):
        body = f'{{"error": {{"code": "X", "message": "{"y" * before}{escaped}"}}}}'.encode()
        response = b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        async with source_of(response) as source:
            with pytest.raises(RefusedError) as caught:
                await source.fetch(0, 20)
        assert KEY[:8] not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        (b"Retry-After: 2870", 2_870),
        (b"Date: Sun, 22 Nov 2026 10:00:00 GMT\r\nRetry-After: Sun, 22 Nov 2026 10:47:50 GMT", 2_870),
        (b"Retry-After: Sun, 22 Nov 2026 10:47:50 GMT", None),
        (b"Date: soon\r\nRetry-After: later", None),
        (b"Date: Sun, 22 Nov 2026 10:00:00 GMT\r\nRetry-After: Sun, 22 Nov 9999 10:47:50 GMT", None),
        (b"Retry-After: 99999999999", None),
        (b"X: y", None),
    ],
)
async def test_retry_after_is_seconds_or_a_date(headers: bytes, wait_s: float | None) -> None:
    async with source_of(b"HTTP/1.1 429 Many\r\nContent-Length: 0\r\n" + headers + b"\r\n\r\n") as source:
        with pytest.raises(RateLimitedError) as caught:
            await source.fetch(0, 20)
    assert caught.value.retry_after_s == wait_s


async def test_endless_error_body_does_not_change_the_error() -> None:
    async with source_of(b"HTTP/1.1 403 Forbidden\r\n\r\n{", hang=True) as source:
        with anyio.fail_after(30), pytest.raises(KeyRefusedError):
            await source.fetch(0, 20)


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 200_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 9_000,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + b"x" * 200_000,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"") + b"x" * 200_000,
        b"HTTP/1.1 503 Down\r\n\r\n" + b"x" * 200_000,
    ],
    ids=["endless", "chunks of a byte", "no gzip", "more than gzip", "an error"],
)
async def test_body_beyond_the_limit_leaves_nothing_open(response: bytes) -> None:
    async with source_of(response, max_body_bytes=4_000) as source:
        with pytest.raises(AttemptError):
            await source.fetch(0, 20)
        # A generator or connection left open would warn now, and a warning is a failure.
        gc.collect()


@pytest.mark.parametrize("place", [b"http://xn--zzzzzzzzzz99999/", b"mailto:x@y"])
async def test_redirect_to_an_invalid_host_is_refused(place: bytes) -> None:
    response = b"HTTP/1.1 302 Found\r\nLocation: " + place + b"\r\n\r\n"
    async with source_of(response) as source:
        with pytest.raises(RefusedError, match="a redirect to nowhere"):
            await source.fetch(0, 20)
    # The embedder's own client parses the target, and raises before there is a response to refuse.
    async with httpx.AsyncClient(trust_env=False) as client, source_of(response, client=client) as source:
        with pytest.raises(AttemptError, match="response cannot be read"):
            await source.fetch(0, 20)


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\nno header KEY\r\n\r\n", AttemptError),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: KEY\r\n\r\n", AttemptError),
        (b"HTTP/1.1 302 Found\r\nLocation: http://xn--\xc3\xa9KEY/\r\n\r\n", RefusedError),
    ],
)
async def test_no_cause_of_an_error_holds_the_key(response: bytes, kind: type[NeowsError]) -> None:
    async with source_of(response) as source:
        with pytest.raises(kind) as caught:
            await source.fetch(0, 20)
    assert KEY not in "".join(traceback.format_exception(caught.value))
    link: BaseException | None = caught.value
    while link is not None:
        assert KEY not in repr(link.args)
        link = link.__cause__ or link.__context__


async def test_no_cookie_is_stored() -> None:
    async with source_of(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\n{}") as source:
        await source.fetch(0, 20)
        assert not source._client.cookies


async def test_gzip_bomb_takes_no_more_memory_than_the_limit() -> None:
    compressor = zlib.compressobj(9, wbits=31)
    bomb = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(64)) + compressor.flush()
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
    async with source_of(head + bomb, max_body_bytes=1 << 20) as source:
        tracemalloc.start()
        try:
            page = await source.fetch(0, 20)
            with pytest.raises(BadPageError, match="larger than 1048576 bytes"):
                decompress(page.body, page.content_encoding, 1 << 20)
            _, most_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert most_bytes < 4 << 20

"""What a server may say instead of an answer: with the key in it, or without an end."""

from __future__ import annotations

import re
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from neows_async.errors import AttemptError, KeyRefusedError, NeowsError, RefusedError
from neows_async.sources.gateway import GatewaySource, open_client, open_transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEY = secrets.token_hex(20)


@asynccontextmanager
async def source_of(answer: bytes, *, hang: bool = False) -> AsyncIterator[GatewaySource]:
    """A source whose server gives ``answer``, with the key it got for ``KEY``, and may never end it."""

    async def serve(stream: SocketStream) -> None:
        async with stream:
            request = b""
            while b"\r\n\r\n" not in request:
                request += await stream.receive()
            found = re.search(rb"x-api-key: (\S+)", request, re.IGNORECASE)
            assert found is not None
            await stream.send(answer.replace(b"KEY", found[1]))
            if hang:
                await anyio.sleep_forever()

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
        open_client(open_transport(connections=1), connect_timeout_s=5, timeout_s=30) as client,
    ):
        tasks.start_soon(listener.serve, serve)
        port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - no database
        yield GatewaySource(client, base_url=f"http://127.0.0.1:{port}", api_key=KEY, timeout_s=30)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nno header KEY\r\n\r\n", AttemptError, "the connection broke"),
        (b"HTTP/9 KEY\r\n\r\n", AttemptError, "the connection broke"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: KEY\r\n\r\n", AttemptError, "encoded as 'REDACTED'"),
        (b"HTTP/1.1 301 Moved\r\nLocation: http://KEY.org/\r\n\r\n", RefusedError, "a redirect to REDACTED.org"),
        (b"HTTP/1.1 400 Bad\r\nContent-Length: 43\r\n\r\n?api_key=KEY", RefusedError, "400"),
    ],
)
async def test_no_text_of_the_connection_holds_the_key(answer: bytes, kind: type[NeowsError], said: str) -> None:
    async with source_of(answer) as source:
        with pytest.raises(kind, match=re.escape(said)) as caught:
            await source.fetch(0, 20)
    assert KEY not in str(caught.value)
    assert KEY not in repr(caught.value)


async def test_an_error_whose_body_has_no_end_is_the_error_that_it_is() -> None:
    async with source_of(b"HTTP/1.1 403 Forbidden\r\n\r\n{", hang=True) as source:
        with anyio.fail_after(10), pytest.raises(KeyRefusedError):
            await source.fetch(0, 20)

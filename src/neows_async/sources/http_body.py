"""Read the body of a response, with a limit while it is received: no more than the limit is ever in memory."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import httpx

from neows_async.pages.content import GZIP

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_BUFFERED_BYTES: Final = 1 << 20
_FEW_PIECES: Final = 64


class BodyError(Exception):
    """The body is too large, or has an encoding that was not requested. The text may quote the response, unredacted."""


async def read_body(response: httpx.Response, max_bytes: int) -> tuple[bytes, str | None]:
    """The body of a response that was opened with ``stream=True``, as received, and its encoding.

    It stays compressed: decompressing takes milliseconds, and this runs in the event loop.

    :param max_bytes: the most bytes as received
    :returns: the body; ``gzip``, or None for a plain body
    :raises BodyError: the body is too large, or its encoding was not requested
    :raises httpx.HTTPError: the connection broke
    """
    if response.is_stream_consumed:
        return _read_by_hook(response, max_bytes), None
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    # Before the first byte: an unknown encoding would be stored as a page that nobody can read.
    if encoding not in ("gzip", "x-gzip", "identity", ""):
        raise BodyError(f"the body is encoded as {encoding!r}, which was not requested")
    body = _BoundedBody(max_bytes)
    chunks = response.aiter_raw()
    async for chunk in chunks:
        try:
            # The limit holds at each chunk, whatever Content-Length says.
            body.add(chunk)
        except BodyError:
            await _break_off(response, chunks)
            raise
    return body.joined(), GZIP if "gzip" in encoding else None


def _read_by_hook(response: httpx.Response, max_bytes: int) -> bytes:
    """The body that an event hook of the embedder's client has already read; httpx has decompressed it."""
    try:
        body = response.content
    except httpx.ResponseNotRead as exc:
        raise BodyError("an event hook of the client read the body and did not keep it") from exc
    if len(body) > max_bytes:
        raise BodyError(f"the body is larger than {max_bytes} bytes")
    return body


async def _break_off(response: httpx.Response, chunks: AsyncIterator[bytes]) -> None:
    """Close the connection, then read until the closing shows.

    ``chunks`` is the outermost of several nested generators, and closing it would close none of the others. Each ends
    by itself once the innermost finds its connection closed. The bytes received before that are few.
    """
    await response.aclose()
    received_bytes = 0
    with suppress(httpx.HTTPError, httpx.StreamError):
        async for chunk in chunks:
            received_bytes += len(chunk)
            if received_bytes > _BUFFERED_BYTES:  # not a connection, but a transport that never ends
                break


class _BoundedBody:
    """Collects chunks, up to a limit.

    Few chunks are joined once, at the end. Many go into one growing buffer, since a list of chunks of one byte takes
    fifty times their size.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._pieces: list[bytes] = []
        self._buffer = io.BytesIO()

    def add(self, chunk: bytes) -> None:
        """Add one chunk."""
        # Counted before it is kept.
        self._bytes += len(chunk)
        if self._bytes > self._max_bytes:
            raise BodyError(f"the body is larger than {self._max_bytes} bytes")
        self._pieces.append(chunk)
        if len(self._pieces) > _FEW_PIECES:
            self._flush()

    def joined(self) -> bytes:
        """The whole body."""
        if not self._buffer.tell():
            return b"".join(self._pieces)
        self._flush()
        return self._buffer.getvalue()  # without a copy

    def _flush(self) -> None:
        self._buffer.writelines(self._pieces)
        self._pieces.clear()

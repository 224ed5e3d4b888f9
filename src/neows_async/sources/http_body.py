"""The body of a response, bounded while it is received: more than the limit is never in memory."""

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
    """The body is too large, or has an encoding that was not requested. The text may quote it, with its keys."""


async def read_body(response: httpx.Response, max_bytes: int) -> tuple[bytes, str | None]:
    """The body of a response that was requested with ``stream=True``, as received, and how it is encoded.

    It stays compressed: decompressing takes milliseconds, and this runs in the event loop.

    :param max_bytes: of the body as received
    :returns: the body; ``gzip``, or None for a plain body
    :raises BodyError: there is no such body
    :raises httpx.HTTPError: the connection broke
    """
    if response.is_stream_consumed:
        return _read_already(response, max_bytes), None
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("gzip", "x-gzip", "identity", ""):
        raise BodyError(f"the body is encoded as {encoding!r}, which was not requested")
    body = _Pieces(max_bytes)
    chunks = response.aiter_raw()
    async for chunk in chunks:
        try:
            body.add(chunk)
        except BodyError:
            await _break_off(response, chunks)
            raise
    return body.joined(), GZIP if "gzip" in encoding else None


def _read_already(response: httpx.Response, max_bytes: int) -> bytes:
    """The body that a hook of the user's client has read, which httpx has decompressed."""
    try:
        body = response.content
    except httpx.ResponseNotRead as exc:
        raise BodyError("a hook of the client read the body and did not keep it") from exc
    if len(body) > max_bytes:
        raise BodyError(f"the body is larger than {max_bytes} bytes")
    return body


async def _break_off(response: httpx.Response, chunks: AsyncIterator[bytes]) -> None:
    """Close the connection, and read on until that shows.

    ``chunks`` is the outermost of five nested generators, and closing it would close no other: each
    of them ends by itself only when the innermost finds its connection closed. What had already
    come from there is little.
    """
    await response.aclose()
    come_bytes = 0
    with suppress(httpx.HTTPError, httpx.StreamError):
        async for chunk in chunks:
            come_bytes += len(chunk)
            if come_bytes > _BUFFERED_BYTES:  # it is no connection
                break


class _Pieces:
    """A few chunks are joined once, when all are there. Many go into one growing buffer: a list of chunks of a byte
    each would take fifty times their size.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._pieces: list[bytes] = []
        self._buffer = io.BytesIO()

    def add(self, chunk: bytes) -> None:
        """:raises BodyError: the body is too large"""
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
        return self._buffer.getvalue()

    def _flush(self) -> None:
        self._buffer.writelines(self._pieces)
        self._pieces.clear()

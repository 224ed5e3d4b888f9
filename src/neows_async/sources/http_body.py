"""The body of an answer, bounded while it comes: whatever is sent, no more than the limit is ever held."""

from __future__ import annotations

import io
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_GZIP: Final = 31  # zlib's word for "with gzip's header and checksum"
_BUFFERED_BYTES: Final = 1 << 20
_FEW_PIECES: Final = 64


class BodyError(Exception):
    """It is too large, or not encoded as was asked for. The text may quote the answer, unscrubbed."""


async def read_body(response: httpx.Response, max_bytes: int) -> bytes:
    """The decoded body of an answer that was sent with ``stream=True``.

    :param max_bytes: of what is sent and of what it expands to, each
    :raises BodyError: there is no such body
    :raises httpx.HTTPError: the connection broke
    """
    if response.is_stream_consumed:
        return _read_already(response, max_bytes)
    body = _Body(response.headers.get("content-encoding", "identity").strip().lower(), max_bytes)
    chunks = response.aiter_raw()
    async for chunk in chunks:
        try:
            body.take(chunk)
        except BodyError:
            await _break_off(response, chunks)
            raise
    return body.whole()


def _read_already(response: httpx.Response, max_bytes: int) -> bytes:
    """What a hook of the client's owner has read."""
    try:
        body = response.content
    except httpx.ResponseNotRead as exc:
        raise BodyError("a hook of the client took the body and did not keep it") from exc
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


class _Body:
    """Takes what comes, chunk by chunk.

    httpx would expand a whole chunk of a gzip bomb at once; zlib can be told where to stop. A few pieces are joined
    once, when all are there. More go into one growing buffer, since a list of pieces of a byte each would take fifty
    times their size; this kind gives out what it holds without a copy.
    """

    def __init__(self, encoding: str, max_bytes: int) -> None:
        if encoding not in ("gzip", "x-gzip", "identity", ""):
            raise BodyError(f"the body is encoded as {encoding!r}, which was not asked for")
        self._gzip = zlib.decompressobj(wbits=_GZIP) if "gzip" in encoding else None
        self._max_bytes = max_bytes
        self._sent_bytes = 0
        self._pieces: list[bytes] = []
        self._gathered = io.BytesIO()
        self._expanded_bytes = 0

    def take(self, chunk: bytes) -> None:
        """One more chunk.

        :raises BodyError: the body is not gzip, or too large
        """
        self._sent_bytes += len(chunk)
        if self._gzip is None:
            expanded = chunk
        else:
            if self._gzip.eof and chunk:
                raise BodyError("something follows the end of the gzip body")
            try:
                expanded = self._gzip.decompress(chunk, self._max_bytes + 1 - self._expanded_bytes)
            except zlib.error as exc:
                raise BodyError(f"the body is not gzip: {exc}") from exc
            if self._gzip.unused_data:
                raise BodyError("something follows the end of the gzip body")
        self._expanded_bytes += len(expanded)
        self._pieces.append(expanded)
        if len(self._pieces) > _FEW_PIECES:
            self._gather()
        if max(self._sent_bytes, self._expanded_bytes) > self._max_bytes:
            raise BodyError(f"the body is larger than {self._max_bytes} bytes")

    def whole(self) -> bytes:
        """All of it, expanded.

        :raises BodyError: the gzip body has no end
        """
        if self._gzip is not None and not self._gzip.eof:
            raise BodyError(f"the gzip body ends after {self._sent_bytes} bytes, before its end")
        if not self._gathered.tell():
            return b"".join(self._pieces)
        self._gather()
        return self._gathered.getvalue()

    def _gather(self) -> None:
        self._gathered.writelines(self._pieces)
        self._pieces.clear()

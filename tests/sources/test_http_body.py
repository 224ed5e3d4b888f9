"""The body of an answer: the same whatever pieces it comes in, and never more of it than is allowed."""

from __future__ import annotations

import gzip
import tracemalloc
from typing import TYPE_CHECKING

import httpx
import pytest

from neows_async.sources.http_body import BodyError, read_body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BODY = b"".join(b"%d," % number for number in range(20_000))[:100_000]


class Pieces(httpx.AsyncByteStream):
    """``body``, so many bytes at a time."""

    def __init__(self, body: bytes, piece_bytes: int) -> None:
        self._body = body
        self._piece_bytes = piece_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._body), self._piece_bytes):
            yield self._body[at : at + self._piece_bytes]


def answer(body: bytes, piece_bytes: int, encoding: str) -> httpx.Response:
    if encoding == "gzip":
        body = gzip.compress(body)
    return httpx.Response(200, headers={"content-encoding": encoding}, stream=Pieces(body, piece_bytes))


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
# One piece, a few, as many as are joined at once, one more, and very many.
@pytest.mark.parametrize("pieces", [1, 5, 64, 65, 66, 1_000, 100_000])
async def test_it_is_whole_whatever_pieces_it_comes_in(pieces: int, encoding: str) -> None:
    piece_bytes = -(-len(BODY) // pieces)
    assert await read_body(answer(BODY, piece_bytes, encoding), len(BODY)) == BODY
    with pytest.raises(BodyError, match="larger than 99999 bytes"):
        await read_body(answer(BODY, piece_bytes, encoding), len(BODY) - 1)


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_nothing_is_a_body_too(encoding: str) -> None:
    assert await read_body(answer(b"", 1, encoding), 0 if encoding == "identity" else 100) == b""


async def test_pieces_of_a_byte_take_the_room_of_their_bytes() -> None:
    tracemalloc.start()
    try:
        await read_body(answer(BODY, 1, "identity"), len(BODY))
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes < 3 * len(BODY)

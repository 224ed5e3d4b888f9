"""The body of a response: the same for any pieces, and never more of it in memory than the limit."""

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
PACKED = gzip.compress(BODY)


class Pieces(httpx.AsyncByteStream):
    """``body``, in pieces of ``piece_bytes`` bytes."""

    def __init__(self, body: bytes, piece_bytes: int) -> None:
        self._body = body
        self._piece_bytes = piece_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._body), self._piece_bytes):
            yield self._body[at : at + self._piece_bytes]


def response(body: bytes, piece_bytes: int, encoding: str) -> httpx.Response:
    return httpx.Response(200, headers={"content-encoding": encoding}, stream=Pieces(body, piece_bytes))


@pytest.mark.parametrize(
    ("encoding", "body", "found"),
    [("identity", BODY, None), ("", BODY, None), ("gzip", PACKED, "gzip"), (" X-GZip", PACKED, "gzip")],
)
# One piece, a few, as many as are joined at once, one more, and very many.
@pytest.mark.parametrize("pieces", [1, 5, 64, 65, 66, 1_000, 100_000])
async def test_body_is_the_same_for_any_number_of_pieces(
    pieces: int, encoding: str, body: bytes, found: str | None
) -> None:
    piece_bytes = -(-len(body) // pieces)
    assert await read_body(response(body, piece_bytes, encoding), len(body)) == (body, found)
    with pytest.raises(BodyError, match=f"larger than {len(body) - 1} bytes"):
        await read_body(response(body, piece_bytes, encoding), len(body) - 1)


@pytest.mark.parametrize(("encoding", "found"), [("identity", None), ("gzip", "gzip")])
async def test_empty_body_is_read(encoding: str, found: str | None) -> None:
    assert await read_body(response(b"", 1, encoding), 0) == (b"", found)


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "zstd"])
async def test_encoding_that_was_not_requested_is_refused(encoding: str) -> None:
    with pytest.raises(BodyError, match="which was not requested"):
        await read_body(response(BODY, 100, encoding), len(BODY))


async def test_body_read_by_a_hook_is_decompressed_and_limited() -> None:
    read = response(PACKED, 100, "gzip")
    await read.aread()
    assert await read_body(read, len(BODY)) == (BODY, None)
    with pytest.raises(BodyError, match="larger than 99999 bytes"):
        await read_body(read, len(BODY) - 1)


async def test_body_read_and_dropped_by_a_hook_is_an_error() -> None:
    read = response(BODY, 100, "identity")
    async for _ in read.aiter_raw():
        pass
    with pytest.raises(BodyError, match="did not keep it"):
        await read_body(read, len(BODY))


async def test_pieces_of_one_byte_take_no_more_memory_than_their_bytes() -> None:
    tracemalloc.start()
    try:
        await read_body(response(BODY, 1, "identity"), len(BODY))
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes < 3 * len(BODY)

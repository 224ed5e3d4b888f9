"""Decompression of response bodies: complete, correct, and never more than the limit in memory."""

from __future__ import annotations

import gzip
import random
import time
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neows_async.errors import BadPageError
from neows_async.pages.content import GZIP, decompress

BODY = b"".join(b"%d," % number for number in range(20_000))[:100_000]
PACKED = gzip.compress(BODY)


@given(st.binary(max_size=2_000))
def test_a_body_is_the_same_plain_and_gzipped(body: bytes) -> None:
    assert decompress(body, None, len(body)) == body
    assert decompress(gzip.compress(body), GZIP, len(body)) == body


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5))
def test_several_gzip_members_are_one_body(parts: list[bytes]) -> None:
    members = b"".join(map(gzip.compress, parts))
    whole = b"".join(parts)
    assert decompress(members, GZIP, len(whole)) == whole
    if whole:
        with pytest.raises(BadPageError, match=f"larger than {len(whole) - 1} bytes"):
            decompress(members, GZIP, len(whole) - 1)


@pytest.mark.parametrize(("body", "encoding"), [(BODY, None), (PACKED, GZIP), (PACKED + gzip.compress(b""), GZIP)])
def test_the_limit_is_exact_and_holds_for_the_decompressed_body(body: bytes, encoding: str | None) -> None:
    assert decompress(body, encoding, len(BODY)) == BODY
    with pytest.raises(BadPageError, match="the body is larger than 99999 bytes"):
        decompress(body, encoding, len(BODY) - 1)


def test_a_gzip_bomb_takes_no_more_memory_than_the_limit() -> None:
    bomb = gzip.compress(bytes(64 << 20))
    limit_bytes = 100_000
    tracemalloc.start()
    try:
        with pytest.raises(BadPageError, match="larger than 100000 bytes"):
            decompress(bomb, GZIP, limit_bytes)
        with pytest.raises(BadPageError, match="larger than 100000 bytes"):
            decompress(gzip.compress(b"{}") + bomb, GZIP, limit_bytes)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Both bodies as they were received, and the limit.
    assert most_bytes < 4 * len(bomb) + 4 * limit_bytes


def test_a_truncated_gzip_body_is_refused_wherever_it_ends() -> None:
    packed = gzip.compress(b"a page", mtime=0)
    for at in range(len(packed)):
        with pytest.raises(BadPageError, match=f"the gzip body of {at} bytes ends before its end"):
            decompress(packed[:at], GZIP, 100)
    with pytest.raises(BadPageError, match="before its end"):
        decompress(packed + packed[:-1], GZIP, 100)


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        (bytes(20), "something follows the end of the gzip body"),
        (BODY, "something follows the end of the gzip body"),
        (PACKED[:2] + b"\xff" + PACKED[3:], "something follows the end of the gzip body"),
        (b"x", "before its end"),  # too short to distinguish from the beginning of a member
        (PACKED[:9], "before its end"),
    ],
)
def test_garbage_after_the_gzip_body_is_refused(garbage: bytes, reason: str) -> None:
    with pytest.raises(BadPageError, match=reason):
        decompress(PACKED + garbage, GZIP, 1 << 20)


@pytest.mark.parametrize("body", [BODY, b"{}", zlib.compress(BODY), zlib.compress(BODY, wbits=-15)])
def test_a_body_that_is_not_gzip_is_refused(body: bytes) -> None:
    with pytest.raises(BadPageError, match="the body is not gzip"):
        decompress(body, GZIP, 1 << 20)


def test_a_flipped_bit_never_passes_as_another_body() -> None:
    packed = gzip.compress(b"a page", mtime=0)
    for at in range(8 * len(packed)):
        damaged = bytearray(packed)
        damaged[at // 8] ^= 1 << at % 8
        try:
            assert decompress(bytes(damaged), GZIP, 1 << 20) == b"a page"
        except BadPageError:
            continue


@pytest.mark.parametrize("encoding", ["br", "deflate", "identity", ""])
def test_an_encoding_that_was_not_requested_is_refused(encoding: str) -> None:
    with pytest.raises(BadPageError, match=f"encoded as '{encoding}', which was not requested"):
        decompress(BODY, encoding, 1 << 20)


def test_the_time_for_many_members_grows_with_their_number_and_not_with_its_square() -> None:
    member = gzip.compress(random.Random(1).randbytes(300))
    seconds = {}
    for members in (1_000, 10_000):
        started_s = time.process_time()
        assert len(decompress(member * members, GZIP, 300 * members)) == 300 * members
        seconds[members] = time.process_time() - started_s
    assert seconds[10_000] < 40 * seconds[1_000]


def test_a_body_of_very_many_members_is_refused() -> None:
    member = gzip.compress(b"")
    assert decompress(member * 16_384, GZIP, 10) == b""
    with pytest.raises(BadPageError, match="more than 16,384 members"):
        decompress(member * 16_385, GZIP, 10)


@pytest.mark.parametrize("first_bytes", [0, 5, 100_000])
def test_a_large_second_member_is_complete_or_refused(first_bytes: int) -> None:
    whole = random.Random(2).randbytes(300_000)
    packed = gzip.compress(whole[:first_bytes]) + gzip.compress(whole[first_bytes:])
    assert decompress(packed, GZIP, len(whole)) == whole
    for missing in (1, 8, 9, 100_000):
        with pytest.raises(BadPageError, match="ends before its end"):
            decompress(packed[:-missing], GZIP, len(whole))

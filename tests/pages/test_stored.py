"""How a raw page is kept: any tool for zstd reads it, its seal is its own, and whatever is wrong with it shows."""

from __future__ import annotations

import copy
import hashlib
import io
import pickle
import shutil
import subprocess
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from neows_async.endpoints.browse.decode import decode_checked
from neows_async.errors import BadPageError
from neows_async.pages.values import RawPage, StoredPage, compress, expand, read_stored, seal, sealed_sha256
from neows_async.testing import browse_page
from tests.neos import catalogue

if TYPE_CHECKING:
    from pathlib import Path

BODY = browse_page(catalogue(2), 0, 2)
SHA256 = hashlib.sha256(BODY).digest()
SEALED = seal(compress(BODY), SHA256)
OTHER = browse_page(catalogue(4), 1, 2)
MOST_BYTES = 1 << 20


def read(data: bytes) -> tuple[bytes, bytes] | None:
    """The body and its digest, as whoever reads a page again has them; None where it is refused."""
    try:
        page = read_stored(0, data, MOST_BYTES)
        assert page.size == len(page.body)
        assert expand(data, MOST_BYTES) == page.body
    except BadPageError:
        return None
    return page.body, page.sha256()


@given(st.binary(min_size=1, max_size=2_000))
def test_what_was_kept_comes_back_with_the_digest_that_the_seal_tells(body: bytes) -> None:
    digest = hashlib.sha256(body).digest()
    data = seal(compress(body), digest)
    assert data.startswith(compress(body))
    assert len(data) == len(compress(body)) + 64
    assert read(data) == read(compress(body)) == (body, digest)
    assert (sealed_sha256(data), sealed_sha256(compress(body))) == (digest, None)


def test_a_sealed_page_is_not_expanded_before_its_body_is_wanted() -> None:
    page = read_stored(3, SEALED, MOST_BYTES)
    assert isinstance(page, StoredPage)
    assert (page.number, page.data, page.size, page.sha256()) == (3, SEALED, len(BODY), SHA256)
    assert repr(page) == f"KeptPage(number=3, <{len(BODY)} bytes>)"
    assert type(read_stored(3, compress(BODY), MOST_BYTES)) is RawPage


def sent(page: RawPage) -> RawPage:
    """As another process gets it."""
    there: RawPage = pickle.loads(pickle.dumps(page))  # noqa: S301 - it is our own
    return there


def test_it_can_be_copied_and_sent_elsewhere() -> None:
    page = read_stored(3, SEALED, MOST_BYTES)
    for other in (copy.copy(page), copy.deepcopy(page), sent(page)):
        assert isinstance(other, StoredPage)
        assert (other, other.data, other.size, other.sha256()) == (page, SEALED, len(BODY), SHA256)
    decoded = decode_checked(read_stored(0, SEALED, MOST_BYTES), 2)
    raw = read_stored(0, SEALED, MOST_BYTES).with_decoded(decoded)
    assert sent(raw).decoded == copy.copy(decoded)


def test_no_flipped_bit_passes() -> None:
    for at in range(len(SEALED)):
        for bit in range(8):
            damaged = bytearray(SEALED)
            damaged[at] ^= 1 << bit
            assert read(bytes(damaged)) in {None, (BODY, SHA256)}, (at, bit)


def test_no_lost_and_no_added_byte_passes() -> None:
    for at in range(len(SEALED)):
        # Without all of its seal it is a page that was never sealed, and of which nothing is taken on trust.
        assert read(SEALED[:at]) == (None if at != len(SEALED) - 64 else (BODY, SHA256))
        assert read(SEALED[:at] + SEALED[at + 1 :]) is None
    for added in (b"\0", SEALED[-64:], SEALED):
        assert read(SEALED + added) is None


def test_another_pages_seal_is_none() -> None:
    others = seal(compress(OTHER), hashlib.sha256(OTHER).digest())[-64:]
    with pytest.raises(BadPageError, match="its seal is not its own"):
        read_stored(0, compress(BODY) + others, MOST_BYTES)
    with pytest.raises(BadPageError, match="its seal is not its own"):
        sealed_sha256(compress(BODY) + others)


@given(st.binary(max_size=100) | st.binary(max_size=60).map(lambda head: head + SEALED[-64:]))
def test_what_is_no_kept_page(data: bytes) -> None:
    assert read(data) is None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (seal(compress(b""), hashlib.sha256(b"").digest()), "it says that it is empty"),
        (seal(compress(bytes(MOST_BYTES + 1)), bytes(32)), f"larger than {MOST_BYTES} bytes when expanded"),
        (b"", "damaged"),
    ],
)
def test_why_it_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(BadPageError, match=said):
        read_stored(0, data, MOST_BYTES)
    with pytest.raises(BadPageError, match=said):
        expand(data, MOST_BYTES)


def test_a_body_that_was_damaged_under_a_good_seal_shows_when_it_is_read() -> None:
    damaged = bytearray(SEALED)
    damaged[len(SEALED) // 2] ^= 1
    page = read_stored(0, bytes(damaged), MOST_BYTES)
    with pytest.raises(BadPageError, match="damaged"):
        page.body  # noqa: B018 - it is read


def test_whoever_reads_zstd_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "page.json.zst"
    file.write_bytes(SEALED)
    assert zstandard.decompress(SEALED) == BODY
    assert zstandard.ZstdDecompressor().stream_reader(SEALED, read_across_frames=True).readall() == BODY
    assert zstandard.ZstdDecompressor().decompressobj().decompress(SEALED) == BODY
    with zstandard.open(file) as opened:
        assert opened.read() == BODY
    with pa.input_stream(file, compression="zstd") as stream:
        assert stream.read() == BODY
    with pa.CompressedInputStream(io.BytesIO(SEALED), "zstd") as compressed:
        assert compressed.read() == BODY
    if (zstd := shutil.which("zstd")) is not None:
        assert subprocess.run([zstd, "-dc", file], check=True, capture_output=True).stdout == BODY
        subprocess.run([zstd, "-t", "-q", file], check=True)

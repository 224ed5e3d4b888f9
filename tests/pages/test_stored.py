"""How a raw page is stored: every zstd tool reads it, its seal belongs to its frame, and any damage shows."""

from __future__ import annotations

import copy
import hashlib
import io
import pickle
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from neows_async.errors import BadPageError
from neows_async.pages.stored import compress, expand, is_sound, json_of, read_stored, seal, sealed_sha256, store
from neows_async.pages.values import RawPage, StoredPage
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
    """The JSON and its digest, as a reader gets them; None if the page is refused."""
    try:
        page = read_stored(0, data, MOST_BYTES)
        body = json_of(page) if isinstance(page, StoredPage) else page.body
        assert expand(data, MOST_BYTES) == body
    except BadPageError:
        return None
    if isinstance(page, RawPage):
        assert page.content_encoding is None
        return body, hashlib.sha256(body).digest()
    assert page.json_bytes == len(body)
    return body, page.sha256


@given(st.binary(min_size=1, max_size=2_000))
def test_a_stored_page_gives_back_its_json_and_the_digest_in_its_seal(body: bytes) -> None:
    digest = hashlib.sha256(body).digest()
    data = seal(compress(body), digest)
    assert data.startswith(compress(body))
    assert len(data) == len(compress(body)) + 64
    assert read(data) == read(compress(body)) == (body, digest)
    assert (sealed_sha256(data), sealed_sha256(compress(body))) == (digest, None)
    assert store(7, body, digest) == StoredPage(7, data, len(body), digest)


def test_a_sealed_page_is_not_decompressed_until_its_json_is_read() -> None:
    page = read_stored(3, SEALED, MOST_BYTES)
    assert page == StoredPage(3, SEALED, len(BODY), SHA256)
    assert repr(page) == f"StoredPage(number=3, <{len(SEALED)} bytes>)"
    assert read_stored(3, compress(BODY), MOST_BYTES) == RawPage(3, BODY)


def test_a_stored_page_can_be_copied_and_pickled() -> None:
    page = read_stored(3, SEALED, MOST_BYTES)
    for other in (copy.copy(page), copy.deepcopy(page), pickle.loads(pickle.dumps(page))):  # noqa: S301 - our own
        assert isinstance(other, StoredPage)
        assert other == page
        assert json_of(other) == BODY


@pytest.mark.parametrize(
    "changes",
    [
        {"json_bytes": len(BODY) - 1},
        {"json_bytes": len(BODY) + 1},
        {"sha256": bytes(32)},
        {"data": compress(BODY)},
        {"data": compress(BODY) + bytes(64)},
        {"data": compress(OTHER) + SEALED[-64:]},
        {"data": seal(compress(OTHER), SHA256)},
        {"data": SEALED[:-1]},
        {"data": b""},
    ],
)
def test_a_page_whose_seal_disagrees_with_its_fields_is_not_sound(changes: dict[str, Any]) -> None:
    page = store(3, BODY, SHA256)
    assert is_sound(page)
    assert not is_sound(replace(page, **changes))


def test_a_flipped_bit_never_changes_the_json_or_its_digest() -> None:
    for at in range(len(SEALED)):
        for bit in range(8):
            damaged = bytearray(SEALED)
            damaged[at] ^= 1 << bit
            assert read(bytes(damaged)) in {None, (BODY, SHA256)}, (at, bit)


def test_a_page_with_a_byte_removed_or_added_is_refused() -> None:
    for at in range(len(SEALED)):
        # Without its whole seal it is a page that was never sealed: it is checked and redacted again.
        assert read(SEALED[:at]) == (None if at != len(SEALED) - 64 else (BODY, SHA256))
        assert read(SEALED[:at] + SEALED[at + 1 :]) is None
    for added in (b"\0", SEALED[-64:], SEALED):
        assert read(SEALED + added) is None


def test_the_seal_of_another_page_is_refused() -> None:
    others = seal(compress(OTHER), hashlib.sha256(OTHER).digest())[-64:]
    with pytest.raises(BadPageError, match="its seal belongs to another page"):
        read_stored(0, compress(BODY) + others, MOST_BYTES)
    with pytest.raises(BadPageError, match="its seal belongs to another page"):
        sealed_sha256(compress(BODY) + others)


@given(st.binary(max_size=100) | st.binary(max_size=60).map(lambda head: head + SEALED[-64:]))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    assert read(data) is None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (seal(compress(b""), hashlib.sha256(b"").digest()), "its size is 0"),
        (seal(compress(bytes(MOST_BYTES + 1)), bytes(32)), f"larger than {MOST_BYTES} bytes when decompressed"),
        (b"", "damaged"),
    ],
)
def test_an_empty_or_too_large_page_is_refused_with_its_reason(data: bytes, said: str) -> None:
    with pytest.raises(BadPageError, match=said):
        read_stored(0, data, MOST_BYTES)
    with pytest.raises(BadPageError, match=said):
        expand(data, MOST_BYTES)


def test_a_damaged_frame_under_a_good_seal_is_refused_when_the_json_is_read() -> None:
    damaged = bytearray(SEALED)
    damaged[len(SEALED) // 2] ^= 1
    page = read_stored(0, bytes(damaged), MOST_BYTES)
    assert isinstance(page, StoredPage)
    with pytest.raises(BadPageError, match="damaged"):
        json_of(page)


def test_every_zstd_reader_reads_a_sealed_page(tmp_path: Path) -> None:
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

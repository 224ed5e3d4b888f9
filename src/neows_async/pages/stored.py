"""The form in which a page is stored: one zstd frame of its JSON, and a seal. Pure.

::

    zstd frame, with its size and a checksum │ seal: a skippable frame of 64 bytes, which zstd tools ignore

The seal says that the page was checked and redacted before it was stored, and holds the SHA-256 of its JSON. A reader
of a sealed page does not redact and hash it again, which saves a third of the work. The seal also holds the checksum
of its frame and one of its own: if either is wrong, the page is damaged.
"""

from __future__ import annotations

import struct
import sys
import threading
import zlib
from typing import Final

import zstandard

from neows_async.errors import BadPageError
from neows_async.pages.values import RawPage, StoredPage

_LEVEL: Final = 1  # half the time of the usual 3, and for these pages a tenth smaller
_HASH_LOG: Final = 13  # a table of 32 KB stays in the first-level cache: a fifth faster, 2 % larger
_SKIPPABLE: Final = 0x184D2A5E  # RFC 8878, 3.1.2: one of the sixteen magic numbers of skippable frames
_LABEL: Final = b"neows-async seal"
_CHECKSUM_BYTES: Final = 4
_SEAL_BYTES: Final = 64
_HEAD: Final = struct.pack("<II", _SKIPPABLE, _SEAL_BYTES - 8) + _LABEL
_CRC: Final = struct.Struct("<I")
_of_thread = threading.local()


def compress(body: bytes) -> bytes:
    """One zstd frame with its size and a checksum, so that damage shows."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _LEVEL, source_size=len(body), hash_log=_HASH_LOG, write_checksum=True
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(body)


def seal(frame: bytes, body_sha256: bytes) -> bytes:
    """``frame`` with its seal, for a page that was checked and redacted.

    :param frame: the page's JSON, from :func:`compress`
    :param body_sha256: the digest of the JSON
    """
    # A copy: zstd allocated the frame's memory for the worst case, and it would stay allocated with the page.
    sealed = _HEAD + frame[-_CHECKSUM_BYTES:] + body_sha256
    return b"".join((frame, sealed, _CRC.pack(zlib.crc32(sealed))))


def store(number: int, body: bytes, sha256: bytes) -> StoredPage:
    """The page as it is stored, in a fifth of the memory: :func:`compress` and :func:`seal`.

    :param body: the page's JSON: checked and redacted
    :param sha256: the digest of ``body``
    """
    return StoredPage(number, seal(compress(body), sha256), len(body), sha256)


def expand(data: bytes, max_bytes: int) -> bytes:
    """The JSON of a stored page, sealed or not.

    :raises BadPageError: it is damaged, or larger than ``max_bytes``
    """
    frame, _ = _opened(data)
    _size(frame, max_bytes)
    return _expanded(frame)


def sealed_sha256(data: bytes) -> bytes | None:
    """The digest of the JSON in the seal; None without a seal."""
    return _opened(data)[1]


def read_stored(number: int, data: bytes, max_bytes: int) -> StoredPage | RawPage:
    """Page ``number`` from ``data``, the content of its file: as it is if it is sealed, else decompressed.

    :raises BadPageError: it is damaged, as far as that shows without decompressing it, or larger than ``max_bytes``
    """
    frame, sha256 = _opened(data)
    # Before the decompression: the size in the frame's head bounds the memory.
    size = _size(frame, max_bytes)
    return RawPage(number, _expanded(frame)) if sha256 is None else StoredPage(number, data, size, sha256)


def is_sound(page: StoredPage) -> bool:
    """Whether the seal of ``page`` is its own and agrees with its fields; the frame is not decompressed."""
    try:
        found = read_stored(page.number, page.data, page.json_bytes)
    except BadPageError:
        return False
    return found == page


def json_of(page: StoredPage, max_bytes: int = sys.maxsize) -> bytes:
    """The page's JSON, decompressed anew at each call."""
    frame = memoryview(page.data)[:-_SEAL_BYTES]
    # A page of a caller's own source may announce any size.
    _size(frame, max_bytes)
    return _expanded(frame)


def _opened(data: bytes) -> tuple[bytes | memoryview, bytes | None]:
    """The frame, and the digest in its seal, if it has one."""
    # Pages of older versions have no seal: they are redacted and hashed again.
    if not data.startswith(_HEAD, max(0, len(data) - _SEAL_BYTES)):
        return data, None
    frame = memoryview(data)[:-_SEAL_BYTES]
    sealed, crc = data[-_SEAL_BYTES : -_CRC.size], data[-_CRC.size :]
    if _CRC.pack(zlib.crc32(sealed)) != crc or not sealed.startswith(frame[-_CHECKSUM_BYTES:], len(_HEAD)):
        raise BadPageError("damaged: its seal belongs to another page")
    return frame, sealed[len(_HEAD) + _CHECKSUM_BYTES :]


def _size(frame: bytes | memoryview, max_bytes: int) -> int:
    try:
        size = zstandard.frame_content_size(frame)
    except zstandard.ZstdError as exc:
        raise BadPageError(f"damaged: {exc}") from exc
    if size > max_bytes:
        raise BadPageError(f"larger than {max_bytes} bytes when decompressed")
    if size == 0:  # zstd would not check the rest of the frame
        raise BadPageError("damaged: its size is 0")
    return size


def _expander() -> zstandard.ZstdDecompressor:
    """One for each thread: two threads cannot share one, and making one costs a tenth of using it."""
    if not hasattr(_of_thread, "expander"):
        _of_thread.expander = zstandard.ZstdDecompressor()
    expander: zstandard.ZstdDecompressor = _of_thread.expander
    return expander


def _expanded(frame: bytes | memoryview) -> bytes:
    try:
        return _expander().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as exc:
        raise BadPageError(f"damaged: {exc}") from exc

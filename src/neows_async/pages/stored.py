"""A raw page as it is kept: one zstd frame of its JSON, sealed with what would take long to find out again. Pure.

::

    zstd frame, with its size and a checksum │ seal: a frame that whoever expands the file skips, of 64 bytes

The seal says that the page was whole, right and scrubbed when it was kept, and tells the SHA-256 of its JSON. So who
reads it again, expands it and needs neither scrub nor hash it: a third of the work. It holds the frame's checksum and
one of its own: a seal that does not belong to its frame, or was damaged, makes the page a damaged one.
"""

from __future__ import annotations

import struct
import threading
import zlib
from typing import Final

import zstandard

from neows_async.errors import BadPageError
from neows_async.pages.values import RawPage, StoredPage

_LEVEL: Final = 1  # half the time of the usual 3, and for these pages a tenth smaller
_HASH_LOG: Final = 13  # its table of 32 KB stays in the processor's nearest cache: a fifth faster for 2 % more room
_SKIPPED: Final = 0x184D2A5E  # RFC 8878, 3.1.2: one of the sixteen numbers with which a skippable frame begins
_LABEL: Final = b"neows-async seal"
_CHECKSUM_BYTES: Final = 4
_SEAL_BYTES: Final = 64
_HEAD: Final = struct.pack("<II", _SKIPPED, _SEAL_BYTES - 8) + _LABEL
_CRC: Final = struct.Struct("<I")
_of_thread = threading.local()


def compress(body: bytes) -> bytes:
    """One zstd frame with its size and a checksum, so that damage shows."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _LEVEL, source_size=len(body), hash_log=_HASH_LOG, write_checksum=True
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(body)


def seal(frame: bytes, body_sha256: bytes) -> bytes:
    """``frame`` as it is kept: of a page that is whole, right and scrubbed.

    :param frame: what :func:`compress` made of its body
    :param body_sha256: the body's digest
    :returns: memory of its own: the frame's was made for the longest that there could have been, and nothing as large
        as a body fits behind it while it lives
    """
    sealed = _HEAD + frame[-_CHECKSUM_BYTES:] + body_sha256
    return b"".join((frame, sealed, _CRC.pack(zlib.crc32(sealed))))


def store(number: int, body: bytes, sha256: bytes) -> StoredPage:
    """The page as it is stored, in a fifth of the memory: :func:`compress` and :func:`seal`.

    :param body: the page's JSON: checked and redacted
    :param sha256: the digest of ``body``
    """
    return StoredPage(number, seal(compress(body), sha256), len(body), sha256)


def expand(data: bytes, max_bytes: int) -> bytes:
    """The JSON of what is kept, sealed or not; nothing is never a page.

    :raises BadPageError: it is damaged, or larger than ``max_bytes``
    """
    frame, _ = _opened(data)
    _size(frame, max_bytes)
    return _expanded(frame)


def sealed_sha256(data: bytes) -> bytes | None:
    """The digest of its JSON that a seal tells; None without a seal.

    :raises BadPageError: the seal is damaged, or another page's
    """
    return _opened(data)[1]


def read_stored(number: int, data: bytes, max_bytes: int) -> StoredPage | RawPage:
    """Page ``number`` from ``data``, the content of its file: as it is if it is sealed, else decompressed.

    :raises BadPageError: it is damaged, as far as that shows without decompressing it, or larger than ``max_bytes``
    """
    frame, sha256 = _opened(data)
    size = _size(frame, max_bytes)
    return RawPage(number, _expanded(frame)) if sha256 is None else StoredPage(number, data, size, sha256)


def is_sound(page: StoredPage) -> bool:
    """Whether the seal of ``page`` is its own and agrees with its fields; the frame is not decompressed."""
    try:
        found = read_stored(page.number, page.data, page.size)
    except BadPageError:
        return False
    return found == page


def json_of(page: StoredPage) -> bytes:
    """The page's JSON, decompressed anew at each call.

    :raises BadPageError: it is damaged
    """
    return _expanded(memoryview(page.data)[:-_SEAL_BYTES])


def _opened(data: bytes) -> tuple[bytes | memoryview, bytes | None]:
    """The frame, and what its seal tells, if it has one."""
    if not data.startswith(_HEAD, max(0, len(data) - _SEAL_BYTES)):
        return data, None
    frame = memoryview(data)[:-_SEAL_BYTES]
    sealed, crc = data[-_SEAL_BYTES : -_CRC.size], data[-_CRC.size :]
    if _CRC.pack(zlib.crc32(sealed)) != crc or not sealed.startswith(frame[-_CHECKSUM_BYTES:], len(_HEAD)):
        raise BadPageError("damaged: its seal is not its own")
    return frame, sealed[len(_HEAD) + _CHECKSUM_BYTES :]


def _size(frame: bytes | memoryview, max_bytes: int) -> int:
    try:
        size = zstandard.frame_content_size(frame)
    except zstandard.ZstdError as exc:
        raise BadPageError(f"damaged: {exc}") from exc
    if size > max_bytes:
        raise BadPageError(f"larger than {max_bytes} bytes when expanded")
    if size == 0:  # then nothing else of the frame would be looked at
        raise BadPageError("damaged: it says that it is empty")
    return size


def _expander() -> zstandard.ZstdDecompressor:
    """One for each thread: to make it takes a tenth of the time of using it, and two threads cannot share it."""
    if not hasattr(_of_thread, "expander"):
        _of_thread.expander = zstandard.ZstdDecompressor()
    expander: zstandard.ZstdDecompressor = _of_thread.expander
    return expander


def _expanded(frame: bytes | memoryview) -> bytes:
    try:
        return _expander().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as exc:
        raise BadPageError(f"damaged: {exc}") from exc

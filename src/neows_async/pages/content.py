"""Decompresses response bodies, within a limit. Pure."""

from __future__ import annotations

import zlib
from typing import Final

from neows_async.errors import BadPageError

GZIP: Final = "gzip"
_WBITS: Final = 31  # zlib's number for "gzip header and checksum"
_FIRST_BYTES: Final = 4 << 10
# Members cost time even if they are empty. Tools make one of 64 KiB or more.
_MAX_MEMBERS: Final = 1 << 14


def decompress(body: bytes, content_encoding: str | None, max_bytes: int) -> bytes:
    """``body`` without its encoding.

    zlib stops at the limit, so a gzip bomb never takes more memory than that.

    :param content_encoding: ``gzip``, or None for a plain body
    :param max_bytes: of the decompressed body
    :raises BadPageError: it is not gzip, ends too early, or is larger than ``max_bytes``
    """
    if content_encoding is None:
        pieces = [body]
    elif content_encoding == GZIP:
        pieces = _gunzip(body, max_bytes)
    else:
        raise BadPageError(f"the body is encoded as {content_encoding!r}, which was not requested")
    if sum(map(len, pieces)) > max_bytes:
        raise BadPageError(f"the body is larger than {max_bytes} bytes")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _gunzip(body: bytes, max_bytes: int) -> list[bytes]:
    """The members of a gzip body (RFC 1952 allows several), up to one byte more than ``max_bytes``."""
    pieces: list[bytes] = []
    view, at, left, members = memoryview(body), 0, max_bytes + 1, 0
    while at < len(body) or not members:
        member = zlib.decompressobj(wbits=_WBITS)
        members += 1
        if members > _MAX_MEMBERS:
            raise BadPageError(f"the gzip body has more than {_MAX_MEMBERS:,} members")
        # zlib copies all bytes behind a member's end. So only the first member, usually the only one, is read in one
        # piece: the time for a body of many small members would grow with the square of its size.
        length = len(body) if members == 1 else _FIRST_BYTES
        while not member.eof:
            if at == len(body):
                raise BadPageError(f"the gzip body of {len(body)} bytes ends before its end")
            piece = view[at : at + length]
            try:
                pieces.append(member.decompress(piece, left))
            except zlib.error as exc:
                reason = "the body is not gzip" if members == 1 else "something follows the end of the gzip body"
                raise BadPageError(f"{reason}: {exc}") from exc
            at += len(piece) - len(member.unused_data)
            left -= len(pieces[-1])
            if left <= 0:
                return pieces
            length *= 4
    return pieces

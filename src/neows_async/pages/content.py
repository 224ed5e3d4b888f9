"""Decompresses response bodies, within a limit. Pure."""

from __future__ import annotations

import zlib
from typing import Final

from neows_async.errors import BadPageError

GZIP: Final = "gzip"
_WBITS: Final = 31  # zlib's number for "gzip header and checksum"


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
    received, left = len(body), max_bytes + 1
    while body or not pieces:
        member = zlib.decompressobj(wbits=_WBITS)
        try:
            # One byte more than the limit: enough to know that the body is too large.
            pieces.append(member.decompress(body, left))
        except zlib.error as exc:
            reason = "something follows the end of the gzip body" if pieces else f"the body is not gzip: {exc}"
            raise BadPageError(reason) from exc
        left -= len(pieces[-1])
        if left <= 0:
            return pieces
        # A body that is cut short must never count as a page.
        if not member.eof:
            raise BadPageError(f"the gzip body of {received} bytes ends before its end")
        body = member.unused_data
    return pieces

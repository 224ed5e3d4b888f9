"""The envelope of a Browse page, and the bytes of each object in it. Pure.

::

    {"links": {…}, "page": {"size": 20, "total_elements": 41282, "total_pages": 2065, "number": 0},
     "near_earth_objects": [{…}, …]}

Only ``page`` and ``near_earth_objects`` are read. ``total_pages`` is not: NASA rounded it down for years, and it is not
verified for other page sizes.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from neows_async.errors import BadPageError
from neows_async.pages.stored import json_of
from neows_async.pages.values import PageInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neows_async.pages.values import Page

NUMBER_CHARS: Final = 64
"""The most characters of a number; longer ones are not read."""
INT64_MAX: Final = 2**63 - 1
FLOAT64_MAX: Final = sys.float_info.max
# The years that Python and all readers of Parquet support: 0001 to 9999.
EPOCH_MIN_MS: Final = -62_135_596_800_000
EPOCH_MAX_MS: Final = 253_402_300_799_999

# More than all asteroids. An overflowed counter of the source must not lead to a plan of that size.
_MAX_COUNT: Final = 100_000_000
_EXCERPT_CHARS: Final = 60
_SMALL_BYTES: Final = 64 << 10


class _Envelope(msgspec.Struct):
    page: PageInfo
    near_earth_objects: list[msgspec.Raw]


_envelope = msgspec.json.Decoder(_Envelope)

# Accepts NaN and Infinity, which some servers send and msgspec refuses. They never become numbers: an object with one
# is rejected, but the rest of its page is not. Numbers stay text: this decoder only finds where values end, and must
# not fail on a number of 5,000 digits.
_lenient = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)


def split(body: bytes) -> tuple[PageInfo, list[bytes]]:
    """The envelope and the exact bytes of each object, in the page's order.

    :raises BadPageError: the body is not JSON, or not a Browse page
    """
    envelope = _parse_strictly(body)
    # Slow and exact: it decides whether this is a page, and where each value ends.
    if envelope is None:
        return _split_leniently(str(body, "utf-8"))
    return validated_info(envelope.page), [bytes(raw) for raw in envelope.near_earth_objects]


def _parse_strictly(body: bytes) -> _Envelope | None:
    """The envelope; None if the lenient parser must decide whether the body is a page, and why not."""
    # msgspec does not check the UTF-8 of strings that it skips, but every later reader requires it.
    if not is_utf8(body):
        try:
            str(body, "utf-8")
        except UnicodeDecodeError as exc:
            raise BadPageError(f"not JSON: byte {exc.start} is not UTF-8") from exc
    try:
        return _envelope.decode(body)
    except (msgspec.DecodeError, RecursionError) as exc:
        if isinstance(exc, msgspec.ValidationError):
            raise BadPageError(f"not a Browse page: {exc}") from exc
        return None


def is_utf8(body: bytes) -> bool:
    """Whether ``str(body, "utf-8")`` succeeds; for a large body in a sixth of the time, without a copy and the GIL."""
    if body.isascii():
        return True
    if len(body) < _SMALL_BYTES:
        try:
            str(body, "utf-8")
        except UnicodeDecodeError:
            return False
        return True
    import pyarrow as pa  # noqa: PLC0415 - the sandbox and a plan do not need it

    ends = pa.py_buffer(bytes(8) + len(body).to_bytes(8, sys.byteorder))
    try:
        pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, pa.py_buffer(body)]).cast(pa.large_string())
    except pa.ArrowInvalid:
        return False
    return True


def _split_leniently(text: str) -> tuple[PageInfo, list[bytes]]:
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        raise BadPageError(f"not a Browse page: it starts with {_excerpt(text)}")
    try:
        members, end = _members(text, at)
        if text[_skip(text, end) :]:
            raise json.JSONDecodeError("Data after the end", text, end)
        page = msgspec.json.decode(text[slice(*members["page"])], type=PageInfo)
        start, _ = members["near_earth_objects"]
        if text[start] != "[":
            raise BadPageError("not a Browse page: near_earth_objects is not a list")
        slices = [text[a:b].encode() for a, b in _elements(text, start)]
    except KeyError as exc:
        raise BadPageError(f"not a Browse page: it has no {exc.args[0]!r}") from exc
    except msgspec.MsgspecError as exc:
        raise BadPageError(f"not a Browse page: {exc} in `page`") from exc
    except (ValueError, RecursionError) as exc:
        reason = str(exc) if isinstance(exc, json.JSONDecodeError) else "nested too deeply"
        raise BadPageError(f"not JSON: {reason}; it starts with {_excerpt(text)}") from exc
    return validated_info(page), slices


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _members(text: str, at: int) -> tuple[dict[str, tuple[int, int]], int]:
    """The start and end of each member's value in the object at ``at``, and the end of the object."""
    found: dict[str, tuple[int, int]] = {}
    at = _skip(text, at + 1)
    while text[at : at + 1] != "}":
        key, at = _lenient.raw_decode(text, at)
        at = _skip(text, at)
        if not isinstance(key, str) or text[at : at + 1] != ":":
            raise json.JSONDecodeError("Expecting a key and a colon", text, at)
        start = _skip(text, at + 1)
        _, at = _lenient.raw_decode(text, start)
        found[key] = (start, at)
        at = _next(text, at, "}")
    return found, at + 1


def _elements(text: str, at: int) -> list[tuple[int, int]]:
    """The start and end of each element of the array at ``at``."""
    found = []
    at = _skip(text, at + 1)
    while text[at : at + 1] != "]":
        start = at
        _, at = _lenient.raw_decode(text, start)
        found.append((start, at))
        at = _next(text, at, "]")
    return found


def _next(text: str, at: int, closing: str) -> int:
    at = _skip(text, at)
    if text[at : at + 1] == ",":
        at = _skip(text, at + 1)
        if text[at : at + 1] == closing:
            raise json.JSONDecodeError("Nothing after the comma", text, at)
        return at
    if text[at : at + 1] != closing:
        raise json.JSONDecodeError("Expecting a comma or the end", text, at)
    return at


def validated_info(page: PageInfo) -> PageInfo:
    """``page``, if its numbers are possible for a catalogue."""
    if not (1 <= page.size <= _MAX_COUNT and 0 <= page.total_elements <= _MAX_COUNT and 0 <= page.number <= _MAX_COUNT):
        raise BadPageError(
            f"not a Browse page: size {page.size}, total_elements {page.total_elements}, number {page.number}"
        )
    return page


def _excerpt(text: str) -> str:
    return repr(text[:_EXCERPT_CHARS]) if text else "nothing: the body is empty"


def check(body: bytes, number: int, size: int | None = None) -> PageInfo:
    """Check that ``body`` is the whole page ``number``, and return its envelope.

    :param size: the page size of the plan; another size would shift every position. None accepts any
    :raises BadPageError: the body is not JSON, not a Browse page, or another page, or its number of objects differs
        from its envelope
    """
    # Nothing is decoded here: msgspec only finds where the objects end.
    envelope = _parse_strictly(body)
    if envelope is None:
        page, objects = split(body)
        return require_whole(page, len(objects), number, size)
    return require_whole(validated_info(envelope.page), len(envelope.near_earth_objects), number, size)


def require_whole(page: PageInfo, objects: int, number: int, size: int | None) -> PageInfo:
    """``page``, if it is the whole page ``number`` with this number of objects; see :func:`check`."""
    # The order decides which reason a person reads: another page explains a wrong size.
    if page.number != number:
        raise BadPageError(f"expected page {number}, but this is page {page.number}")
    if size is not None and page.size != size:
        raise BadPageError(f"page {number} has size {page.size}, but the run was planned with {size}")
    if objects != page.announced_objects:
        raise BadPageError(f"page {number} announces {page.announced_objects} objects, but holds {objects}")
    return page


class LongNumber(float):
    """A JSON number of more than :data:`NUMBER_CHARS` characters, approximated by a float."""

    def __new__(cls, text: str) -> Self:
        """Make it from the number's JSON text."""
        number = super().__new__(cls, text)
        number.chars = len(text)
        return number

    chars: int


def _integer(text: str) -> int | LongNumber:
    return int(text) if len(text) <= NUMBER_CHARS else LongNumber(text)


def _float(text: str) -> float:
    return float(text) if len(text) <= NUMBER_CHARS else LongNumber(text)


_values = json.JSONDecoder(parse_int=_integer, parse_float=_float)


def parse(raw: bytes) -> Any:
    """The value of an object from :func:`split`; numbers of more than 64 characters are :class:`LongNumber`."""
    return _values.decode(str(raw, "utf-8"))


def raw_objects(page: Page) -> Iterator[dict[str, Any]]:
    """The source's JSON value of each row of ``neos``, in order: all fields, not validated.

    Each call parses the page again, one object at a time. A number of more than 64 characters becomes a float.

    :raises LookupError: the page has no JSON, since no sink and no aggregator says ``needs_json = True``
    """
    if page.source is None:
        raise LookupError(f"page {page.number} has no JSON; the part that reads it must say `needs_json = True`")
    _, found = split(json_of(page.source))
    return (parse(found[index]) for index in page.indices)


def pointer(*parts: str | int) -> str:
    """The JSON pointer (RFC 6901) of ``parts``."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)

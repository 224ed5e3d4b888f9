"""Scans a page for its lists of close approaches, which are nine tenths of it. Pure.

NASA writes every approach in the same layout::

    {"close_approach_date":"1900-03-19",…,"miss_distance":{"astronomical":"0.31",…},"orbiting_body":"Earth"}

So the bytes between two values are always the same. If a page keeps to this layout, its values can be found without a
JSON parser. ``_approach_scan.c`` does this, checks every byte, and releases the GIL. If a page deviates, the scan
returns None, and the page is parsed as JSON. Without a C compiler at installation, every page is parsed as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import pyarrow as pa

from neows_async.endpoints.browse.envelope import is_utf8

if TYPE_CHECKING:
    from collections.abc import Callable

_cut: Callable[[bytes], tuple[bytes, ...] | None] | None
try:
    from neows_async.endpoints.browse._approach_scan import cut as _cut
except ImportError:
    _cut = None

IS_COMPILED: Final = _cut is not None
"""Whether this installation has the compiled scanner. Without it, decoding a page takes twice as long."""


@dataclass(frozen=True, slots=True)
class Approaches:
    """The approaches of a page, one list after the other. The ranges of the values are not checked yet.

    :param counts: the number of approaches in each list
    :param numbers: all miss distances in au, then all in km, then all velocities in km/s
    """

    counts: tuple[int, ...]
    dates: pa.Date32Array
    epochs_ms: pa.Int64Array
    orbiting_bodies: pa.StringArray
    numbers: pa.DoubleArray


@dataclass(frozen=True, slots=True)
class Scan:
    """A page without its lists, and the values of the lists.

    :param rest: the page's JSON; in place of its approaches, each list holds its own number, from 0
    """

    rest: bytes
    approaches: Approaches


Scanner: TypeAlias = "Callable[[bytes], Scan | None]"


def scan(body: bytes) -> Scan | None:
    """Take the lists out of a page; None if one of them deviates from the layout, or if there is no compiled scanner.

    If ``rest`` is JSON, then ``body`` is JSON, and each approach has exactly the known fields, each once.

    :raises pyarrow.ArrowInvalid: a text that must be a number is not one
    """
    found = None if _cut is None else _cut(body)
    if found is None:
        return None
    rest, counts, days, epochs_ms, body_ends, bodies, number_ends, numbers = found
    # The scanned lists are ASCII. An escape in the rest could hide a quote, and so a list's name.
    if b"\\" in rest or not is_utf8(rest):
        return None
    # Arrow checks each number here; ranges are checked on the whole column later.
    approaches = Approaches(
        counts=tuple(np.frombuffer(counts, np.int32).tolist()),
        dates=_integers(pa.date32(), days),
        epochs_ms=_integers(pa.int64(), epochs_ms),
        orbiting_bodies=_texts(body_ends, bodies),
        numbers=_texts(number_ends, numbers).cast(pa.float64()),
    )
    return Scan(rest, approaches)


def no_scan(_: bytes) -> None:
    """The scanner of an installation without a compiled one: every page is parsed as JSON."""


def _texts(ends: bytes, text: bytes) -> pa.StringArray:
    return pa.StringArray.from_buffers(len(ends) // 4 - 1, pa.py_buffer(ends), pa.py_buffer(text))


def _integers(type_: pa.DataType, values: bytes) -> pa.Array:
    return pa.Array.from_buffers(type_, 8 * len(values) // type_.bit_width, [None, pa.py_buffer(values)])

"""The lists of close approaches, which are nine tenths of a page, read as they always lie. Pure.

The source writes every approach in one and the same way::

    {"close_approach_date":"1900-03-19",…,"miss_distance":{"astronomical":"0.31",…},"orbiting_body":"Earth"}

So between the values stand always the same bytes, and where a page keeps to that, its values can be found without
reading it as JSON. That is done by ``_approach_lists.c``, which looks at each byte, lets other threads go on meanwhile,
and leaves whatever differs in anything to those who read JSON; so does all of a page where it was not compiled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

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
"""Without it, a page takes twice as long."""


@dataclass(frozen=True, slots=True)
class Approaches:
    """The approaches of a page, one list after the other. Whether the values are within their ranges is not judged yet.

    :param counts: how many each list has
    :param numbers: miss distances in au, then all in km, then all velocities in km/s
    """

    counts: tuple[int, ...]
    dates: pa.Date32Array
    epochs_ms: pa.Int64Array
    orbiting_bodies: pa.StringArray
    numbers: pa.DoubleArray


@dataclass(frozen=True, slots=True)
class Scan:
    """A page without its lists, and what they held.

    :param rest: the page's JSON; each list holds nothing but its own number, from 0
    """

    rest: bytes
    approaches: Approaches


def scan(body: bytes) -> Scan | None:
    """Take the lists out of a page; None if one of them is not written as they always are.

    If the rest is JSON, ``body`` was, and its approaches had the known fields, each once, and no others.

    :raises pyarrow.ArrowInvalid: text that must be a number is none
    """
    found = None if _cut is None else _cut(body)
    if found is None:
        return None
    rest, counts, days, epochs_ms, body_ends, bodies, number_ends, numbers = found
    # The lists are ASCII. Without escapes each quote is one.
    if b"\\" in rest or not is_utf8(rest):
        return None
    approaches = Approaches(
        counts=tuple(np.frombuffer(counts, np.int32).tolist()),
        dates=_integers(pa.date32(), days),
        epochs_ms=_integers(pa.int64(), epochs_ms),
        orbiting_bodies=_texts(body_ends, bodies),
        numbers=_texts(number_ends, numbers).cast(pa.float64()),
    )
    return Scan(rest, approaches)


def _texts(ends: bytes, text: bytes) -> pa.StringArray:
    return pa.StringArray.from_buffers(len(ends) // 4 - 1, pa.py_buffer(ends), pa.py_buffer(text))


def _integers(type_: pa.DataType, values: bytes) -> pa.Array:
    return pa.Array.from_buffers(type_, 8 * len(values) // type_.bit_width, [None, pa.py_buffer(values)])

"""The lists of close approaches, which are nine tenths of a page, read by where their commas stand. Pure.

The source writes every approach in one and the same way::

    {"close_approach_date":"1900-03-19",…,"miss_distance":{"astronomical":"0.31",…},"orbiting_body":"Earth"}

So between the values stand always the same bytes, and where a page keeps to that, its values can be
found without reading it as JSON: by arithmetic on the positions of all commas at once, by numpy and Arrow,
which let other threads go on meanwhile. That the bytes between the values are the ones they must be is looked
at, each of them; a page in which one differs is not read here.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OPENING: Final = b'"close_approach_data":['
# What stands before each value of an approach, and behind the last one.
_BETWEEN: Final = (
    b'{"close_approach_date":"',
    b'","close_approach_date_full":"',
    b'","epoch_date_close_approach":',
    b',"relative_velocity":{"kilometers_per_second":"',
    b'","kilometers_per_hour":"',
    b'","miles_per_hour":"',
    b'"},"miss_distance":{"astronomical":"',
    b'","lunar":"',
    b'","kilometers":"',
    b'","miles":"',
    b'"},"orbiting_body":"',
    b'"}',
)
_DATE, _EPOCH, _VELOCITY, _AU, _KM, _BODY = 0, 2, 3, 6, 8, 10
_WANTED: Final = np.array([_DATE, _EPOCH, _VELOCITY, _AU, _KM, _BODY])
# Where each column's piece stands among an approach's, in the order of ApproachTexts: between two lies another.
_TAKEN: Final = 2 * np.array([1, 0, 5, 3, 4, 2], np.int32)
_SIZES: Final = np.array([len(text) for text in _BETWEEN])
# Of each text but the first and the last, where its comma stands: there is one.
_COMMAS: Final = np.array([text.index(b",") for text in _BETWEEN[1:-1]])
_QUOTES: Final = sum(text.count(b'"') for text in _BETWEEN)
_FIRST_TEXT_CHARACTER: Final = 0x20


@dataclass(frozen=True, slots=True)
class ApproachTexts:
    """The approaches of a page, one list after the other; not judged yet.

    :param counts: how many each list has
    :param numbers: miss distances in au, then all in km, then all velocities in km/s
    """

    counts: tuple[int, ...]
    dates: pa.StringArray
    epochs_ms: pa.Int64Array
    orbiting_bodies: pa.StringArray
    numbers: pa.StringArray


@dataclass(frozen=True, slots=True)
class Cut:
    """A page without its lists, and what they held.

    :param rest: the page's JSON; each list holds nothing but its own number, from 0
    """

    rest: bytes
    approaches: ApproachTexts


def cut(body: bytes) -> Cut | None:
    """Take the lists out of a page; None if one of them is not written as they always are.

    If the rest is JSON, ``body`` was, and its approaches had the known fields, each once, and no others.

    :param body: valid UTF-8
    :raises pyarrow.ArrowInvalid: an epoch is no integer
    """
    if b"\\" in body:  # without escapes each quote is one
        return None
    rest: list[bytes | memoryview] = []
    lists: list[memoryview] = []
    parts = memoryview(body)
    done = 0
    while (start := body.find(_OPENING, done)) >= 0:
        start += len(_OPENING)
        end = body.find(b"]", start)
        if end < 0:
            return None
        rest += (parts[done:start], b"%d" % len(lists))
        lists.append(parts[start:end])
        done = end
    rest.append(parts[done:])
    approaches = _read(lists)
    return None if approaches is None else Cut(b"".join(rest), approaches)


def _read(lists: list[memoryview]) -> ApproachTexts | None:
    # One approach after the other, with a comma behind each.
    text = b"".join([part for entries in lists if entries for part in (entries, b",")])
    characters = np.frombuffer(text, np.uint8)
    starts = _starts(characters)
    if starts is None or not _is_regular(text, characters, starts):
        return None
    counts = _counts(lists, starts)
    return None if counts is None else _texts(text, characters, starts, counts)


def _starts(characters: NDArray[np.uint8]) -> NDArray[np.int64] | None:
    """Where each text of ``_BETWEEN`` stands, if it does: a row a text, a column an approach."""
    found = np.flatnonzero(characters == ord(","))
    if found.size % (len(_COMMAS) + 1):
        return None
    commas = found.reshape(-1, len(_COMMAS) + 1).T
    starts = np.empty((len(_BETWEEN), len(commas.T)), np.int64)
    starts[0, :1] = 0
    starts[0, 1:] = commas[-1, :-1] + 1
    starts[1:-1] = commas[:-1] - _COMMAS[:, np.newaxis]
    starts[-1] = commas[-1] - len(_BETWEEN[-1])
    return starts


def _is_regular(text: bytes, characters: NDArray[np.uint8], starts: NDArray[np.int64]) -> bool:
    """Whether the texts stand there, in this order, and nothing else but values that JSON allows."""
    approaches = starts.shape[1]
    if not approaches:
        return not text
    ends = starts + _SIZES[:, np.newaxis]
    if (starts[:, 0] < 0).any() or (ends[:-1] > starts[1:]).any() or ends[-1, -1] + 1 != len(text):
        return False
    for between, at in zip(_BETWEEN, starts, strict=True):
        windows = np.ndarray((len(text) - len(between) + 1,), f"V{len(between)}", text, strides=(1,))
        if windows[at].tobytes() != between * approaches:
            return False
    # So many quotes stand between the values: none in them.
    quotes = int(np.count_nonzero(characters == ord('"')))
    return quotes == _QUOTES * approaches and int(characters.min()) >= _FIRST_TEXT_CHARACTER


def _counts(lists: list[memoryview], starts: NDArray[np.int64]) -> tuple[int, ...] | None:
    """How many approaches each list has; None if one reaches from a list into the next."""
    *borders, end = itertools.accumulate((len(entries) + bool(entries) for entries in lists), initial=0)
    rows = [*starts[0].searchsorted(borders).tolist(), starts.shape[1]]
    # Where a list begins, an approach does, or the text ends with empty lists.
    if any(
        border != (end if row == starts.shape[1] else starts[0, row])
        for border, row in zip(borders, rows, strict=False)
    ):
        return None
    return tuple([after - before for before, after in itertools.pairwise(rows)])


def _texts(
    text: bytes, characters: NDArray[np.uint8], starts: NDArray[np.int64], counts: tuple[int, ...]
) -> ApproachTexts | None:
    values = starts[_WANTED] + _SIZES[_WANTED][:, np.newaxis]
    # The borders of all wanted values, in the order of the text: every second piece between them is one.
    borders = np.empty((starts.shape[1], len(_WANTED), 2), np.int32)
    borders[:, :, 0] = values.T
    borders[:, :, 1] = starts[_WANTED + 1].T
    pieces = pa.StringArray.from_buffers(max(0, borders.size - 1), pa.py_buffer(borders), pa.py_buffer(text))
    # Which pieces: a row a column, in the order in which they are taken.
    count = starts.shape[1]
    places = 2 * len(_WANTED) * np.arange(count, dtype=np.int32)
    which = pa.array((places + _TAKEN[:, np.newaxis]).ravel())
    epochs = pieces.take(which[:count])
    if not _are_integers(epochs, characters, values[1]):
        return None
    return ApproachTexts(
        counts=counts,
        dates=pieces.take(which[count : 2 * count]),
        epochs_ms=epochs.cast(pa.int64()),
        orbiting_bodies=pieces.take(which[2 * count : 3 * count]),
        numbers=pieces.take(which[3 * count :]),
    )


def _are_integers(texts: pa.StringArray, characters: NDArray[np.uint8], starts: NDArray[np.int64]) -> bool:
    """Whether what Arrow will read as an integer is one in JSON: no plus sign, and no zero that leads."""
    _, _, data = texts.buffers()
    if data is not None and data.to_pybytes().translate(None, b"0123456789-"):
        return False
    first, second = characters[starts], characters[starts + 1]  # behind each value stands more
    return not (np.where(first == ord("-"), second, first) == ord("0")).any()

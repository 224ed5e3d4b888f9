"""The fast path of decoding: typed JSON, then checks on whole columns. Pure.

It decodes regular pages only. Anything unusual, such as an unknown field, a number in place of text, or one invalid
date, makes a page irregular. :mod:`neows_async.endpoints.browse.decode_exact` then decodes it object by object. So this
file decides nothing by itself: a property test checks that both paths give the same bytes.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neows_async.endpoints.browse import approach_scan
from neows_async.endpoints.browse.approach_scan import Approaches, Scanner
from neows_async.endpoints.browse.envelope import (
    EPOCH_MAX_MS,
    EPOCH_MIN_MS,
    FLOAT64_MAX,
    INT64_MAX,
    NUMBER_CHARS,
    is_utf8,
    validated_info,
)
from neows_async.endpoints.browse.schema import CLOSE_APPROACHES
from neows_async.errors import BadPageError
from neows_async.pages.values import PageInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_Ignored = msgspec.Raw
_Entry = TypeVar("_Entry")
_ABSENT: Final = msgspec.Raw()
_FIRST_DAY: Final = EPOCH_MIN_MS // 86_400_000


class _KnownFields(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Every field that NASA is known to send. An unknown one makes a page irregular; the exact path counts it."""


class _VelocityJson(_KnownFields):
    kilometers_per_second: str | None = None
    kilometers_per_hour: _Ignored = _ABSENT
    miles_per_hour: _Ignored = _ABSENT


class _DistanceJson(_KnownFields):
    astronomical: str | None = None
    lunar: _Ignored = _ABSENT
    kilometers: str | None = None
    miles: _Ignored = _ABSENT


class _ApproachJson(_KnownFields):
    relative_velocity: _VelocityJson
    miss_distance: _DistanceJson
    close_approach_date: str | None = None
    close_approach_date_full: _Ignored = _ABSENT
    epoch_date_close_approach: int | None = None
    orbiting_body: str | None = None


class _DiameterRangeJson(_KnownFields):
    estimated_diameter_min: msgspec.Raw = _ABSENT
    estimated_diameter_max: msgspec.Raw = _ABSENT


class _DiameterJson(_KnownFields):
    meters: _DiameterRangeJson
    kilometers: _Ignored = _ABSENT
    miles: _Ignored = _ABSENT
    feet: _Ignored = _ABSENT


class _OrbitJson(_KnownFields):
    orbit_id: _Ignored = _ABSENT
    orbit_determination_date: _Ignored = _ABSENT
    first_observation_date: str | None = None
    last_observation_date: str | None = None
    data_arc_in_days: _Ignored = _ABSENT
    observations_used: int | None = None
    orbit_uncertainty: _Ignored = _ABSENT
    minimum_orbit_intersection: _Ignored = _ABSENT
    jupiter_tisserand_invariant: _Ignored = _ABSENT
    epoch_osculation: _Ignored = _ABSENT
    eccentricity: _Ignored = _ABSENT
    semi_major_axis: _Ignored = _ABSENT
    inclination: _Ignored = _ABSENT
    ascending_node_longitude: _Ignored = _ABSENT
    orbital_period: str | None = None
    perihelion_distance: _Ignored = _ABSENT
    perihelion_argument: _Ignored = _ABSENT
    aphelion_distance: _Ignored = _ABSENT
    perihelion_time: _Ignored = _ABSENT
    mean_anomaly: _Ignored = _ABSENT
    mean_motion: _Ignored = _ABSENT
    equinox: _Ignored = _ABSENT
    orbit_class: _Ignored = _ABSENT


class _NeoJson(_KnownFields, Generic[_Entry]):
    name: str
    estimated_diameter: _DiameterJson
    close_approach_data: list[_Entry]
    orbital_data: _OrbitJson
    links: _Ignored = _ABSENT
    id: str | None = None
    neo_reference_id: str | None = None
    name_limited: str | None = None
    designation: str | None = None
    nasa_jpl_url: str | None = None
    absolute_magnitude_h: msgspec.Raw = _ABSENT
    is_potentially_hazardous_asteroid: bool | None = None
    is_sentry_object: _Ignored = _ABSENT
    sentry_data: _Ignored = _ABSENT


class _PageObjectsJson(msgspec.Struct, Generic[_Entry]):
    page: PageInfo
    near_earth_objects: list[_NeoJson[_Entry]]


_whole = msgspec.json.Decoder(_PageObjectsJson[_ApproachJson])
_rest = msgspec.json.Decoder(_PageObjectsJson[int])

# The known fields, by which the exact path finds unknown ones: a field's own members, or None if they are not checked.
FieldTree = dict[str, "FieldTree | None"]


def _tree(struct: type[msgspec.Struct]) -> FieldTree:
    return {field.name: _members(field.type) for field in msgspec.structs.fields(struct)}


def _members(type_: object) -> FieldTree | None:
    item = getattr(type_, "__args__", (type_,))[0]
    return _tree(item) if isinstance(item, type) and issubclass(item, msgspec.Struct) else None


KNOWN_FIELDS: Final = _tree(_NeoJson[_ApproachJson])


@dataclass(frozen=True, slots=True)
class Columns:
    """The rows of one page or several, before the closest approaches are chosen.

    :param neos: the columns of ``NEOS`` without ``closest_*``
    :param close_approaches: schema ``CLOSE_APPROACHES``
    :param approach_counts: the number of approaches of each row of ``neos``
    """

    neos: dict[str, pa.Array]
    close_approaches: pa.RecordBatch
    approach_counts: tuple[int, ...]


class _IrregularError(Exception):
    """A value is not as in regular pages."""


_IRREGULAR: Final = (
    *(msgspec.MsgspecError, RecursionError, OverflowError, UnicodeError, pa.ArrowException),
    *(BadPageError, _IrregularError),
)


def decode_columns(body: bytes, scan: Scanner = approach_scan.scan) -> tuple[PageInfo, Columns] | None:
    """The page's envelope and columns; None if the page is irregular.

    :param scan: finds the lists of approaches
    """
    try:
        info, neos, approaches = _parsed(body, scan)
        return validated_info(info), _columns(neos, approaches)
    # Never an error: the exact path decodes the page again, and names what is wrong.
    except _IRREGULAR:
        return None


def decode_columns_of(
    bodies: Iterable[bytes], scan: Scanner = approach_scan.scan
) -> tuple[list[PageInfo], list[int], Columns] | None:
    """The envelopes of several pages, the number of objects in each, and the columns of all pages in a row.

    Half of the time for a page's columns does not depend on the number of rows. None if a page is irregular.

    :param bodies: at least one page; each may be released when the next one is read
    :param scan: finds the lists of approaches
    """
    try:
        infos, lists, approaches = zip(*(_parsed(body, scan) for body in bodies), strict=True)
        neos = list(itertools.chain.from_iterable(lists))
        return [validated_info(info) for info in infos], [*map(len, lists)], _columns(neos, _concatenated(approaches))
    except _IRREGULAR:
        return None


def _concatenated(lists: Sequence[Approaches]) -> Approaches:
    borders = [(0, len(one.dates), 2 * len(one.dates), 3 * len(one.dates)) for one in lists]
    return Approaches(
        counts=tuple(itertools.chain.from_iterable(one.counts for one in lists)),
        dates=pa.concat_arrays([one.dates for one in lists]),
        epochs_ms=pa.concat_arrays([one.epochs_ms for one in lists]),
        orbiting_bodies=pa.concat_arrays([one.orbiting_bodies for one in lists]),
        # The same order as in each page: all distances in au, then all in km, then all velocities.
        numbers=pa.concat_arrays(
            [
                one.numbers[at[third] : at[third + 1]]
                for third in range(3)
                for one, at in zip(lists, borders, strict=True)
            ]
        ),
    )


_Parsed = tuple[PageInfo, list[_NeoJson[Any]], Approaches]


def _parsed(body: bytes, scan: Scanner) -> _Parsed:
    return _parsed_by_layout(body, scan) or _parsed_as_json(body)


def _parsed_by_layout(body: bytes, scan: Scanner) -> _Parsed | None:
    """A page whose lists of approaches keep to the known layout, one list in each object."""
    scanned = scan(body)
    # Each occurrence of the name must be a list that the scan took: none may remain in another notation.
    if scanned is None or scanned.rest.count(b'"close_approach_data"') != len(scanned.approaches.counts):
        return None
    try:
        objects = _rest.decode(scanned.rest)
    except msgspec.MsgspecError:  # e.g. a list with a blank before it, which the scan left in place
        return None
    neos = objects.near_earth_objects
    # In place of each list is its number. In this order, each list belongs to one object, and none is missing.
    if [neo.close_approach_data for neo in neos] != [[number] for number in range(len(scanned.approaches.counts))]:
        return None
    return objects.page, neos, scanned.approaches


def _parsed_as_json(body: bytes) -> _Parsed:
    """Any other page, parsed as JSON. It takes four times as long."""
    if not is_utf8(body):  # also in skipped values, since every later reader requires UTF-8
        raise _IrregularError
    objects = _whole.decode(body)
    neos = objects.near_earth_objects
    entries = [entry for neo in neos for entry in neo.close_approach_data]
    numbers = itertools.chain(
        [entry.miss_distance.astronomical for entry in entries],
        [entry.miss_distance.kilometers for entry in entries],
        [entry.relative_velocity.kilometers_per_second for entry in entries],
    )
    approaches = Approaches(
        counts=tuple([len(neo.close_approach_data) for neo in neos]),
        dates=_dates(pa.array([entry.close_approach_date for entry in entries], pa.string())),
        epochs_ms=pa.array([entry.epoch_date_close_approach for entry in entries], pa.int64()),
        orbiting_bodies=pa.array([entry.orbiting_body for entry in entries], pa.string()),
        numbers=_numbers(pa.array(numbers, pa.string())),
    )
    return objects.page, neos, approaches


def _columns(neos: list[_NeoJson[Any]], entries: Approaches) -> Columns:
    orbits = [neo.orbital_data for neo in neos]
    meters = [neo.estimated_diameter.meters for neo in neos]
    ids = [neo.id if neo.id is not None else neo.neo_reference_id for neo in neos]
    days = _dates(
        pa.array(
            [orbit.first_observation_date for orbit in orbits] + [orbit.last_observation_date for orbit in orbits],
            pa.string(),
        )
    )
    periods_d = _numbers(pa.array([orbit.orbital_period for orbit in orbits], pa.string()))
    count = len(entries.dates)
    # Before any row is built: one value out of range sends the whole page to the exact path.
    _require_range(periods_d, 0, FLOAT64_MAX)
    _require_range(entries.numbers, 0, FLOAT64_MAX)
    _require_range(entries.epochs_ms, EPOCH_MIN_MS, EPOCH_MAX_MS)
    approaches = [
        _repeated(ids, entries.counts),
        entries.dates,
        entries.epochs_ms.view(CLOSE_APPROACHES.field("close_approach_at").type),
        entries.orbiting_bodies,
        entries.numbers[:count],
        entries.numbers[count : 2 * count],
        entries.numbers[2 * count :],
    ]
    columns = {
        "id": pa.array(_required(ids), pa.string()),
        "neo_reference_id": pa.array([neo.neo_reference_id for neo in neos], pa.string()),
        "name": pa.array(_required([neo.name for neo in neos]), pa.string()),
        "name_limited": pa.array([neo.name_limited for neo in neos], pa.string()),
        "designation": pa.array([neo.designation for neo in neos], pa.string()),
        "nasa_jpl_url": pa.array([neo.nasa_jpl_url for neo in neos], pa.string()),
        "absolute_magnitude_h": _floats([neo.absolute_magnitude_h for neo in neos], -FLOAT64_MAX),
        "is_potentially_hazardous_asteroid": pa.array(
            [neo.is_potentially_hazardous_asteroid for neo in neos], pa.bool_()
        ),
        "estimated_diameter_min_m": _floats([span.estimated_diameter_min for span in meters], 0),
        "estimated_diameter_max_m": _floats([span.estimated_diameter_max for span in meters], 0),
        "first_observation_date": days[: len(neos)],
        "last_observation_date": days[len(neos) :],
        "observations_used": pa.array(_within([orbit.observations_used for orbit in orbits], 0, INT64_MAX), pa.int64()),
        "orbital_period_d": periods_d,
    }
    return Columns(columns, pa.RecordBatch.from_arrays(approaches, schema=CLOSE_APPROACHES), entries.counts)


_Number = TypeVar("_Number", int, float)


def _required(values: list[str | None]) -> list[str | None]:
    if not all(values):
        raise _IrregularError
    return values


def _within(values: list[_Number | None], least: float, most: float) -> list[_Number | None]:
    given = [value for value in values if value is not None]
    if given and not least <= min(given) <= max(given) <= most:
        raise _IrregularError
    return values


def _floats(values: list[msgspec.Raw], least: float) -> pa.Array:
    """JSON numbers, or null where a value is absent."""
    numbers: list[float | None] = []
    for value in values:
        text = bytes(value)
        if text in {b"", b"null"}:
            numbers.append(None)
        elif len(text) <= NUMBER_CHARS and text[-1:].isdigit():  # not a string, a boolean or a list
            numbers.append(float(text) if text != b"-0" else 0.0)  # a JSON integer has only one zero
        else:
            raise _IrregularError
    return pa.array(_within(numbers, least, FLOAT64_MAX), pa.float64())


def _numbers(texts: pa.StringArray) -> pa.DoubleArray:
    """Numbers as text, by the grammar in :mod:`neows_async.endpoints.browse.neo`.

    With these characters only, Arrow accepts exactly the texts of that grammar. (Arrow would also accept a leading plus
    sign, which NASA never sends; the exact path handles it.)
    """
    _require_lengths(texts, 0, NUMBER_CHARS)
    _require_characters(texts, b"0123456789.-eE")
    return texts.cast(pa.float64())


def _dates(texts: pa.StringArray) -> pa.Date32Array:
    """Text ``YYYY-MM-DD``: ten of these characters; Arrow checks the rest."""
    _require_lengths(texts, 10, 10)
    _require_characters(texts, b"0123456789-")
    dates = texts.cast(pa.date32())
    _require_range(dates.view(pa.int32()), _FIRST_DAY, math.inf)  # Arrow accepts a year 0, the calendar has none
    return dates


def _repeated(ids: list[str | None], counts: tuple[int, ...]) -> pa.StringArray:
    """Each id, repeated as often as its object has approaches."""
    encoded = [id_.encode() for id_ in ids if id_ is not None]
    sizes = {len(id_) for id_ in encoded}
    if len(sizes) != 1 or len(encoded) != len(ids):
        return pa.array(ids, pa.string()).take(pa.array(np.repeat(np.arange(len(ids)), counts)))
    size = sizes.pop()
    data = np.repeat(np.array(encoded, f"V{size}"), counts)
    offsets = np.arange(len(data) + 1, dtype=np.int32) * np.int32(size)
    return pa.StringArray.from_buffers(len(data), pa.py_buffer(offsets), pa.py_buffer(data))


def _require_lengths(texts: pa.StringArray, least: int, most: int) -> None:
    """Require the length of each text that is not null."""
    if texts.null_count or not len(texts):
        _require_range(pc.binary_length(texts), least, most)
        return
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    lengths = offsets[1:] - offsets[:-1]
    if lengths.min() < least or lengths.max() > most:
        raise _IrregularError


def _require_range(values: pa.Array, least: float, most: float) -> None:
    """Require the range of each value that is not null; a NaN is in no range."""
    if values.null_count == 0 and len(values):
        numbers = values.to_numpy()
        if not (least <= numbers.min() and numbers.max() <= most):
            raise _IrregularError
        return
    smallest, largest = pc.min_max(values).values()
    if smallest.is_valid and not least <= smallest.as_py() <= largest.as_py() <= most:
        raise _IrregularError


def _require_characters(texts: pa.StringArray, allowed: bytes) -> None:
    _, _, data = texts.buffers()
    if data is not None and data.to_pybytes().translate(None, allowed):
        raise _IrregularError

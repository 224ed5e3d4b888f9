"""The quick way through a regular page: typed JSON, then whole columns judged at once. Pure.

It reads only what it is sure of. Anything out of the ordinary in a page, be it an unknown field, a
number where text was expected or one bad date, makes the page irregular, and :mod:`neows_async.endpoints.browse.neo`,
the contract, judges its objects one by one. So this file decides nothing by itself, and a property
test holds the two to the same bytes.
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
from neows_async.endpoints.browse.approach_scan import Approaches
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


class _Known(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Every field the source is known to send; a new one makes the page irregular, where it is counted."""


class _Velocity(_Known):
    kilometers_per_second: str | None = None
    kilometers_per_hour: _Ignored = _ABSENT
    miles_per_hour: _Ignored = _ABSENT


class _Distance(_Known):
    astronomical: str | None = None
    lunar: _Ignored = _ABSENT
    kilometers: str | None = None
    miles: _Ignored = _ABSENT


class _Approach(_Known):
    relative_velocity: _Velocity
    miss_distance: _Distance
    close_approach_date: str | None = None
    close_approach_date_full: _Ignored = _ABSENT
    epoch_date_close_approach: int | None = None
    orbiting_body: str | None = None


class _Span(_Known):
    estimated_diameter_min: msgspec.Raw = _ABSENT
    estimated_diameter_max: msgspec.Raw = _ABSENT


class _Diameter(_Known):
    meters: _Span
    kilometers: _Ignored = _ABSENT
    miles: _Ignored = _ABSENT
    feet: _Ignored = _ABSENT


class _Orbit(_Known):
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


class _Neo(_Known, Generic[_Entry]):
    name: str
    estimated_diameter: _Diameter
    close_approach_data: list[_Entry]
    orbital_data: _Orbit
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


class _Objects(msgspec.Struct, Generic[_Entry]):
    page: PageInfo
    near_earth_objects: list[_Neo[_Entry]]


_whole = msgspec.json.Decoder(_Objects[_Approach])
_rest = msgspec.json.Decoder(_Objects[int])

# What unknown fields are told apart from, where the contract counts them: a name's own members,
# or None where whatever lies beneath is none of our business.
FieldTree = dict[str, "FieldTree | None"]


def _tree(struct: type[msgspec.Struct]) -> FieldTree:
    return {field.name: _beneath(field.type) for field in msgspec.structs.fields(struct)}


def _beneath(type_: object) -> FieldTree | None:
    item = getattr(type_, "__args__", (type_,))[0]
    return _tree(item) if isinstance(item, type) and issubclass(item, msgspec.Struct) else None


KNOWN_FIELDS: Final = _tree(_Neo[_Approach])


@dataclass(frozen=True, slots=True)
class Columns:
    """A page's rows, or those of several, before the closest approaches are chosen.

    :param neos: the columns of ``NEOS`` without ``closest_*``
    :param close_approaches: schema ``CLOSE_APPROACHES``
    :param approach_counts: how many approaches each row of ``neos`` has
    """

    neos: dict[str, pa.Array]
    close_approaches: pa.RecordBatch
    approach_counts: tuple[int, ...]


class _IrregularError(Exception):
    """Some value is not what it always is."""


_OUT_OF_THE_ORDINARY: Final = (
    *(msgspec.MsgspecError, RecursionError, OverflowError, UnicodeError, pa.ArrowException),
    *(BadPageError, _IrregularError),
)


def decode_columns(body: bytes) -> tuple[PageInfo, Columns] | None:
    """The page's envelope and columns, or None if it is not entirely regular."""
    try:
        info, neos, approaches = _found(body)
        return validated_info(info), _columns(neos, approaches)
    except _OUT_OF_THE_ORDINARY:
        return None


def decode_columns_of(bodies: Iterable[bytes]) -> tuple[list[PageInfo], list[int], Columns] | None:
    """The envelopes of several pages, how many objects each has, and the columns of all, one page behind the other.

    Half of what the columns of a page cost is the same for however many rows. None if a page is not entirely regular.

    :param bodies: one page or more; none need be held when the next is taken
    """
    try:
        infos, lists, approaches = zip(*map(_found, bodies), strict=True)
        neos = list(itertools.chain.from_iterable(lists))
        return [validated_info(info) for info in infos], [*map(len, lists)], _columns(neos, _together(approaches))
    except _OUT_OF_THE_ORDINARY:
        return None


def _together(lists: Sequence[Approaches]) -> Approaches:
    borders = [(0, len(one.dates), 2 * len(one.dates), 3 * len(one.dates)) for one in lists]
    return Approaches(
        counts=tuple(itertools.chain.from_iterable(one.counts for one in lists)),
        dates=pa.concat_arrays([one.dates for one in lists]),
        epochs_ms=pa.concat_arrays([one.epochs_ms for one in lists]),
        orbiting_bodies=pa.concat_arrays([one.orbiting_bodies for one in lists]),
        # All distances in au, then all in km, then all velocities, as each list has them.
        numbers=pa.concat_arrays(
            [
                one.numbers[at[third] : at[third + 1]]
                for third in range(3)
                for one, at in zip(lists, borders, strict=True)
            ]
        ),
    )


_Found = tuple[PageInfo, list[_Neo[Any]], Approaches]


def _found(body: bytes) -> _Found:
    return _from_layout(body) or _from_json(body)


def _from_layout(body: bytes) -> _Found | None:
    """A page whose lists of approaches lie as they always do, one in each object."""
    cut = approach_scan.scan(body)
    # Each mention of the name is a list that was taken out: none was left because it is written in another way.
    if cut is None or cut.rest.count(b'"close_approach_data"') != len(cut.approaches.counts):
        return None
    try:
        objects = _rest.decode(cut.rest)
    except msgspec.MsgspecError:  # such as a list with a blank in front, which is still there
        return None
    neos = objects.near_earth_objects
    # In the place of each list stands its number: so each is an object's own, none is missing, and none there twice.
    if [neo.close_approach_data for neo in neos] != [[number] for number in range(len(cut.approaches.counts))]:
        return None
    return objects.page, neos, cut.approaches


def _from_json(body: bytes) -> _Found:
    """Any other page, as JSON. It takes four times as long."""
    if not is_utf8(body):  # also what is passed over here, as everything behind us would ask for
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


def _columns(neos: list[_Neo[Any]], entries: Approaches) -> Columns:
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
        "id": pa.array(_essential(ids), pa.string()),
        "neo_reference_id": pa.array([neo.neo_reference_id for neo in neos], pa.string()),
        "name": pa.array(_essential([neo.name for neo in neos]), pa.string()),
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


def _essential(values: list[str | None]) -> list[str | None]:
    if not all(values):
        raise _IrregularError
    return values


def _within(values: list[_Number | None], least: float, most: float) -> list[_Number | None]:
    given = [value for value in values if value is not None]
    if given and not least <= min(given) <= max(given) <= most:
        raise _IrregularError
    return values


def _floats(values: list[msgspec.Raw], least: float) -> pa.Array:
    """JSON numbers, or null where there is none."""
    numbers: list[float | None] = []
    for value in values:
        text = bytes(value)
        if text in {b"", b"null"}:
            numbers.append(None)
        elif len(text) <= NUMBER_CHARS and text[-1:].isdigit():  # no string, and neither true nor a list
            numbers.append(float(text) if text != b"-0" else 0.0)  # an integer, and those have one zero
        else:
            raise _IrregularError
    return pa.array(_within(numbers, least, FLOAT64_MAX), pa.float64())


def _numbers(texts: pa.StringArray) -> pa.DoubleArray:
    """Text by the one grammar of numbers.

    Of texts made of these characters alone, Arrow reads exactly those of the grammar. (A plus sign,
    which it reads in front too, and the source never sends, is left to the contract.)
    """
    _require_lengths(texts, 0, NUMBER_CHARS)
    _require_characters(texts, b"0123456789.-eE")
    return texts.cast(pa.float64())


def _dates(texts: pa.StringArray) -> pa.Date32Array:
    """Text ``YYYY-MM-DD``: ten such characters, of which Arrow asks for the rest."""
    _require_lengths(texts, 10, 10)
    _require_characters(texts, b"0123456789-")
    dates = texts.cast(pa.date32())
    _require_range(dates.view(pa.int32()), _FIRST_DAY, math.inf)  # Arrow has a year 0, the calendar has not
    return dates


def _repeated(ids: list[str | None], counts: tuple[int, ...]) -> pa.StringArray:
    """Each id so many times."""
    encoded = [id_.encode() for id_ in ids if id_ is not None]
    sizes = {len(id_) for id_ in encoded}
    if len(sizes) != 1 or len(encoded) != len(ids):
        return pa.array(ids, pa.string()).take(pa.array(np.repeat(np.arange(len(ids)), counts)))
    size = sizes.pop()
    data = np.repeat(np.array(encoded, f"V{size}"), counts)
    offsets = np.arange(len(data) + 1, dtype=np.int32) * np.int32(size)
    return pa.StringArray.from_buffers(len(data), pa.py_buffer(offsets), pa.py_buffer(data))


def _require_lengths(texts: pa.StringArray, least: int, most: int) -> None:
    """Of those that are not null."""
    if texts.null_count or not len(texts):
        _require_range(pc.binary_length(texts), least, most)
        return
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    lengths = offsets[1:] - offsets[:-1]
    if lengths.min() < least or lengths.max() > most:
        raise _IrregularError


def _require_range(values: pa.Array, least: float, most: float) -> None:
    """Of those that are not null; a NaN is in no range."""
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

"""The quick way through a regular page: typed JSON, then whole columns judged at once. Pure.

It reads only what it is sure of. Anything out of the ordinary in a page, be it an unknown field, a
number where text was expected or one bad date, makes the page irregular, and :mod:`neows_async.model`,
the contract, judges its objects one by one. So this file decides nothing by itself, and a property
test holds the two to the same bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from neows_async.model import DATE, EPOCH_MAX_MS, EPOCH_MIN_MS, INT64_MAX, NUMBER, NUMBER_CHARS
from neows_async.schema import CLOSE_APPROACHES, NEOS

_Ignored = msgspec.Raw
_ABSENT: Final = msgspec.Raw()


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
    estimated_diameter_min: float | None = None
    estimated_diameter_max: float | None = None


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


class _Neo(_Known):
    name: str
    estimated_diameter: _Diameter
    close_approach_data: list[_Approach]
    orbital_data: _Orbit
    links: _Ignored = _ABSENT
    id: str | None = None
    neo_reference_id: str | None = None
    name_limited: str | None = None
    designation: str | None = None
    nasa_jpl_url: str | None = None
    absolute_magnitude_h: float | None = None
    is_potentially_hazardous_asteroid: bool | None = None
    is_sentry_object: _Ignored = _ABSENT
    sentry_data: _Ignored = _ABSENT


class _Objects(msgspec.Struct):
    near_earth_objects: list[_Neo]


_decoder = msgspec.json.Decoder(_Objects)

# What unknown fields are told apart from, where the contract counts them: a name's own members,
# or None where whatever lies beneath is none of our business.
FieldTree = dict[str, "FieldTree | None"]


def _tree(struct: type[msgspec.Struct]) -> FieldTree:
    return {field.name: _beneath(field.type) for field in msgspec.structs.fields(struct)}


def _beneath(type_: object) -> FieldTree | None:
    item = getattr(type_, "__args__", (type_,))[0]
    return _tree(item) if isinstance(item, type) and issubclass(item, msgspec.Struct) else None


KNOWN_FIELDS: Final = _tree(_Neo)


@dataclass(frozen=True, slots=True)
class Columns:
    """A page's rows, before the closest approaches are chosen.

    :param neos: the columns of ``NEOS`` without ``closest_*``
    :param close_approaches: schema ``CLOSE_APPROACHES``
    :param approach_counts: how many approaches each row of ``neos`` has
    """

    neos: dict[str, pa.Array]
    close_approaches: pa.RecordBatch
    approach_counts: tuple[int, ...]


class _IrregularError(Exception):
    """Some value is not what it always is."""


def read(body: bytes) -> Columns | None:
    """The page's columns, or None if it is not entirely regular."""
    try:
        neos = _decoder.decode(body).near_earth_objects
        return Columns(_neos(neos), _approaches(neos), tuple(len(neo.close_approach_data) for neo in neos))
    except (msgspec.MsgspecError, RecursionError, OverflowError, UnicodeError, pa.ArrowException, _IrregularError):
        return None


def _neos(neos: list[_Neo]) -> dict[str, pa.Array]:
    orbits = [neo.orbital_data for neo in neos]
    meters = [neo.estimated_diameter.meters for neo in neos]
    return {
        "id": _essential([_id(neo) for neo in neos]),
        "neo_reference_id": _texts([neo.neo_reference_id for neo in neos]),
        "name": _essential([neo.name for neo in neos]),
        "name_limited": _texts([neo.name_limited for neo in neos]),
        "designation": _texts([neo.designation for neo in neos]),
        "nasa_jpl_url": _texts([neo.nasa_jpl_url for neo in neos]),
        "absolute_magnitude_h": _within(pa.array([neo.absolute_magnitude_h for neo in neos], pa.float64())),
        "is_potentially_hazardous_asteroid": pa.array(
            [neo.is_potentially_hazardous_asteroid for neo in neos], pa.bool_()
        ),
        "estimated_diameter_min_m": _amounts([span.estimated_diameter_min for span in meters]),
        "estimated_diameter_max_m": _amounts([span.estimated_diameter_max for span in meters]),
        "first_observation_date": _dates([orbit.first_observation_date for orbit in orbits]),
        "last_observation_date": _dates([orbit.last_observation_date for orbit in orbits]),
        "observations_used": _integers([orbit.observations_used for orbit in orbits], 0, INT64_MAX),
        "orbital_period_d": _numbers([orbit.orbital_period for orbit in orbits]),
    }


def _approaches(neos: list[_Neo]) -> pa.RecordBatch:
    entries = [entry for neo in neos for entry in neo.close_approach_data]
    distances = [entry.miss_distance for entry in entries]
    velocities = [entry.relative_velocity for entry in entries]
    epochs = _integers([entry.epoch_date_close_approach for entry in entries], EPOCH_MIN_MS, EPOCH_MAX_MS)
    columns = [
        pa.array([id_ for neo in neos for id_ in [_id(neo)] * len(neo.close_approach_data)], pa.string()),
        _dates([entry.close_approach_date for entry in entries]),
        epochs.cast(pa.timestamp("ms", tz="UTC")),
        _texts([entry.orbiting_body for entry in entries]),
        _numbers([distance.astronomical for distance in distances]),
        _numbers([distance.kilometers for distance in distances]),
        _numbers([velocity.kilometers_per_second for velocity in velocities]),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=CLOSE_APPROACHES)


def _id(neo: _Neo) -> str | None:
    return neo.id if neo.id is not None else neo.neo_reference_id


def _essential(values: list[str | None]) -> pa.Array:
    if not all(values):
        raise _IrregularError
    return pa.array(values, pa.string())


def _texts(values: list[str | None]) -> pa.Array:
    return pa.array(values, pa.string())


def _integers(values: list[int | None], least: int, most: int) -> pa.Array:
    return _within(pa.array(values, pa.int64()), least, most)


def _amounts(values: list[float | None]) -> pa.Array:
    return _within(pa.array(values, pa.float64()), 0)


def _numbers(values: list[str | None]) -> pa.Array:
    """Text by the one grammar of numbers, not below zero, as float64."""
    texts = pa.array(values, pa.string())
    _require(pc.match_substring_regex(texts, f"^(?:{NUMBER})$"))
    _within(pc.binary_length(texts), 0, NUMBER_CHARS)
    return _within(texts.cast(pa.float64()), 0)


def _dates(values: list[str | None]) -> pa.Array:
    texts = pa.array(values, pa.string())
    _require(pc.match_substring_regex(texts, f"^{DATE}$"))
    dates = texts.cast(pa.date32())
    _within(dates.cast(pa.int32()), EPOCH_MIN_MS // 86_400_000)  # Arrow has a year 0, the calendar has not
    return dates


def _require(true: pa.BooleanArray) -> None:
    if pc.all(true).as_py() is False:
        raise _IrregularError


def _within(values: pa.Array, least: float = -math.inf, most: float = math.inf) -> pa.Array:
    """``values``, all of them finite and between the two."""
    if pa.types.is_floating(values.type):
        _require(pc.is_finite(values))
    lowest, highest = pc.min_max(values).values()
    if lowest.is_valid and not least <= lowest.as_py() <= highest.as_py() <= most:
        raise _IrregularError
    return values


def names_agree() -> bool:
    """That the columns read here are those of the schema."""
    return set(_neos([])) == {name for name in NEOS.names if not name.startswith("closest_")}

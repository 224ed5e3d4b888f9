r"""The contract of an object: which values NASA may send, and the validated values that they become.

A field that is absent or null is null. A value that is present but invalid rejects the whole object. This includes a
bad approach: without it, the closest approach would be a guess. Unknown fields are ignored here;
:mod:`neows_async.endpoints.browse.decode_exact` counts them.

Numbers have one grammar, as text and as JSON numbers: ``-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?``, ASCII, at most 64
characters, finite as float64, and in the column's range. Booleans and a bare ``NaN`` are not numbers.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from neows_async.endpoints.browse import envelope
from neows_async.endpoints.browse.envelope import EPOCH_MAX_MS, EPOCH_MIN_MS, INT64_MAX, NUMBER_CHARS, LongNumber

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from neows_async.pages.values import Page

NUMBER: Final = r"-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
DATE: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"

_number = re.compile(NUMBER)
_date = re.compile(DATE)
_EXCERPT_CHARS = 40


def _quoted(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _EXCERPT_CHARS else f"{text[:_EXCERPT_CHARS]}…"


def read_number(value: object) -> float:
    """A float64, by the grammar above.

    :raises ValueError: the value does not match the grammar, or is not finite
    """
    if isinstance(value, str | LongNumber):
        chars = value.chars if isinstance(value, LongNumber) else len(value)
        if chars > NUMBER_CHARS:
            raise ValueError(f"a number of {chars} characters; at most {NUMBER_CHARS} are read")
        if isinstance(value, str) and not _number.fullmatch(value):
            raise ValueError(f"not a number: {_quoted(value)}")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"not a number: {_quoted(value)}")  # noqa: TRY004 - pydantic collects ValueErrors
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"not a finite number: {_quoted(value)}")
    return number


def read_amount(value: object) -> float:
    """A number that cannot be negative: a distance, a speed, a duration."""
    number = read_number(value)
    if number < 0:
        raise ValueError(f"below zero: {_quoted(value)}")
    return number


def read_count(value: object) -> int:
    """A whole number from 0 to 2^63 - 1."""
    # Without float64, which would round numbers above 2^53.
    if isinstance(value, str) and len(value) <= NUMBER_CHARS and value.isascii() and value.isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        number = read_number(value)
        if number != math.floor(number):
            raise ValueError(f"not a whole number: {_quoted(value)}")
        value = int(number)
    if not 0 <= value <= INT64_MAX:
        raise ValueError(f"out of range: {_quoted(value)}")
    return value


def read_date(value: object) -> dt.date:
    """A calendar date in the form ``YYYY-MM-DD``."""
    if isinstance(value, str) and _date.fullmatch(value):
        try:
            return dt.date.fromisoformat(value)
        except ValueError:
            pass
    raise ValueError(f"not a date (YYYY-MM-DD): {_quoted(value)}")


def read_epoch_ms(value: object) -> int:
    """Milliseconds since 1970, UTC, within the years 1 to 9999."""
    if isinstance(value, str | float):
        number = read_number(value)
        if number != math.floor(number):
            raise ValueError(f"not a whole number of milliseconds: {_quoted(value)}")
        value = int(number)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"not a number of milliseconds: {_quoted(value)}")  # noqa: TRY004 - as above
    if not EPOCH_MIN_MS <= value <= EPOCH_MAX_MS:
        raise ValueError(f"outside the years 1 to 9999: {_quoted(value)}")
    return value


def read_text(value: object) -> str:
    """A string that can be stored as UTF-8."""
    if not isinstance(value, str):
        raise ValueError(f"not a string: {_quoted(value)}")  # noqa: TRY004 - as above
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"not Unicode text: {_quoted(value)}") from None
    return value


def _essential(value: object) -> str:
    text = read_text(value)
    if not text:
        raise ValueError("empty")
    return text


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"neither true nor false: {_quoted(value)}")  # noqa: TRY004 - as above
    return value


def _optional(read: Any) -> BeforeValidator:
    return BeforeValidator(lambda value: None if value is None else read(value))


Number = Annotated[float | None, _optional(read_number)]
Amount = Annotated[float | None, _optional(read_amount)]
Count = Annotated[int | None, _optional(read_count)]
Date = Annotated[dt.date | None, _optional(read_date)]
EpochMs = Annotated[int | None, _optional(read_epoch_ms)]
Text = Annotated[str | None, _optional(read_text)]
Essential = Annotated[str, BeforeValidator(_essential)]
EssentialOrNone = Annotated[str | None, _optional(_essential)]
Flag = Annotated[bool | None, _optional(_flag)]


class CloseApproach(BaseModel):
    """One passage of a NEO by a body. A value that the source omits, or sends as null, is None."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    close_approach_date: dt.date | None
    """As the source sends it; the year of this date is the approach's year."""
    close_approach_epoch_ms: int | None
    """Milliseconds since 1970, to the minute. The source counts in UTC; JPL's own scale is TDB."""
    orbiting_body: str | None
    """JPL's spelling: Merc, Venus, Earth, Moon, Mars, Juptr …"""
    miss_distance_au: float | None
    """Astronomical units."""
    miss_distance_km: float | None
    """Kilometres, as the source sends it; not computed from ``miss_distance_au``."""
    relative_velocity_km_s: float | None
    """Kilometres a second, at the approach."""


def parse(raw: bytes) -> Any:
    """The value of an object's JSON, not validated yet."""
    try:
        return envelope.parse(raw)
    except RecursionError as exc:
        raise Unreadable("nested too deeply", ()) from exc


class Neo(BaseModel):
    """One near-Earth object, validated: the columns of ``NEOS``, and all of its close approaches.

    A value that the source omits, or sends as null, is None.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    id: str
    """The object's identifier, never empty, and unique in a run."""
    neo_reference_id: str | None
    """A second identifier of NASA's."""
    name: str
    """The full name, never empty: ``433 Eros (A898 PA)``."""
    name_limited: str | None
    """The short name; None for unnamed objects."""
    designation: str | None
    """As the source sends it."""
    nasa_jpl_url: str | None
    """The object's page at JPL."""
    absolute_magnitude_h: float | None
    """H, in magnitudes; smaller is brighter."""
    is_potentially_hazardous_asteroid: bool | None
    """NASA's own classification."""
    estimated_diameter_min_m: float | None
    """Metres."""
    estimated_diameter_max_m: float | None
    """Metres."""
    first_observation_date: dt.date | None
    """The day of the first observation for its orbit."""
    last_observation_date: dt.date | None
    """The day of the last observation for its orbit."""
    observations_used: int | None
    """The number of observations for its orbit."""
    orbital_period_d: float | None
    """Days."""
    close_approaches: tuple[CloseApproach, ...]
    """In the source's order, which is ascending by epoch."""

    def closest_approach(self, orbiting_body: str | None = None) -> CloseApproach | None:
        """The approach with the smallest miss distance (as float64 km); None if no distance is known.

        Of approaches at equal distances, it is the one with the earliest epoch, then the first in the list.

        :param orbiting_body: consider approaches to this body only; None is any
        """
        best, best_key = None, (math.inf, math.inf)
        for approach in self.close_approaches:
            if orbiting_body is not None and approach.orbiting_body != orbiting_body:
                continue
            if approach.miss_distance_km is None:
                continue
            epoch_ms = approach.close_approach_epoch_ms
            key = (approach.miss_distance_km, math.inf if epoch_ms is None else epoch_ms)
            if best is None or key < best_key:
                best, best_key = approach, key
        return best

    @classmethod
    def from_browse(cls, raw: bytes) -> Neo:
        """Validate one object of a Browse page.

        :raises Unreadable: the object breaks the contract; this is the first error, in the order of the source's fields
        """
        return cls.from_value(parse(raw))

    @classmethod
    def from_value(cls, value: Any) -> Neo:
        """Validate the value of an object, from :func:`parse`."""
        try:
            record = _ObjectRecord.model_validate(value)
        except ValidationError as exc:
            raise Unreadable.because(exc) from exc
        except RecursionError as exc:  # validation needs a deeper stack than parsing
            raise Unreadable("nested too deeply", ()) from exc
        id_ = record.neo_reference_id if record.id is None else record.id
        if id_ is None:
            raise Unreadable("neither id nor neo_reference_id is given", ())
        if not id_:
            raise Unreadable("empty", ("neo_reference_id",))
        diameter = (record.estimated_diameter or _DiameterRecord()).meters or _MetersRecord()
        orbit = record.orbital_data or _OrbitRecord()
        # Without a second validation: every value was validated above.
        return cls.model_construct(
            id=id_,
            neo_reference_id=record.neo_reference_id,
            name=record.name,
            name_limited=record.name_limited,
            designation=record.designation,
            nasa_jpl_url=record.nasa_jpl_url,
            absolute_magnitude_h=record.absolute_magnitude_h,
            is_potentially_hazardous_asteroid=record.is_potentially_hazardous_asteroid,
            estimated_diameter_min_m=diameter.estimated_diameter_min,
            estimated_diameter_max_m=diameter.estimated_diameter_max,
            first_observation_date=orbit.first_observation_date,
            last_observation_date=orbit.last_observation_date,
            observations_used=orbit.observations_used,
            orbital_period_d=orbit.orbital_period,
            close_approaches=tuple(_approach(entry) for entry in record.close_approach_data or ()),
        )


def objects(page: Page) -> Iterator[Neo]:
    """Each row of ``neos`` as a validated object, in order, made one at a time.

    It takes a seventh of the time of parsing the JSON again.
    """
    neos, close_approaches = page.batches.values()
    return _objects(neos, close_approaches, page.approach_counts)


def _objects(neos: pa.RecordBatch, close_approaches: pa.RecordBatch, approach_counts: Sequence[int]) -> Iterator[Neo]:
    epochs = close_approaches["close_approach_at"].view("int64")
    columns = [epochs if name == "close_approach_epoch_ms" else close_approaches[name] for name in _APPROACH_FIELDS]
    rows = zip(*(neos[name].to_pylist() for name in _NEO_FIELDS), strict=True)
    begin = 0
    for row, count in zip(rows, approach_counts, strict=True):
        # The rows of one object at a time: those of a whole page would block an event loop for 7 ms.
        values = zip(*(column.slice(begin, count).to_pylist() for column in columns), strict=True)
        begin += count
        theirs = [dict(zip(_APPROACH_FIELDS, approach, strict=True)) for approach in values]
        yield Neo.model_validate(dict(zip(_NEO_FIELDS, row, strict=True), close_approaches=theirs))


_APPROACH_FIELDS: Final = tuple(CloseApproach.model_fields)
_NEO_FIELDS: Final = tuple(name for name in Neo.model_fields if name != "close_approaches")


class Unreadable(ValueError):  # noqa: N818 - it rejects an object; it is not an error of the run
    """An object breaks the contract. ``path`` leads from the object to the invalid value."""

    def __init__(self, reason: str, path: tuple[str | int, ...]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path

    @classmethod
    def because(cls, exc: ValidationError) -> Unreadable:
        """The first error of a pydantic validation."""
        first = exc.errors(include_url=False, include_input=False)[0]
        reason = _REASONS.get(first["type"], first["msg"])
        if first["type"] == "value_error":
            reason = str(first["ctx"]["error"])
        return cls(reason, first["loc"])


_REASONS: Final = {"missing": "absent", "model_type": "not an object", "tuple_type": "not a list"}


class _SourceRecord(BaseModel):
    """The fields of the source that are stored; others are ignored."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore")


class _MissDistanceRecord(_SourceRecord):
    astronomical: Amount = None
    kilometers: Amount = None


class _RelativeVelocityRecord(_SourceRecord):
    kilometers_per_second: Amount = None


class _ApproachRecord(_SourceRecord):
    close_approach_date: Date = None
    epoch_date_close_approach: EpochMs = None
    relative_velocity: _RelativeVelocityRecord | None = None
    miss_distance: _MissDistanceRecord | None = None
    orbiting_body: Text = None


class _MetersRecord(_SourceRecord):
    estimated_diameter_min: Amount = None
    estimated_diameter_max: Amount = None


class _DiameterRecord(_SourceRecord):
    meters: _MetersRecord | None = None


class _OrbitRecord(_SourceRecord):
    first_observation_date: Date = None
    last_observation_date: Date = None
    observations_used: Count = None
    orbital_period: Amount = None


class _ObjectRecord(_SourceRecord):
    id: EssentialOrNone = None
    neo_reference_id: Text = None
    name: Essential
    name_limited: Text = None
    designation: Text = None
    nasa_jpl_url: Text = None
    absolute_magnitude_h: Number = None
    is_potentially_hazardous_asteroid: Flag = None
    estimated_diameter: _DiameterRecord | None = None
    close_approach_data: tuple[_ApproachRecord, ...] | None = None
    orbital_data: _OrbitRecord | None = None


def _approach(entry: _ApproachRecord) -> CloseApproach:
    distance = entry.miss_distance or _MissDistanceRecord()
    return CloseApproach.model_construct(
        close_approach_date=entry.close_approach_date,
        close_approach_epoch_ms=entry.epoch_date_close_approach,
        orbiting_body=entry.orbiting_body,
        miss_distance_au=distance.astronomical,
        miss_distance_km=distance.kilometers,
        relative_velocity_km_s=(entry.relative_velocity or _RelativeVelocityRecord()).kilometers_per_second,
    )

r"""The contract: what an object of the source must be, and the validated values it becomes.

A field that is absent or null is null. A value that is present but unreadable is an error, which
rejects the whole object: a bad approach too, since the closest one would then be a guess.
Unknown fields are let through here; :mod:`neows_async.endpoints.browse.decode` counts them.

Numbers have one grammar wherever they stand, as text or as a JSON number:
``-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?``, ASCII, at most 64 characters, finite as float64 and in
the column's range. Booleans are no numbers; nor is a bare ``NaN``.
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


def _said(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _EXCERPT_CHARS else f"{text[:_EXCERPT_CHARS]}…"


def read_number(value: object) -> float:
    """A float64 by the one grammar.

    :raises ValueError: it is not a number by the grammar, or not finite
    """
    if isinstance(value, str | LongNumber):
        chars = value.chars if isinstance(value, LongNumber) else len(value)
        if chars > NUMBER_CHARS:
            raise ValueError(f"a number of {chars} characters; at most {NUMBER_CHARS} are read")
        if isinstance(value, str) and not _number.fullmatch(value):
            raise ValueError(f"not a number: {_said(value)}")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"not a number: {_said(value)}")  # noqa: TRY004 - pydantic collects ValueErrors
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"not a finite number: {_said(value)}")
    return number


def read_amount(value: object) -> float:
    """A number of something that cannot be less than nothing: a distance, a speed, a duration.

    :raises ValueError: as :func:`read_number`, or below zero
    """
    number = read_number(value)
    if number < 0:
        raise ValueError(f"below zero: {_said(value)}")
    return number


def read_count(value: object) -> int:
    """A whole number from 0 to 2^63 - 1.

    :raises ValueError: as :func:`read_number`, or not whole, or out of range
    """
    # Not by way of float64, which would round what is above 2^53.
    if isinstance(value, str) and len(value) <= NUMBER_CHARS and value.isascii() and value.isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        number = read_number(value)
        if number != math.floor(number):
            raise ValueError(f"not a whole number: {_said(value)}")
        value = int(number)
    if not 0 <= value <= INT64_MAX:
        raise ValueError(f"out of range: {_said(value)}")
    return value


def read_date(value: object) -> dt.date:
    """A calendar date written ``YYYY-MM-DD``.

    :raises ValueError: it is not, or there is no such day
    """
    if isinstance(value, str) and _date.fullmatch(value):
        try:
            return dt.date.fromisoformat(value)
        except ValueError:
            pass
    raise ValueError(f"not a date (YYYY-MM-DD): {_said(value)}")


def read_epoch_ms(value: object) -> int:
    """Milliseconds since 1970, UTC, within the years 1 to 9999.

    :raises ValueError: it is not a whole number, or outside those years
    """
    if isinstance(value, str | float):
        number = read_number(value)
        if number != math.floor(number):
            raise ValueError(f"not a whole number of milliseconds: {_said(value)}")
        value = int(number)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"not a number of milliseconds: {_said(value)}")  # noqa: TRY004 - as above
    if not EPOCH_MIN_MS <= value <= EPOCH_MAX_MS:
        raise ValueError(f"outside the years 1 to 9999: {_said(value)}")
    return value


def read_text(value: object) -> str:
    """A string that can be stored as UTF-8.

    :raises ValueError: it is not a string, or has half of a surrogate pair
    """
    if not isinstance(value, str):
        raise ValueError(f"not a string: {_said(value)}")  # noqa: TRY004 - as above
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"not Unicode text: {_said(value)}") from None
    return value


def _essential(value: object) -> str:
    text = read_text(value)
    if not text:
        raise ValueError("empty")
    return text


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"neither true nor false: {_said(value)}")  # noqa: TRY004 - as above
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
    """One passage of a NEO by a body. What the source left out, or gave as null, is None."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    close_approach_date: dt.date | None
    """As the source gives it; the year of this date is the approach's year."""
    close_approach_epoch_ms: int | None
    """ms since 1970, minute resolution. Counted by the source as UTC; JPL's own scale is TDB."""
    orbiting_body: str | None
    """JPL's spelling: Merc, Venus, Earth, Moon, Mars, Juptr …"""
    miss_distance_au: float | None
    """Astronomical units."""
    miss_distance_km: float | None
    """Kilometres; the source's own figure, not computed from the other."""
    relative_velocity_km_s: float | None
    """Kilometres a second, at that moment."""


def parse(raw: bytes) -> Any:
    """The object's JSON as a value, not judged yet.

    :raises Unreadable: it is nested too deeply
    """
    try:
        return envelope.parse(raw)
    except RecursionError as exc:
        raise Unreadable("nested too deeply", ()) from exc


class Neo(BaseModel):
    """One near-Earth object, validated: the saved columns, and all of its close approaches.

    What the source left out, or gave as null, is None.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    id: str
    """The object's identifier, never empty; no other object of a run has it."""
    neo_reference_id: str | None
    """NASA's own second name for it."""
    name: str
    """The full name, never empty: ``433 Eros (A898 PA)``."""
    name_limited: str | None
    """The short name; None for unnamed objects."""
    designation: str | None
    """As the source gives it."""
    nasa_jpl_url: str | None
    """The object's page at JPL."""
    absolute_magnitude_h: float | None
    """H, in magnitudes: the smaller, the brighter."""
    is_potentially_hazardous_asteroid: bool | None
    """NASA's own judgement."""
    estimated_diameter_min_m: float | None
    """Metres."""
    estimated_diameter_max_m: float | None
    """Metres."""
    first_observation_date: dt.date | None
    """The day of the first observation that its orbit was computed from."""
    last_observation_date: dt.date | None
    """The day of the last one."""
    observations_used: int | None
    """How many there are."""
    orbital_period_d: float | None
    """Days."""
    close_approaches: tuple[CloseApproach, ...]
    """In the source's order: ascending by epoch, as far as known."""

    def closest_approach(self, orbiting_body: str | None = None) -> CloseApproach | None:
        """The approach with the smallest miss distance (as float64 km); None if no distance is known.

        Equal distances: the earlier epoch, then the list's order.

        :param orbiting_body: of those to this body alone; None is any
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
        """One object of a Browse page, by the contract.

        :raises Unreadable: it is not one; the first trouble in the order of this class's fields
        """
        return cls.from_value(parse(raw))

    @classmethod
    def from_value(cls, value: Any) -> Neo:
        """The same of what :func:`parse` made of the object.

        :raises Unreadable: as :meth:`from_browse`
        """
        try:
            record = _Object.model_validate(value)
        except ValidationError as exc:
            raise Unreadable.because(exc) from exc
        except RecursionError as exc:  # what could just be parsed is told of from deeper in the stack
            raise Unreadable("nested too deeply", ()) from exc
        id_ = record.neo_reference_id if record.id is None else record.id
        if id_ is None:
            raise Unreadable("neither id nor neo_reference_id is given", ())
        if not id_:
            raise Unreadable("empty", ("neo_reference_id",))
        diameter = (record.estimated_diameter or _Diameter()).meters or _Meters()
        orbit = record.orbital_data or _Orbit()
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
    """Each row of ``page.neos`` as a validated object, in order; made at each call, one object at a time.

    A seventh of the time that reading their JSON again would take.
    """
    neos, close_approaches = page.batches.values()
    return _objects(neos, close_approaches, page.approach_counts)


def _objects(neos: pa.RecordBatch, close_approaches: pa.RecordBatch, approach_counts: Sequence[int]) -> Iterator[Neo]:
    epochs = close_approaches["close_approach_at"].view("int64")
    columns = [epochs if name == "close_approach_epoch_ms" else close_approaches[name] for name in _APPROACH_FIELDS]
    rows = zip(*(neos[name].to_pylist() for name in _NEO_FIELDS), strict=True)
    begin = 0
    for row, count in zip(rows, approach_counts, strict=True):
        # Each takes its own rows alone: to take those of a whole page would hold an event loop for 7 ms.
        values = zip(*(column.slice(begin, count).to_pylist() for column in columns), strict=True)
        begin += count
        theirs = [dict(zip(_APPROACH_FIELDS, approach, strict=True)) for approach in values]
        yield Neo.model_validate(dict(zip(_NEO_FIELDS, row, strict=True), close_approaches=theirs))


_APPROACH_FIELDS: Final = tuple(CloseApproach.model_fields)
_NEO_FIELDS: Final = tuple(name for name in Neo.model_fields if name != "close_approaches")


class Unreadable(ValueError):  # noqa: N818 - it judges an object; it is no error of the run
    """An object that breaks the contract. ``path`` leads from the object to the trouble."""

    def __init__(self, reason: str, path: tuple[str | int, ...]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path

    @classmethod
    def because(cls, exc: ValidationError) -> Unreadable:
        """The first trouble of those that pydantic found."""
        first = exc.errors(include_url=False, include_input=False)[0]
        reason = _REASONS.get(first["type"], first["msg"])
        if first["type"] == "value_error":
            reason = str(first["ctx"]["error"])
        return cls(reason, first["loc"])


_REASONS: Final = {
    "missing": "absent",
    "model_type": "not an object",
    "tuple_type": "not a list",
}


class _Read(BaseModel):
    """The source's own shape, of which only what is saved is read."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore")


class _MissDistance(_Read):
    astronomical: Amount = None
    kilometers: Amount = None


class _RelativeVelocity(_Read):
    kilometers_per_second: Amount = None


class _Approach(_Read):
    close_approach_date: Date = None
    epoch_date_close_approach: EpochMs = None
    relative_velocity: _RelativeVelocity | None = None
    miss_distance: _MissDistance | None = None
    orbiting_body: Text = None


class _Meters(_Read):
    estimated_diameter_min: Amount = None
    estimated_diameter_max: Amount = None


class _Diameter(_Read):
    meters: _Meters | None = None


class _Orbit(_Read):
    first_observation_date: Date = None
    last_observation_date: Date = None
    observations_used: Count = None
    orbital_period: Amount = None


class _Object(_Read):
    id: EssentialOrNone = None
    neo_reference_id: Text = None
    name: Essential
    name_limited: Text = None
    designation: Text = None
    nasa_jpl_url: Text = None
    absolute_magnitude_h: Number = None
    is_potentially_hazardous_asteroid: Flag = None
    estimated_diameter: _Diameter | None = None
    close_approach_data: tuple[_Approach, ...] | None = None
    orbital_data: _Orbit | None = None


def _approach(entry: _Approach) -> CloseApproach:
    distance = entry.miss_distance or _MissDistance()
    return CloseApproach.model_construct(
        close_approach_date=entry.close_approach_date,
        close_approach_epoch_ms=entry.epoch_date_close_approach,
        orbiting_body=entry.orbiting_body,
        miss_distance_au=distance.astronomical,
        miss_distance_km=distance.kilometers,
        relative_velocity_km_s=(entry.relative_velocity or _RelativeVelocity()).kilometers_per_second,
    )

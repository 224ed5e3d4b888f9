"""Synthetic near-Earth objects in NASA's exact format. A seed and an index determine each object.

The bytes are the same on every version of Python and every processor. So only ``random()`` is drawn, the one method
whose values Python guarantees, and no function of the C library's mathematics is used.
"""

from __future__ import annotations

import datetime as dt
import decimal
import math
import random
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_APPROACHES: Final = 473
MOST_OBJECTS: Final = 9_999_999
"""Ids have eight digits and start with 9; no real id does."""

_FIRST_ID: Final = 90_000_000
_SYLLABLES: Final = ("ka", "lo", "mi", "ren", "tu", "vas", "el", "or", "bi", "dun", "sha", "pex")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_FIRST_MINUTE: Final = -36_816_480  # 1900-01-01
_MINUTES: Final = 158_310_720  # to the end of 2200
_TEN_BILLION: Final = 10**10

# Cumulative distributions, as points (share, value); they turn a random number in [0, 1) into a value.
_Curve = tuple[tuple[float, float], ...]
# Close approaches of an object, as in the first 200 real ones: a tenth have none, the mean is about 23.
_APPROACHES: Final[_Curve] = (
    (0.1, 1),
    (0.2, 3),
    (0.3, 7),
    (0.4, 9),
    (0.5, 13),
    (0.6, 18),
    (0.7, 23),
    (0.8, 36),
    (0.9, 54),
    (0.96, 80),
    (0.99, 140),
    (0.999, 240),
    (1.0, MOST_APPROACHES + 1),
)
# H, as in the whole catalogue; the first 200 objects are its bright end.
_MAGNITUDE: Final[_Curve] = (
    (0, 9.2),
    (0.01, 14),
    (0.1, 18),
    (0.3, 21),
    (0.5, 23.5),
    (0.8, 26.5),
    (0.99, 31),
    (1, 33.6),
)
_SPEED_KM_S: Final[_Curve] = ((0, 1.3), (0.08, 6), (0.25, 9.8), (0.5, 13.5), (0.75, 18.9), (0.92, 27.6), (1, 43))
# The share up to which an approach is to this body, and its distances in au; both as in the first 200 objects.
_BODIES: Final[tuple[tuple[float, str, _Curve], ...]] = (
    (
        0.6350,
        "Earth",
        ((0, 0.004), (0.125, 0.0735), (0.25, 0.115), (0.5, 0.175), (0.62, 0.2), (0.75, 0.303), (1, 0.4997)),
    ),
    (0.8288, "Venus", ((0, 0.004), (0.125, 0.055), (0.5, 0.099), (1, 0.15))),
    (0.9109, "Juptr", ((0, 0.6), (0.125, 1.21), (0.5, 1.69), (1, 2.0))),
    (0.9729, "Mars", ((0, 0.012), (0.125, 0.039), (1, 0.0995))),
    (0.9985, "Merc", ((0, 0.012), (0.125, 0.039), (1, 0.0995))),
    (1.0, "Moon", ((0, 0.0002), (1, 0.0085))),
)
_CLASSES: Final = {
    "APO": (
        "Near-Earth asteroid orbits which cross the Earth\u2019s orbit similar to that of 1862 Apollo",
        "a (semi-major axis) > 1.0 AU; q (perihelion) < 1.017 AU",
    ),
    "AMO": ("Near-Earth asteroid orbits similar to that of 1221 Amor", "1.017 AU < q (perihelion) < 1.3 AU"),
    "ATE": (
        "Near-Earth asteroid orbits similar to that of 2062 Aten",
        "a (semi-major axis) < 1.0 AU; q (perihelion) > 0.983 AU",
    ),
}


def synthetic_object(seed: int, index: int, *, approaches: int | None = None) -> dict[str, Any]:
    """Object ``index`` (from 0) of the catalogue of ``seed``, with its members in NASA's order, without ``links``.

    About a tenth of the objects have no close approaches; the mean is about 23, the maximum 473.

    :param approaches: their number, for pages of a known size: 20 objects with 100 each are about 0.93 MB
    """
    # The order of the draws below is part of the format: a new draw in between would change every object.
    draw = random.Random(f"{seed}:{index}").random  # noqa: S311 - not a secret
    number = index + 1
    hundredths = int(_value_at(_MAGNITUDE, draw()) * 100)
    count = _approach_count(draw()) if approaches is None else approaches
    orbit, moid_au = _orbit(draw)
    return _names(draw, number) | {
        "nasa_jpl_url": f"https://ssd.jpl.nasa.gov/tools/sbdb_lookup.html#/?sstr={_FIRST_ID + number}",
        "absolute_magnitude_h": hundredths / 100,
        "estimated_diameter": _diameters(hundredths),
        # The definition of potentially hazardous: H of 22 or brighter, and within 0.05 au of Earth's orbit.
        "is_potentially_hazardous_asteroid": hundredths <= 2200 and moid_au <= 0.05,  # noqa: PLR2004
        "close_approach_data": [
            _approach(minute, draw) for minute in sorted([_FIRST_MINUTE + int(draw() * _MINUTES) for _ in range(count)])
        ],
        "orbital_data": orbit,
        "is_sentry_object": draw() < 0.05,  # noqa: PLR2004 - about the share of objects on that list
    }


def _value_at(curve: _Curve, share: float) -> float:
    """The value at ``share``, interpolated between the points of ``curve``."""
    at, value = curve[0]
    for next_at, next_value in curve[1:]:
        if share < next_at:
            return value + (next_value - value) * (share - at) / (next_at - at)
        at, value = next_at, next_value
    return value


def _approach_count(share: float) -> int:
    return 0 if share < _APPROACHES[0][0] else int(_value_at(_APPROACHES, share))


def _names(draw: Callable[[], float], number: int) -> dict[str, Any]:
    name = (
        "Sandbox-"
        + (_SYLLABLES[int(draw() * len(_SYLLABLES))] + _SYLLABLES[int(draw() * len(_SYLLABLES))]).capitalize()
    )
    temporary = f"SANDBOX {number:06}"
    named = draw() < 0.6  # noqa: PLR2004 - 127 of the first 200 have a name
    entry = {
        "id": f"{_FIRST_ID + number}",
        "neo_reference_id": f"{_FIRST_ID + number}",
        "name": f"{number} {name} ({temporary})" if named else f"({temporary})",
    }
    if named:
        entry["name_limited"] = name
    return entry | {"designation": f"{number}" if named else temporary}


def _approach(minute: int, draw: Callable[[], float]) -> dict[str, Any]:
    share = draw()
    body, curve = next((name, curve) for until, name, curve in _BODIES if share < until)
    # Whole numbers of 1e-10 au and 1e-10 km/s, so that the other units are exact, as in NASA's data.
    distance = int(_value_at(curve, draw()) * _TEN_BILLION)
    speed = int(_value_at(_SPEED_KM_S, draw()) * _TEN_BILLION)
    at = _EPOCH + dt.timedelta(minutes=minute)
    return {
        "close_approach_date": f"{at.year}-{at.month:02}-{at.day:02}",
        "close_approach_date_full": f"{at.year}-{_MONTHS[at.month - 1]}-{at.day:02} {at.hour:02}:{at.minute:02}",
        "epoch_date_close_approach": minute * 60_000,
        "relative_velocity": {
            "kilometers_per_second": _ten_places(speed),
            "kilometers_per_hour": _ten_places(speed * 3600),
            "miles_per_hour": _ten_places(speed * 22_369 // 10),
        },
        "miss_distance": {
            "astronomical": _ten_places(distance),
            "lunar": _ten_places(distance * 389),
            "kilometers": _ten_places(distance * 149_597_870),
            "miles": _ten_places(distance * 92_955_806),
        },
        "orbiting_body": body,
    }


def _ten_places(number: int) -> str:
    """``number`` * 1e-10 in NASA's notation: up to ten decimal places, without trailing zeros."""
    text = f"{number // _TEN_BILLION}.{number % _TEN_BILLION:010}".rstrip("0")
    return f"{text}0" if text.endswith(".") else text


def _diameters(magnitude_hundredths: int) -> dict[str, Any]:
    """Diameters from H with the albedos 0.25 and 0.05, as NASA computes them."""
    exact = decimal.Context(prec=28)
    dimmer = exact.power(decimal.Decimal(10), exact.divide(decimal.Decimal(-magnitude_hundredths), 500))
    least_km, most_km = exact.multiply(dimmer, 2658), exact.multiply(dimmer, decimal.Decimal("5943.468684194"))
    per_km = (("kilometers", "1"), ("meters", "1000"), ("miles", "0.621371"), ("feet", "3280.84"))
    return {
        unit: {
            "estimated_diameter_min": _rounded(exact.multiply(least_km, decimal.Decimal(factor))),
            "estimated_diameter_max": _rounded(exact.multiply(most_km, decimal.Decimal(factor))),
        }
        for unit, factor in per_km
    }


def _rounded(value: decimal.Decimal) -> float:
    return float(f"{value:.10f}")


def _orbit(draw: Callable[[], float]) -> tuple[dict[str, Any], float]:
    """The orbital data, and the orbit's minimum distance from Earth's orbit in au."""
    near = 0.2 + 1.09 * draw()
    # Eccentric enough to reach Earth's orbit from inside.
    least = max(0.05, (0.99 - near) / (0.99 + near))
    eccentricity = least + (0.92 - least) * draw()
    axis = near / (1 - eccentricity)
    period_d = 365.25 * axis * math.sqrt(axis)
    moid_au = 0.4 * draw() * draw()
    first_day, arc_d = dt.date(1950, 1, 1) + dt.timedelta(days=int(draw() * 25_000)), 1 + int(draw() * 2_700)
    last_day = first_day + dt.timedelta(days=arc_d)
    name = "ATE" if axis < 1 else "APO" if near < 1.017 else "AMO"  # noqa: PLR2004 - the definitions
    description, extent = _CLASSES[name]
    orbit = {
        "orbit_id": f"{1 + int(draw() * 900)}",
        "orbit_determination_date": f"{last_day + dt.timedelta(days=1)} 05:{int(draw() * 60):02}:{int(draw() * 60):02}",
        "first_observation_date": f"{first_day}",
        "last_observation_date": f"{last_day}",
        "data_arc_in_days": arc_d,
        "observations_used": 10 + int(9_000 * draw() * draw()),
        "orbit_uncertainty": f"{int(draw() * draw() * 10)}",
        "minimum_orbit_intersection": _digits(moid_au + 0.0001, 6),
        "jupiter_tisserand_invariant": f"{5.2 / axis + 1.8 * math.sqrt(axis / 5.2 * (1 - eccentricity**2)):.3f}",
        "epoch_osculation": "2461000.5",
        "eccentricity": _digits(eccentricity, 16),
        "semi_major_axis": _digits(axis, 16),
        "inclination": _digits(0.1 + 60 * draw() * draw(), 16),
        "ascending_node_longitude": _digits(0.1 + 359.8 * draw(), 16),
        "orbital_period": _digits(period_d, 16),
        "perihelion_distance": _digits(near, 16),
        "perihelion_argument": _digits(0.1 + 359.8 * draw(), 16),
        "aphelion_distance": _digits(axis * (1 + eccentricity), 16),
        "perihelion_time": f"{2_460_100 + int(draw() * 1_500)}.{int(draw() * 10**12):012}",
        "mean_anomaly": _digits(0.1 + 359.8 * draw(), 16),
        "mean_motion": _digits(360 / period_d, 16),
        "equinox": "J2000",
        "orbit_class": {"orbit_class_type": name, "orbit_class_description": description, "orbit_class_range": extent},
    }
    return orbit, moid_au


def _digits(value: float, digits: int) -> str:
    """``value`` with ``digits`` significant digits, without the zero before the point, in JPL's notation."""
    return f"{value:.{digits}g}".removeprefix("0")

"""Synthetic near-Earth objects in NASA's exact shape: each follows from a seed and its index alone."""

from __future__ import annotations

import datetime as dt
import math
import random
from typing import Any, Final

_FIRST_ID: Final = 90_000_000
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# Shares of the bodies, as in the first 200 real objects.
_BODIES: Final = (
    ("Earth", 0.635),
    ("Venus", 0.829),
    ("Juptr", 0.911),
    ("Mars", 0.973),
    ("Merc", 0.9985),
    ("Moon", 1.0),
)
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_FIRST_MINUTE: Final = -36_816_480  # 1900-01-01
_MINUTES: Final = 158_310_720  # to the end of 2200
MOST_APPROACHES: Final = 473
_KM_PER_AU: Final = 149_597_870.7
_LUNAR_PER_AU: Final = 389.0
_MILES_PER_KM: Final = 0.621371192237334
_FEET_PER_M: Final = 3.28083989501312


def synthetic_object(seed: int, index: int, *, approaches: int | None = None) -> dict[str, Any]:
    """Object ``index`` of the catalogue of ``seed``; its ``links`` are for the server to add.

    About a tenth have no approaches, the mean is some 23, the most 473.

    :param approaches: exactly so many, for pages of a known size
    """
    # Only random() is drawn: it is the one method that gives the same on every version of Python.
    draw = random.Random(f"{seed}:{index}").random  # noqa: S311 - not a secret
    number = index + 1
    magnitude = round(9.0 + 20.0 * draw() ** 0.6, 2)
    named = draw() < 0.6  # noqa: PLR2004 - the share that has a name
    designation = f"{1900 + int(draw() * 127)} SB{number}"
    count = _approach_count(draw(), draw(), draw()) if approaches is None else approaches
    first_year = 1900 + int(draw() * 120)
    entry: dict[str, Any] = {
        "id": f"{_FIRST_ID + number}",
        "neo_reference_id": f"{_FIRST_ID + number}",
        "name": f"{number} Sandbox-{number} (SANDBOX {designation})" if named else f"(SANDBOX {designation})",
    }
    if named:
        entry["name_limited"] = f"Sandbox-{number}"
    closest, entry_approaches = 1.0, []
    for minute in sorted(_FIRST_MINUTE + int(draw() * _MINUTES) for _ in range(count)):
        approach, distance_au = _approach(minute, draw(), draw(), draw())
        entry_approaches.append(approach)
        closest = min(closest, distance_au)
    return entry | {
        "designation": designation,
        "nasa_jpl_url": f"https://ssd.jpl.nasa.gov/tools/sbdb_lookup.html#/?sstr={_FIRST_ID + number}",
        "absolute_magnitude_h": magnitude,
        "estimated_diameter": _diameter(magnitude),
        "is_potentially_hazardous_asteroid": magnitude <= 22.0 and closest <= 0.05,  # noqa: PLR2004 - the definition
        "close_approach_data": entry_approaches,
        "orbital_data": _orbit(draw, first_year),
        "is_sentry_object": draw() < 0.001,  # noqa: PLR2004 - a rare thing
    }


def _approach_count(none: float, one: float, two: float) -> int:
    if none < 0.1:  # noqa: PLR2004 - a tenth have none
        return 0
    normal = math.sqrt(-2.0 * math.log(1.0 - one)) * math.cos(2.0 * math.pi * two)
    return max(1, min(MOST_APPROACHES, round(math.exp(2.42 + 1.3 * normal))))


def _approach(minute: int, body: float, distance: float, speed: float) -> tuple[dict[str, Any], float]:
    at = _EPOCH + dt.timedelta(minutes=minute)
    # Two thirds are nearer than 0.2 au.
    au = 0.0001 + 0.4999 * distance**2.26
    km, km_s = au * _KM_PER_AU, 2.0 + 30.0 * speed**1.3
    approach = {
        "close_approach_date": f"{at.year}-{at.month:02}-{at.day:02}",
        "close_approach_date_full": f"{at.year}-{_MONTHS[at.month - 1]}-{at.day:02} {at.hour:02}:{at.minute:02}",
        "epoch_date_close_approach": minute * 60_000,
        "relative_velocity": {
            "kilometers_per_second": f"{km_s:.10f}",
            "kilometers_per_hour": f"{km_s * 3600:.10f}",
            "miles_per_hour": f"{km_s * 3600 * _MILES_PER_KM:.10f}",
        },
        "miss_distance": {
            "astronomical": f"{au:.10f}",
            "lunar": f"{au * _LUNAR_PER_AU:.10f}",
            "kilometers": f"{km:.9f}",
            "miles": f"{km * _MILES_PER_KM:.10f}",
        },
        "orbiting_body": next(name for name, until in _BODIES if body < until),
    }
    return approach, au


def _diameter(magnitude: float) -> dict[str, Any]:
    """From H by the albedos 0.25 and 0.05, as NASA does."""
    least_km, most_km = (1329.0 / math.sqrt(albedo) * 10 ** (-magnitude / 5) for albedo in (0.25, 0.05))
    spans = {}
    for unit, per_km in (("kilometers", 1.0), ("meters", 1e3), ("miles", _MILES_PER_KM), ("feet", 1e3 * _FEET_PER_M)):
        spans[unit] = {
            "estimated_diameter_min": round(least_km * per_km, 10),
            "estimated_diameter_max": round(most_km * per_km, 10),
        }
    return spans


def _orbit(draw: Any, first_year: int) -> dict[str, Any]:
    axis, eccentricity = 0.6 + 2.4 * draw(), 0.05 + 0.8 * draw()
    period_d = 365.25 * axis**1.5
    last_year = max(first_year, 2026 - int(draw() * 10))
    days = (last_year - first_year) * 365 + 100
    return {
        "orbit_id": f"{1 + int(draw() * 900)}",
        "orbit_determination_date": f"{last_year}-12-{1 + int(draw() * 28):02} 05:53:24",
        "first_observation_date": f"{first_year}-{1 + int(draw() * 6):02}-{1 + int(draw() * 28):02}",
        "last_observation_date": f"{last_year}-{7 + int(draw() * 6):02}-{1 + int(draw() * 28):02}",
        "data_arc_in_days": days,
        "observations_used": 10 + int(9_000 * draw() ** 4),
        "orbit_uncertainty": f"{int(draw() * 10)}",
        "minimum_orbit_intersection": _decimal(draw() * 0.3, 6),
        "jupiter_tisserand_invariant": _decimal(2.5 + draw() * 5, 3),
        "epoch_osculation": "2461000.5",
        "eccentricity": _decimal(eccentricity, 16),
        "semi_major_axis": _decimal(axis, 15),
        "inclination": _decimal(draw() * 40, 14),
        "ascending_node_longitude": _decimal(draw() * 360, 13),
        "orbital_period": _decimal(period_d, 13),
        "perihelion_distance": _decimal(axis * (1 - eccentricity), 16),
        "perihelion_argument": _decimal(draw() * 360, 13),
        "aphelion_distance": _decimal(axis * (1 + eccentricity), 15),
        "perihelion_time": _decimal(2_461_000 + draw() * 900, 9),
        "mean_anomaly": _decimal(draw() * 360, 13),
        "mean_motion": _decimal(360 / period_d, 16),
        "equinox": "J2000",
        "orbit_class": {
            "orbit_class_type": "APO",
            "orbit_class_description": "Near-Earth asteroid orbits which cross the Earth’s orbit similar to that of "  # noqa: RUF001 - NASA's own sign
            "1862 Apollo",
            "orbit_class_range": "a (semi-major axis) > 1.0 AU; q (perihelion) < 1.017 AU",
        },
    }


def _decimal(value: float, places: int) -> str:
    """As JPL writes it: without the zero before the point."""
    text = f"{value:.{places}f}"
    return text[1:] if text.startswith("0.") else text

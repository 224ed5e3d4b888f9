"""Made-up objects in the API's own JSON, as small as a test needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def approach(**overrides: Any) -> dict[str, Any]:
    """One entry of ``close_approach_data``; ``au`` and ``km`` set the miss distance."""
    au, km = overrides.pop("au", "0.1"), overrides.pop("km", "14959787.07")
    entry: dict[str, Any] = {
        "close_approach_date": "2026-11-22",
        "close_approach_date_full": "2026-Nov-22 22:45",
        "epoch_date_close_approach": 1_795_387_500_000,
        "relative_velocity": {
            "kilometers_per_second": "12.5",
            "kilometers_per_hour": "45000.0",
            "miles_per_hour": "27961.7",
        },
        "miss_distance": {"astronomical": au, "lunar": "38.9", "kilometers": km, "miles": "9295580.7"},
        "orbiting_body": "Earth",
    }
    return entry | overrides


def neo(number: int, approaches: Sequence[Mapping[str, Any]] = (), **overrides: Any) -> dict[str, Any]:
    """One object; ``orbital_data`` is merged, the other members replace."""
    orbit = {
        "orbit_id": "1",
        "first_observation_date": "1990-01-02",
        "last_observation_date": "2026-03-04",
        "observations_used": 100 + number,
        "eccentricity": f".{number % 10}5",
        "orbital_period": "507.8773584568611",
    }
    diameter = {"estimated_diameter_min": 10.5, "estimated_diameter_max": 23.5}
    return {
        "links": {"self": f"http://api.nasa.gov/neo/rest/v1/neo/{9_000_000 + number}?api_key=SOMEBODYS"},
        "id": f"{9_000_000 + number}",
        "neo_reference_id": f"{9_000_000 + number}",
        "name": f"({number} TEST)",
        "designation": f"{number} TEST",
        "nasa_jpl_url": f"https://ssd.jpl.nasa.gov/tools/sbdb_lookup.html#/?sstr={9_000_000 + number}",
        "absolute_magnitude_h": 20.5,
        "estimated_diameter": {"meters": diameter},
        "is_potentially_hazardous_asteroid": number % 4 == 0,
        "close_approach_data": list(approaches),
        "is_sentry_object": False,
        **overrides,
        "orbital_data": orbit | overrides.get("orbital_data", {}),
    }


def catalogue(count: int) -> list[dict[str, Any]]:
    """``count`` objects, with 0, 1 or 2 approaches each."""
    return [
        neo(number, [approach(), approach(orbiting_body="Venus", au="0.3")][: number % 3]) for number in range(count)
    ]

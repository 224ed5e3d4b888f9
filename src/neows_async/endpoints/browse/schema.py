"""The datasets' columns. No type is inferred: every file has exactly these."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

VERSION: Final = "1"
"""Increased when a column's name, type or meaning changes."""

NEOS: Final = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("neo_reference_id", pa.string()),
        pa.field("name", pa.string(), nullable=False),
        pa.field("name_limited", pa.string()),
        pa.field("designation", pa.string()),
        pa.field("nasa_jpl_url", pa.string()),
        pa.field("absolute_magnitude_h", pa.float64()),
        pa.field("is_potentially_hazardous_asteroid", pa.bool_()),
        pa.field("estimated_diameter_min_m", pa.float64()),
        pa.field("estimated_diameter_max_m", pa.float64()),
        pa.field("closest_approach_miss_distance_km", pa.float64()),
        pa.field("closest_approach_date", pa.date32()),
        pa.field("closest_approach_relative_velocity_km_s", pa.float64()),
        pa.field("first_observation_date", pa.date32()),
        pa.field("last_observation_date", pa.date32()),
        pa.field("observations_used", pa.int64()),
        pa.field("orbital_period_d", pa.float64()),
    ]
)
"""One row for each near-Earth object, in Browse order."""

CLOSE_APPROACHES: Final = pa.schema(
    [
        pa.field("neo_id", pa.string(), nullable=False),
        pa.field("close_approach_date", pa.date32()),
        pa.field("close_approach_at", pa.timestamp("ms", tz="UTC")),
        pa.field("orbiting_body", pa.string()),
        pa.field("miss_distance_au", pa.float64()),
        pa.field("miss_distance_km", pa.float64()),
        pa.field("relative_velocity_km_s", pa.float64()),
    ]
)
"""One row for each close approach, in the order of ``NEOS``, then of the object's own list."""

DATASETS: Final = {"neos": NEOS, "close_approaches": CLOSE_APPROACHES}

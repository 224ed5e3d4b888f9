"""The program's output for the recorded pages of 2026-03-01, compared with plain Python only."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import secrets
from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from tests import loopback, program

if TYPE_CHECKING:
    from pathlib import Path

KEY = secrets.token_urlsafe(30)
COLUMNS = [
    "id",
    "neo_reference_id",
    "name",
    "name_limited",
    "designation",
    "nasa_jpl_url",
    "absolute_magnitude_h",
    "is_potentially_hazardous_asteroid",
    "estimated_diameter_min_m",
    "estimated_diameter_max_m",
    "closest_approach_miss_distance_km",
    "closest_approach_date",
    "closest_approach_relative_velocity_km_s",
    "first_observation_date",
    "last_observation_date",
    "observations_used",
    "orbital_period_d",
]


@pytest.fixture(scope="module")
def objects(recorded_pages: Path) -> list[dict[str, Any]]:
    files = sorted(recorded_pages.glob("page_*.json.gz"))
    return [entry for file in files for entry in json.loads(gzip.decompress(file.read_bytes()))["near_earth_objects"]]


@pytest.fixture(scope="module")
def lake(recorded_pages: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("lake")
    with loopback.serving(loopback.recorded(recorded_pages)) as server:
        ended = program.run(
            root,
            *("run", "--limit", "200", "--base-url", server.url, "--root", str(root), "--snapshot", "real"),
            NASA_API_KEY=KEY,
        )
    assert ended.code == 0, ended.err
    assert sorted(server.pages) == list(range(10))
    assert {request.key for request in server.asked} == {KEY}
    assert {request.path for request in server.asked} == {"/neo/rest/v1/neo/browse"}
    return root, ended.out


def day(text: str | None) -> dt.date | None:
    return None if text is None else dt.datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=dt.UTC).date()


def row(entry: dict[str, Any]) -> dict[str, Any]:
    closest: dict[str, Any] = {}
    if entry["close_approach_data"]:
        closest = min(
            entry["close_approach_data"],
            key=lambda one: (float(one["miss_distance"]["kilometers"]), one["epoch_date_close_approach"]),
        )
    orbit, metres = entry["orbital_data"], entry["estimated_diameter"]["meters"]
    values = [
        entry["id"],
        entry["neo_reference_id"],
        entry["name"],
        entry.get("name_limited"),
        entry["designation"],
        entry["nasa_jpl_url"],
        float(entry["absolute_magnitude_h"]),
        entry["is_potentially_hazardous_asteroid"],
        float(metres["estimated_diameter_min"]),
        float(metres["estimated_diameter_max"]),
        float(closest["miss_distance"]["kilometers"]) if closest else None,
        day(closest["close_approach_date"]) if closest else None,
        float(closest["relative_velocity"]["kilometers_per_second"]) if closest else None,
        day(orbit["first_observation_date"]),
        day(orbit["last_observation_date"]),
        orbit["observations_used"],
        float(orbit["orbital_period"]),
    ]
    return dict(zip(COLUMNS, values, strict=True))


def test_neo_rows_equal_plain_python(objects: list[dict[str, Any]], lake: tuple[Path, str]) -> None:
    table = pq.read_table(lake[0] / "neos/snapshot=real/part-00000.parquet")
    assert table.column_names == COLUMNS
    assert table.to_pylist() == [row(entry) for entry in objects]


def test_close_approach_rows_equal_plain_python(objects: list[dict[str, Any]], lake: tuple[Path, str]) -> None:
    rows = pq.read_table(lake[0] / "close_approaches/snapshot=real/part-00000.parquet").to_pylist()
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    assert rows == [
        {
            "neo_id": entry["id"],
            "close_approach_date": day(one["close_approach_date"]),
            "close_approach_at": epoch + dt.timedelta(milliseconds=one["epoch_date_close_approach"]),
            "orbiting_body": one["orbiting_body"],
            "miss_distance_au": float(one["miss_distance"]["astronomical"]),
            "miss_distance_km": float(one["miss_distance"]["kilometers"]),
            "relative_velocity_km_s": float(one["relative_velocity"]["kilometers_per_second"]),
        }
        for entry in objects
        for one in entry["close_approach_data"]
    ]
    assert len(rows) == 4_677
    assert Counter(row["orbiting_body"] for row in rows) == {
        "Earth": 2_970,
        "Venus": 906,
        "Juptr": 384,
        "Mars": 290,
        "Merc": 120,
        "Moon": 7,
    }


def test_aggregates_equal_plain_python(objects: list[dict[str, Any]], lake: tuple[Path, str]) -> None:
    approaches = [one for entry in objects for one in entry["close_approach_data"]]
    folder = lake[0] / "aggregates/snapshot=real"
    within = json.loads((folder / "close_approaches_within.json").read_bytes())
    near = [one for one in approaches if float(one["miss_distance"]["astronomical"]) < 0.2]
    expected = {"threshold_au": 0.2, "orbiting_body": None, "neos": 200, "close_approaches": 4_677, "count": 3_159}
    assert within == expected
    assert len(near) == 3_159
    by_year = json.loads((folder / "close_approaches_by_year.json").read_bytes())
    years = Counter(one["close_approach_date"][:4] for one in approaches)
    assert by_year == {"orbiting_body": None, "count_by_year": dict(years)}
    assert list(by_year["count_by_year"]) == [str(year) for year in range(1900, 2201)]
    assert by_year["count_by_year"]["1900"] == 23


def test_summary_shows_the_aggregates(lake: tuple[Path, str]) -> None:
    _, out = lake
    assert "200 near-Earth objects with 4,677 close approaches" in out
    assert "3,159 of 4,677 close approaches came within 0.2 au" in out
    assert "301 years with data" in out


def test_run_for_earth_only(recorded_pages: Path, tmp_path: Path, objects: list[dict[str, Any]]) -> None:
    with loopback.serving(loopback.recorded(recorded_pages)) as server:
        ended = program.run(
            tmp_path,
            *("run", "--base-url", server.url, "--root", "lake", "--snapshot", "earth", "--orbiting-body", "earth"),
            NASA_API_KEY=KEY,
        )
    assert ended.code == 0, ended.err
    within = json.loads((tmp_path / "lake/aggregates/snapshot=earth/close_approaches_within.json").read_bytes())
    assert (within["close_approaches"], within["count"]) == (2_970, 1_836)
    over_earth = [
        entry
        | {"close_approach_data": [one for one in entry["close_approach_data"] if one["orbiting_body"] == "Earth"]}
        for entry in objects
    ]
    table = pq.read_table(tmp_path / "lake/neos/snapshot=earth/part-00000.parquet")
    assert table.to_pylist() == [row(entry) for entry in over_earth]

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
import json
import re
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from neows_async.sandbox.catalogue import SyntheticCatalogue
from neows_async.sandbox.synthetic import MOST_APPROACHES, synthetic_object

if TYPE_CHECKING:
    from pathlib import Path

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    return [synthetic_object(1, index) for index in range(1_000)]


def shape(value: Any) -> Any:
    """The members with their order and types; for strings, their notation."""
    if isinstance(value, dict):
        return tuple((name, shape(member)) for name, member in value.items())
    if isinstance(value, list):
        return frozenset(shape(member) for member in value)
    if isinstance(value, str):
        return writing(value)
    return type(value).__name__


def writing(text: str) -> str:
    for name, form in (
        ("number", r"\d+\.\d+"),
        ("number without its zero", r"\.\d+"),
        ("date", r"\d{4}-\d\d-\d\d"),
        ("minute", r"\d{4}-[A-Z][a-z]{2}-\d\d \d\d:\d\d"),
        ("second", r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"),
        ("digits", r"\d+"),
    ):
        if re.fullmatch(form, text):
            return name
    return "text"


def recorded_shapes(folder: Path) -> set[Any]:
    shapes = set()
    for file in folder.glob("page_*.json.gz"):
        for entry in json.loads(gzip.decompress(file.read_bytes()))["near_earth_objects"]:
            del entry["links"]
            shapes.add(shape(simplified(entry)))
    return shapes


def simplified(entry: dict[str, Any]) -> dict[str, Any]:
    # A leading zero depends on the value, and a designation may have two notations.
    orbit = {
        name: "1.5" if isinstance(value, str) and writing(value).startswith("number") else value
        for name, value in entry["orbital_data"].items()
    }
    return entry | {"orbital_data": orbit, "designation": "any"}


def test_objects_have_the_fields_of_recorded_objects(objects: list[dict[str, Any]], recorded_pages: Path) -> None:
    real = recorded_shapes(recorded_pages)
    assert len(real) > 1  # with and without a limited name, with and without approaches
    assert {shape(simplified(entry)) for entry in objects} <= real


def test_numbers_below_one_have_nasas_notation(objects: list[dict[str, Any]]) -> None:
    texts = [entry["orbital_data"]["eccentricity"] for entry in objects]
    assert all(re.fullmatch(r"\.\d{10,17}", text) for text in texts)
    everything = json.dumps(objects)
    assert '"0.' in everything  # distances keep the zero
    assert not re.search(r'"-?\d*\.?\d+[eE]', everything)


def test_seed_and_index_determine_the_bytes() -> None:
    entries = SyntheticCatalogue(200, 7).entries(0, 200)
    digest = hashlib.sha256(b"\n".join(entry.body for entry in entries)).hexdigest()
    assert digest == "4d2e725569085b7c58875a0ac0f3190a5c1a0d108132e98f2fd10792b4af9b62"
    assert SyntheticCatalogue(5_000, 7).entries(150, 160) == entries[150:160]
    assert SyntheticCatalogue(200, 8).entries(0, 1) != entries[:1]


def test_ids_and_names_are_unique_and_clearly_synthetic(objects: list[dict[str, Any]]) -> None:
    assert len({entry["id"] for entry in objects}) == len(objects)
    assert len({entry["designation"] for entry in objects}) == len(objects)
    for entry in objects:
        assert re.fullmatch(r"9\d{7}", entry["id"])
        assert re.fullmatch(r"(\d+ Sandbox-[A-Z][a-z]+ )?\(SANDBOX \d{6}\)", entry["name"])
        assert ("name_limited" in entry) == entry["name"][0].isdigit()


def test_distributions_resemble_the_real_catalogue() -> None:
    objects = [synthetic_object(3, index) for index in range(3_000)]
    counts = [len(entry["close_approach_data"]) for entry in objects]
    assert sum(counts) / len(counts) == pytest.approx(23, abs=2)
    assert counts.count(0) / len(counts) == pytest.approx(0.1, abs=0.02)
    assert 200 < max(counts) <= MOST_APPROACHES
    approaches = [approach for entry in objects for approach in entry["close_approach_data"]]
    bodies = Counter(approach["orbiting_body"] for approach in approaches)
    # The recorded shares.
    for body, recorded in {"Earth": 2970, "Venus": 906, "Juptr": 384, "Mars": 290, "Merc": 120, "Moon": 7}.items():
        assert bodies[body] / len(approaches) == pytest.approx(recorded / 4677, abs=0.01)
    near = sum(float(approach["miss_distance"]["astronomical"]) < 0.2 for approach in approaches)
    assert near / len(approaches) == pytest.approx(3159 / 4677, abs=0.03)
    assert {approach["close_approach_date"][:4] for approach in approaches} == {str(y) for y in range(1900, 2201)}
    assert 0.02 < sum(entry["is_potentially_hazardous_asteroid"] for entry in objects) / len(objects) < 0.3


def test_units_of_an_approach_agree(objects: list[dict[str, Any]]) -> None:
    for entry in objects[:200]:
        epochs = [approach["epoch_date_close_approach"] for approach in entry["close_approach_data"]]
        assert epochs == sorted(epochs)
        for approach in entry["close_approach_data"]:
            at = dt.datetime(1970, 1, 1) + dt.timedelta(milliseconds=approach["epoch_date_close_approach"])  # noqa: DTZ001
            assert approach["close_approach_date"] == at.date().isoformat()
            text = f"{at.year}-{MONTHS[at.month - 1]}-{at.day:02} {at.hour:02}:{at.minute:02}"
            assert (approach["close_approach_date_full"], at.second) == (text, 0)
            missed = {unit: Decimal(text) for unit, text in approach["miss_distance"].items()}
            assert missed["lunar"] == missed["astronomical"] * 389
            assert missed["kilometers"] == missed["astronomical"] * 149_597_870
            assert missed["miles"] == missed["astronomical"] * 92_955_806
            speed = {unit: float(text) for unit, text in approach["relative_velocity"].items()}
            assert speed["kilometers_per_hour"] == pytest.approx(speed["kilometers_per_second"] * 3600)
            assert speed["miles_per_hour"] == pytest.approx(speed["kilometers_per_hour"] * 0.62136111, rel=1e-6)


def test_diameters_follow_from_the_magnitude(objects: list[dict[str, Any]], recorded_pages: Path) -> None:
    page = json.loads(gzip.decompress((recorded_pages / "page_00000.json.gz").read_bytes()))
    for entry in objects[:100] + page["near_earth_objects"]:
        spans = entry["estimated_diameter"]
        least_km = 1329 / 0.25**0.5 * 10 ** (-entry["absolute_magnitude_h"] / 5)
        for unit, factor in {"kilometers": 1, "meters": 1e3, "miles": 0.621371, "feet": 3280.84}.items():
            assert spans[unit]["estimated_diameter_min"] == pytest.approx(least_km * factor, rel=1e-6)
            ratio = spans[unit]["estimated_diameter_max"] / spans[unit]["estimated_diameter_min"]
            assert ratio == pytest.approx(5**0.5, rel=1e-6)


def test_orbits_match_their_class(objects: list[dict[str, Any]]) -> None:
    assert {entry["orbital_data"]["orbit_class"]["orbit_class_type"] for entry in objects} == {"APO", "AMO", "ATE"}
    for entry in objects:
        orbit = entry["orbital_data"]
        axis, near, far = (
            float(orbit[name]) for name in ("semi_major_axis", "perihelion_distance", "aphelion_distance")
        )
        assert near + far == pytest.approx(2 * axis)
        assert near < 1.3
        assert far > 0.983
        assert float(orbit["orbital_period"]) == pytest.approx(365.25 * axis**1.5)
        first, last = (dt.date.fromisoformat(orbit[f"{which}_observation_date"]) for which in ("first", "last"))
        assert (last - first).days == orbit["data_arc_in_days"]


def test_number_of_approaches_sets_the_page_size() -> None:
    entries = SyntheticCatalogue(20, approaches=106).entries(0, 20)
    assert sum(len(entry.body) for entry in entries) == pytest.approx(930_000, rel=0.02)
    assert all(len(json.loads(entry.body)["close_approach_data"]) == 106 for entry in entries)

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neows_async.outputs.aggregate_files import CsvAggregates, JsonAggregates
from neows_async.outputs.close_approaches import CloseApproachesByYear, CloseApproachesWithin
from neows_async.pages.values import RawPage
from tests.decoded_pages import MemoryStage, pages, received
from tests.neos import approach, neo

if TYPE_CHECKING:
    from pathlib import Path

    from neows_async.pages.values import Json, Page

BODIES = ("Earth", "Venus", "Moon")


def of(entries: list[dict[str, Any]], orbiting_body: str | None = None, threshold_au: float = 0.2) -> tuple[Any, Any]:
    """The results of both aggregators over one object with these approaches."""
    (page,) = pages([neo(1, entries)])
    within, by_year = CloseApproachesWithin(threshold_au, orbiting_body), CloseApproachesByYear(orbiting_body)
    within.update(page.batches)
    by_year.update(page.batches)
    return within.result(), by_year.result()


def test_results_without_rows() -> None:
    assert CloseApproachesWithin().result() == {
        "threshold_au": 0.2,
        "orbiting_body": None,
        "neos": 0,
        "close_approaches": 0,
        "count": 0,
    }
    assert CloseApproachesByYear().result() == {"orbiting_body": None, "count_by_year": {}}
    assert of([])[0]["neos"] == 1


def test_within_counts_strictly_below_the_threshold() -> None:
    texts = ["0.2", ".2", "2e-1", "0.20000000000000001", "0.19999999999999998", "0.2000000000000001", "0"]
    within, _ = of([approach(au=au) for au in texts])
    assert within["count"] == 2
    assert within["close_approaches"] == 7


def test_unknown_distances_and_dates_are_not_counted() -> None:
    within, by_year = of([approach(au=None, close_approach_date=None), approach(au=None), approach()])
    assert (within["close_approaches"], within["count"]) == (3, 1)
    assert by_year["count_by_year"] == {"2026": 2}


def test_year_is_that_of_the_date_and_not_of_the_epoch() -> None:
    new_year_ms = 1_767_225_600_000  # 2026-01-01T00:00Z
    _, by_year = of(
        [
            approach(close_approach_date="2025-12-31", epoch_date_close_approach=new_year_ms - 60_000),
            approach(close_approach_date="2025-12-31", epoch_date_close_approach=new_year_ms),
            approach(close_approach_date="2026-01-01", epoch_date_close_approach=new_year_ms - 60_000),
            approach(close_approach_date="0001-01-01"),
            approach(close_approach_date="9999-12-31"),
            approach(close_approach_date="1969-12-31"),
        ]
    )
    assert by_year["count_by_year"] == {"0001": 1, "1969": 1, "2025": 2, "2026": 1, "9999": 1}
    assert list(by_year["count_by_year"]) == ["0001", "1969", "2025", "2026", "9999"]


def test_orbiting_body_filters_the_approaches() -> None:
    entries = [approach(orbiting_body=body) for body in ("Earth", "Venus", None, "Earth", "earth")]
    within, by_year = of(entries, "Earth")
    assert within == {"threshold_au": 0.2, "orbiting_body": "Earth", "neos": 1, "close_approaches": 2, "count": 2}
    assert by_year == {"orbiting_body": "Earth", "count_by_year": {"2026": 2}}
    assert of(entries, "Pluto")[1]["count_by_year"] == {}
    assert of(entries)[0]["close_approaches"] == 5


def test_recorded_pages_merged_from_three_aggregators(recorded_pages: Path) -> None:
    bodies = [gzip.decompress((recorded_pages / f"page_{number:05}.json.gz").read_bytes()) for number in range(10)]
    decoded = [received(RawPage(number, body)) for number, body in enumerate(bodies)]
    objects = [record for body in bodies for record in json.loads(body)["near_earth_objects"]]
    passes = [entry for record in objects for entry in record["close_approach_data"]]
    for body in (None, "Earth", "Moon"):
        of_body = [entry for entry in passes if body in {None, entry["orbiting_body"]}]
        within = merged([CloseApproachesWithin(0.05, body) for _ in range(3)], decoded)
        assert within["close_approaches"] == len(of_body)
        assert within["count"] == sum(float(entry["miss_distance"]["astronomical"]) < 0.05 for entry in of_body)
        by_year = merged([CloseApproachesByYear(body) for _ in range(3)], decoded)
        assert by_year["count_by_year"] == dict(
            sorted(Counter(entry["close_approach_date"][:4] for entry in of_body).items())
        )


def merged(parts: list[Any], decoded: list[Page]) -> Any:
    for index, page in enumerate(decoded):
        parts[index % len(parts)].update(page.batches)
    first, *others = parts
    for other in others:
        first.merge(other)
    return first.result()


objects_ = st.lists(
    st.lists(
        st.builds(
            lambda au, year, body: approach(au=au, close_approach_date=year and f"{year:04}-06-07", orbiting_body=body),
            st.none() | st.sampled_from(["0.1", "0.2", "0.3"]),
            st.none() | st.sampled_from([1, 1899, 2026, 9999]),
            st.none() | st.sampled_from(BODIES),
        ),
        max_size=3,
    ),
    max_size=8,
)


@given(
    objects_,
    st.integers(1, 3),
    st.lists(st.integers(0, 3), min_size=8, max_size=8),
    st.permutations(range(4)),
    st.none() | st.sampled_from(BODIES),
)
def test_merge_in_any_order_equals_one_aggregator(
    objects: list[list[dict[str, Any]]], size: int, owners: list[int], order: list[int], body: str | None
) -> None:
    decoded = pages([neo(number, entries) for number, entries in enumerate(objects)], size)

    def kinds() -> tuple[CloseApproachesWithin, CloseApproachesByYear]:
        return CloseApproachesWithin(0.2, body), CloseApproachesByYear(body)

    whole = kinds()
    parts = [kinds() for _ in range(4)]
    for page, owner in zip(decoded, owners, strict=False):
        for one in (*whole, *parts[owner]):
            one.update(page.batches)
    within, by_year = parts[order[0]]
    for index in order[1:]:
        within.merge(parts[index][0])
        by_year.merge(parts[index][1])
    # As text: the order of the keys is part of the bytes.
    assert json.dumps(within.result()) == json.dumps(whole[0].result())
    assert json.dumps(by_year.result()) == json.dumps(whole[1].result())
    known = [entry for entries in objects for entry in entries if body in {None, entry["orbiting_body"]}]
    near = [entry for entry in known if entry["miss_distance"]["astronomical"] == "0.1"]
    assert whole[0].result()["count"] == len(near)
    years = Counter(str(entry["close_approach_date"])[:4] for entry in known if entry["close_approach_date"])
    assert whole[1].result()["count_by_year"] == dict(sorted(years.items()))


def test_merge_does_not_change_the_other_aggregator() -> None:
    (page,) = pages([neo(1, [approach()])])
    for one, other in (
        (CloseApproachesWithin(), CloseApproachesWithin()),
        (CloseApproachesByYear(), CloseApproachesByYear()),
    ):
        other.update(page.batches)
        before = json.dumps(other.result())
        one.merge(other)  # type: ignore[arg-type]  # each with its own kind
        one.update(page.batches)
        assert json.dumps(other.result()) == before


RESULTS: dict[str, dict[str, Json]] = {
    "one": {"a": 1, "b": {"c": None, "d": [1.5, 'x,"y"\n', True]}, "e": {}},
    "zwei": {"\u00e9": "\u00e9"},
}


async def test_json_files() -> None:
    stage = MemoryStage()
    files = await JsonAggregates().write(stage, RESULTS)
    assert [file.path for file in files] == ["aggregates/one.json", "aggregates/zwei.json"]
    assert {name: json.loads(data) for name, data in stage.files.items()} == {
        "aggregates/one.json": RESULTS["one"],
        "aggregates/zwei.json": RESULTS["zwei"],
    }
    assert stage.files["aggregates/zwei.json"] == '{\n  "\u00e9": "\u00e9"\n}\n'.encode()
    with pytest.raises(ValueError, match="Out of range"):
        await JsonAggregates().write(MemoryStage(), {"nan": {"x": float("nan")}})


async def test_csv_files() -> None:
    stage = MemoryStage()
    (one, _) = await CsvAggregates().write(stage, RESULTS)
    rows = list(csv.reader(io.StringIO(stage.files["aggregates/one.csv"].decode(), newline="")))
    assert rows == [
        ["figure", "value"],
        ["a", "1"],
        ["b.c", ""],
        ["b.d.0", "1.5"],
        ["b.d.1", 'x,"y"\n'],
        ["b.d.2", "True"],
    ]
    assert one.rows == 5

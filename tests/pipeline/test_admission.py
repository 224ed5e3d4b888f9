from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neows_async.endpoints.browse import neo as neos
from neows_async.endpoints.browse.envelope import raw_objects
from neows_async.errors import TooManyRejectsError
from neows_async.pipeline.admission import Admission
from tests.decoded_pages import pages
from tests.neos import approach, neo

if TYPE_CHECKING:
    from neows_async.pages.values import Page


def admission(limit: int | None = None, max_rejects: int | None = None) -> Admission:
    return Admission(limit=limit, max_rejects=max_rejects)


def ids(page: Page) -> list[str]:
    found: list[str] = page.batches["neos"]["id"].to_pylist()
    return found


def bad(number: int) -> dict[str, Any]:
    return neo(number, [approach()], name=None)


def test_a_regular_page_is_admitted_unchanged() -> None:
    (page,) = pages([neo(1, [approach()]), neo(2)])
    admitting = admission(limit=2)
    assert admitting.admit(page).batches["neos"] is page.batches["neos"]
    assert admitting.admit(page).batches["neos"].num_rows == 0
    assert (admitting.tally.seen, admitting.tally.written, admitting.tally.duplicates) == (4, 2, 2)


def test_the_first_object_of_equal_ids_wins_within_a_page_and_across_pages() -> None:
    objects = [
        neo(1, [approach(km="1")], name="first"),
        neo(2, [approach(km="2")]),
        neo(1, [approach(km="3"), approach(km="4")], name="second"),
        neo(3, [approach(km="5")]),
        neo(2, name="late"),
        neo(4, [approach(km="6")]),
    ]
    admitting = admission()
    first, second = [admitting.admit(page) for page in pages(objects, 3)]
    assert first.batches["neos"]["name"].to_pylist() == ["first", "(2 TEST)"]
    assert first.batches["close_approaches"]["miss_distance_km"].to_pylist() == [1.0, 2.0]
    assert second.batches["close_approaches"]["miss_distance_km"].to_pylist() == [5.0, 6.0]
    assert second.indices == (0, 2)
    assert second.approach_counts == (1, 1)
    assert [record["name"] for record in raw_objects(second)] == ["(3 TEST)", "(4 TEST)"]
    assert [known.name for known in neos.objects(second)] == ["(3 TEST)", "(4 TEST)"]
    assert admitting.tally.duplicates == 2
    assert admitting.distinct_in_generation == 4


def test_an_object_with_only_a_reference_id_is_a_duplicate_of_the_same_id() -> None:
    old = neo(1)
    del old["id"]
    admitting = admission()
    assert ids(admitting.admit(pages([old, neo(1)])[0])) == ["9000001"]


def test_a_rejected_object_does_not_occupy_its_id() -> None:
    admitting = admission(max_rejects=1)
    admitted = admitting.admit(pages([bad(1), neo(1)])[0])
    assert ids(admitted) == ["9000001"]
    assert [entry.position for entry in admitted.rejected] == [0]


def test_objects_beyond_the_limit_are_not_counted() -> None:
    objects = [neo(0), bad(1), neo(0), neo(2), bad(3), neo(4, unheard_of=1)]
    for limit, seen in [(1, (1, 1, 0, 0)), (2, (2, 1, 0, 1)), (3, (3, 1, 1, 1)), (4, (4, 2, 1, 1)), (5, (5, 2, 1, 2))]:
        admitting = admission(limit=limit, max_rejects=2)
        admitted = admitting.admit(pages(objects)[0])
        tally = admitting.tally
        assert (tally.seen, tally.written, tally.duplicates, tally.rejected) == seen
        assert len(admitted.rejected) == tally.rejected
        assert not tally.unknown_fields
    beyond = admission(limit=2, max_rejects=0)
    assert beyond.admit(pages([neo(0), neo(1), bad(2)])[0]).rejected == ()


def test_an_object_beyond_the_limit_does_not_occupy_its_id() -> None:
    admitting = admission(limit=1)
    assert ids(admitting.admit(pages([neo(1), neo(2)])[0])) == ["9000001"]
    assert admitting.distinct_in_generation == 1


def test_a_page_beyond_the_limit_is_empty() -> None:
    admitting = admission(limit=20)
    for page in pages([neo(number, [approach()]) for number in range(60)]):
        admitted = admitting.admit(page)
    assert (admitted.batches["neos"].num_rows, admitted.batches["close_approaches"].num_rows, admitted.indices) == (
        0,
        0,
        (),
    )
    assert admitting.tally.seen == admitting.tally.written == 20


@pytest.mark.parametrize(("max_rejects", "pages_passed"), [(0, 0), (1, 1), (2, 1), (3, 2), (None, 2)])
def test_more_rejected_objects_than_allowed_raise_an_error(max_rejects: int | None, pages_passed: int) -> None:
    catalogue = [bad(0), neo(1), bad(2), bad(3)]
    admitting = admission(max_rejects=max_rejects)
    passed = 0
    try:
        for page in pages(catalogue, 2):
            admitting.admit(page)
            passed += 1
    except TooManyRejectsError as exc:
        said = str(exc)
        assert max_rejects is not None
        assert f"more than --max-rejects {max_rejects}" in said
        assert "near_earth_objects" in said
        assert "\n" not in said
    assert passed == pages_passed


def test_nulls_and_unknown_fields_are_counted_in_written_records_only() -> None:
    record = neo(1, [approach(km=None, odd=1), approach(odd=1)], designation=None, strange=1)
    admitting = admission(limit=3)
    (page,) = pages([record, record, neo(2, name_limited="x"), record])
    admitted = admitting.admit(page)
    assert admitting.tally.unknown_fields == {"close_approach_data.odd": 2, "strange": 1}
    assert admitted.unknown_fields == {0: {"close_approach_data.odd": 2, "strange": 1}}
    expected: Counter[str] = Counter()
    for dataset, batch in (
        ("neos", admitted.batches["neos"]),
        ("close_approaches", admitted.batches["close_approaches"]),
    ):
        for row in batch.to_pylist():
            expected.update(f"{dataset}.{name}" for name, value in row.items() if value is None)
    assert admitting.tally.nulls == expected
    assert expected["close_approaches.miss_distance_km"] == 1
    assert expected["neos.designation"] == 1


@given(
    st.lists(
        st.tuples(st.integers(0, 8), st.integers(0, 2), st.sampled_from(["good"] * 4 + ["bad", "new"])), max_size=24
    ),
    st.integers(1, 7),
    st.none() | st.integers(1, 26),
)
def test_records_seen_are_written_plus_duplicates_plus_rejected(
    entries: list[tuple[int, int, str]], size: int, limit: int | None
) -> None:
    objects = []
    for position, (number, count, kind) in enumerate(entries):
        passes = [approach(km=f"{position}.{index}") for index in range(count)]
        extra = {"name": None} if kind == "bad" else {"name": f"at {position}"}
        objects.append(neo(number, passes, **extra, **({"new": 1} if kind == "new" else {})))
    admitting = admission(limit=limit)
    admitted = [admitting.admit(page) for page in pages(objects, size)]
    # The same by plain Python, over positions.
    wanted = entries if limit is None else entries[:limit]
    written: dict[int, int] = {}
    for position, (number, _, kind) in enumerate(wanted):
        if kind != "bad":
            written.setdefault(number, position)
    rejected = [position for position, entry in enumerate(wanted) if entry[2] == "bad"]
    positions = sorted(written.values())
    tally = admitting.tally
    assert tally.seen == tally.written + tally.duplicates + tally.rejected == len(wanted)
    assert (tally.written, tally.rejected) == (len(positions), len(rejected))
    assert [entry.position for page in admitted for entry in page.rejected] == rejected
    assert [name for page in admitted for name in page.batches["neos"]["name"].to_pylist()] == [
        f"at {at}" for at in positions
    ]
    assert [page.info.first_position + index for page in admitted for index in page.indices] == positions
    passed = [km for page in admitted for km in page.batches["close_approaches"]["miss_distance_km"].to_pylist()]
    assert passed == [float(f"{at}.{index}") for at in positions for index in range(entries[at][1])]
    assert tally.close_approaches == len(passed)
    assert [count for page in admitted for count in page.approach_counts] == [entries[at][1] for at in positions]
    for page in admitted:
        owners = [id_ for id_, count in zip(ids(page), page.approach_counts, strict=True) for _ in range(count)]
        assert page.batches["close_approaches"]["neo_id"].to_pylist() == owners
        assert set(page.unknown_fields) <= set(page.indices)
    assert tally.unknown_fields["new"] == sum(entries[at][2] == "new" for at in positions)


def test_ids_that_look_alike_are_different() -> None:
    texts = [
        "1",
        "01",
        "001",
        "+1",
        " 1",
        "1 ",
        "1_0",
        "10",
        "\u0661",
        "\u00b2",
        "0",
        "00",
        "-0",
        "-1",
        "1" * 18,
        "1" * 19,
        "1" * 40,
    ]
    objects = [neo(number, id=text) for number, text in enumerate(texts)]
    admitting = admission()
    assert [id_ for page in pages([*objects, *objects], 5) for id_ in ids(admitting.admit(page))] == texts
    assert admitting.tally.duplicates == len(texts)

from __future__ import annotations

import datetime as dt
import gzip
import io
import json
import random
import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from neows_async.endpoints.browse import approach_scan, decode_fast, envelope
from neows_async.endpoints.browse.decode import PageJson, decode, decode_batch, decode_exactly
from neows_async.endpoints.browse.envelope import raw_objects
from neows_async.endpoints.browse.neo import Neo, objects
from neows_async.endpoints.browse.schema import CLOSE_APPROACHES, NEOS
from neows_async.errors import BadPageError
from neows_async.pages.stored import json_of
from neows_async.pages.values import Page, RawPage, Rejected
from tests.decoded_pages import page_json, stored_page
from tests.neos import approach, neo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from neows_async.endpoints.browse.approach_scan import Scanner

BODIES = ("Merc", "Venus", "Earth", "Moon", "Mars", "Juptr")
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
# Every test decodes both ways: as this installation does, and as one without a C compiler.
SCANNERS: tuple[Scanner, ...] = (approach_scan.scan, approach_scan.no_scan)
OBJECTS = 3
MUTATED = 1

# The stored leaves, with the kinds of their values.
APPROACH = ("close_approach_data", 0)
PATHS: dict[tuple[str | int, ...], str] = {
    ("id",): "essential",
    ("neo_reference_id",): "text",
    ("name",): "essential",
    ("name_limited",): "text",
    ("designation",): "text",
    ("nasa_jpl_url",): "text",
    ("absolute_magnitude_h",): "number",
    ("is_potentially_hazardous_asteroid",): "flag",
    ("estimated_diameter", "meters", "estimated_diameter_min"): "amount",
    ("estimated_diameter", "meters", "estimated_diameter_max"): "amount",
    ("orbital_data", "first_observation_date"): "date",
    ("orbital_data", "last_observation_date"): "date",
    ("orbital_data", "observations_used"): "count",
    ("orbital_data", "orbital_period"): "amount",
    (*APPROACH, "close_approach_date"): "date",
    (*APPROACH, "epoch_date_close_approach"): "epoch",
    (*APPROACH, "orbiting_body"): "text",
    (*APPROACH, "miss_distance", "astronomical"): "amount",
    (*APPROACH, "miss_distance", "kilometers"): "amount",
    (*APPROACH, "relative_velocity", "kilometers_per_second"): "amount",
}
# The nodes above them; all may be absent or null.
NODES: dict[tuple[str | int, ...], str] = {
    ("estimated_diameter",): "object",
    ("estimated_diameter", "meters"): "object",
    ("orbital_data",): "object",
    ("close_approach_data",): "list",
    (*APPROACH, "miss_distance"): "object",
    (*APPROACH, "relative_velocity"): "object",
}
NOT_NUMBERS = [
    *(
        '"+1"',
        '"1_0"',
        '" 1"',
        '"1 "',
        '"1\\n"',
        '"1\\u0000"',
        '"\u0661"',
        '"\uff11"',
        '"."',
        '"-"',
        '""',
        '"e5"',
        '"1e"',
    ),
    *(
        '"1,5"',
        '"0x10"',
        '"1d5"',
        '"--1"',
        '"1.2.3"',
        '"NaN"',
        '"nan"',
        '"inf"',
        '"Infinity"',
        '"1e400"',
        f'"{"1" * 65}"',
    ),
    *(
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "-1e400",
        "true",
        "false",
        "[]",
        "{}",
        '["1"]',
        f"1.{'0' * 63}",
        "9" * 5000,
    ),
]
NOT_AMOUNTS = [*NOT_NUMBERS, "-1", '"-1"', '"-.5"', "-0.001", '"-1e-300"']
NUMBERS: list[tuple[str, Any]] = [
    *((".3355", 0.3355), ("5.", 5.0), ("1E+3", 1e3), ("1e-400", 0.0), ("007", 7.0), ("-0", -0.0)),
    *(("1.7976931348623157e308", 1.7976931348623157e308), ("5e-324", 5e-324), ("1" * 64, float("1" * 64))),
]
AMOUNTS = [
    *((json.dumps(text), value) for text, value in NUMBERS),
    *(
        ("12", 12.0),
        ("12.5", 12.5),
        ("0", 0.0),
        ("-0", 0.0),  # a JSON integer has only one zero
        ("-0.0", -0.0),
        ("1e2", 100.0),
        ("9007199254740993", 9007199254740992.0),
        ("null", None),
    ),
    (f"1.{'0' * 62}", 1.0),
]
BAD = {
    "essential": ['""', "null", "5", "true", "[]", "{}", '"\\ud800"', '"x\\udc00"'],
    "text": ["5", "1.5", "true", "[]", "{}", '"\\ud800"', '"x\\udc00"', "9" * 70],
    "number": NOT_NUMBERS,
    "amount": NOT_AMOUNTS,
    "flag": ["0", "1", '"true"', '"Y"', '""', "[]", "{}", "1.0"],
    "count": [*NOT_AMOUNTS, "1.5", '"1.5"', "9223372036854775808", '"9223372036854775808"', "1e19"],
    "date": [
        *('"0000-00-00"', '"0000-01-01"', '"2026-02-30"', '"2026-13-01"', '"2026-1-1"', '"20260101"', '"2026-W01-1"'),
        *('"2026-01-01T00:00:00"', '" 2026-01-01"', '"2026-01-01\\n"', '"-026-01-01"', '"10000-01-01"', '"2026/01/01"'),
        *('"\u0662\u0660\u0662\u0666-01-01"', '""', '"----------"', "20260101", "true", "[]", "{}"),
    ],
    "epoch": [*NOT_NUMBERS, "-62135596800001", "253402300800000", "1.5", '"1.5"', "1" + "0" * 30],
    "object": ["[]", "5", '"x"', "true", "[{}]"],
    "list": ["{}", "5", '"x"', "true", "[null]", "[[]]", "[5]", "[{},null]"],
}
GOOD: dict[str, list[tuple[str, Any]]] = {
    "essential": [('"x"', "x"), ('"\\u0000"', "\0"), ('"\\ud83d\\ude42 \u00e9"', "\U0001f642 \u00e9")],
    "text": [('""', ""), ('"\\u0000\\n"', "\0\n"), ('"\u00e9\U0001f642"', "\u00e9\U0001f642"), ("null", None)],
    "number": [*AMOUNTS, ("-3.5", -3.5), ('"-3.5"', -3.5)],
    "amount": AMOUNTS,
    "flag": [("true", True), ("false", False), ("null", None)],
    "count": [
        *(("0", 0), ("9223372036854775807", 2**63 - 1), ('"9223372036854775807"', 2**63 - 1), ("100.0", 100)),
        *(('"1e2"', 100), ("1e2", 100), ('"0100"', 100), ("-0.0", 0), ("-0", 0), ("null", None)),
    ],
    "date": [
        *(('"0001-01-01"', dt.date(1, 1, 1)), ('"9999-12-31"', dt.date(9999, 12, 31)), ("null", None)),
        ('"2024-02-29"', dt.date(2024, 2, 29)),
    ],
    "epoch": [
        *(("-62135596800000", -62_135_596_800_000), ("253402300799999", 253_402_300_799_999), ("null", None)),
        *(("0", 0), ("-1", -1), ("0.0", 0), ('"1e3"', 1000), ("1e12", 10**12)),
    ],
}
COLUMN = {
    "estimated_diameter_min": "estimated_diameter_min_m",
    "estimated_diameter_max": "estimated_diameter_max_m",
    "orbital_period": "orbital_period_d",
    "epoch_date_close_approach": "close_approach_at",
    "astronomical": "miss_distance_au",
    "kilometers": "miss_distance_km",
    "kilometers_per_second": "relative_velocity_km_s",
}


def dotted(path: tuple[str | int, ...]) -> str:
    return ".".join(str(part) for part in path)


def put(record: Any, path: tuple[str | int, ...], text: str | None, literals: list[str]) -> None:
    """Set the member at ``path`` to a piece of JSON, which :func:`dump` writes unchanged; None removes the member."""
    for part in path[:-1]:
        try:
            record = record[part]
        except (KeyError, IndexError, TypeError):
            return  # an earlier mutation removed it
    if not isinstance(record, dict):
        return
    if text is None:
        record.pop(path[-1], None)
    else:
        literals.append(text)
        record[path[-1]] = f"@@{len(literals) - 1}@@"


def dump(record: Any, literals: list[str]) -> str:
    return re.sub(r'"@@(\d+)@@"', lambda found: literals[int(found[1])], json.dumps(record, ensure_ascii=False))


def page_of(texts: list[str], *, number: int = 0) -> bytes:
    info = {"size": len(texts), "total_elements": (number + 1) * len(texts), "total_pages": 0, "number": number}
    return f'{{"links":{{}}, "page":{json.dumps(info)},"near_earth_objects": [{" , ".join(texts)}]}}'.encode()


def exactly(batch: pa.RecordBatch) -> str:
    """Every value to the last bit: a repr distinguishes -0.0 from 0.0, and a date from a text."""
    return repr(batch.to_pydict())


def parquet(batch: pa.RecordBatch) -> bytes:
    into = io.BytesIO()
    pq.write_table(pa.Table.from_batches([batch]), into)
    return into.getvalue()


def read(body: bytes, *, orbiting_body: str | None = None) -> Page:
    """The decoded page, after the fast path (with and without the compiled scanner) and the exact path agree."""
    for scan in SCANNERS[1:]:
        read_with(scan, body, orbiting_body)
    return read_with(SCANNERS[0], body, orbiting_body)


def read_with(scan: Scanner, body: bytes, orbiting_body: str | None) -> Page:
    raw = page_json(body, envelope.split(body)[0].number)
    page = decode(raw, None, orbiting_body=orbiting_body, scan=scan)
    by_contract = decode_exactly(raw, orbiting_body)
    assert exactly(page.batches["neos"]) == exactly(by_contract.batches["neos"])
    assert exactly(page.batches["close_approaches"]) == exactly(by_contract.batches["close_approaches"])
    assert page.batches["neos"].schema == NEOS
    assert page.batches["close_approaches"].schema == CLOSE_APPROACHES
    for name in ("info", "json_bytes", "sha256", "indices", "approach_counts", "rejected", "unknown_fields"):
        assert getattr(page, name) == getattr(by_contract, name), name
    page.batches["neos"].validate(full=True)
    page.batches["close_approaches"].validate(full=True)
    assert sum(page.approach_counts) == page.batches["close_approaches"].num_rows
    assert len(page.indices) == len(page.approach_counts) == page.batches["neos"].num_rows
    return replace(page, source=stored_page(body, page.number))


def resolve(value: Any, pointer: str) -> Any:
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        value = value[int(name)] if isinstance(value, list) else value[name]
    return value


def check_rejected(page: Page, texts: list[str]) -> None:
    """Check that each rejected object names its place and has its own text."""
    assert sorted([*page.indices, *(entry.position - page.info.first_position for entry in page.rejected)]) == list(
        range(len(texts))
    )
    assert page.source is not None
    whole = json.loads(json_of(page.source), parse_int=str)
    for entry in page.rejected:
        index = entry.position - page.info.first_position
        assert entry.page == page.number
        assert entry.raw == texts[index]
        assert entry.reason
        assert "\n" not in entry.reason
        assert entry.pointer.startswith(f"/near_earth_objects/{index}")
        try:
            resolve(whole, entry.pointer)
        except KeyError:
            assert entry.reason == "absent"
            resolve(whole, entry.pointer.rpartition("/")[0])


def mutated(path: tuple[str | int, ...], text: str | None) -> tuple[Page, list[str]]:
    """A page of three objects. The second has ``text`` at ``path``, or nothing if it is None."""
    texts = []
    for number in range(OBJECTS):
        record, literals = neo(number, [approach(), approach(au=".3", km="4e7")]), list[str]()
        if number == MUTATED:
            put(record, path, text, literals)
        texts.append(dump(record, literals))
    page = read(page_of(texts, number=2))
    check_rejected(page, texts)
    return page, texts


def leaf(page: Page, path: tuple[str | int, ...]) -> Any:
    """The decoded value of the leaf at ``path`` of the second object."""
    column = COLUMN.get(str(path[-1]), str(path[-1]))
    if path[0] == "close_approach_data":
        values = page.batches["close_approaches"].filter(
            pa.compute.equal(page.batches["close_approaches"]["neo_id"], f"{9_000_001}")
        )
        if column == "close_approach_at":
            return values[column].cast(pa.int64())[0].as_py()
        return values[column][0].as_py()
    return page.batches["neos"][column][MUTATED].as_py()


def test_recorded_pages_are_regular(recorded_pages: Path) -> None:
    for file in sorted(recorded_pages.glob("page_*.json.gz")):
        body = gzip.decompress(file.read_bytes())
        assert all(decode_fast.decode_columns(body, scan) is not None for scan in SCANNERS)
        for orbiting_body in (None, "Earth", "Mars", "Pluto"):
            page = read(body, orbiting_body=orbiting_body)
            assert not page.rejected
            assert not page.unknown_fields
            assert page.batches["neos"].num_rows == 20
        by_contract = decode_exactly(page_json(body, page.number), "Pluto")
        assert parquet(page.batches["neos"]) == parquet(by_contract.batches["neos"])
        assert parquet(page.batches["close_approaches"]) == parquet(by_contract.batches["close_approaches"])
        check_objects(read(body), None)


def check_objects(page: Page, orbiting_body: str | None) -> None:
    """Check that the validated objects equal the columns."""
    rows = page.batches["neos"].to_pylist()
    for row, known, raw in zip(rows, objects(page), raw_objects(page), strict=True):
        closest = known.closest_approach(orbiting_body)
        assert row == {
            **{name: getattr(known, name) for name in NEOS.names if not name.startswith("closest_")},
            "closest_approach_miss_distance_km": closest and closest.miss_distance_km,
            "closest_approach_date": closest and closest.close_approach_date,
            "closest_approach_relative_velocity_km_s": closest and closest.relative_velocity_km_s,
        }
        assert known == Neo.from_value(raw)


def test_object_converts_only_its_own_rows() -> None:
    page = read(page_of([json.dumps(neo(number, [approach()])) for number in (1, 2)]))
    dates = pa.array([0, 1_000_000_000], pa.int32()).cast(pa.date32())  # Python has no such date as the second
    at = CLOSE_APPROACHES.names.index("close_approach_date")
    approaches = page.batches["close_approaches"].set_column(at, CLOSE_APPROACHES.field(at), dates)
    found = objects(replace(page, batches={**page.batches, "close_approaches": approaches}))
    assert next(found).close_approaches[0].close_approach_date == dt.date(1970, 1, 1)
    with pytest.raises((OverflowError, ValueError)):
        next(found)


@pytest.mark.parametrize("path", [*PATHS, *NODES], ids=dotted)
def test_invalid_value_rejects_its_object_with_a_pointer(path: tuple[str | int, ...]) -> None:
    kind = (PATHS | NODES)[path]
    for text in BAD[kind]:
        if path == ("id",) and text == "null":
            continue
        page, _ = mutated(path, text)
        (rejected,) = page.rejected
        assert page.indices == (0, 2), text
        where = envelope.pointer("near_earth_objects", MUTATED, *path)
        assert rejected.pointer == where or (kind == "list" and rejected.pointer.startswith(where)), text
        assert rejected.position == 2 * OBJECTS + MUTATED
        assert rejected.id == ("9000001" if path != ("id",) or text[0] != '"' else rejected.id)


@pytest.mark.parametrize("path", PATHS, ids=dotted)
def test_valid_value_is_decoded_exactly(path: tuple[str | int, ...]) -> None:
    for text, expected in GOOD[PATHS[path]]:
        page, _ = mutated(path, text)
        assert page.rejected == (), text
        found = leaf(page, path)
        assert (found, type(found), str(found)) == (expected, type(expected), str(expected)), text


@pytest.mark.parametrize("text", [None, "null"], ids=["absent", "null"])
def test_absent_and_null_values_are_null(text: str | None) -> None:
    for path in [*PATHS, *NODES]:
        page, _ = mutated(path, text)
        if path == ("name",):
            (rejected,) = page.rejected
            assert (rejected.pointer, rejected.reason) == (
                "/near_earth_objects/1/name",
                "absent" if text is None else "not a string: None",
            )
        elif path == ("id",):
            assert page.batches["neos"]["id"].to_pylist() == ["9000000", "9000001", "9000002"]
        else:
            assert not page.rejected
            if path in PATHS:
                assert leaf(page, path) is None
    page, _ = mutated(("close_approach_data",), text)
    assert page.approach_counts == (2, 0, 2)
    assert page.batches["neos"]["closest_approach_miss_distance_km"][MUTATED].as_py() is None


@pytest.mark.parametrize(
    "text", ["null", "[]", "5", '"x"', "true", "NaN", "[{}]", "9" * 5000, "[" * 100_000 + "]" * 100_000]
)
def test_value_that_is_not_an_object_is_rejected(text: str) -> None:
    texts = [json.dumps(neo(0)), text]
    body = page_of(texts)
    if len(text) > 5000:  # nested too deeply for any parser
        with pytest.raises(BadPageError):
            decode(page_json(body), None)
        return
    page = read(body)
    check_rejected(page, texts)
    assert page.indices == (0,)
    assert page.rejected[0] == Rejected(0, 1, None, "not an object", "/near_earth_objects/1", text)


def test_object_needs_one_of_two_ids() -> None:
    for id_, reference, expected in [
        (None, '"12"', "12"),
        ("null", '"12"', "12"),
        ('"11"', '"12"', "11"),
        ('"11"', None, "11"),
    ]:
        record, literals = neo(1), list[str]()
        put(record, ("id",), id_, literals)
        put(record, ("neo_reference_id",), reference, literals)
        page = read(page_of([dump(record, literals)]))
        assert page.batches["neos"]["id"].to_pylist() == [expected]
    for id_, reference, pointer in [
        (None, None, "/near_earth_objects/0"),
        ("null", "null", "/near_earth_objects/0"),
        (None, '""', "/near_earth_objects/0/neo_reference_id"),
        ('""', '"12"', "/near_earth_objects/0/id"),
    ]:
        record, literals = neo(1), list[str]()
        put(record, ("id",), id_, literals)
        put(record, ("neo_reference_id",), reference, literals)
        page = read(page_of([dump(record, literals)]))
        assert [entry.pointer for entry in page.rejected] == [pointer]


def test_page_format_of_2015_to_2018_is_regular() -> None:
    record = neo(1, [approach()])
    for name in ("id", "designation", "name_limited"):
        record.pop(name, None)
    for name in ("first_observation_date", "last_observation_date", "observations_used"):
        del record["orbital_data"][name]
    body = page_of([json.dumps(record)])
    assert decode_fast.decode_columns(body) is not None
    (row,) = read(body).batches["neos"].to_pylist()
    assert row["id"] == row["neo_reference_id"] == "9000001"
    missing = ("designation", "name_limited", "first_observation_date", "last_observation_date", "observations_used")
    assert [row[name] for name in missing] == [None] * 5


def test_unknown_fields_are_counted_at_each_level() -> None:
    record = neo(1, [approach(odd=1), approach(odd=2)], strange={"deep": 1}, **{"a.b": 1, "\ud800": 2})
    record["orbital_data"]["spin"] = None
    record["orbital_data"]["orbit_class"] = {"any": 1}
    record["estimated_diameter"]["meters"]["median"] = 1
    record["close_approach_data"][0]["miss_distance"]["cubits"] = "1"
    page = read(page_of([json.dumps(neo(0)), json.dumps(record)]))
    assert not page.rejected
    assert page.unknown_fields == {
        1: {
            "\\ud800": 1,
            "a.b": 1,
            "close_approach_data.miss_distance.cubits": 1,
            "close_approach_data.odd": 2,
            "estimated_diameter.meters.median": 1,
            "orbital_data.spin": 1,
            "strange": 1,
        }
    }


@pytest.mark.parametrize("field", ["links", "is_sentry_object", "unheard_of"])
@pytest.mark.parametrize(
    "text", ["NaN", '"\\ud800"', '"\\udc00 some more text"', "9" * 5000, "1e400", "[" * 300 + "]" * 300]
)
def test_invalid_value_in_an_ignored_field_rejects_nothing(field: str, text: str) -> None:
    record, literals = neo(1, [approach()]), list[str]()
    put(record, (field,), text, literals)
    page = read(page_of([dump(record, literals)]))
    assert not page.rejected
    assert page.batches["neos"].num_rows == 1
    check_objects(page, None)


def test_last_of_two_equal_keys_is_used() -> None:
    text = json.dumps(neo(1, [approach()]))[:-1]
    page = read(page_of([f'{text},"name":"(last)","orbital_data":{{"orbital_period":"1.5"}}}}']))
    assert page.batches["neos"]["name"].to_pylist() == ["(last)"]
    assert page.batches["neos"]["orbital_period_d"].to_pylist() == [1.5]
    assert page.batches["neos"]["observations_used"].to_pylist() == [None]
    page = read(page_of([f'{text},"name":5,"name":"(last)"}}']))
    assert page.batches["neos"]["name"].to_pylist() == ["(last)"]


# Values of stored fields in a regular page.
amounts = st.one_of(
    st.floats(0, 1e12).map(repr).filter(lambda text: "+" not in text),
    st.decimals(0, 10**9, allow_nan=False, places=17).map(str).filter(lambda text: "+" not in text),
    st.integers(0, 10**9).map(lambda number: f".{number}"),
)
days = st.dates(dt.date(1, 1, 1)).map(dt.date.isoformat)
texts_ = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@st.composite
def approaches(draw: st.DrawFn) -> dict[str, Any]:
    return approach(
        close_approach_date=draw(st.none() | days),
        epoch_date_close_approach=draw(st.none() | st.integers(-62_135_596_800_000, 253_402_300_799_999)),
        relative_velocity={"kilometers_per_second": draw(st.none() | amounts)},
        orbiting_body=draw(st.none() | st.sampled_from(BODIES) | texts_),
        au=draw(st.none() | amounts),
        # Few values, so that ties are frequent.
        km=draw(st.none() | amounts | st.sampled_from(["100", "1e2", "100.0", "200"])),
    )


@st.composite
def regular_objects(draw: st.DrawFn) -> dict[str, Any]:
    optional = st.none() | texts_
    return neo(
        draw(st.integers(0, 99)),
        draw(st.lists(approaches(), max_size=4)),
        id=draw(texts_.filter(bool)),
        name=draw(texts_.filter(bool)),
        name_limited=draw(optional),
        designation=draw(optional),
        nasa_jpl_url=draw(optional),
        absolute_magnitude_h=draw(st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-99, 99)),
        is_potentially_hazardous_asteroid=draw(st.none() | st.booleans()),
        estimated_diameter={
            "meters": {"estimated_diameter_min": draw(st.none() | st.floats(0, 1e308) | st.integers(0))}
        },
        orbital_data={
            "first_observation_date": draw(st.none() | days),
            "observations_used": draw(st.none() | st.integers(0, 2**63 - 1)),
            "orbital_period": draw(st.none() | amounts),
        },
    )


@given(st.lists(regular_objects(), max_size=3), st.none() | st.sampled_from(BODIES), st.booleans())
def test_fast_and_exact_path_agree_on_regular_pages(
    objects: list[dict[str, Any]], orbiting_body: str | None, escaped: bool
) -> None:
    long = any(
        len(json.dumps(value)) > 64
        for record in objects
        for value in [record["absolute_magnitude_h"], *record["estimated_diameter"]["meters"].values()]
    )
    texts = [json.dumps(record, ensure_ascii=escaped) for record in objects] or ["null"]
    body = page_of(texts)
    if objects and not long:
        assert decode_fast.decode_columns(body) is not None
    page = read(body, orbiting_body=orbiting_body)
    check_rejected(page, texts)
    check_objects(page, orbiting_body)
    for index, row in zip(page.indices, page.batches["neos"].to_pylist(), strict=True):
        assert row["closest_approach_miss_distance_km"] == (closest(objects[index], orbiting_body) or {}).get("km")


def closest(record: dict[str, Any], orbiting_body: str | None) -> dict[str, Any] | None:
    """The closest approach by plain Python."""
    known = [
        {
            "km": float(entry["miss_distance"]["kilometers"]),
            "epoch": entry["epoch_date_close_approach"],
            "day": entry["close_approach_date"],
            "speed": entry["relative_velocity"]["kilometers_per_second"],
        }
        for entry in record["close_approach_data"]
        if entry["miss_distance"]["kilometers"] is not None
        and (orbiting_body is None or entry["orbiting_body"] == orbiting_body)
    ]
    # Sorting is stable: equal entries stay in the list's order.
    known.sort(key=lambda entry: (entry["km"], entry["epoch"] is None, entry["epoch"]))
    return known[0] if known else None


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["meters", "kilometers", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
).map(json.dumps)
pieces = st.one_of(
    st.sampled_from(sorted({text for bad in BAD.values() for text in bad})),
    st.sampled_from(sorted({text for good in GOOD.values() for text, _ in good})),
    st.text("0123456789.-+eE _", max_size=9).map(json.dumps),
    st.text("0123456789-", min_size=9, max_size=11).map(json.dumps),
    json_values,
    st.none(),
)
places = st.one_of(
    st.sampled_from([*PATHS, *NODES]),
    st.sampled_from(
        [("new",), (*APPROACH, "new"), ("orbital_data", "new"), ("links",), ("orbital_data", "eccentricity")]
    ),
)
mutations = st.lists(st.tuples(st.integers(0, OBJECTS - 1), places, pieces), max_size=4)


@given(mutations, st.none() | st.sampled_from(BODIES))
@example([(0, ("orbital_data", "orbital_period"), '"+1"')], None)
@example([(1, (*APPROACH, "miss_distance", "kilometers"), '"1e400"')], None)
@example([(1, ("absolute_magnitude_h",), f"1.{'0' * 63}")], None)
@example([(1, ("links",), "9" * 5000)], None)
def test_fast_and_exact_path_agree_on_irregular_pages(
    changes: list[tuple[int, tuple[str | int, ...], str | None]], orbiting_body: str | None
) -> None:
    texts = []
    for number in range(OBJECTS):
        record, literals = neo(number, [approach(), approach(orbiting_body="Venus")]), list[str]()
        for index, path, text in changes:
            if index == number:
                put(record, path, text, literals)
        texts.append(dump(record, literals))
    page = read(page_of(texts, number=3), orbiting_body=orbiting_body)
    check_rejected(page, texts)
    check_objects(page, orbiting_body)


@given(st.text("0123456789.-+eE", max_size=7) | st.text(max_size=3))
def test_numbers_follow_the_grammar(text: str) -> None:
    page, _ = mutated((*APPROACH, "miss_distance", "kilometers"), json.dumps(text))
    # With ASCII, `\d` matches 0 to 9 only.
    if re.fullmatch(r"-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII) and 0 <= float(text) < float("inf"):
        assert leaf(page, (*APPROACH, "miss_distance", "kilometers")) == float(text)
    else:
        assert [entry.position for entry in page.rejected] == [2 * OBJECTS + MUTATED]


def closest_of(*entries: dict[str, Any], orbiting_body: str | None = None) -> tuple[Any, ...]:
    page = read(page_of([json.dumps(neo(1, entries))]), orbiting_body=orbiting_body)
    check_objects(page, orbiting_body)
    (row,) = page.batches["neos"].to_pylist()
    return tuple(row[f"closest_approach_{name}"] for name in ("miss_distance_km", "date", "relative_velocity_km_s"))


def entry(km: str | None, epoch_ms: int | None, speed: str = "1", body: str = "Earth") -> dict[str, Any]:
    return approach(
        km=km,
        epoch_date_close_approach=epoch_ms,
        relative_velocity={"kilometers_per_second": speed},
        orbiting_body=body,
    )


DAY = dt.date(2026, 11, 22)


def test_closest_of_equal_distances_is_the_earliest() -> None:
    assert closest_of(entry("100", 20, "1"), entry("1e2", 10, "2")) == (100.0, DAY, 2.0)
    # Equal as float64, though not as text.
    assert closest_of(entry("100.00000000000000001", 20, "1"), entry("100", 10, "2"))[2] == 2.0
    assert closest_of(entry("100", 20, "1"), entry("99.99999999999999", 30, "2"))[2] == 2.0


def test_closest_of_equal_distances_and_times_is_the_first() -> None:
    assert closest_of(entry("100", 10, "1"), entry("100.0", 10, "2"))[2] == 1.0
    assert closest_of(entry("100", None, "1"), entry("100", None, "2"))[2] == 1.0
    assert closest_of(entry("0", 10, "1"), entry("-0", 10, "2"))[2] == 1.0


def test_unknown_time_sorts_last() -> None:
    assert closest_of(entry("100", None, "1"), entry("100", 253_402_300_799_999, "2"))[2] == 2.0


def test_unknown_distance_is_never_the_closest() -> None:
    assert closest_of(entry(None, 10, "1"), entry("100", 20, "2"))[2] == 2.0
    assert closest_of(entry(None, 10)) == (None, None, None)


def test_closest_of_no_approach_and_of_one() -> None:
    assert closest_of() == (None, None, None)
    assert closest_of(entry("5", 1, "7")) == (5.0, DAY, 7.0)


def test_closest_approach_to_one_body() -> None:
    entries = [entry("1", 1, "1", "Venus"), entry("3", 3, "3", "Mars"), entry("2", 2, "2", "Mars")]
    assert closest_of(*entries, orbiting_body="Mars")[2] == 2.0
    assert closest_of(*entries, orbiting_body="Earth") == (None, None, None)
    assert closest_of(orbiting_body="Earth") == (None, None, None)


def test_object_with_473_approaches() -> None:
    generator = random.Random(473)
    entries: list[dict[str, Any]] = []
    for _ in range(473):
        epoch_ms = generator.randrange(-2_208_988_800_000, 7_289_654_400_000, 60_000)
        at = EPOCH + dt.timedelta(milliseconds=epoch_ms)
        km = str(generator.choice([4e4, 5e4, generator.uniform(4e4, 7e7)]))
        entries.append(entry(km, epoch_ms, str(len(entries))) | {"close_approach_date": at.date().isoformat()})
    entries += [
        entry("1e9", -1) | {"close_approach_date": "1969-12-31"},
        entry("1e9", 0) | {"close_approach_date": "1970-01-01"},
        entry("1e9", 1) | {"close_approach_date": "1969-12-31"},  # as the source sends it, independent of the epoch
    ]
    record = neo(1, entries)
    page = read(page_of([json.dumps(neo(0)), json.dumps(record), json.dumps(neo(2, [entry("1", 1)]))]))
    assert page.approach_counts == (0, 476, 1)
    expected = closest(record, None)
    row = page.batches["neos"].to_pylist()[1]
    assert expected is not None
    assert row["closest_approach_miss_distance_km"] == expected["km"] == 4e4
    assert row["closest_approach_date"] == dt.date.fromisoformat(expected["day"])
    assert row["closest_approach_relative_velocity_km_s"] == float(expected["speed"])
    found = page.batches["close_approaches"].to_pylist()[:476]
    assert [one["close_approach_date"].isoformat() for one in found] == [one["close_approach_date"] for one in entries]
    assert [one["close_approach_at"] for one in found] == [
        EPOCH + dt.timedelta(milliseconds=one["epoch_date_close_approach"]) for one in entries
    ]


def test_equal_bytes_give_an_equal_page_and_repr_hides_the_body() -> None:
    body = page_of([json.dumps(neo(1, [approach()]))])
    page = decode(page_json(body), None)
    assert exactly(page.batches["neos"]) == exactly(decode(page_json(bytes(bytearray(body))), None).batches["neos"])
    assert repr(page) == "Page(number=0, neos=1, close_approaches=1, rejected=0)"
    assert "SOMEBODYS" not in repr(RawPage(0, body))


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b'{"page":{}}', page_of(["{}"])[:-1], page_of(["{}"]) + b"\xff"])
def test_invalid_page_is_refused(body: bytes) -> None:
    with pytest.raises(BadPageError):
        decode(page_json(body), None)


@given(st.binary(max_size=4), st.integers(0))
def test_page_with_invalid_utf8_is_refused(wrong: bytes, at: int) -> None:
    text = page_of([json.dumps(neo(1, [approach()]))])
    at %= len(text)
    body = text[:at] + wrong + text[at:]
    try:
        body.decode()
    except UnicodeDecodeError:
        with pytest.raises(BadPageError, match="UTF-8"):
            decode(page_json(body), None)


def test_deep_nesting_is_rejected_without_a_traceback() -> None:
    # Some depths can be parsed but not validated; deeper pages cannot be parsed.
    reasons = set()
    for depth in range(880, 1_010):
        for value in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
            literals: list[str] = []
            record = neo(1)
            put(record, ("id",), value, literals)
            try:
                page = decode(page_json(page_of([dump(record, literals)])), None)
            except BadPageError as exc:
                reasons.add(str(exc)[:30])
            else:
                reasons |= {rejected.reason[:17] for rejected in page.rejected}
    assert "nested too deeply" in reasons
    assert "not a string: [[[" in reasons


@pytest.mark.parametrize("objects", [[], [json.dumps(neo(0))], [json.dumps(neo(0)), '{"id":"1"}'], ["NaN"]])
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("size", [None, 20, 5])
@pytest.mark.parametrize("damage", [b"", b"]", b"\xff"])
def test_decode_equals_check_then_exact_decode(
    objects: list[str], number: int, size: int | None, damage: bytes
) -> None:
    def both() -> Page:
        envelope.check(raw.body, raw.number, size)
        return decode_exactly(raw)

    raw = page_json(page_of(objects) + damage, number)
    for scan in SCANNERS:
        assert outcome(partial(decode, raw, size, scan=scan)) == outcome(both)


def outcome(read: Callable[[], Page]) -> object:
    return outcomes(lambda: [read()])


def outcomes(read: Callable[[], list[Page]]) -> object:
    try:
        pages = read()
    except BadPageError as exc:
        return str(exc)
    return [
        (
            *(page.info, page.json_bytes, page.sha256, page.indices, page.approach_counts),
            *(page.rejected, page.unknown_fields),
            *(
                exactly(page.batches["neos"]),
                exactly(page.batches["close_approaches"]),
                page.batches["neos"].schema,
                page.batches["close_approaches"].schema,
            ),
        )
        for page in pages
    ]


def check_together(raws: list[PageJson], size: int | None, orbiting_body: str | None) -> None:
    one_by_one = outcomes(lambda: [decode(raw, size, orbiting_body=orbiting_body) for raw in raws])
    for scan in SCANNERS:
        assert outcomes(partial(decode_batch, raws, size, orbiting_body=orbiting_body, scan=scan)) == one_by_one


regular_bodies = st.lists(regular_objects(), max_size=3).map(
    lambda objects: page_of([json.dumps(record) for record in objects])
)


@given(st.lists(regular_bodies, max_size=5), st.none() | st.sampled_from(BODIES), st.sampled_from([None, 2]))
def test_batch_equals_single_pages(bodies: list[bytes], orbiting_body: str | None, size: int | None) -> None:
    check_together([page_json(body) for body in bodies], size, orbiting_body)


@given(
    st.lists(regular_bodies, min_size=2, max_size=4),
    st.integers(0, 3),
    mutations | st.sampled_from([b"", b"{}", b"\xff"]),
    st.sampled_from([0, 1]),
)
def test_irregular_page_in_a_batch_changes_no_other(
    bodies: list[bytes], at: int, trouble: list[tuple[int, tuple[str | int, ...], str | None]] | bytes, number: int
) -> None:
    if isinstance(trouble, bytes):
        other = trouble
    else:
        record, literals = neo(1, [approach()]), list[str]()
        for _, path, text in trouble:
            put(record, path, text, literals)
        other = page_of([dump(record, literals)], number=number)
    raws = [page_json(body) for body in bodies]
    raws.insert(at % (len(raws) + 1), page_json(other))
    check_together(raws, None, None)


def test_batch_of_recorded_pages_equals_single_pages(recorded_pages: Path) -> None:
    bodies = [gzip.decompress(file.read_bytes()) for file in sorted(recorded_pages.glob("page_*.json.gz"))]
    raws = [page_json(body, envelope.split(body)[0].number) for body in bodies]
    assert all(decode_fast.decode_columns_of(bodies, scan) is not None for scan in SCANNERS)
    for count in (1, 4, len(raws)):
        check_together(raws[:count], None, "Earth")

"""Scanned lists have the values that a JSON parser finds, or the scan returns None."""

from __future__ import annotations

import gzip
import json
import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neows_async.endpoints.browse import approach_scan, decode_fast, envelope
from neows_async.testing import browse_page
from tests.neos import approach, neo

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not approach_scan.IS_COMPILED, reason="no C compiler: every page is parsed as JSON")

STRUCTURAL = b'",:{}]0-+ \\\x1f\xff'
TOKENS = (b'"close_approach_data":[]', b'"close_approach_data": [0]', b'"close_approach_data" :[1]', b'"page":{"a":1}')
LIST = b'"close_approach_data":['


def page(*objects: dict[str, Any]) -> bytes:
    return browse_page(objects, 0, 20)


def by_layout(body: bytes) -> tuple[Any, ...] | None:
    """The values that the scan finds, after a check that a JSON parser finds the same."""
    assert envelope.is_utf8(body)
    try:
        found = decode_fast._parsed_by_layout(body, approach_scan.scan)
    except pa.ArrowInvalid:
        return None
    if found is None:
        return None
    json.loads(body)
    info, neos, texts = found
    info_by_json, neos_by_json, texts_by_json = decode_fast._parsed_as_json(body)
    assert texts == texts_by_json
    assert info == info_by_json
    for neo_ in (*neos, *neos_by_json):
        neo_.close_approach_data = []
    assert neos == neos_by_json
    return found


SMALL = page(neo(1, [approach(), approach(orbiting_body="Venus", epoch_date_close_approach=-5)]))


def edited(body: bytes, at: int, how: str, byte: bytes) -> bytes:
    return body[:at] + (b"" if how == "take" else byte) + body[at + (how != "put") :]


@pytest.mark.parametrize("how", ["replace", "put", "take"])
def test_every_changed_byte_is_noticed(how: str) -> None:
    start = SMALL.index(LIST) - 2
    stop = SMALL.index(b"]", start) + 3
    read = 0
    for at in range(start, stop):
        for byte in {STRUCTURAL[:1]} if how == "take" else set(STRUCTURAL):
            body = edited(SMALL, at, how, bytes([byte] if isinstance(byte, int) else byte))
            if envelope.is_utf8(body):
                read += by_layout(body) is not None
    assert read > 10, "other digits in a value are still a value"


names = st.sampled_from(["Earth", "Venus", "", "Ä]", "a,b", 'a"b', "null", "x" * 70, "a\tb"])
numbers = st.sampled_from(["0.1", ".5", "1e3", "", "5", "123456.789012345", "1,5", "NaN", '"'])
epochs = st.sampled_from([0, -1, 10, 1_795_387_500_000, -(10**12), 10**18, 10**19, 1.5, None, "7"])


@st.composite
def entries(draw: st.DrawFn) -> dict[str, Any]:
    entry = approach(
        au=draw(numbers), km=draw(numbers), orbiting_body=draw(names), epoch_date_close_approach=draw(epochs)
    )
    if draw(st.integers(0, 9)) == 0:
        entry |= {"new": 1}
    if draw(st.integers(0, 9)) == 0:
        del entry["miss_distance"]["lunar"]
    return entry


plain = st.builds(approach, au=st.sampled_from(["0.1", ".5", "12.25"]), orbiting_body=st.sampled_from(["Mars", ""]))
lists = st.lists(plain, max_size=4) | st.lists(plain | entries(), max_size=4)


@given(
    st.lists(lists, min_size=1, max_size=4),
    st.lists(
        st.tuples(st.integers(0, 10_000), st.sampled_from(["replace", "put", "take"]), st.sampled_from(STRUCTURAL))
    ),
    st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from(TOKENS)), max_size=2),
    st.booleans(),
)
def test_scan_agrees_with_a_json_parser(
    approaches: list[list[dict[str, Any]]],
    edits: list[tuple[int, str, int]],
    members: list[tuple[int, bytes]],
    escaped: bool,
) -> None:
    body = page(*(neo(number, listed) for number, listed in enumerate(approaches)))
    if escaped:
        body = json.dumps(json.loads(body), separators=(",", ":")).encode()
    for at, member in members:
        places = [found.end() for found in re.finditer(rb"[{,](?=\")", body)]
        place = places[at % len(places)]
        body = body[:place] + member + b"," + body[place:]
    for at, how, byte in edits[:2]:
        body = edited(body, at % len(body), how, bytes([byte]))
    if envelope.is_utf8(body):
        by_layout(body)


@given(st.lists(st.lists(plain, max_size=4), min_size=1, max_size=5))
def test_lists_in_the_known_layout_are_scanned(approaches: list[list[dict[str, Any]]]) -> None:
    found = by_layout(page(*(neo(number, listed) for number, listed in enumerate(approaches))))
    assert found is not None
    assert found[2].counts == tuple(len(listed) for listed in approaches)


def test_recorded_pages_are_scanned(recorded_pages: Path) -> None:
    for file in sorted(recorded_pages.glob("page_*.json.gz")):
        assert by_layout(gzip.decompress(file.read_bytes())) is not None


@pytest.mark.parametrize("value", ["]", "a,b", "},{"])
def test_structural_characters_in_a_value_end_nothing(value: str) -> None:
    found = by_layout(page(neo(1, [approach(orbiting_body=value)])))
    assert found is not None
    assert found[2].orbiting_bodies.to_pylist() == [value]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(SMALL.replace(LIST, b'"close_approach_data": ['), id="a blank before the list"),
        pytest.param(
            page(neo(1, [approach()]), neo(2, [])).replace(LIST + b"]", b'"close_approach_data": []'),
            id="a blank before an empty list",
        ),
        pytest.param(SMALL.replace(b'"is_sentry', LIST + b'],"is_sentry'), id="a second list in one object"),
        pytest.param(page(neo(1, [approach()], sentry_data={"close_approach_data": []})), id="a list further down"),
        pytest.param(
            page(neo(1, [approach()]), neo(2, [], sentry_data={"close_approach_data": [approach()]})).replace(
                LIST + b'],"is', b'"close_approach_data": [],"is'
            ),
            id="as many lists as objects, but one further down",
        ),
        pytest.param(
            SMALL.replace(b"],", b'],"close_approach_data": [0],', 1),
            id="a second list that looks like the first's place",
        ),
        pytest.param(
            page(neo(1, [], sentry_data={"close_approach_data": [approach()]})).replace(
                LIST + b"]", b'"close_approach_data" :[0]'
            ),
            id="a list further down in the place of the object's own",
        ),
        pytest.param(SMALL.replace(b'"Earth"}', b'"Earth"} '), id="a blank between two"),
        pytest.param(SMALL.replace(b'"lunar":"38.9",', b"", 1), id="a field is missing"),
        pytest.param(SMALL.replace(b'"lunar":"38.9",', b'"lunar":null,', 1), id="a null"),
        pytest.param(page(neo(1, [approach(orbiting_body="Ä")])), id="a value that is not ASCII"),
        pytest.param(page(neo(1, [approach(orbiting_body='a"b')])), id="an escape"),
        pytest.param(SMALL.replace(b"],", b",],"), id="a comma behind the last one"),
        pytest.param(SMALL.replace(LIST, LIST + b","), id="a comma before the first one"),
    ],
)
def test_other_layouts_are_not_scanned(body: bytes) -> None:
    assert by_layout(body) is None

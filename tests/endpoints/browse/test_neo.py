from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neows_async.endpoints.browse.neo import (
    Neo,
    Unreadable,
    parse,
    read_amount,
    read_count,
    read_date,
    read_epoch_ms,
    read_number,
    read_text,
)
from tests.neos import approach, neo

if TYPE_CHECKING:
    from collections.abc import Callable

READERS: list[Callable[[object], Any]] = [
    *(read_number, read_amount, read_count, read_date, read_epoch_ms, read_text),
]


def raw(record: object) -> bytes:
    return json.dumps(record).encode()


@given(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.text("0123456789.eE+- \u0661", max_size=70),
    st.sampled_from(READERS),
)
def test_reader_returns_a_value_or_raises_a_reason(value: object, reader: Callable[[object], Any]) -> None:
    try:
        found = reader(value)
    except ValueError as exc:
        text = str(exc)
        assert "\n" not in text
        assert len(text) < 120
        return
    assert found is not None
    assert not isinstance(found, bool)
    if isinstance(found, float):
        assert math.isfinite(found)


@given(st.text("0123456789.eE+-_ ", max_size=66))
def test_numbers_as_text_follow_the_grammar(text: str) -> None:
    by_grammar = (
        len(text) <= 64
        and re.fullmatch(r"-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII) is not None
        and math.isfinite(float(text))
    )
    try:
        assert read_number(text) == float(text)
    except ValueError:
        assert not by_grammar
    else:
        assert by_grammar


@given(st.integers(0, 2**63 - 1))
def test_count_keeps_every_digit(count: int) -> None:
    assert read_count(count) == read_count(str(count)) == count


@pytest.mark.parametrize("value", [2**63, -1, str(2**63), "-1", 0.5, "0.5", True, None, "", [], math.nan, 1e300])
def test_invalid_counts_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"not a|out of range"):
        read_count(value)


def test_long_values_are_quoted_in_part() -> None:
    with pytest.raises(ValueError, match=r"…$") as caught:
        read_date("x" * 10_000)
    assert len(str(caught.value)) < 120


def test_complete_object_is_validated() -> None:
    known = Neo.from_browse(raw(neo(8, [approach(), approach(au=".3", km=None)], name_limited="Eight")))
    assert (known.id, known.name, known.name_limited) == ("9000008", "(8 TEST)", "Eight")
    assert known.is_potentially_hazardous_asteroid is True
    assert known.orbital_period_d == 507.8773584568611
    assert [entry.miss_distance_au for entry in known.close_approaches] == [0.1, 0.3]
    assert known.closest_approach() is known.close_approaches[0]
    assert known.closest_approach("Venus") is None


def test_objects_are_immutable() -> None:
    known = Neo.from_browse(raw(neo(1, [approach()])))
    with pytest.raises(ValueError, match="frozen"):
        known.name = "another"  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        known.close_approaches[0].orbiting_body = "Mars"  # type: ignore[misc]


def test_first_of_several_errors_is_reported() -> None:
    record = neo(1, [approach(km="x"), approach(km="y")], designation=5)
    with pytest.raises(Unreadable) as caught:
        Neo.from_browse(raw(record))
    assert (caught.value.reason, caught.value.path) == ("not a string: 5", ("designation",))
    del record["designation"]
    with pytest.raises(Unreadable) as caught:
        Neo.from_browse(raw(record))
    assert caught.value.reason == "not a number: 'x'"
    assert caught.value.path == ("close_approach_data", 0, "miss_distance", "kilometers")


def test_object_nested_too_deeply_is_unreadable() -> None:
    with pytest.raises(Unreadable, match="nested too deeply") as caught:
        parse(b"[" * 100_000 + b"]" * 100_000)
    assert caught.value.path == ()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(neo(1))), inner, max_size=4),
        max_leaves=8,
    )
)
def test_any_json_is_an_object_or_unreadable(value: Any) -> None:
    try:
        known = Neo.from_value(value)
    except Unreadable as exc:
        trouble = exc
    else:
        assert known.id
        assert known.name
        return
    assert trouble.reason
    for part in trouble.path[:-1]:
        value = value[part]

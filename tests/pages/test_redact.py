from __future__ import annotations

import base64
import json
import re
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from neows_async.pages.redact import _PARAMETER, LITERAL_MIN_CHARS, Redactor, _forms
from neows_async.testing import browse_page
from tests.neos import approach, catalogue, neo

KEY = "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dF3gH5jK7m"
TRICKY = "aB3/dE5+gH7=jK9&mN1 pQ3?sT5#vW7%yZ9"
redact = Redactor(KEY)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("?api_key=abc", "?api_key=REDACTED"),
        ("?api_key=abc&page=1", "?api_key=REDACTED&page=1"),
        ("?api_key=a&x=1&api_key=b", "?api_key=REDACTED&x=1&api_key=REDACTED"),
        (r"?api_key=abc\u0026page=1", r"?api_key=REDACTED\u0026page=1"),
        (r"?api_key\u003dabc\u0026page=1", r"?api_key\u003dREDACTED\u0026page=1"),
        (r"?api_key\u003Da\/b\/c&page=1", r"?api_key\u003DREDACTED&page=1"),
        (r"?api_key=a\u0041c", "?api_key=REDACTED"),
        ("u%3Fapi_key%3Dabc%26page%3D1", "u%3Fapi_key%3DREDACTED%26page%3D1"),
        ("u%3fapi_key%3dabc%26", "u%3fapi_key%3dREDACTED%26"),
        ("?api_key=a%2Bb%2Fc%3D%3D&x", "?api_key=REDACTED&x"),
        ("?api%5Fkey=abc&x", "?api%5Fkey=REDACTED&x"),
        (r"?api\u005fkey=abc&x", r"?api\u005fkey=REDACTED&x"),
        ("?api_key=abc#there", "?api_key=REDACTED#there"),
        ("?api_key=abc there", "?api_key=REDACTED there"),
        ("<a href='?api_key=abc'>", "<a href='?api_key=REDACTED'>"),
        (r"\"?api_key=abc\"", r"\"?api_key=REDACTED\""),
        (r"?api_key=abc\nmore", r"?api_key=REDACTED\nmore"),
        ("?api_key=", "?api_key="),
        ("?api_key=&x=1", "?api_key=&x=1"),
        ("?api_key=REDACTED&x=1", "?api_key=REDACTED&x=1"),
        ("?api_key=\u00e9t\u00e9&x", "?api_key=REDACTED&x"),
        ("the api_key is a word", "the api_key is a word"),
    ],
)
def test_the_value_of_any_key_parameter_goes(text: str, expected: str) -> None:
    for body in (f'{{"a":"{text}"}}', text):
        assert Redactor()(body.encode()).decode() == body.replace(text, expected)
    assert Redactor().text(text) == expected


@pytest.mark.parametrize("key", [KEY, TRICKY, TRICKY * 2, KEY[:LITERAL_MIN_CHARS]])
def test_the_literal_key_goes_in_every_dress(key: str) -> None:
    redactor = Redactor(key)
    escapes = "".join(f"%{byte:02X}" for byte in key.encode())
    percent = [quote(key, safe=""), quote(key), quote_plus(key), escapes]
    dresses = [
        *(key, json.dumps(key)[1:-1], key.replace("/", r"\/")),
        *percent,
        *(re.sub("%..", lambda found: found[0].lower(), text) for text in percent),
    ]
    for dress in dresses:
        for body in (dress, f'{{"a":"{dress}"}}', f"x{dress}y{dress}", f"?key={dress}&x=1"):
            found = redactor.text(body)
            assert dress not in found
            assert "REDACTED" in found


@pytest.mark.parametrize("key", [KEY, TRICKY])
@pytest.mark.parametrize("before", ["", "x", "xy", "user:", "key=1234"])
@pytest.mark.parametrize("after", ["", "x", "xy", "xyz"])
def test_the_key_goes_from_base64_wherever_it_begins(key: str, before: str, after: str) -> None:
    text = (before + key + after).encode()
    for code in (base64.standard_b64encode(text).decode(), base64.urlsafe_b64encode(text).decode()):
        for dress in (code, quote(code, safe=""), code.replace("/", r"\/")):
            found = Redactor(key).text(f'{{"auth":"Basic {dress}"}}')
            assert "REDACTED" in found
            rest = found.removeprefix('{"auth":"Basic ').removesuffix('"}').replace("REDACTED", "")
            assert len(rest) <= len(dress) - len(key) * 4 // 3 + 3
            assert json.loads(found)


@pytest.mark.parametrize("key", [KEY, TRICKY, "a" * 40, "REDACTED-REDACTED-REDACTED"])
@pytest.mark.parametrize("size", [0, 100_000])
def test_what_is_left_of_a_key_where_a_body_was_cut_goes(key: str, size: int) -> None:
    clean = Redactor(key)
    for form in _forms(key):
        for length in range(LITERAL_MIN_CHARS, len(form)):
            body = b" " * size + b'{"error":"' + form[:length]
            redacted = clean(body)
            assert redacted == b" " * size + b'{"error":"REDACTED'
            assert clean(redacted) == redacted
            if size:
                break  # as long a search each


def test_only_the_hex_digits_of_an_escape_have_no_case() -> None:
    key = "AbCdEf+gHiJkLmNoPqRs"
    assert Redactor(key).text("k=" + quote(key, safe="").replace("%2B", "%2b")) == "k=REDACTED"


def test_the_replacement_makes_no_new_key() -> None:
    key = "abcdefghijklmnopqR"
    body = f"{key[:-1]}{key}".encode()
    once = Redactor(key)(body)
    assert key.encode() not in once
    assert Redactor(key)(once) == once


@pytest.mark.parametrize("key", ["", "x", "1", "id", "name", "Earth", "DEMO_KEY", "null", "123456789012345"])
def test_a_short_key_damages_nothing_but_goes_from_the_parameters(key: str) -> None:
    objects = [
        neo(number, [approach()], links={"self": f"http://api.nasa.gov/neo/{number}?api_key={key}&a=1"})
        for number in range(4)
    ]
    expected = [
        entry
        | {
            "links": {
                "self": entry["links"]["self"].replace(f"api_key={key}&", "api_key=REDACTED&" if key else "api_key=&")
            }
        }
        for entry in objects
    ]
    assert Redactor(key)(browse_page(objects, 0, 20)) == browse_page(expected, 0, 20)


def test_a_body_without_keys_comes_back_as_it_is() -> None:
    objects = [entry | {"links": {}} for entry in catalogue(20)]
    body = browse_page(objects, 0, 20)
    assert redact(body) is body or redact(body) == body
    assert redact(b"") == b""
    assert redact(b"\xff\x00api_key") == b"\xff\x00api_key"


def test_it_shows_no_key() -> None:
    assert KEY not in repr(redact)
    assert KEY not in str(redact)
    assert not hasattr(redact, "__dict__")


pieces = st.sampled_from(
    [
        *(
            "api_key=",
            "api_key%3D",
            "&",
            "%26",
            "%",
            "%2",
            "\\",
            "/",
            "\u2028",
            "\n",
            '"',
            "'",
            " ",
            "#",
            "=",
            "u0026",
            "\u00e9",
        ),
        *(KEY, KEY[:20], KEY[20:], quote(TRICKY, safe=""), base64.b64encode(KEY.encode()).decode(), TRICKY),
        *("REDACTED", "api_key", "?", "abc", "\ud83d\ude42".encode("utf-16", "surrogatepass").decode("utf-16")),
    ]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
strings = st.lists(pieces, max_size=8).map("".join)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | strings,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: shape(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [shape(entry) for entry in value]
    return "" if isinstance(value, str) else value


@given(values, st.booleans(), st.booleans(), st.sampled_from([KEY, TRICKY, "x", "abc"]))
@example({"a": f"\n{KEY}"}, True, False, KEY)
@example({"a": f"\u00e9{KEY}"}, True, False, KEY)
def test_the_structure_stays_and_redacting_twice_is_redacting_once(
    value: Any, ascii_only: bool, slashes: bool, key: str
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    if slashes:
        text = text.replace("/", r"\/").replace("&", r"\u0026")
    redactor = Redactor(key)
    once = redactor(text.encode())
    assert redactor(once) == once
    assert shape(json.loads(once)) == shape(value)
    if len(key) >= LITERAL_MIN_CHARS:
        assert key.encode() not in once


# Not made of hex digits: "\u0110000000" holds a key of noughts twice over, and once it is half an escape.
@given(
    st.tuples(st.sampled_from("gkGZ"), st.text("ghkmGHZ-_.~+/=", min_size=15, max_size=47)).map("".join),
    st.text(max_size=5),
    st.text(max_size=5),
)
def test_any_long_key_goes(key: str, before: str, after: str) -> None:
    redactor = Redactor(key)
    for text in (key, quote(key, safe=""), json.dumps(key), base64.b64encode((before + key).encode()).decode()):
        assert "REDACTED" in redactor.text(text)
    whole = redactor(json.dumps({"a": before + key + after}).encode())
    assert key.encode() not in whole
    assert json.loads(whole)


@given(st.lists(st.sampled_from(["api_key=", "=", "&", '"', " ", "key", "a", "\u00e9", "%3D", "\\u003d"])).map("".join))
def test_the_quick_way_through_a_body_without_escapes_finds_the_same(text: str) -> None:
    body = text.encode()
    assert Redactor()(body) == _PARAMETER.sub(rb"\1REDACTED", body)


@given(st.binary())
def test_any_bytes_pass(body: bytes) -> None:
    assert redact(redact(body)) == redact(body)
    if b"key" not in body:
        assert redact(body) == body


@given(st.integers(0, 63), st.sampled_from([KEY, TRICKY, KEY[:LITERAL_MIN_CHARS], KEY[:23]]), st.data())
def test_a_key_is_found_at_every_position_of_a_large_body(shift: int, key: str, data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(sorted(_forms(key), key=len)))
    innocent = b'{"kilometers":"45290300.260256161"},' * 2_000
    # At the very end it is not followed by a whole word.
    body = innocent[: len(innocent) - shift] + form + data.draw(st.sampled_from([b"", b'"', innocent]))
    assert form not in (redacted := Redactor(key)(body))
    assert Redactor(key)(redacted) == redacted
    assert Redactor(key)(innocent) == innocent


def test_a_key_that_was_half_an_escape_leaves_no_more_behind() -> None:
    key = "0123456789abcdefXYZ"
    redactor = Redactor(key)
    once = redactor(f"api_key=someone%2{key}%2{key}&x".encode())
    assert redactor(once) == once == b"api_key=REDACTED&x"


def literals_first(key: str, body: bytes) -> bytes:
    """The order that is right for every key."""
    forms = sorted(_forms(key), key=lambda form: (-len(form), form))
    while held := next((form for form in forms if form in body), None):
        body = body.replace(held, b"REDACTED")
    body = _PARAMETER.sub(rb"\1REDACTED", body)
    begun = {form[:length] for form in forms for length in range(LITERAL_MIN_CHARS, len(form))}
    left = max((start for start in begun if body.endswith(start)), key=len, default=b"")
    return literals_first(key, body.removesuffix(left) + b"REDACTED") if left else body


@given(strings, st.sampled_from([KEY, KEY[:20], "apikey-is-my-apikey", "REDACTED-REDACTED", "0123456789abcdefXYZ"]))
@example("api_key=someone%20123456789abcdefXYZ&x", "0123456789abcdefXYZ")
@example("apikey-is-my-apikey=abc", "apikey-is-my-apikey")
@example(f"api_key={KEY}&{KEY}", KEY)
@example(KEY[:20], KEY)
def test_for_a_key_of_plain_letters_the_order_makes_no_difference(text: str, key: str) -> None:
    for body in (text.encode(), json.dumps(text).encode()):
        assert Redactor(key)(body) == literals_first(key, body)

from __future__ import annotations

import gzip
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from neows_async.endpoints.browse import envelope
from neows_async.errors import BadPageError
from neows_async.pages.values import PageInfo
from neows_async.testing import browse_page
from tests.neos import catalogue

if TYPE_CHECKING:
    from pathlib import Path

PAGE = browse_page(catalogue(45), 1, 20)
INFO = PageInfo(size=20, total_elements=45, number=1)


def body_of(objects: str = "{}", *, page: str = '{"size":1,"total_elements":1,"number":0}') -> bytes:
    return f'{{"page":{page},"near_earth_objects":[{objects}]}}'.encode()


def leniently(body: bytes) -> tuple[PageInfo, list[bytes]]:
    return envelope._split_leniently(body.decode())


def never_another_error(body: bytes, number: int = 0) -> PageInfo | None:
    """The error of ``check``, which must be a BadPageError with one line."""
    try:
        return envelope.check(body, number)
    except BadPageError as exc:
        reason = str(exc)
    assert reason
    assert "\n" not in reason
    return None


def test_split_keeps_each_objects_bytes() -> None:
    objects = ['{ "a" : 1.50 }', "[1, 2]", '"\u00e9\\u00e9\\/"', "null", "0.10", '{"b":{"c":[]}}']
    body = body_of(" , ".join(objects), page='{"size":9,"total_elements":6,"number":0,"more":[]}')
    expected = (PageInfo(9, 6, 0), [text.encode() for text in objects])
    assert envelope.split(body) == expected
    assert leniently(body) == expected
    assert envelope.split(b"\n\t " + body + b" \r\n") == expected


def test_recorded_pages_pass_the_check(recorded_pages: Path) -> None:
    for number in range(10):
        body = gzip.decompress((recorded_pages / f"page_{number:05}.json.gz").read_bytes())
        assert envelope.check(body, number, 20) == PageInfo(20, 41_282, number)
        info, objects = envelope.split(body)
        assert [json.loads(text) for text in objects] == json.loads(body)["near_earth_objects"]
        assert leniently(body) == (info, objects)


def test_truncated_recorded_page_is_refused(recorded_pages: Path) -> None:
    body = gzip.decompress((recorded_pages / "page_00000.json.gz").read_bytes())
    end = body.rindex(b"}")
    # Cuts inside names, numbers, strings and escapes, and between members and objects.
    cuts = {*range(300), *range(end - 300, end + 1), *range(0, end, 1_009)}
    cuts |= {found.start() + 1 for found in re.finditer(rb"[^\x00-\x7f]|\\", body)}
    for cut in sorted(cuts):
        with pytest.raises(BadPageError):
            envelope.check(body[:cut], 0)


@pytest.mark.parametrize("after", [b"x", b"{}", b",", b"\0", b"}", b"]", b"NaN", "\ufeff".encode(), b"<html>"])
def test_data_after_the_page_is_refused(after: bytes) -> None:
    with pytest.raises(BadPageError):
        envelope.check(PAGE + after, 1)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the body is empty"),
        (b"   ", "it starts with"),
        (b"<html>Application error</html>", "<html>Application error"),
        (b'"text"', "Expected `object`"),
        (b"[]", "Expected `object`"),
        (b"NaN", "it starts with 'NaN'"),
        (b"\xef\xbb\xbf" + PAGE, "it starts with"),
        (PAGE.decode().encode("utf-16"), "not UTF-8"),
        (PAGE[:-1] + b"\xff}", "not UTF-8"),
        (PAGE.replace(b"TEST", b"T\xed\xa0\x80T", 1), "not UTF-8"),
        (b"{}", "page"),
        (b'{"page":{"size":20,"total_elements":0,"number":0}}', "near_earth_objects"),
        (b'{"near_earth_objects":[]}', "page"),
        (body_of(page="null"), "page"),
        (body_of(page='{"size":20}'), "total_elements"),
        (body_of(page='{"size":"20","total_elements":1,"number":0}'), "Expected `int`"),
        (body_of(page='{"size":20.5,"total_elements":1,"number":0}'), "Expected `int`"),
        (body_of(page='{"size":true,"total_elements":1,"number":0}'), "Expected `int`"),
        (body_of(page='{"size":0,"total_elements":1,"number":0}'), "size 0"),
        (body_of(page='{"size":20,"total_elements":-1,"number":0}'), "total_elements -1"),
        (body_of(page='{"size":20,"total_elements":1,"number":-1}'), "number -1"),
        (
            body_of(page='{"size":1,"total_elements":9223372036854775807,"number":0}'),
            "total_elements 9223372036854775807",
        ),
        (body_of(page=f'{{"size":1,"total_elements":{"9" * 5000},"number":0}}'), "not"),
        (b'{"page":{"size":1,"total_elements":1,"number":0},"near_earth_objects":{}}', "near_earth_objects"),
        (b'{"page":{"size":1,"total_elements":1,"number":0},"near_earth_objects":NaN}', "not a list"),
        (b'{"a":NaN,"near_earth_objects":[]}', "it has no 'page'"),
        (b'{"a":NaN,"page":5,"near_earth_objects":[]}', "in `page`"),
        (b'{"code":400,"http_error":"BAD_REQUEST","error_message":"x","request":"y"}', "not a Browse page"),
        (b'{"a":NaN,"page":{"size":NaN}}', "in `page`"),
    ],
)
def test_invalid_page_is_refused_with_a_reason(body: bytes, reason: str) -> None:
    with pytest.raises(BadPageError) as caught:
        envelope.check(body, 0)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_page_with_another_number_is_refused() -> None:
    assert envelope.check(PAGE, 1, 20) == INFO
    with pytest.raises(BadPageError, match="expected page 2, but this is page 1"):
        envelope.check(PAGE, 2)
    with pytest.raises(BadPageError, match="page 1 has size 20, but the run was planned with 10"):
        envelope.check(PAGE, 1, 10)


@pytest.mark.parametrize("held", [0, 1, 19, 21])
def test_wrong_number_of_objects_is_refused(held: int) -> None:
    page = json.loads(PAGE)
    page["near_earth_objects"] = catalogue(held)
    with pytest.raises(BadPageError, match=f"page 1 announces 20 objects, but holds {held}"):
        envelope.check(json.dumps(page).encode(), 1)


@given(st.integers(1, 50), st.integers(0, 500), st.integers(0, 20))
def test_announced_objects_follow_from_the_positions(size: int, total: int, number: int) -> None:
    info = PageInfo(size, total, number)
    positions = [position for position in range(total) if position // size == number]
    assert info.announced_objects == len(positions)
    if positions:
        assert info.first_position == positions[0]


def test_page_beyond_the_last_announces_no_objects() -> None:
    assert envelope.check(browse_page(catalogue(5), 7, 20), 7).announced_objects == 0


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity", '"\\ud800"', "9" * 5000, "1e999"])
def test_nan_and_infinity_do_not_cost_the_page(token: str) -> None:
    objects = [f'{{"a":{token}}}', '{"b":[1]}']
    body = body_of(", ".join(objects), page=f'{{"size":2,"total_elements":2,"number":0,"x":{token}}}')
    try:
        info, found = envelope.split(body)
    except BadPageError:
        # In the envelope's `page` member, it may cost the page.
        info, found = envelope.split(body.replace(f',"x":{token}'.encode(), b""))
    assert info == PageInfo(2, 2, 0)
    assert found == [text.encode() for text in objects]
    before = (
        f'{{"links":{{"x":{token}}},'.encode()
        + body_of(", ".join(objects), page='{"size":2,"total_elements":2,"number":0}')[1:]
    )
    assert envelope.split(before)[1] == found


@pytest.mark.parametrize("depth", [10, 900, 100_000])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deep_nesting_is_read_or_refused(opening: str, depth: int) -> None:
    closing = "]" if opening == "[" else "}"
    for body in (
        body_of(opening * depth + "1" + closing * depth),
        body_of(opening * depth),
        (opening * depth).encode(),
        body_of(page=opening * depth + "1" + closing * depth),
        body_of("NaN," + opening * depth + "1" + closing * depth),
    ):
        never_another_error(body)
    if depth == 10:
        assert envelope.check(body_of(opening * depth + "1" + closing * depth), 0).size == 1


def test_last_of_two_object_lists_is_used() -> None:
    page = '{"size":1,"total_elements":1,"number":0}'
    for extra in ("", ',"x":NaN'):
        body = f'{{"near_earth_objects":[1,2],"page":{page},"near_earth_objects":[{{"id":"2"}}]{extra}}}'.encode()
        assert envelope.split(body) == (PageInfo(1, 1, 0), [b'{"id":"2"}'])


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@example(b'{"page":{"size":1,"total_elements":0,"number":0},"near_earth_objects":[]')
@example(b'{"page"')
@example(b"{")
@example(b'{"a":NaN,"near_earth_objects":')
def test_any_bytes_are_a_page_or_a_bad_page_error(body: bytes) -> None:
    never_another_error(body)
    never_another_error(b'{"page":' + body)
    never_another_error(b'{"near_earth_objects":[' + body + b'],"page":{"size":1,"total_elements":1,"number":0}}')


SMALL = browse_page([{"id": "1", "name": '\u00e9\\"', "x": [1.5, None, True]}, {"id": "2"}], 0, 2)
# Structural bytes of JSON, and others.
TELLING = [
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"',
    b"\\",
    b"NaN",
    b"\\ud800",
    b"0",
    b"-",
    b"e",
    b" ",
    b"\n",
    b"\x00",
    b"\xc3",
    b"null",
]


@given(
    st.lists(st.tuples(st.integers(0, len(SMALL)), st.integers(0, 3), st.sampled_from(TELLING)), min_size=1, max_size=3)
)
def test_strict_and_lenient_parser_agree_on_damaged_pages(changes: list[tuple[int, int, bytes]]) -> None:
    body = SMALL
    for at, removed, added in changes:
        body = body[:at] + added + body[at + removed :]
    never_another_error(body)
    try:
        strict = envelope._envelope.decode(body)
        body.decode()
    except Exception:  # noqa: BLE001 - then there is nothing to compare
        return
    try:
        expected = envelope.validated_info(strict.page), [bytes(raw) for raw in strict.near_earth_objects]
    except BadPageError:
        with pytest.raises(BadPageError):
            leniently(body)
        return
    assert leniently(body) == expected


values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(values, max_size=4), values, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_strict_and_lenient_parser_agree_with_the_standard_library(
    objects: list[Any], links: Any, escaped: bool, indent: int | str | None
) -> None:
    info = {"size": 4, "total_elements": len(objects), "number": 0}
    page = {"links": links, "page": info, "near_earth_objects": objects, "more": links}
    body = json.dumps(page, ensure_ascii=escaped, indent=indent).encode(errors="surrogatepass")
    assert envelope.check(body, 0) == PageInfo(4, len(objects), 0)
    split = envelope.split(body)
    assert split == leniently(body)
    assert repr([json.loads(text) for text in split[1]]) == repr(json.loads(body)["near_earth_objects"])
    assert repr([envelope.parse(text) for text in split[1]]) == repr(json.loads(body)["near_earth_objects"])


def test_long_numbers_are_marked() -> None:
    found = envelope.parse(f"[{'1' * 64}, {'1' * 65}, 1.{'0' * 62}, 1.{'0' * 63}, {'9' * 5000}]".encode())
    assert [isinstance(value, envelope.LongNumber) for value in found] == [False, True, False, True, True]
    assert found[0] == int("1" * 64)
    assert [value.chars for value in found if isinstance(value, envelope.LongNumber)] == [65, 65, 5000]
    assert found[3] == 1.0
    assert found[4] == float("inf")


@given(st.lists(st.text("ab/~01", max_size=4) | st.integers(0, 99)))
def test_pointer_resolves_to_its_parts(parts: list[str | int]) -> None:
    text = envelope.pointer(*parts)
    found = [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]
    assert found == [str(part) for part in parts]


@given(st.lists(st.sampled_from([0, 65, 0x7F, 0x80, 0xA0, 0xBF, 0xC0, 0xC3, 0xE0, 0xED, 0xEF, 0xF0, 0xF4, 0xF5, 0xFF])))
def test_is_utf8_agrees_with_python(values: list[int]) -> None:
    body = bytes(values)
    try:
        body.decode()
    except UnicodeDecodeError:
        assert not envelope.is_utf8(body)
    else:
        assert envelope.is_utf8(body)

"""Answers that nobody should give: the bytes of whole HTTP answers, made up by hypothesis.

Each begins as a good page, and then its parts go wrong: what the JSON says, how it is encoded, how the
body is framed, which headers and which status line go with it, and where the caller's key is echoed.
"""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from hypothesis import strategies as st

from tests.neos import catalogue

if TYPE_CHECKING:
    from collections.abc import Callable

KEY: Final = "b7d0a3c58e914f62a1d7c0b39e5f8246d1a0c3e7"
NUMBER: Final = 0
SIZE: Final = 3
BOMB_BYTES: Final = 16 << 20
_DEEP: Final = 100_000

_full = "".join(f"%{byte:02x}" for byte in KEY.encode())
KEY_FORMS: Final = (
    KEY,
    f"?api_key={KEY}",
    f"http://api.nasa.gov/neo/rest/v1/neo/1?api_key={KEY}&x=1",
    _full,
    _full.upper(),
    quote(f"?api_key={KEY}", safe=""),
    base64.b64encode(KEY.encode()).decode(),
    base64.b64encode(f"user:{KEY}".encode()).decode(),
    base64.urlsafe_b64encode(f"xy{KEY}z".encode()).decode(),
    f"{KEY}{KEY}",
)

# JSON texts that stand where a value should.
LITERALS: Final = (
    *("null", "true", "false", "0", "-0", "1", "-1", "1.5", "1e400", "-1e400", "1E+3", "9" * 19, "9" * 64, "9" * 5_000),
    *(f"1.{'0' * 5_000}1", "-" + "9" * 5_000, "1e99999999999", "0.1e-99999", "9223372036854775808", "1e19"),
    *("NaN", "Infinity", "-Infinity", "nan", "+1", "01", ".5", "5.", "0x10", "1_000", "--1", "-", "1e", ""),
    *(
        "{}",
        "[]",
        "[null]",
        "[{}]",
        "[[]]",
        '{"x":1}',
        '{"":{}}',
        "[" * 300 + "]" * 300,
        '{"a":' * 300 + "1" + "}" * 300,
    ),
    *(
        "[" * 900 + "]" * 900,
        "[" * 960 + "]" * 960,
        "[" * 990 + "]" * 990,
        "[" * _DEEP,
        '{"a":' * _DEEP,
        "[" * _DEEP + "]" * _DEEP,
    ),
    *('""', '"x"', '"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude42"', '"\\x"', '"\\u12"', '"unfinished'),
    *('"1"', '"-1"', '"1e400"', '"NaN"', '" 1"', f'"{"1" * 5_000}"', '"1_0"', '"\u0661"', '".5"', '"+5"', '"1\\n"'),
    *('"2026-02-30"', '"0000-01-01"', '"10000-01-01"', '"2026-1-1"', '"Earth"', '"\\ud800arth"', f'"{"x" * 70_000}"'),
    *(json.dumps(form) for form in KEY_FORMS),
    json.dumps(KEY)[:-1] + "\\",
)
_NAMES: Final = (
    *("id", "neo_reference_id", "name", "name_limited", "designation", "nasa_jpl_url", "absolute_magnitude_h", "links"),
    *("is_potentially_hazardous_asteroid", "estimated_diameter", "meters", "estimated_diameter_min", "orbital_data"),
    *("first_observation_date", "observations_used", "orbital_period", "close_approach_data", "close_approach_date"),
    *("epoch_date_close_approach", "orbiting_body", "miss_distance", "astronomical", "kilometers", "relative_velocity"),
    *("kilometers_per_second", "page", "size", "total_elements", "number", "near_earth_objects", "self"),
    *("", "\ud800", "\0", KEY, "api_key", "x" * 5_000, "__class__", "constructor"),
)


def page() -> dict[str, Any]:
    """The page that is asked for, good in all."""
    info = {"size": SIZE, "total_elements": 7, "total_pages": 3, "number": NUMBER}
    return {"links": {"self": f"http://x/?api_key={KEY}"}, "page": info, "near_earth_objects": catalogue(SIZE)}


def good_body() -> bytes:
    """Its JSON."""
    return json.dumps(page()).encode()


class _Spoiled:
    """Writes JSON whose members are exchanged, doubled, dropped or renamed here and there."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any], nodes: int) -> None:
        self._draw = draw
        self._at = set(draw(st.lists(st.integers(0, nodes - 1), max_size=3)))
        self._node = -1

    def text(self, value: Any) -> str:
        self._node += 1
        if self._node in self._at:
            self._node += _nodes(value) - 1
            return str(self._draw(st.sampled_from(LITERALS)))
        if isinstance(value, dict):
            return "{" + ",".join(self._member(name, beneath) for name, beneath in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ",".join(self.text(entry) for entry in value) + "]"
        return json.dumps(value)

    def _member(self, name: str, value: Any) -> str:
        if self._node + 1 not in self._at:
            return f"{json.dumps(name)}:{self.text(value)}"
        how = self._draw(st.sampled_from(["exchange", "rename", "double", "drop", "add"]))
        if how == "exchange":
            return f"{json.dumps(name)}:{self.text(value)}"
        self._node += _nodes(value)
        written = f"{json.dumps(name)}:{json.dumps(value)}"
        if how == "drop":
            return '"dropped":0'
        other = json.dumps(name if how == "double" else self._draw(st.sampled_from(_NAMES)))
        literal = self._draw(st.sampled_from(LITERALS))
        return f"{other}:{json.dumps(value)}" if how == "rename" else f"{written},{other}:{literal}"


def _nodes(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(_nodes(beneath) for beneath in value.values())
    return 1 + sum(_nodes(entry) for entry in value) if isinstance(value, list) else 1


_NODES: Final = _nodes(page())


@st.composite
def _spoiled(draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
    return _Spoiled(draw, _NODES).text(page()).encode(errors="surrogatepass")


@st.composite
def _bytes_wrong(draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
    """A page whose bytes went wrong: cut, doubled, torn or written over."""
    body = bytearray(draw(_spoiled()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(body)))
        match draw(st.sampled_from(["cut", "insert", "replace", "flip", "repeat"])):
            case "cut":
                del body[at:]
            case "insert":
                body[at:at] = draw(_snippets)
            case "replace":
                body[at : at + 8] = draw(_snippets)
            case "flip":
                if at < len(body):
                    body[at] ^= 1 << draw(st.integers(0, 7))
            case "repeat":
                body[at:at] = body[at : at + 500]
    return bytes(body)


_snippets = st.sampled_from(
    [b"\0", b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xef\xbb\xbf", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":"]
    + [b"\n", b"NaN", b"1e5", b"//", b"/**/", b"'", KEY.encode(), b"\xe2\x80\xa8", b"\xf0\x9f\x99\x82"]
)
_strange = st.sampled_from(
    [
        *(
            b"",
            b" ",
            b"\n",
            b"null",
            b"[]",
            b"{}",
            b"0",
            b'"x"',
            b"NaN",
            b"{",
            b"\0" * 1_000,
            b"\xef\xbb\xbf" + good_body(),
        ),
        *(json.dumps(page()).encode(coding) for coding in ("utf-16", "utf-16-le", "utf-32")),
        *(
            b"[" * _DEEP,
            b'{"a":' * _DEEP,
            b"[" * _DEEP + b"]" * _DEEP,
            b"9" * 5_000,
            b"-" * 5_000,
            b'"' + b"\\" * 9_999,
        ),
        *(
            good_body() + b"{}",
            good_body() + b"\0",
            good_body() + good_body(),
            good_body()[:-1],
            b" " * 9_999 + good_body(),
        ),
        *(b"<html>Application error</html>", b"<html>" + KEY.encode() + b"</html>", good_body().replace(b'"', b"'")),
        b'{"error":{"code":"API_KEY_INVALID","message":"' + KEY.encode() + b'"}}',
        b'{"code":400,"request":"http://x/?api_key=' + KEY.encode() + b'"}',
        json.dumps({"page": page()["page"], "near_earth_objects": [0] * 200_000}).encode(),
        json.dumps({"page": page()["page"] | {"size": 10**8}, "near_earth_objects": [{}] * 100_000}).encode(),
        *(form.encode() for form in KEY_FORMS),
    ]
)
bodies = st.one_of(_spoiled(), _spoiled(), _spoiled(), _bytes_wrong(), _strange, st.binary(max_size=200))


def _bomb() -> bytes:
    squeeze = zlib.compressobj(9, wbits=31)
    return b"".join(squeeze.compress(b" " * (1 << 20)) for _ in range(BOMB_BYTES >> 20)) + squeeze.flush()


_BOMB: Final = _bomb()
_CODINGS: Final[tuple[tuple[str | None, Callable[[bytes], bytes]], ...]] = (
    *((None, bytes),) * 4,
    *(("gzip", lambda body: gzip.compress(body, 1, mtime=0)),) * 4,
    ("x-gzip", lambda body: gzip.compress(body, 1, mtime=0)),
    (" GZIP ", lambda body: gzip.compress(body, 1, mtime=0)),
    (None, lambda body: gzip.compress(body, 1, mtime=0)),
    ("gzip", bytes),
    ("gzip", lambda body: gzip.compress(body, 1, mtime=0)[:-5]),
    ("gzip", lambda body: gzip.compress(body, 1, mtime=0)[:-8] + b"\0" * 8),
    ("gzip", lambda body: gzip.compress(body, 1, mtime=0) + b"trailing"),
    ("gzip", lambda body: gzip.compress(body[:100], 1, mtime=0) + gzip.compress(body[100:], 1, mtime=0)),
    ("gzip", lambda _: gzip.compress(b"", mtime=0) * 5_000),
    ("gzip", lambda _: _BOMB),
    ("gzip", lambda _: b""),
    ("gzip", zlib.compress),
    ("gzip", lambda body: gzip.compress(gzip.compress(body, mtime=0), mtime=0)),
    ("gzip, gzip", lambda body: gzip.compress(gzip.compress(body, mtime=0), mtime=0)),
    ("deflate", zlib.compress),
    ("br", bytes),
    ("zstd", bytes),
    ("identity", bytes),
    (KEY, bytes),
    ("", bytes),
)
codings = st.sampled_from(_CODINGS)

_NUMBERS: Final = (
    *("0", "1", "1000", "999999999", "9" * 10, "9" * 5_000, "-1", "-0", "+5", "1.5", "1e3", "NaN", "inf", "", " 7 "),
    *("0x10", "1,000", "1;2", "\u0661", "\u00b2", "Wed, 21 Oct 2115 07:28:00 GMT", "Wed, 99 Foo 0000 99:99:99", KEY),
)
_PLACES: Final = (
    *(
        "http://KEY.example/",
        "https://api.nasa.gov/?api_key=KEY",
        "/?api_key=KEY",
        "KEY",
        "",
        "//",
        "http://",
        "http:///",
    ),
    *(
        "http://[KEY/",
        "http://[::1",
        "http://x:99999999/",
        "http://x:KEY/",
        "http://xn--zzzzzzzzzz99999/",
        "http://xn--/",
    ),
    *(
        "http://xn--KEY/",
        "http://\u00e9\u00e9.example",
        "http://a..b/",
        f"http://{'x' * 300}/",
        "javascript:KEY",
        "mailto:x@KEY",
    ),
    *("http://user:KEY@x/", "\x01", "http://x/\x7f", "x" * 60_000, "http://x/%", "ftp://x", "http://xn--\u00e9KEY/"),
)
_texts = st.one_of(st.sampled_from(KEY_FORMS), st.text(max_size=20), st.just("x" * 20_000))
_named: Final = [
    st.tuples(
        st.sampled_from(["X-RateLimit-Limit", "X-RateLimit-Remaining", "Retry-After", "x-ratelimit-remaining", "Age"]),
        st.sampled_from(_NUMBERS),
    ),
    st.tuples(st.just("Location"), st.sampled_from(_PLACES).map(lambda place: place.replace("KEY", KEY))),
    st.tuples(st.sampled_from(["Set-Cookie", "Content-Type", "Link", "Via", "WWW-Authenticate", "X-Api-Key"]), _texts),
    st.tuples(
        st.sampled_from(["Connection", "Upgrade"]), st.sampled_from(["close", "keep-alive", "upgrade", "h2c", KEY])
    ),
]
_header = st.one_of(
    *(named.map(lambda pair: f"{pair[0]}: {pair[1]}".encode()) for named in (*_named, _named[0], _named[0])),
)
_broken_header = st.sampled_from(
    [
        b"no colon " + KEY.encode(),
        b": no name",
        b"Bad Name: x",
        b" folded: x",
        b"X: a\0b",
        b"X: \xff\xfe",
        b"X\x7f: 1",
        b"\xff: 1",
    ]
    + [KEY.encode() + b" : x", b"X: " + KEY.encode() + b"\0", b"Content-Length: KEY".replace(b"KEY", KEY.encode())]
)
_quota = st.tuples(st.sampled_from(_NUMBERS), st.sampled_from(_NUMBERS)).map(
    lambda pair: [f"X-RateLimit-Limit: {pair[0]}".encode(), f"X-RateLimit-Remaining: {pair[1]}".encode()]
)
_flood = st.sampled_from([[b"X-%d: 1" % number for number in range(count)] for count in (100, 2_000, 20_000)])
headers = st.one_of(
    *(st.lists(_header, max_size=4),) * 4,
    *(_quota,) * 3,
    st.lists(st.one_of(_header, _broken_header), min_size=1, max_size=4),
    _flood,
)

_STATUS: Final = (
    *(b"HTTP/1.1 200 OK",) * 20,
    *(b"HTTP/1.1 %d Any" % code for code in (201, 204, 206, 300, 301, 302, 303, 304, 307, 308, 399)),
    *(b"HTTP/1.1 %d Any" % code for code in (400, 401, 403, 404, 405, 408, 410, 418, 421, 429, 429, 429, 451, 499)),
    *(b"HTTP/1.1 %d Any" % code for code in (500, 501, 502, 503, 503, 504, 505, 511, 599, 600, 700, 999, 199, 101)),
    *(b"HTTP/1.0 200 OK", b"HTTP/1.1 200", b"HTTP/1.1 200 " + KEY.encode(), b"HTTP/1.1 503 " + KEY.encode() * 50),
    *(
        b"HTTP/2 200 OK",
        b"HTTP/9.9 200 OK",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 -200 OK",
        b"HTTP/1.1 abc",
    ),
    *(
        b"",
        b" ",
        b"\0" * 50,
        b"ICY 200 OK",
        b"SSH-2.0-OpenSSH",
        b"GET / HTTP/1.1",
        KEY.encode(),
        b"HTTP/1.1 200 \xff\xfe",
    ),
    *(b"\x16\x03\x01\x02", b"HTTP/1.1 200 OK\x00", b"HTTP/1.1\t200\tOK", b"http/1.1 200 ok", b"<html>"),
)
_BEFORE: Final = (
    *(b"",) * 12,
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 500,
    b"HTTP/1.1 103 Early Hints\r\nLink: " + KEY.encode() + b"\r\n\r\n",
    b"HTTP/1.1 102 Any\r\nContent-Length: 5\r\n\r\n",
    b"\r\n\r\n",
)


def _chunked(body: bytes, size: int, *, tail: bytes = b"0\r\n\r\n") -> bytes:
    chunks = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + tail


_CHUNKED: Final = b"Transfer-Encoding: chunked"
_LENGTH: Final = b"Content-Length: %d"
_FRAMES: Final[tuple[Callable[[bytes], tuple[list[bytes], bytes]], ...]] = (
    *(lambda body: ([_LENGTH % len(body)], body),) * 6,
    *(lambda body: ([_CHUNKED], _chunked(body, 1_000)),) * 3,
    *(lambda body: ([], body),) * 2,
    lambda body: ([_CHUNKED], _chunked(body[:5_000], 1)),
    lambda body: ([_CHUNKED], _chunked(body, 1_000, tail=b"")),
    lambda body: ([_CHUNKED], _chunked(body, 1_000, tail=b"0\r\nX-Trailer: " + KEY.encode() + b"\r\n\r\n")),
    lambda body: ([_CHUNKED], b"-1\r\n" + body),
    lambda body: ([_CHUNKED], b"f" * 30 + b"\r\n" + body),
    lambda body: ([_CHUNKED], b"ffffffffffff\r\n" + body),
    lambda body: ([_CHUNKED], KEY.encode() + b"\r\n" + body),
    lambda body: ([_CHUNKED], b"5;" + b"x" * 200_000 + body),
    lambda body: ([_CHUNKED], _chunked(body, 1_000).replace(b"\r\n", b"\n")),
    lambda body: ([_CHUNKED, _LENGTH % len(body)], _chunked(body, 1_000)),
    lambda body: ([b"Transfer-Encoding: gzip, chunked"], _chunked(body, 1_000)),
    lambda body: ([b"Transfer-Encoding: " + KEY.encode()], body),
    lambda body: ([_LENGTH % (len(body) + 1)], body),
    lambda body: ([_LENGTH % max(0, len(body) - 1)], body),
    lambda body: ([_LENGTH % 0], body),
    lambda body: ([b"Content-Length: -1"], body),
    lambda body: ([b"Content-Length: 99999999999999999999"], body),
    lambda body: ([_LENGTH % len(body), _LENGTH % (len(body) + 1)], body),
    lambda body: ([b"Content-Length: 5, 5"], body),
    lambda body: ([b"X-Huge: " + b"x" * 200_000], body),
)
frames = st.sampled_from(_FRAMES)


@st.composite
def answers(draw: Callable[[st.SearchStrategy[Any]], Any]) -> list[bytes]:
    """The bytes that a server sends after a request, as they come in; then it closes the connection."""
    coding, encode = draw(codings)
    framing, framed = draw(frames)(encode(draw(bodies)))
    lines = [draw(st.sampled_from(_STATUS)), *framing, *draw(headers)]
    if coding is not None:
        lines.append(b"Content-Encoding: " + coding.encode())
    sent = draw(st.sampled_from(_BEFORE)) + b"\r\n".join(lines) + b"\r\n\r\n" + framed
    cut = draw(st.one_of(st.none(), st.none(), st.none(), st.integers(0, 600)))
    sent = sent if cut is None else sent[: max(0, len(sent) - cut)]
    step = draw(st.sampled_from([65_536, 65_536, 1_000, 100])) if len(sent) < 100_000 else 65_536
    return [sent[at : at + step] for at in range(0, len(sent), step)]

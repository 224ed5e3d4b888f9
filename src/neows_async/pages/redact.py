"""Removes keys from bodies. Pure.

The source prints the caller's key into every ``links`` of a page, about 22 times, and into its error texts. The value
of every ``api_key`` parameter becomes ``REDACTED``, also if it is another caller's key. The literal key is replaced,
too, with its encodings, if it has at least 16 characters: a key of one letter must not damage a page. The same applies
to the first part of a key at the end of a body that was cut there.
"""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

REDACTED: Final = b"REDACTED"
LITERAL_MIN_CHARS: Final = 16

# The value ends where the URL parameter or the JSON string ends, also if that character is a JSON or percent escape.
_PARAMETER: Final = re.compile(
    rb"""(api(?:_|%5[Ff]|\\u005[fF])key(?:=|%3[Dd]|\\u003[dD]))(?:[^&"'\\\s\#;<>%]|\\/|\\u(?!00(?:26|22|23|27|3[BbCcEe]|20))|%(?!26|22|23|3[BbCcEe]|20))+"""
)
_PLAIN: Final = b"api_key="
# More matches than this in a page are not looked at one by one.
_FEW: Final = 1_000
# All parameter values of a page are about a kilobyte. The regular expression is slow, so longer values go another way.
_VALUES_BYTES: Final = 16 << 10
_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9-]*")
_WORD_BYTES: Final = 8
_TABLE_BITS: Final = 16
_MIXER: Final = 0x9E3779B97F4A7C15  # odd: a product's upper bits depend on all of the word's
# Below this a plain search is faster than the prefilter.
_PREFILTER_BYTES: Final = 64 << 10
_ESCAPE: Final = re.compile(rb"%[0-9A-F]{2}")


class Redactor:
    """``redactor(body)`` is ``body`` without keys.

    :param keys: the caller's own keys
    """

    __slots__ = ("_are_plain", "_literals", "_prefilter")

    def __init__(self, *keys: str) -> None:
        literals = {form for key in keys if len(key) >= LITERAL_MIN_CHARS for form in _forms(key)}
        # The longest first: a shorter one may be a part of it.
        self._literals = sorted(literals, key=lambda form: (-len(form), form))
        self._prefilter: _Prefilter | None = None
        # No form of such a key contains a character that ends a parameter, or the text that starts one.
        self._are_plain = all(_PLAIN_KEY.fullmatch(key) for key in keys)

    def __call__(self, body: bytes) -> bytes:
        """Idempotent; a body without keys is returned as it is."""
        # Most keys are values of parameters, so this pass removes most of them.
        if self._are_plain:
            body = _without_parameters(body)
        # For other keys the literals come first: one may contain a character that ends a parameter.
        before = body
        while held := next((literal for literal in self._suspected(body) if literal in body), None):
            # The text around a replaced literal may be another literal. The body gets shorter, so the loop ends.
            body = body.replace(held, REDACTED)
        # Removing a key that starts with "0" may destroy a "%20" that ended a parameter.
        body = body if self._are_plain and body is before else _without_parameters(body)
        # Last: a replaced key may have been the one that continued over the end.
        cut = self._cut_off(body)
        return body if cut == len(body) else self(body[:cut] + REDACTED)  # shorter, so the recursion ends

    def _cut_off(self, body: bytes) -> int:
        """Where the first part of a literal starts that ends ``body``; the body's end if there is none."""
        at = len(body)
        for literal in self._literals:
            start = max(0, len(body) - len(literal)) - 1
            while (start := body.find(literal[:LITERAL_MIN_CHARS], start + 1)) >= 0:
                if literal.startswith(body[start:]):
                    at = min(at, start)
                    break
        return at

    def _suspected(self, body: bytes) -> list[bytes]:
        """The literals that may be in ``body``; not all of them are."""
        if len(body) < _PREFILTER_BYTES or not self._literals:
            return self._literals
        if self._prefilter is None:
            self._prefilter = _Prefilter(self._literals)
        return self._prefilter.suspected(body)

    def text(self, text: str) -> str:
        """``text`` without keys."""
        return self(text.encode(errors="backslashreplace")).decode()

    def __repr__(self) -> str:
        return "Redactor(…)"


class _Prefilter:
    """Finds the literals that a body cannot contain, in a fraction of the time of a search, without the GIL.

    A literal of n bytes, anywhere in a body, covers a word of eight bytes that starts at a multiple of n - 7. So only
    those words of the body are looked up among all words of the literals.
    """

    def __init__(self, literals: list[bytes]) -> None:
        import numpy as np  # noqa: PLC0415 - heavy, and only large bodies need it

        self._step = (min(map(len, literals)) + 1 - _WORD_BYTES) // _WORD_BYTES  # in words
        starts = range(self._step * _WORD_BYTES)
        self._held = [(literal, {literal[start : start + _WORD_BYTES] for start in starts}) for literal in literals]
        self._words = np.unique(np.frombuffer(b"".join(word for _, held in self._held for word in held), np.uint64))
        self._table = np.zeros(1 << _TABLE_BITS, np.bool_)
        self._table[self._places(self._words)] = True

    @staticmethod
    def _places(words: NDArray[np.uint64]) -> NDArray[np.int64]:
        places = (words * words.dtype.type(_MIXER)) >> words.dtype.type(8 * _WORD_BYTES - _TABLE_BITS)
        return places.view("int64")  # numpy before 2.1 accepts no uint64 as an index

    def suspected(self, body: bytes) -> list[bytes]:
        """The literals that ``body`` may contain, in their order. Every literal in ``body`` is among them."""
        import numpy as np  # noqa: PLC0415 - as above

        # Without the GIL: other tasks decode meanwhile.
        words = np.frombuffer(body, np.uint64, len(body) // _WORD_BYTES)[:: self._step]
        suspects = words[self._table[self._places(words)]]
        suspects = suspects[self._words[np.searchsorted(self._words[:-1], suspects)] == suspects]
        if not len(suspects):
            return []
        if len(suspects) > _FEW:  # searching for all literals is faster
            return [literal for literal, _ in self._held]
        found = {word.tobytes() for word in suspects}
        return [literal for literal, held in self._held if not held.isdisjoint(found)]


def _without_parameters(body: bytes) -> bytes:
    redacted = _without_plain_parameters(body)
    return _PARAMETER.sub(rb"\1" + REDACTED, body) if redacted is None else redacted


def _without_plain_parameters(body: bytes) -> bytes | None:
    """The fast way, for a body without escapes: search for "=", of which a page has a few dozen.

    It takes a seventh of the time of the regular expression over the whole body. None if the body is not that simple.
    """
    if b"%" in body or b"\\" in body:
        return None
    parts: list[bytes | memoryview] = []
    whole = memoryview(body)  # its slices are no copies
    done = at = seen = 0
    left_bytes = _VALUES_BYTES
    while (at := body.find(b"=", at) + 1) > 0:
        seen += 1
        if seen > _FEW:
            return None
        if not body.startswith(_PLAIN, at - len(_PLAIN)):
            continue
        if found := _PARAMETER.match(body, at - len(_PLAIN), at + left_bytes):
            left_bytes -= found.end() - at
            if left_bytes <= 0:
                return None
            if body[at : found.end()] != REDACTED:
                parts += (whole[done:at], REDACTED)
                done = found.end()
            at = found.end()
    if not parts:
        return body
    parts.append(whole[done:])
    return b"".join(parts)


def _forms(key: str) -> set[bytes]:
    raw = key.encode()
    forms = {raw, json.dumps(key)[1:-1].encode()}
    for encode in (base64.standard_b64encode, base64.urlsafe_b64encode):
        for before in range(3):
            # Inside a longer text the key's base64 has three forms, depending on where it starts, and the first and
            # last letters depend on the text around it: take the letters that depend on the key alone.
            code = encode(b"\0" * before + raw).rstrip(b"=")
            start = (before * 8 + 5) // 6
            stop = (before + len(raw)) * 8 // 6
            forms.add(code[start:stop])
    for form in list(forms):
        forms |= {quote(form, safe="").encode(), quote(form).encode(), quote_plus(form).encode()}
    forms.add("".join(f"%{byte:02X}" for byte in raw).encode())
    forms |= {_ESCAPE.sub(lambda found: found[0].lower(), form) for form in forms}
    return forms | {form.replace(b"/", rb"\/") for form in forms}

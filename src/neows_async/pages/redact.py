"""Takes keys out of bodies. Pure.

The source prints the caller's key into every ``links`` of a page, 22 times or so, and into its
error texts. Scrubbing is structural: the value of every ``api_key`` parameter, whoever's, becomes
``REDACTED``. The literal key goes too, with its encodings, but only if it is long enough not to be
found in innocent data: a key of one letter must not damage a page. So does the beginning of a literal at the end of a
body that was cut there.
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

# The value ends where a URL parameter or the JSON string does, also where those characters are
# written as JSON or percent escapes.
_PARAMETER: Final = re.compile(
    rb"""(api(?:_|%5[Ff]|\\u005[fF])key(?:=|%3[Dd]|\\u003[dD]))(?:[^&"'\\\s\#;<>%]|\\/|\\u(?!00(?:26|22|23|27|3[BbCcEe]|20))|%(?!26|22|23|3[BbCcEe]|20))+"""
)
_PLAIN: Final = b"api_key="
# More than a page ever has of what is looked at one by one.
_FEW: Final = 1_000
# The values of a page's parameters together are a kilobyte; each byte takes as long to look at as two hundred others.
_VALUES_BYTES: Final = 16 << 10
_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9-]*")
_WORD_BYTES: Final = 8
_TABLE_BITS: Final = 16
_MIXER: Final = 0x9E3779B97F4A7C15  # odd: a product's upper bits depend on all of the word's
# Below this it takes longer to ask the sieve than to search.
_SIEVED_BYTES: Final = 64 << 10
_ESCAPE: Final = re.compile(rb"%[0-9A-F]{2}")


class Redactor:
    """``scrubber(body)`` is ``body`` without keys.

    :param keys: the keys that are ours; never shown again
    """

    __slots__ = ("_are_plain", "_literals", "_sieve")

    def __init__(self, *keys: str) -> None:
        literals = {form for key in keys if len(key) >= LITERAL_MIN_CHARS for form in _forms(key)}
        # The longest first: a shorter one may be a part of it.
        self._literals = sorted(literals, key=lambda form: (-len(form), form))
        self._sieve: _Prefilter | None = None
        # No form of such a key holds what ends a parameter, or the beginning of one.
        self._are_plain = all(_PLAIN_KEY.fullmatch(key) for key in keys)

    def __call__(self, body: bytes) -> bytes:
        """Idempotent; a body without keys comes back as it is."""
        # Where most keys are the values of parameters, they go in one pass with those.
        if self._are_plain:
            body = _without_parameters(body)
        # Otherwise the literals first: one of them may hold a character at which a parameter would end.
        came = body
        while held := next((literal for literal in self._suspected(body) if literal in body), None):
            body = body.replace(held, REDACTED)  # shorter; but it may make a new one with its neighbours
        # "%20" may have ended a parameter, and be none any more when a key that begins with "0" is gone.
        body = body if self._are_plain and body is came else _without_parameters(body)
        cut = self._cut_off(body)
        return body if cut == len(body) else self(body[:cut] + REDACTED)  # shorter, as above

    def at_once(self, body: bytes) -> bytes | None:
        """The same within a millisecond a megabyte; None for a body that takes longer, be it odd or hostile."""
        if len(body) < _SIEVED_BYTES:
            return self(body)
        scrubbed = _without_plain_parameters(body)
        if scrubbed is None or self._suspected(scrubbed if self._are_plain else body):
            return None  # what is suspected is looked for in all of the body
        return scrubbed if self._cut_off(scrubbed) == len(scrubbed) else None

    def _cut_off(self, body: bytes) -> int:
        """Where what is left of a literal begins that ``body`` ends with, if it was cut there; else the body's end."""
        at = len(body)
        for literal in self._literals:
            start = max(0, len(body) - len(literal)) - 1
            while (start := body.find(literal[:LITERAL_MIN_CHARS], start + 1)) >= 0:
                if literal.startswith(body[start:]):
                    at = min(at, start)
                    break
        return at

    def _suspected(self, body: bytes) -> list[bytes]:
        """The literals that may be in ``body``, and some that are not."""
        if len(body) < _SIEVED_BYTES or not self._literals:
            return self._literals
        if self._sieve is None:
            self._sieve = _Prefilter(self._literals)
        return self._sieve.suspected(body)

    def text(self, text: str) -> str:
        """The same for a message."""
        return self(text.encode(errors="backslashreplace")).decode()

    def __repr__(self) -> str:
        return "Scrubber(…)"


class _Prefilter:
    """Tells in a fraction of the time of a search, and without the GIL, which literals a body cannot hold.

    Wherever a literal of n bytes lies in a body, it covers a word of eight bytes that begins at a multiple of
    n - 7 or of less. So only those words are looked at, and looked up among all words that a literal has.
    """

    def __init__(self, literals: list[bytes]) -> None:
        import numpy as np  # noqa: PLC0415 - whoever reads no pages does without

        self._step = (min(map(len, literals)) + 1 - _WORD_BYTES) // _WORD_BYTES  # in words
        starts = range(self._step * _WORD_BYTES)
        self._held = [(literal, {literal[start : start + _WORD_BYTES] for start in starts}) for literal in literals]
        self._words = np.unique(np.frombuffer(b"".join(word for _, held in self._held for word in held), np.uint64))
        self._table = np.zeros(1 << _TABLE_BITS, np.bool_)
        self._table[self._places(self._words)] = True

    @staticmethod
    def _places(words: NDArray[np.uint64]) -> NDArray[np.int64]:
        places = (words * words.dtype.type(_MIXER)) >> words.dtype.type(8 * _WORD_BYTES - _TABLE_BITS)
        return places.view("int64")  # what numpy before 2.1 takes for an index; they are small

    def suspected(self, body: bytes) -> list[bytes]:
        """Those that may be there, in their order; never without one that is."""
        import numpy as np  # noqa: PLC0415 - as above

        words = np.frombuffer(body, np.uint64, len(body) // _WORD_BYTES)[:: self._step]
        suspects = words[self._table[self._places(words)]]
        suspects = suspects[self._words[np.searchsorted(self._words[:-1], suspects)] == suspects]
        if not len(suspects):
            return []
        if len(suspects) > _FEW:  # each of them would take longer than to search for all literals
            return [literal for literal, _ in self._held]
        found = {word.tobytes() for word in suspects}
        return [literal for literal, held in self._held if not held.isdisjoint(found)]


def _without_parameters(body: bytes) -> bytes:
    scrubbed = _without_plain_parameters(body)
    return _PARAMETER.sub(rb"\1" + REDACTED, body) if scrubbed is None else scrubbed


def _without_plain_parameters(body: bytes) -> bytes | None:
    """For a body without escapes: there each parameter holds a plain "=", of which a page has a few dozen.

    Looking for them takes a seventh of the time of looking at each byte. None if it is not that simple.
    """
    if b"%" in body or b"\\" in body:
        return None
    parts: list[bytes | memoryview] = []
    whole = memoryview(body)  # of which a slice is no copy
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
            # Inside a longer text the key's base64 depends on where it begins, and its first and
            # last letters on its neighbours: what is left of the three forms is the key's own.
            code = encode(b"\0" * before + raw).rstrip(b"=")
            start = (before * 8 + 5) // 6
            stop = (before + len(raw)) * 8 // 6
            forms.add(code[start:stop])
    for form in list(forms):
        forms |= {quote(form, safe="").encode(), quote(form).encode(), quote_plus(form).encode()}
    forms.add("".join(f"%{byte:02X}" for byte in raw).encode())
    forms |= {_ESCAPE.sub(lambda found: found[0].lower(), form) for form in forms}
    return forms | {form.replace(b"/", rb"\/") for form in forms}

"""Takes keys out of bodies. Pure.

The source prints the caller's key into every ``links`` of a page, 22 times or so, and into its
error texts. Scrubbing is structural: the value of every ``api_key`` parameter, whoever's, becomes
``REDACTED``. The literal key goes too, with its encodings, but only if it is long enough not to be
found in innocent data: a key of one letter must not damage a page.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Final
from urllib.parse import quote, quote_plus

REDACTED: Final = b"REDACTED"
LITERAL_MIN_CHARS: Final = 16

# The value ends where a URL parameter or the JSON string does, also where those characters are
# written as JSON or percent escapes.
_PARAMETER: Final = re.compile(
    rb"""(api(?:_|%5[Ff]|\\u005[fF])key(?:=|%3[Dd]|\\u003[dD]))(?:[^&"'\\\s\#;<>%]|\\/|\\u(?!00(?:26|22|23|27|3[BbCcEe]|20))|%(?!26|22|23|3[BbCcEe]|20))+"""
)
_PLAIN: Final = b"api_key="
_ESCAPE: Final = re.compile(rb"%[0-9A-F]{2}")


class Scrubber:
    """``scrubber(body)`` is ``body`` without keys.

    :param keys: the keys that are ours; never shown again
    """

    __slots__ = ("_literals",)

    def __init__(self, *keys: str) -> None:
        literals = {form for key in keys if len(key) >= LITERAL_MIN_CHARS for form in _forms(key)}
        # The longest first: a shorter one may be a part of it.
        self._literals = sorted(literals, key=lambda form: (-len(form), form))

    def __call__(self, body: bytes) -> bytes:
        """Idempotent; a body without keys comes back as it is."""
        # The literals first: one of them may hold a character at which a parameter would end.
        escaped = b"%" in body
        for literal in self._literals:
            if not escaped and b"%" in literal:
                continue  # none is there, and none comes about: what is put in has no "%"
            while literal in body:  # what comes instead is shorter, but may make a new one with its neighbours
                body = body.replace(literal, REDACTED)
        return _without_parameters(body)

    def text(self, text: str) -> str:
        """The same for a message."""
        return self(text.encode(errors="backslashreplace")).decode()

    def __repr__(self) -> str:
        return "Scrubber(…)"


def _without_parameters(body: bytes) -> bytes:
    if b"%" in body or b"\\" in body:
        return _PARAMETER.sub(rb"\1" + REDACTED, body)
    # Without escapes each parameter holds a plain "=", of which a page has a few dozen: looking for them
    # takes a seventh of the time of looking at each byte.
    parts: list[bytes] = []
    done = at = 0
    while (at := body.find(b"=", at) + 1) > 0:
        if body.startswith(_PLAIN, at - len(_PLAIN)) and (found := _PARAMETER.match(body, at - len(_PLAIN))):
            if body[at : found.end()] != REDACTED:
                parts += (body[done:at], REDACTED)
                done = found.end()
            at = found.end()
    if not parts:
        return body
    parts.append(body[done:])
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

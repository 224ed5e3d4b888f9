"""A request, as the gateway and the backend read it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from neows_async.sandbox.answers import wants_html

if TYPE_CHECKING:
    from neows_async.sandbox.delivery import Message


@dataclass(frozen=True, slots=True, repr=False)
class Request:
    """What was asked, and by whom."""

    method: str
    path: str
    query: dict[str, str]
    query_string: str
    headers: dict[str, str]
    address: str

    @classmethod
    def of(cls, scope: Message) -> Request:
        """From an ASGI scope."""
        query_string = scope.get("query_string", b"").decode("latin-1")
        return cls(
            method=scope["method"],
            path=scope["path"],
            query={name: values[-1] for name, values in parse_qs(query_string).items()},
            query_string=query_string,
            headers={name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]},
            address=scope["client"][0] if scope.get("client") else "",
        )

    @property
    def key(self) -> str:
        """The caller's, the header before the query; empty if there is none."""
        return self.headers.get("x-api-key") or self.query.get("api_key", "")

    @property
    def wants_html(self) -> bool:
        """The format of the gateway's own answers."""
        return wants_html(self.path, self.query.get("format"), self.headers.get("accept", ""))

    def number(self, name: str, default: int) -> int | None:
        """A whole number of the query; None if it is none."""
        text = self.query.get(name, str(default))
        sign, digits = text[:1] == "-", text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 9):  # noqa: PLR2004 - Java's int, about
            return None
        return -int(digits) if sign else int(digits)

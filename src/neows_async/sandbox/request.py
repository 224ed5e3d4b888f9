"""A request, as the gateway and the backend parse it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from neows_async.sandbox.responses import wants_html

if TYPE_CHECKING:
    from neows_async.sandbox.delivery import Message


@dataclass(frozen=True, slots=True, repr=False)
class Request:
    """The parts of a request that decide its response."""

    method: str
    path: str
    query: dict[str, str]
    query_string: str
    headers: dict[str, str]
    address: str

    @classmethod
    def of(cls, scope: Message) -> Request:
        """Parse an ASGI scope."""
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
        """The client's key: from the header, else from the query, else empty."""
        return self.headers.get("x-api-key") or self.query.get("api_key", "")

    @property
    def wants_html(self) -> bool:
        """Whether the gateway's own responses are HTML."""
        return wants_html(self.path, self.query.get("format"), self.headers.get("accept", ""))

    def number(self, name: str, default: int) -> int | None:
        """A whole number in the query; None if the text is not one."""
        text = self.query.get(name, str(default))
        sign, digits = text[:1] == "-", text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 9):  # noqa: PLR2004 - about Java's int
            return None
        return -int(digits) if sign else int(digits)

"""Responses other than a page, as the gateway, the backend and the hosting platform send them. Pure."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote

from neows_async.sandbox.rate_limits import OVER_RATE_LIMIT, Decision

JSON: Final = "application/json;charset=UTF-8"
HTML: Final = "text/html; charset=utf-8"

_HELP: Final = "https://api.nasa.gov:443"
_MESSAGES: Final = {
    "API_KEY_MISSING": f"No api_key was supplied. Get one at {_HELP}",
    "API_KEY_INVALID": f"An invalid api_key was supplied. Get one at {_HELP}",
    "API_KEY_DISABLED": f"The api_key supplied has been disabled. Contact us at {_HELP}/contact/ for assistance",
    "API_KEY_UNVERIFIED": f"The api_key supplied has not been verified yet. Contact us at {_HELP}/contact/",
    "API_KEY_UNAUTHORIZED": "The api_key supplied is not authorized to access the given service.",
    OVER_RATE_LIMIT: f"You have exceeded your rate limit. Try again later or contact us at {_HELP}/contact/",
    "NOT_FOUND": "The requested URL was not found on this server.",
    "INTERNAL_SERVER_ERROR": "An unexpected error has occurred. Try again later.",
}
_NAMES: Final = {400: "BAD_REQUEST", 404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 500: "INTERNAL_SERVER_ERROR"}
_TOO_MANY = 429


@dataclass(frozen=True, slots=True, repr=False)
class SandboxResponse:
    """A whole response. ``headers`` follow the content type."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


def rate_limit_headers(decision: Decision) -> tuple[tuple[str, str], ...]:
    """The gateway's headers about the quota; none on a 403."""
    values = (
        ("x-ratelimit-limit", decision.limit),
        ("x-ratelimit-remaining", decision.remaining),
        ("retry-after", decision.retry_after_s),
    )
    return tuple((name, str(value)) for name, value in values if value is not None)


def wants_html(path: str, query_format: str | None, accept: str) -> bool:
    """Whether the gateway's own responses are HTML: by the path's suffix, then ``?format=``, then ``Accept``."""
    suffix = path.rpartition("/")[2].rpartition(".")[2] if "." in path.rpartition("/")[2] else ""
    for named in (suffix, query_format):
        if named in ("json", "html"):
            return named == "html"
    first = accept.split(",", maxsplit=1)[0].split(";", maxsplit=1)[0].strip().lower()
    return first in ("text/html", "application/xhtml+xml")


def by_gateway(status: int, code: str, *, as_html: bool) -> SandboxResponse:
    """A response of the gateway itself, e.g. 403 ``API_KEY_INVALID``."""
    message = _MESSAGES.get(code, code)
    if as_html:
        text = f"<html><body><h1>{html.escape(code)}</h1><p>{html.escape(message)}</p></body></html>"
        return SandboxResponse(status, text.encode(), "text/html")
    return SandboxResponse(
        status, json.dumps({"error": {"code": code, "message": message}}).encode(), "application/json"
    )


def by_backend(status: int, message: str, request: str, key: str) -> SandboxResponse:
    """A flat error of the backend. It quotes the request with the caller's key, as the real one does."""
    error = {
        "code": status,
        "http_error": _NAMES.get(status, "INTERNAL_SERVER_ERROR"),
        "error_message": message,
        "request": f"http://api.nasa.gov{request}{'&' if '?' in request else '?'}api_key={quote(key, safe='')}",
    }
    return SandboxResponse(status, json.dumps(error).encode())


def by_platform(status: int) -> SandboxResponse:
    """The hosting platform's HTML page for an application that is down."""
    text = (
        "<!DOCTYPE html>\n<html>\n  <head>\n    <title>Application error</title>\n  </head>\n  <body>\n"
        "    <h1>Application error</h1>\n    <p>An error occurred in the application and your page could not be "
        "served.</p>\n  </body>\n</html>\n"
    )
    return SandboxResponse(status, text.encode(), HTML, (("via", "1.1 heroku-router"),))


def maintenance_page() -> SandboxResponse:
    """HTML with status 200, as captive portals and careless proxies send it."""
    return SandboxResponse(200, b"<!DOCTYPE html>\n<html><body>We will be back soon.</body></html>\n", HTML)


def over_rate_limit(limit: int | None, retry_after_s: int | None, *, as_html: bool) -> SandboxResponse:
    """A 429, with its headers."""
    decision = Decision(_TOO_MANY, limit=limit, remaining=0, retry_after_s=retry_after_s)
    return replace(by_gateway(_TOO_MANY, OVER_RATE_LIMIT, as_html=as_html), headers=rate_limit_headers(decision))

"""The shape of the site's answers: JSON, and errors in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from pydantic import ValidationError
    from starlette.requests import Request


def refusal(status: int, line: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error, in one line."""
    return JSONResponse({"error": line}, status, headers)


async def on_http_error(_: Request, exc: Exception) -> JSONResponse:
    """No such page, no such method, and what the routes raise."""
    if not isinstance(exc, HTTPException):
        raise exc
    return refusal(exc.status_code, exc.detail, dict(exc.headers or {}))


async def on_fault(_: Request, __: Exception) -> JSONResponse:
    """A fault of the site. What it was stands in its log alone."""
    return refusal(500, "a fault of this site; it was written down")


def bad_parameters(exc: ValidationError) -> JSONResponse:
    """The first thing that is wrong with the parameters."""
    first: Any = exc.errors(include_url=False, include_context=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "?"
    if first["type"] == "extra_forbidden":
        return refusal(422, f"there is no parameter {name[:40]!r}")
    return refusal(422, f"{name}: {first['msg'][:1].lower()}{first['msg'][1:]}, not {str(first['input'])[:40]!r}")

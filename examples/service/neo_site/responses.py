"""The site's error responses: JSON with one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from pydantic import ValidationError
    from starlette.requests import Request


def error(status: int, line: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error response with one line."""
    return JSONResponse({"error": line}, status, headers)


async def on_http_error(_: Request, exc: Exception) -> JSONResponse:
    """Unknown paths, unknown methods, and the exceptions of the routes."""
    if not isinstance(exc, HTTPException):
        raise exc
    return error(exc.status_code, exc.detail, dict(exc.headers or {}))


async def on_bug(_: Request, __: Exception) -> JSONResponse:
    """A bug of the site. Only its log shows which."""
    return error(500, "an error of this site; it was logged")


def bad_parameters(exc: ValidationError) -> JSONResponse:
    """The first invalid parameter."""
    first: Any = exc.errors(include_url=False, include_context=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "?"
    if first["type"] == "extra_forbidden":
        return error(422, f"there is no parameter {name[:40]!r}")
    return error(422, f"{name}: {first['msg'][:1].lower()}{first['msg'][1:]}, not {str(first['input'])[:40]!r}")

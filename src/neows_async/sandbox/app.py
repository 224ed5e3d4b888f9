"""NeoWs' Browse as an ASGI application: the envelope, the links with the caller's key, gzip, chunks, headers."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import parse_qs, quote

import msgspec
from anyio import to_thread

from neows_async.sandbox.gateway import Gateway, Verdict

if TYPE_CHECKING:
    from neows_async.sandbox.catalogue import Catalogue

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

_PATHS: Final = ("/neo/rest/v1/neo/browse", "/neo/browse")
_LARGEST_SIZE: Final = 20
_CHUNK_BYTES: Final = 16 << 10
_GZIP_LEVEL: Final = 1


@dataclass(frozen=True, slots=True)
class Served:
    """A request that was answered.

    :param at_s: UTC, seconds since 1970
    """

    at_s: float
    page: int | None
    key: str | None
    status: int


class SandboxApp:
    """The application. ``served`` logs its requests.

    :param clock: UTC, seconds since 1970
    :param announced_total: what the envelope says the catalogue holds; None is the truth
    """

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        gateway: Gateway | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._catalogue = catalogue
        self._gateway = gateway or Gateway()
        self._clock = clock
        self.served: list[Served] = []

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        query = {name: values[-1] for name, values in parse_qs(scope.get("query_string", b"").decode()).items()}
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
        key = headers.get("x-api-key") or query.get("api_key")
        now_s = self._clock()
        verdict = self._gateway.judge(key, now_s)
        page: int | None = None
        if verdict.status == 200:  # noqa: PLR2004 - HTTP's own
            status, page, body = await self._answer(scope["path"], query, headers, key or "")
        else:
            status, body = verdict.status, _refusal(verdict)
        self.served.append(Served(now_s, page, key, status))
        await _send(send, status, body, _headers(verdict), compressed="gzip" in headers.get("accept-encoding", ""))

    async def _answer(
        self, path: str, query: dict[str, str], headers: dict[str, str], key: str
    ) -> tuple[int, int | None, bytes]:
        if path.rstrip("/") not in _PATHS:
            return 404, None, _error("NOT_FOUND", "The requested resource was not found.")
        try:
            number, size = int(query.get("page", "0")), int(query.get("size", "20"))
        except ValueError:
            number = size = -1
        if number < 0 or size < 1:
            return 400, None, _bad_request(path, query, key)
        # Making a page takes milliseconds, which are the loop's.
        size = min(size, _LARGEST_SIZE)
        body = await to_thread.run_sync(self._page, headers.get("host", "api.nasa.gov"), number, size, key)
        return 200, number, body

    def _page(self, host: str, number: int, size: int, key: str) -> bytes:
        base = f"http://{host}/neo/rest/v1/neo"
        secret = quote(key, safe="")
        total = self._catalogue.total
        pages = -(-total // size)

        def page_link(of: int) -> str:
            return f"{base}/browse?page={of}&size={size}&api_key={secret}"

        links = {"next": page_link(number + 1)} if number + 1 < pages else {}
        if number > 0:
            links["prev"] = page_link(number - 1)
        objects = self._catalogue.objects(number * size, (number + 1) * size)
        page = {
            "links": links | {"self": page_link(number)},
            "page": {"size": size, "total_elements": total, "total_pages": pages, "number": number},
            "near_earth_objects": [
                {"links": {"self": f"{base}/{entry.get('id', '')}?api_key={secret}"}}
                | {name: value for name, value in entry.items() if name != "links"}
                for entry in objects
            ],
        }
        return msgspec.json.encode(page)


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return


async def _send(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]], *, compressed: bool) -> None:
    if compressed:
        body = await to_thread.run_sync(lambda: gzip.compress(body, _GZIP_LEVEL, mtime=0))
        headers = [*headers, (b"content-encoding", b"gzip"), (b"vary", b"Accept-Encoding")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    # No content-length: it is sent in chunks, as NeoWs does.
    for start in range(0, len(body), _CHUNK_BYTES):
        await send({"type": "http.response.body", "body": body[start : start + _CHUNK_BYTES], "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _headers(verdict: Verdict) -> list[tuple[bytes, bytes]]:
    headers = [(b"content-type", b"application/json;charset=UTF-8")]
    for name, value in (
        (b"x-ratelimit-limit", verdict.limit),
        (b"x-ratelimit-remaining", verdict.remaining),
        (b"retry-after", verdict.retry_after_s),
    ):
        if value is not None:
            headers.append((name, str(value).encode()))
    return headers


def _refusal(verdict: Verdict) -> bytes:
    messages = {
        "API_KEY_MISSING": "No api_key was supplied. Get one at https://api.nasa.gov:443",
        "OVER_RATE_LIMIT": "You have exceeded your rate limit. Try again later or contact us at "
        "https://api.nasa.gov:443/contact/ for assistance",
    }
    default = "An invalid api_key was supplied. Get one at https://api.nasa.gov:443"
    return _error(verdict.code, messages.get(verdict.code, default))


def _error(code: str, message: str) -> bytes:
    return json.dumps({"error": {"code": code, "message": message}}).encode()


def _bad_request(path: str, query: dict[str, str], key: str) -> bytes:
    """The backend's own errors are flat, and name the request with its key."""
    request = f"http://api.nasa.gov{path}?page={query.get('page', '')}&api_key={key}"
    error = {"code": 400, "http_error": "BAD_REQUEST", "error_message": "Invalid page or size", "request": request}
    return json.dumps(error).encode()

"""NASA's NeoWs over HTTP: one attempt at one page, and the error that each response means."""

from __future__ import annotations

import re
import ssl
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, Final, NoReturn

import anyio
import httpx
import msgspec
from typing_extensions import override

from neows_async.errors import (
    AttemptError,
    BadPageError,
    KeyRefusedError,
    RateLimit,
    RateLimitedError,
    RefusedError,
    SettingsError,
    UnreachableError,
)
from neows_async.pages.content import decompress
from neows_async.pages.redact import Redactor
from neows_async.pages.values import RawPage
from neows_async.settings import is_loopback
from neows_async.sources.http_body import BodyError, read_body

_API: Final = "/neo/rest/v1"
_ERROR_BODY_BYTES: Final = 64 << 10
_ERROR_BODY_S: Final = 2.0
_REASON_CHARS: Final = 120
_TITLE_WITHIN_CHARS: Final = 4_096
_TITLE: Final = re.compile(r"<title\b[^>]*>([^<]*)</title", re.IGNORECASE)
_LONGEST_RETRY_AFTER_S: Final = 1e9
_LAST_PORT: Final = 65_535
_REDIRECTS: Final = range(300, 400)
_SERVER_ERRORS: Final = range(500, 600)


def check_base_url(base_url: str) -> httpx.URL:
    """The URL, if a key may be sent to it: ``https://``, or ``http://`` to this machine.

    :raises SettingsError: it is not such a URL
    """
    try:
        url = httpx.URL(base_url)
        url.copy_with(path=url.path)  # as NasaSource does; httpx checks the escapes of a path only here
    except httpx.InvalidURL as exc:
        raise SettingsError(f"--base-url {base_url!r} is not a URL: {exc}") from exc
    if url.port is not None and not 0 < url.port <= _LAST_PORT:
        raise SettingsError(f"--base-url {base_url!r}: a port is 1 to {_LAST_PORT}")
    if url.userinfo or url.query or url.fragment:
        raise SettingsError("--base-url must not hold a user, a query or a fragment; the key is NASA_API_KEY")
    if url.scheme not in ("http", "https") or not url.host:
        raise SettingsError(f"--base-url {base_url!r} must start with https:// and name a host")
    if url.scheme == "http" and not is_loopback(url.host):
        raise SettingsError(
            f"--base-url {base_url!r} would send the key unencrypted; use https:// (http:// is for loopback only)"
        )
    return url


def origin_of(base_url: str) -> str:
    """The name of the source at ``base_url`` in receipts."""
    url = check_base_url(base_url)
    return str(url.copy_with(path=_prefix(url))).rstrip("/")


def _prefix(url: httpx.URL) -> str:
    """The part of the path before NeoWs' own."""
    return url.path.rstrip("/").removesuffix("/neo/browse").removesuffix(_API)


def open_client(
    transport: httpx.AsyncBaseTransport, *, connect_timeout_s: float, timeout_s: float
) -> httpx.AsyncClient:
    """A client without environment settings, redirects and cookies. The caller closes it."""
    timeout = httpx.Timeout(timeout_s, connect=connect_timeout_s)
    return _PlainClient(trust_env=False, follow_redirects=False, transport=transport, timeout=timeout)


class _PlainClient(httpx.AsyncClient):
    """Passes each request to its transport, unchanged.

    It keeps no cookies: a response could choose the content of later requests, and fill the memory with cookies.
    NasaSource uses no other feature of a client.
    """

    def __init__(self, *, transport: httpx.AsyncBaseTransport, **settings: Any) -> None:
        super().__init__(transport=transport, **settings)
        self._plain = transport

    @override
    async def send(self, request: httpx.Request, *, stream: bool = False, **_: Any) -> httpx.Response:
        # No cookies, no redirects, no auth: nothing that httpx would add reaches the host.
        response = await self._plain.handle_async_request(request)
        response.request = request
        if not stream:
            await response.aread()
        return response


class NasaSource:
    """Browse pages of NeoWs.

    The key is sent in the ``X-Api-Key`` header only: a URL would carry it into logs.

    Of the client, only its transport, proxies, TLS settings and event hooks are used. Its base URL, headers,
    parameters, cookies, auth and time limits are not used, and no redirect is followed. Event hooks may raise on an
    error status, and may read the body.

    :param client: the caller closes it
    :param api_key: sent in the ``X-Api-Key`` header
    :param base_url: e.g. ``https://api.nasa.gov``, with or without ``/neo/rest/v1``
    :param transport: the client's transport, if its idle connections may be closed during long waits
    :param timeout_s: for a whole request; ``connect_timeout_s`` for its connection
    :param max_body_bytes: a larger body, as received or decoded, fails the attempt
    :param synthetic: the objects are made up; the receipt records it
    :param origin: the name of the source in receipts; None is ``base_url``
    :raises SettingsError: no key may be sent to ``base_url``
    """

    def __init__(  # noqa: PLR0913 - each describes the connection, and has a name
        self,
        client: httpx.AsyncClient,
        *,
        base_url: str,
        api_key: str,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout_s: float = 60.0,
        connect_timeout_s: float = 4.0,
        max_body_bytes: int = 64 << 20,
        synthetic: bool = False,
        origin: str | None = None,
    ) -> None:
        url = check_base_url(base_url)
        self._client = client
        self._transport = transport
        self._url = url.copy_with(path=f"{_prefix(url)}{_API}/neo/browse")
        self._headers = {
            "X-Api-Key": api_key,
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            "User-Agent": "neows-async",
        }
        self._timeout_s = timeout_s
        self._timeouts = httpx.Timeout(timeout_s, connect=connect_timeout_s).as_dict()
        self._max_body_bytes = max_body_bytes
        # httpx lowercases host names and encodings, so the key may appear in lower case too.
        self._redact = Redactor(api_key, api_key.lower())
        self.synthetic: bool = synthetic
        self.origin: str = origin or origin_of(base_url)

    async def fetch(self, number: int, size: int) -> RawPage:
        """Request page ``number`` once.

        :raises UnreachableError: no server listens there, or the name does not resolve
        :raises RateLimitedError: the status is 429
        :raises AttemptError: another failure; a retry may succeed
        :raises KeyRefusedError: the key is missing, unknown or disabled
        :raises RefusedError: another failure; a retry cannot succeed
        """
        try:
            # Of the whole attempt: httpx's own read timeout starts anew with each byte, so a slow server could hold
            # it for ever.
            with anyio.fail_after(self._timeout_s):
                return await self._fetch(number, size)
        except (TimeoutError, httpx.HTTPError, BodyError) as exc:
            failure, cause = self._translated(exc), self._cause_without_key(exc)
        # Raised outside the except block: there, Python would attach ``exc``, which may quote the key, as the context.
        raise failure from cause

    def _translated(self, exc: Exception) -> AttemptError | RefusedError:
        if isinstance(exc, TimeoutError):
            return AttemptError(f"{self._where}: no complete response within {self._timeout_s:g} s")
        if isinstance(exc, BodyError):
            return AttemptError(f"{self._where}: {self._text_of(exc)}")
        if isinstance(exc, httpx.TimeoutException):
            return AttemptError(f"{self._where}: timed out ({type(exc).__name__})")
        if not isinstance(exc, httpx.ConnectError):
            return AttemptError(f"{self._where}: the connection broke ({self._text_of(exc)})")
        # No retry: a certificate does not become valid, and the key must not be sent meanwhile.
        if isinstance(exc.__cause__, ssl.SSLError) or "CERTIFICATE" in str(exc):
            return RefusedError(f"{self._where}: the secure connection failed: {self._text_of(exc)}")
        return UnreachableError(
            f"{self._where} cannot be reached ({self._text_of(exc)}); is the address right, does a server run there?"
        )

    async def on_idle(self) -> None:
        """Close idle connections: no request will be sent for a while."""
        if self._transport is not None:
            await self._transport.aclose()

    async def _fetch(self, number: int, size: int) -> RawPage:
        # Not the client's `build_request`: it would add the headers and parameters that are meant for other hosts.
        request = httpx.Request(
            "GET",
            self._url.copy_with(query=b"page=%d&size=%d" % (number, size)),
            headers=self._headers,
            extensions={"timeout": self._timeouts},
        )
        try:
            response = await self._client.send(request, stream=True, auth=None, follow_redirects=False)
        except httpx.HTTPStatusError as exc:  # raised by an event hook of the embedder's client
            response = exc.response
        except (ValueError, httpx.InvalidURL) as exc:  # httpx parses the target of a redirect, which may be invalid
            raise httpx.RemoteProtocolError(f"the response cannot be read: {exc}") from exc
        try:
            if response.status_code == httpx.codes.OK:
                body, encoding = await read_body(response, self._max_body_bytes)
                return RawPage(number, body, encoding, _rate_limit(response))
            await self._raise_for_status(response)
        finally:
            # Also after an error or a cancellation: only a response read to its end leaves a reusable connection.
            await response.aclose()

    async def _raise_for_status(self, response: httpx.Response) -> NoReturn:
        status = response.status_code
        # Before any use: a server may repeat the key in its error text.
        body = self._redact(await _read_error(response))
        # Redacted again after decoding, which may reveal an escaped key; and before shortening, which may cut a key.
        reason = _one_line(self._redact.text(_explanation(body)))
        if status == httpx.codes.TOO_MANY_REQUESTS:
            raise RateLimitedError(
                f"{self._where}: 429, over the rate limit",
                retry_after_s=_retry_after_s(response),
                rate_limit=_rate_limit(response),
                body=body,
            )
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise KeyRefusedError(
                f"{self._where} refused the key: {status} {reason}; check NASA_API_KEY", status=status
            )
        if status in _REDIRECTS:
            # Only the host: the rest of a location may hold the key.
            target = self._redact.text(_redirect_host(response))
            raise RefusedError(
                f"{self._where}: {status}, a redirect to {target}; it is not followed, since it would receive the "
                "key. If the address is right, pass it as --base-url",
                status=status,
            )
        if status in _SERVER_ERRORS or status == httpx.codes.REQUEST_TIMEOUT:
            raise AttemptError(
                f"{self._where}: {status} {reason}", status=status, rate_limit=_rate_limit(response), body=body
            )
        raise RefusedError(f"{self._where}: {status} {reason}", status=status)

    def _text_of(self, exc: Exception) -> str:
        """The text of a library's exception, redacted: it may quote the response."""
        return self._redact.text(str(exc) or type(exc).__name__)

    def _cause_without_key(self, exc: BaseException) -> BaseException | None:
        """``exc`` as a cause to show, or None if its text, or that of any of its causes, holds the key."""
        link: BaseException | None = exc
        # The whole chain: a traceback prints every link of it.
        while link is not None:
            # Both forms: a key that is escaped in the text may be unescaped in the arguments.
            if any(self._redact.text(form) != form for form in (str(link), repr(link.args))):
                return None
            link = link.__cause__ or link.__context__
        return exc

    @property
    def _where(self) -> str:
        return self._url.netloc.decode("ascii", "replace")


async def _read_error(response: httpx.Response) -> bytes:
    """The body of an error, or nothing: it explains the error, and nothing else depends on it."""
    with anyio.move_on_after(_ERROR_BODY_S):
        try:
            return decompress(*await read_body(response, _ERROR_BODY_BYTES), _ERROR_BODY_BYTES)
        except (BodyError, BadPageError, httpx.HTTPError, httpx.StreamError):
            pass
    return b""


class _GatewayMessage(msgspec.Struct):
    code: str
    message: str


class _GatewayError(msgspec.Struct):
    error: _GatewayMessage


class _BackendError(msgspec.Struct):
    http_error: str
    error_message: str


def _explanation(body: bytes) -> str:
    """The text of an error body: the gateway's code and message, the backend's, an HTML title, or all of the body."""
    # The gateway's form first, then the backend's; anything else is text.
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        error = msgspec.json.decode(body, type=_GatewayError).error
        return f"{error.code}: {error.message}"
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        backend = msgspec.json.decode(body, type=_BackendError)
        return f"{backend.http_error}: {backend.error_message}"
    text = body.decode(errors="replace")
    title = _TITLE.search(text[:_TITLE_WITHIN_CHARS])
    return title[1] if title and title[1].strip() else text


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    return "".join(char if char.isprintable() else "?" for char in text[:_REASON_CHARS])


def _rate_limit(response: httpx.Response) -> RateLimit | None:
    limit = _whole_number(response, "X-RateLimit-Limit")
    remaining = _whole_number(response, "X-RateLimit-Remaining")
    return None if limit is None or remaining is None else RateLimit(limit, remaining)


def _whole_number(response: httpx.Response, header: str) -> int | None:
    value = response.headers.get(header, "").strip()
    # Nine digits are 31 years of seconds; a longer number is a mistake.
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 9 else None  # noqa: PLR2004


def _retry_after_s(response: httpx.Response) -> float | None:
    """Seconds from now. The header may hold a date; then the seconds count from the response's own ``Date``."""
    seconds = _whole_number(response, "Retry-After")
    if seconds is not None:
        return seconds
    # A date counts from the server's own clock: ours may be wrong by minutes.
    with suppress(KeyError, ValueError, TypeError, OverflowError):
        until, now = (parsedate_to_datetime(response.headers[name]) for name in ("Retry-After", "Date"))
        wait_s = (until - now).total_seconds()
        return wait_s if abs(wait_s) < _LONGEST_RETRY_AFTER_S else None
    return None


def _redirect_host(response: httpx.Response) -> str:
    try:
        return httpx.URL(response.headers.get("location", "")).host or "nowhere"
    except (httpx.InvalidURL, ValueError):
        return "nowhere"

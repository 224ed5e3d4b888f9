"""NeoWs over HTTP, through the api.data.gov gateway: one attempt at one page, and what its answer means."""

from __future__ import annotations

import ipaddress
import re
import ssl
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, Final, NoReturn

import anyio
import httpcore  # noqa: F401 - httpx would load it with its first transport: a tenth of a second, in the event loop
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
from neows_async.sources.http_body import BodyError, read_body
from neows_async.sources.http_pool import HttpTransport

_API: Final = "/neo/rest/v1"
_ERROR_BODY_BYTES: Final = 64 << 10
_ERROR_BODY_S: Final = 2.0
_EXCERPT_CHARS: Final = 120
_HEAD_CHARS: Final = 4_096
_TITLE: Final = re.compile(r"<title\b[^>]*>([^<]*)</title", re.IGNORECASE)
_BEYOND_ANY_WAIT_S: Final = 1e9
_LAST_PORT: Final = 65_535
_REDIRECT, _CLIENT, _SERVER, _BEYOND = 300, 400, 500, 600


def check_base_url(base_url: str) -> httpx.URL:
    """That keys may be sent there: ``https://``, or ``http://`` to this machine.

    :raises SettingsError: it is no such URL
    """
    try:
        url = httpx.URL(base_url)
        url.copy_with(path=url.path)  # as we will; escapes in a path are looked at only then
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
            f"--base-url {base_url!r} would send the key unencrypted; http:// is for loopback alone, use https://"
        )
    return url


def origin_of(base_url: str) -> str:
    """What the receipts call the source there.

    :raises SettingsError: it is not a URL that a key may be sent to
    """
    url = check_base_url(base_url)
    return str(url.copy_with(path=_prefix(url))).rstrip("/")


def _prefix(url: httpx.URL) -> str:
    """What the path has before NeoWs' own."""
    return url.path.rstrip("/").removesuffix("/neo/browse").removesuffix(_API)


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine, by its address or as ``localhost``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def open_transport(*, connections: int, proxy: str | None = None) -> HttpTransport:
    """Connections that take nothing from the environment; for :func:`open_client`."""
    return HttpTransport(connections=connections, proxy=proxy)


def open_client(
    transport: httpx.AsyncBaseTransport, *, connect_timeout_s: float, timeout_s: float
) -> httpx.AsyncClient:
    """A client that takes nothing from the environment, follows no redirect and keeps no cookie. Close it yourself."""
    timeout = httpx.Timeout(timeout_s, connect=connect_timeout_s)
    return _PlainClient(trust_env=False, follow_redirects=False, transport=transport, timeout=timeout)


class _PlainClient(httpx.AsyncClient):
    """Hands each request to its transport as it is.

    It keeps no cookies: an answer would say what the next request holds, and thousands of them would pile up.
    What else a client does for a request, GatewaySource has no use for.
    """

    def __init__(self, *, transport: httpx.AsyncBaseTransport, **settings: Any) -> None:
        super().__init__(transport=transport, **settings)
        self._plain = transport

    @override
    async def send(self, request: httpx.Request, *, stream: bool = False, **_: Any) -> httpx.Response:
        response = await self._plain.handle_async_request(request)
        response.request = request
        if not stream:
            await response.aread()
        return response


class NasaSource:
    """Browse pages of NeoWs.

    The key travels in the ``X-Api-Key`` header and nowhere else: a URL would carry it into logs.

    Of the client only what carries requests is used: its transport, proxies, TLS and event hooks. Its base
    URL, headers, parameters, cookies, auth and time limits are for other hosts than this one and stay out, and
    no redirect is followed. A hook that raises on an error status, or reads a body, is coped with.

    :param client: yours; it is not closed here
    :param api_key: sent in the ``X-Api-Key`` header
    :param base_url: e.g. ``https://api.nasa.gov``, with or without the ``/neo/rest/v1`` that follows
    :param transport: the client's, if its connections may be closed during long waits; it goes on after that
    :param timeout_s: for one request, all in; ``connect_timeout_s`` for its connection
    :param max_body_bytes: a larger body, sent or decoded, ends the attempt
    :param synthetic: the objects are made up; the receipt says so
    :param origin: how the receipt calls what the pages are of; None is ``base_url``
    :raises SettingsError: ``base_url`` is not a URL that a key may be sent to
    """

    def __init__(  # noqa: PLR0913 - each is a fact of the connection, and all have names
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
        # Host names and encodings come in small letters, whatever was sent.
        self._scrub = Redactor(api_key, api_key.lower())
        self.synthetic: bool = synthetic
        self.origin: str = origin or origin_of(base_url)

    async def fetch(self, number: int, size: int) -> RawPage:
        """One attempt at page ``number``.

        :raises UnreachableError: nothing listens there, or the name does not resolve
        :raises RateLimitedError: 429
        :raises AttemptError: another failure that may pass
        :raises KeyRefusedError: the gateway does not take the key
        :raises RefusedError: another failure that will not pass
        """
        try:
            with anyio.fail_after(self._timeout_s):
                return await self._fetch(number, size)
        except (TimeoutError, httpx.HTTPError, BodyError) as exc:
            failure, cause = self._translated(exc), self._shown(exc)
        # Out here, where what the others raised is not the context either: it may quote the key.
        raise failure from cause

    def _translated(self, exc: Exception) -> AttemptError | RefusedError:
        if isinstance(exc, TimeoutError):
            return AttemptError(f"{self._where}: no whole answer within {self._timeout_s:g} s")
        if isinstance(exc, BodyError):
            return AttemptError(f"{self._where}: {self._said(exc)}")
        if isinstance(exc, httpx.TimeoutException):
            return AttemptError(f"{self._where}: timed out ({type(exc).__name__})")
        if not isinstance(exc, httpx.ConnectError):
            return AttemptError(f"{self._where}: the connection broke ({self._said(exc)})")
        if isinstance(exc.__cause__, ssl.SSLError) or "CERTIFICATE" in str(exc):
            return RefusedError(f"{self._where}: the secure connection failed: {self._said(exc)}")
        return UnreachableError(
            f"{self._where} cannot be reached ({self._said(exc)}); is the address right, does a server run there?"
        )

    async def on_idle(self) -> None:
        """Nothing is asked for a while: hold no connection meanwhile."""
        if self._transport is not None:
            await self._transport.aclose()

    async def _fetch(self, number: int, size: int) -> RawPage:
        # Not by the client's `build_request`, which would add what it sends to others.
        request = httpx.Request(
            "GET",
            self._url.copy_with(query=b"page=%d&size=%d" % (number, size)),
            headers=self._headers,
            extensions={"timeout": self._timeouts},
        )
        try:
            response = await self._client.send(request, stream=True, auth=None, follow_redirects=False)
        except httpx.HTTPStatusError as exc:  # by a hook of the client's owner
            response = exc.response
        except (
            ValueError,
            httpx.InvalidURL,
        ) as exc:  # httpx looks at where a redirect leads, and not every host can be read
            raise httpx.RemoteProtocolError(f"the answer cannot be read: {exc}") from exc
        try:
            if response.status_code == httpx.codes.OK:
                body, encoding = await read_body(response, self._max_body_bytes)
                return RawPage(number, body, encoding, _rate_limit(response))
            await self._refuse(response)
        finally:
            await response.aclose()

    async def _refuse(self, response: httpx.Response) -> NoReturn:
        status = response.status_code
        body = self._scrub(await _read_error(response))
        # Scrubbed once more, since what was escaped in the body may be read now; and before it is cut.
        said = _line(self._scrub.text(_explanation(body)))
        if status == httpx.codes.TOO_MANY_REQUESTS:
            raise RateLimitedError(
                f"{self._where}: 429, over the rate limit",
                retry_after_s=_retry_after_s(response),
                rate_limit=_rate_limit(response),
                body=body,
            )
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise KeyRefusedError(f"{self._where} refused the key: {status} {said}; check NASA_API_KEY", status=status)
        if _REDIRECT <= status < _CLIENT:
            target = self._scrub.text(_redirect_host(response))
            raise RefusedError(
                f"{self._where}: {status}, a redirect to {target}; it is not followed, since the "
                "key would go with it. If it is right, give it as --base-url",
                status=status,
            )
        if _SERVER <= status < _BEYOND or status == httpx.codes.REQUEST_TIMEOUT:
            raise AttemptError(
                f"{self._where}: {status} {said}", status=status, rate_limit=_rate_limit(response), body=body
            )
        raise RefusedError(f"{self._where}: {status} {said}", status=status)

    def _said(self, exc: Exception) -> str:
        """What others say of a connection may hold what came over it."""
        return self._scrub.text(str(exc) or type(exc).__name__)

    def _shown(self, exc: BaseException) -> BaseException | None:
        """``exc``, if it may be shown with all that led to it."""
        link: BaseException | None = exc
        while link is not None:
            # By both forms: what stands in the text escaped may stand in the arguments as it is.
            if any(self._scrub.text(form) != form for form in (str(link), repr(link.args))):
                return None
            link = link.__cause__ or link.__context__
        return exc

    @property
    def _where(self) -> str:
        return self._url.netloc.decode("ascii", "replace")


async def _read_error(response: httpx.Response) -> bytes:
    """An error's body; it explains, but nothing depends on it, so it is not waited for at length."""
    with anyio.move_on_after(_ERROR_BODY_S):
        try:
            return decompress(*await read_body(response, _ERROR_BODY_BYTES), _ERROR_BODY_BYTES)
        except (BodyError, BadPageError, httpx.HTTPError, httpx.StreamError):
            pass
    return b""


class _Said(msgspec.Struct):
    code: str
    message: str


class _Refusal(msgspec.Struct):
    error: _Said


class _Flat(msgspec.Struct):
    http_error: str
    error_message: str


def _explanation(body: bytes) -> str:
    """What an error's body says to people: the gateway's code and message, the backend's, a page's title, else all."""
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        error = msgspec.json.decode(body, type=_Refusal).error
        return f"{error.code}: {error.message}"
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        flat = msgspec.json.decode(body, type=_Flat)
        return f"{flat.http_error}: {flat.error_message}"
    text = body.decode(errors="replace")
    title = _TITLE.search(text[:_HEAD_CHARS])
    return title[1] if title and title[1].strip() else text


def _line(text: str) -> str:
    text = " ".join(text.split())
    return "".join(char if char.isprintable() else "?" for char in text[:_EXCERPT_CHARS])


def _rate_limit(response: httpx.Response) -> RateLimit | None:
    limit = _whole_number(response, "X-RateLimit-Limit")
    remaining = _whole_number(response, "X-RateLimit-Remaining")
    return None if limit is None or remaining is None else RateLimit(limit, remaining)


def _whole_number(response: httpx.Response, header: str) -> int | None:
    value = response.headers.get(header, "").strip()
    # Nine digits are 31 years of seconds; what is longer is no number anybody meant.
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 9 else None  # noqa: PLR2004


def _retry_after_s(response: httpx.Response) -> float | None:
    """Seconds from now: it may also be a date, which counts from the date that the answer bears."""
    seconds = _whole_number(response, "Retry-After")
    if seconds is not None:
        return seconds
    with suppress(KeyError, ValueError, TypeError, OverflowError):
        until, now = (parsedate_to_datetime(response.headers[name]) for name in ("Retry-After", "Date"))
        wait_s = (until - now).total_seconds()
        return wait_s if abs(wait_s) < _BEYOND_ANY_WAIT_S else None
    return None


def _redirect_host(response: httpx.Response) -> str:
    try:
        return httpx.URL(response.headers.get("location", "")).host or "nowhere"
    except (httpx.InvalidURL, ValueError):
        return "nowhere"

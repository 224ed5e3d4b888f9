"""Drives one hostile response through the parts that a run uses, and judges the outcome."""

from __future__ import annotations

import base64
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
from anyio.abc import ByteStream

from neows_async.endpoints.browse import decode_fast, envelope
from neows_async.endpoints.browse.decode import PageJson, decode_exactly
from neows_async.endpoints.browse.receive import ReceiveOptions, Receiver
from neows_async.errors import BadPageError, NeowsError, PausedError, SourceError
from neows_async.pacing.breaker import CircuitBreaker
from neows_async.pacing.gate import Gate, GateLimits
from neows_async.pacing.quota import QuotaModel
from neows_async.pacing.rules import PacingRules
from neows_async.pages.stored import json_of
from neows_async.pages.values import Page, RawPage
from neows_async.pipeline.fetcher import FetchLimits, PageFetcher, PageRequest
from neows_async.sources.http_pool import HttpTransport
from neows_async.sources.nasa import NasaSource, open_client
from tests import virtual_time
from tests.fuzz.answers import KEY, NUMBER, SIZE, good_body

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx

    from neows_async.lake.raw_zone import RawZone
    from neows_async.pages.values import StoredPage
    from neows_async.pipeline.decoder import DecoderPool

MAX_BODY_BYTES: Final = 1 << 20
LIMIT_S: Final = 10.0  # of a processor: a busy machine does not count
RECEIVER: Final = Receiver(ReceiveOptions(api_key=KEY, max_body_bytes=MAX_BODY_BYTES, keeps_json=True))
_BUDGET_S: Final = 3.0
_MAX_WAIT_S: Final = 3_600.0
_START_S: Final = 1_790_000_000.0
_GOOD: Final = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(good_body()), good_body())


class FindingError(Exception):
    """What must not happen."""


def _forms_of_the_key() -> tuple[bytes, ...]:
    raw = KEY.encode()
    escaped = "".join(f"%{byte:02x}" for byte in raw)
    # Those letters of its base64 that are its own, wherever it begins in what was encoded.
    inner = [base64.b64encode(b"\0" * before + raw).rstrip(b"=")[before + 1 : -1] for before in range(3)]
    return (raw, escaped.encode(), escaped.upper().encode(), *inner)


_FORMS: Final = _forms_of_the_key()


def leaked(text: bytes | str) -> bool:
    """Whether the text holds the key in a form that must not appear."""
    data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    return any(form in data for form in _FORMS)


# -- bytes in, page or error out ----------------------------------------------------------------


class _Line(ByteStream):
    """A connection whose other end sends ``chunks`` and closes."""

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self._chunks = iter(chunks)
        self._left = b""
        self._closed = False

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        await anyio.lowlevel.checkpoint()
        if self._closed:
            raise anyio.ClosedResourceError
        data = self._left or next(self._chunks, b"")
        if not data:
            raise anyio.EndOfStream
        self._left = data[max_bytes:]
        return data[:max_bytes]

    async def send(self, item: bytes) -> None:
        pass

    async def send_eof(self) -> None:
        pass

    async def aclose(self) -> None:
        self._closed = True


def transport_of(answers: Sequence[Sequence[bytes]]) -> HttpTransport:
    """Our own transport over answers in memory: each connection gets the next one; then all get a good page."""
    lines = iter(answers)

    async def connect(_: httpx.URL) -> ByteStream:
        return _Line(next(lines, [_GOOD]))

    return HttpTransport(connect, connections=1)


@dataclass
class Outcome:
    """What a run received, raised and said."""

    page: Page | None = None
    error: BaseException | None = None
    said: list[bytes] = field(default_factory=list)
    requests: int = 0

    @property
    def name(self) -> str:
        """For a table."""
        if self.error is None:
            return "a page at once" if self.requests == 1 else "a page after a failure"
        cause = self.error.__cause__
        return type(self.error).__name__ + (f" from {type(cause).__name__}" if isinstance(cause, NeowsError) else "")


def outcome_of(answers: Sequence[Sequence[bytes]], backend: str) -> Outcome:
    """Fetch a page whose first requests get these responses.

    :raises FindingError: the outcome breaks a promise
    """
    outcome, began_s = Outcome(), time.process_time()
    name, options = virtual_time.backend(backend)
    try:
        outcome.page = anyio.run(_fetch, answers, outcome, backend=name, backend_options=options)
    except (SourceError, PausedError) as exc:
        outcome.error = exc
    except FindingError:
        raise
    except Exception as exc:
        raise FindingError(f"a traceback: {type(exc).__name__}: {exc}") from exc
    took_s = time.process_time() - began_s
    if took_s > LIMIT_S:
        raise FindingError(f"a hang: it took {took_s:.1f} s")
    look_for_the_key(outcome)
    return outcome


class _Decoder:
    """A pool that decodes in the event loop: a thread would take no virtual time."""

    async def receive(self, page: RawPage | StoredPage, size: int | None) -> Page:
        if isinstance(page, RawPage) and len(page.body) > MAX_BODY_BYTES:
            raise FindingError(f"{len(page.body)} bytes were received")
        return RECEIVER.receive(page, size)


class _BadBodies:
    """A raw zone that notes the bodies of bad pages."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome

    async def put_bad(self, number: int, body: bytes) -> None:  # noqa: ARG002 - the zone's signature
        self._outcome.said.append(body)

    def stores_late(self) -> bool:
        raise FindingError("a page was left over, and nobody cancelled")


async def _fetch(answers: Sequence[Sequence[bytes]], outcome: Outcome) -> Page:
    def clock() -> float:
        return _START_S + anyio.current_time() - began_s

    def listener(event: object) -> None:
        outcome.said.append(repr(event).encode(errors="surrogatepass"))

    began_s = anyio.current_time()
    limits = GateLimits(max_wait_s=_MAX_WAIT_S)
    gate = Gate(QuotaModel(PacingRules()), CircuitBreaker(), limits, clock=clock, listener=listener)
    async with open_client(transport_of(answers), connect_timeout_s=5, timeout_s=60) as client:
        source = NasaSource(
            client, base_url="http://127.0.0.1:9", api_key=KEY, max_body_bytes=MAX_BODY_BYTES, timeout_s=60
        )
        fetcher = PageFetcher(
            source,
            gate=gate,
            decoder=cast("DecoderPool", _Decoder()),
            limits=FetchLimits(retry_budget_s=_BUDGET_S),
            listener=listener,
        )
        zone = cast("RawZone", _BadBodies(outcome))
        try:
            page = await fetcher.fetch(PageRequest(NUMBER, SIZE, zone=zone))
        finally:
            outcome.requests = gate.sent
            if client.cookies:
                raise FindingError("a cookie was kept")
    assert isinstance(page, Page)
    assert page.source is not None
    body = json_of(page.source)
    outcome.said.append(body)
    return compared(page, body)


def look_for_the_key(outcome: Outcome) -> None:
    """Search all outputs of a run.

    :raises FindingError: the key is in one of them
    """
    said: list[bytes | str] = [*outcome.said, repr(outcome.page)]
    if outcome.page is not None:
        said += [repr(outcome.page.rejected), repr(outcome.page.unknown_fields)]
    if outcome.error is not None:
        said += ["".join(traceback.format_exception(outcome.error))]
    link = outcome.error
    while link is not None:
        said += [str(link), repr(link), repr(link.args), getattr(link, "body", b"")]
        if isinstance(link, NeowsError) and "\n" in str(link):
            raise FindingError(f"an error of more than one line: {link}")
        link = link.__cause__ or link.__context__
    for text in said:
        if leaked(text):
            raise FindingError(f"the key is in {text[:500]!r}")


# -- bytes in, rows out -------------------------------------------------------------------------


def compared(page: Page, body: bytes) -> Page:
    """``page``, compared with the result of the other decoder.

    :raises FindingError: they differ
    """
    if decode_fast.decode_columns(body) is not None:
        slow = decode_exactly(PageJson(page.number, body, page.sha256))
        same = (
            page.info == slow.info
            and page.indices == slow.indices
            and page.approach_counts == slow.approach_counts
            and _same(page.batches["neos"], slow.batches["neos"])
            and _same(page.batches["close_approaches"], slow.batches["close_approaches"])
        )
        if not same or slow.rejected or slow.unknown_fields:
            raise FindingError("the two ways of reading a page do not agree")
    if len(page.indices) + len(page.rejected) != page.info.announced_objects:
        raise FindingError("an object is neither read nor rejected")
    return page


def _same(one: Any, other: Any) -> bool:
    # By their buffers' values: -0.0 and 0.0 are two.
    return bool(one.schema == other.schema and repr(one.to_pylist()) == repr(other.to_pylist()))


def readable(body: bytes) -> Page | None:
    """The page of a body; None if the body is refused.

    :raises FindingError: another error than ours was raised
    """
    try:
        info, _ = envelope.split(body)
        page = RECEIVER.receive(RawPage(info.number, body), None)
        assert page.source is not None
        return compared(page, json_of(page.source))
    except BadPageError:
        return None
    except FindingError:
        raise
    except Exception as exc:
        raise FindingError(f"a traceback: {type(exc).__name__}: {exc}") from exc

"""NeoWs' Browse behind its gateway, as an ASGI application."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import anyio
from anyio import to_thread

from neows_async.sandbox.catalogue import ChangingCatalogue
from neows_async.sandbox.delivery import CUT, Delivery, Message, Receive, Send
from neows_async.sandbox.faults import bad_request, error_response, page_body, refusal, with_quota
from neows_async.sandbox.page_json import API, BrowseRequest
from neows_async.sandbox.rate_limits import Gateway
from neows_async.sandbox.request import Request
from neows_async.sandbox.responses import JSON, SandboxResponse
from neows_async.sandbox.scenario import Fault, OverRateLimit, Refused, Scenario, Slow, WrongType

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from neows_async.sandbox.catalogue import Catalogue

_PATHS: Final = (f"{API}/neo/browse", "/neo/browse")
_MAX_PAGE_SIZE: Final = 20
_MAX_SERVED: Final = 100_000
_OK = 200


@dataclass(frozen=True, slots=True)
class Served:
    """A request and the decision about it. The response may have been sent later, or not at all.

    :param at_s: when the request arrived; UTC, seconds since 1970
    :param page: the page's number, from 0; None if the request has no valid one
    :param status: the status of the response
    :param attempt: counts the requests of this page that passed the gateway, from 1; 0 if this one did not pass
    :param key: the key in the request; None if there was none
    :param fault: the scenario's fault that applied
    """

    at_s: float
    page: int | None
    status: int
    attempt: int = 0
    key: str | None = field(default=None, repr=False)
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class _Reply:
    """What to send, and when.

    :param wait_s: seconds before the response begins
    :param make: returns the body, if making it takes milliseconds
    """

    response: SandboxResponse
    fault: Fault | None = None
    wait_s: float = 0.0
    make: Callable[[], bytes] | None = None


class SandboxApp:
    """The application. A scenario's time begins at the first request.

    :param gateway: None is a gateway with the scenario's rules
    :param scenario: None is a source without faults
    :param clock: UTC, seconds since 1970
    :param sleep: waits a number of seconds of the same clock
    :param threads: make pages in threads, so that the event loop stays free; not in virtual time
    """

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        gateway: Gateway | None = None,
        scenario: Scenario | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        threads: bool = True,
    ) -> None:
        self.scenario: Scenario = scenario or Scenario()
        self.gateway: Gateway = gateway or Gateway(self.scenario.gateway)
        self.served: deque[Served] = deque(maxlen=_MAX_SERVED)
        """The last 100,000 requests, in order of arrival."""
        self.attempts: Counter[int] = Counter()
        """Requests of each page that passed the gateway."""
        self._catalogue = ChangingCatalogue(catalogue, self.scenario.changes, self.scenario.seed)
        self._clock = clock
        self._sleep = sleep
        self._threads = threads
        self._first_s: float | None = None
        self._forwarded = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request, until the response is sent or the client disconnects."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        request = Request.of(scope)
        delivery = Delivery(
            send=send,
            cut=scope.get("extensions", {}).get(CUT),
            gzip="gzip" in request.headers.get("accept-encoding", ""),
            in_thread=self._in_thread,
            sleep=self._sleep,
        )
        async with anyio.create_task_group() as tasks:
            # Whichever ends first cancels the other: the client's disconnect, or the end of the response.
            tasks.start_soon(_wait_for_disconnect, receive, tasks.cancel_scope)
            # Decided before any wait: the order of arrival decides what is counted, as in the real gateway.
            reply = self._decide(request)
            response = reply.response
            if reply.make is not None:
                response = replace(response, body=await self._in_thread(reply.make))
            if reply.wait_s > 0:
                await self._sleep(reply.wait_s)
            # A cut or a hang never returns from here; the client's disconnect ends it.
            await delivery.deliver(response, reply.fault)
            tasks.cancel_scope.cancel()

    def _decide(self, request: Request) -> _Reply:
        """The reply to ``request``. Without an await: no other request is counted between the check and the count."""
        now_s = self._clock()
        self._first_s = now_s if self._first_s is None else self._first_s
        decision = self.gateway.check(request.key, now_s, request.address)
        if decision.status != _OK:
            self._record(request, now_s, decision.status)
            return _Reply(refusal(decision, request))
        page_request = _page_request(request)
        if page_request is None:
            # A bad request is forwarded, so it is counted.
            self.gateway.count(request.key, now_s, request.address)
            response = with_quota(bad_request(request, is_browse=_is_browse(request)), decision)
            self._record(request, now_s, response.status)
            return _Reply(response)
        elapsed_s = now_s - self._first_s
        catalogue = self._catalogue.view(self._forwarded, elapsed_s)
        self._forwarded += 1
        self.attempts[page_request.number] += 1
        # Counted by page: the same attempt gets the same fault at any concurrency.
        attempt = self.attempts[page_request.number]
        fault = self.scenario.fault_for(page_request.number, attempt, elapsed_s)
        # A refused request is not counted.
        if not isinstance(fault, OverRateLimit | Refused):
            self.gateway.count(request.key, now_s, request.address)
        wait_s = self.scenario.latency_s(page_request.number, attempt) + (
            fault.delay_s if isinstance(fault, Slow) else 0.0
        )
        replacement = error_response(fault, decision, request)
        self._record(request, now_s, replacement.status if replacement else _OK, attempt, fault)
        if replacement is not None:
            return _Reply(replacement, fault, wait_s)
        content_type = fault.content_type if isinstance(fault, WrongType) else JSON
        response = with_quota(SandboxResponse(_OK, b"", content_type), decision)
        return _Reply(response, fault, wait_s, lambda: page_body(fault, catalogue, page_request))

    def _record(
        self, request: Request, now_s: float, status: int, attempt: int = 0, fault: Fault | None = None
    ) -> None:
        page = request.number("page", 0)
        self.served.append(Served(now_s, page, status, attempt, request.key or None, fault))

    async def _in_thread(self, make: Callable[[], bytes]) -> bytes:
        return await to_thread.run_sync(make) if self._threads else make()


def _is_browse(request: Request) -> bool:
    return request.path.rstrip("/") in _PATHS


def _page_request(request: Request) -> BrowseRequest | None:
    """The requested page; None if the request is not a valid one for Browse."""
    number, size = request.number("page", 0), request.number("size", _MAX_PAGE_SIZE)
    if not _is_browse(request) or request.method != "GET" or number is None or number < 0 or size is None or size < 1:
        return None
    return BrowseRequest(number, min(size, _MAX_PAGE_SIZE), request.headers.get("host", "api.nasa.gov"), request.key)


async def _wait_for_disconnect(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return

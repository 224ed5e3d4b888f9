"""NeoWs' Browse behind its gateway, as an ASGI application."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import anyio
from anyio import to_thread

from neows_async.sandbox.answers import JSON, Answer
from neows_async.sandbox.catalogue import ChangingCatalogue
from neows_async.sandbox.delivery import CUT, Delivery, Message, Receive, Send
from neows_async.sandbox.faults import instead, mistake, page_under, refusal, with_quota
from neows_async.sandbox.page_json import API, Asked
from neows_async.sandbox.rate_limits import Gateway
from neows_async.sandbox.request import Request
from neows_async.sandbox.scenario import Fault, OverRateLimit, Refused, Scenario, Slow, WrongType

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from neows_async.sandbox.catalogue import Catalogue

_PATHS: Final = (f"{API}/neo/browse", "/neo/browse")
_LARGEST_SIZE: Final = 20
_SERVED: Final = 100_000
_OK = 200


@dataclass(frozen=True, slots=True)
class Served:
    """A request, as it was decided on; the answer may have come later, or not at all.

    :param at_s: when it arrived; UTC, seconds since 1970
    :param page: its number, from 0; None where the request names none
    :param status: of the answer
    :param key: that was sent; None if none was
    :param attempt: the how-manieth request of its page that passed the gateway, from 1; 0 did not pass
    :param fault: what the scenario did to it
    """

    at_s: float
    page: int | None
    status: int
    attempt: int = 0
    key: str | None = field(default=None, repr=False)
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class _Decided:
    """The work that a decision leaves.

    :param make: gives the body, where that takes milliseconds
    """

    answer: Answer
    fault: Fault | None = None
    wait_s: float = 0.0
    make: Callable[[], bytes] | None = None


class SandboxApp:
    """The application. Its time counts from its first request.

    :param gateway: None is one of the scenario's rules
    :param scenario: None is a good day
    :param clock: UTC, seconds since 1970
    :param sleep: waits so many seconds, by the same clock
    :param threads: make pages in threads, so that the loop stays free; not in virtual time
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
        self.served: deque[Served] = deque(maxlen=_SERVED)
        """The last 100,000 requests, in the order they came."""
        self.attempts: Counter[int] = Counter()
        """How often each page was asked for, of those that passed the gateway."""
        self._catalogue = ChangingCatalogue(catalogue, self.scenario.changes, self.scenario.seed)
        self._clock = clock
        self._sleep = sleep
        self._threads = threads
        self._first_s: float | None = None
        self._let_through = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request. It ends when it is answered, or when the caller leaves."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
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
            tasks.start_soon(_until_left, receive, tasks.cancel_scope)
            decided = self._decide(request)
            answer = decided.answer
            if decided.make is not None:
                answer = replace(answer, body=await self._in_thread(decided.make))
            if decided.wait_s > 0:
                await self._sleep(decided.wait_s)
            await delivery.deliver(answer, decided.fault)
            tasks.cancel_scope.cancel()

    def _decide(self, request: Request) -> _Decided:
        """What becomes of ``request``. Nothing waits here, so what is counted is also what was judged."""
        now_s = self._clock()
        self._first_s = now_s if self._first_s is None else self._first_s
        verdict = self.gateway.judge(request.key, now_s, request.address)
        if verdict.status != _OK:
            self._note(request, now_s, verdict.status)
            return _Decided(refusal(verdict, request))
        asked = _asked(request)
        if asked is None:
            self.gateway.count(request.key, now_s, request.address)
            answer = with_quota(mistake(request, right_path=_is_browse(request)), verdict)
            self._note(request, now_s, answer.status)
            return _Decided(answer)
        elapsed_s = now_s - self._first_s
        catalogue = self._catalogue.view(self._let_through, elapsed_s)
        self._let_through += 1
        self.attempts[asked.number] += 1
        attempt = self.attempts[asked.number]
        fault = self.scenario.fault_of(asked.number, attempt, elapsed_s)
        if not isinstance(fault, OverRateLimit | Refused):
            self.gateway.count(request.key, now_s, request.address)
        wait_s = self.scenario.latency_s(asked.number, attempt) + (fault.delay_s if isinstance(fault, Slow) else 0.0)
        struck = instead(fault, verdict, request)
        self._note(request, now_s, struck.status if struck else _OK, attempt, fault)
        if struck is not None:
            return _Decided(struck, fault, wait_s)
        content_type = fault.content_type if isinstance(fault, WrongType) else JSON
        answer = with_quota(Answer(_OK, b"", content_type), verdict)
        return _Decided(answer, fault, wait_s, lambda: page_under(fault, catalogue, asked))

    def _note(self, request: Request, now_s: float, status: int, attempt: int = 0, fault: Fault | None = None) -> None:
        page = request.number("page", 0)
        self.served.append(Served(now_s, page, status, attempt, request.key or None, fault))

    async def _in_thread(self, make: Callable[[], bytes]) -> bytes:
        return await to_thread.run_sync(make) if self._threads else make()


def _is_browse(request: Request) -> bool:
    return request.path.rstrip("/") in _PATHS


def _asked(request: Request) -> Asked | None:
    """The page that is asked for; None if that cannot be."""
    number, size = request.number("page", 0), request.number("size", _LARGEST_SIZE)
    if not _is_browse(request) or request.method != "GET" or number is None or number < 0 or size is None or size < 1:
        return None
    return Asked(number, min(size, _LARGEST_SIZE), request.headers.get("host", "api.nasa.gov"), request.key)


async def _until_left(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return

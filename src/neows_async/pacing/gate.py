"""The one gate that every request goes through: it waits for what pacing and breaker decide."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio

from neows_async._wakeup import Wakeup
from neows_async.errors import OutageError, PausedError, RateLimit, RateLimitedError
from neows_async.pacing.concurrency import AdaptiveConcurrency
from neows_async.pacing.forecast import Outlook, forecast
from neows_async.pacing.shared_quota import SharedQuota
from neows_async.telemetry.events import SourceDown, SourceStillDown, SourceUp, WaitingForQuota

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from neows_async.errors import AttemptError, NeowsError
    from neows_async.pacing.breaker import CircuitBreaker
    from neows_async.pacing.quota import QuotaModel
    from neows_async.pacing.quota_store import QuotaStore
    from neows_async.telemetry.events import Listener

# A wait is looked at again so often, for clocks get set and machines sleep.
_LOOK_AGAIN_S: Final = 60.0
# Others with the same key tell the quota_store of their answers, and nobody tells us.
_OTHERS_S: Final = 0.5
_WORTH_TELLING_S: Final = 5.0
_LONG_S: Final = 30.0
# One more at once is worth it if the run then ends so much earlier.
_GAIN_S: Final = 5.0
_GAIN_SHARE: Final = 0.01
# What an answer without a word about a quota means, as long as none had one.
_UNLIMITED: Final = RateLimit(limit=1_000_000_000, remaining=999_999_999)


@dataclass(frozen=True, slots=True)
class GateLimits:
    """When to stop waiting.

    :param concurrency: requests under way at once, at most; fewer while the forecast gains nothing from more
    :param rate_per_s: what the gateway lets through in the long run besides the hour's quota; None is no limit
    :param max_wait_s: a slot further off than this pauses the run; None waits as long as it takes
    :param budget_requests: so many requests, then the run pauses; None is no limit
    """

    concurrency: int = 4
    rate_per_s: float | None = None
    max_wait_s: float | None = None
    budget_requests: int | None = None


class Gate:
    """Lets requests through one after the other, first come, first served.

    :param clock: UTC, seconds since 1970
    :param quota_store: what is shared with other gates of the same key; None shares nothing
    """

    def __init__(
        self,
        pacing: QuotaModel,
        breaker: CircuitBreaker,
        limits: GateLimits,
        *,
        clock: Callable[[], float],
        listener: Listener,
        quota_store: QuotaStore | None = None,
    ) -> None:
        self._quota = SharedQuota(pacing, quota_store, clock=clock, listener=listener)
        self._breaker = breaker
        self._limits = limits
        self._clock = clock
        self._listener = listener
        self._first_in_line = anyio.Lock(fast_acquire=True)
        self._news = Wakeup()
        self._metered = False
        self._told_until_s = -math.inf
        self._told_probe_s: float | None = None
        self._concurrency = AdaptiveConcurrency(limits.concurrency)
        self._allowed = 1
        self._under_way = 0
        self._closed_with: NeowsError | None = None
        self._closing = anyio.Event()
        self._answers = self._next_look = 0
        self.rest: Callable[[], Awaitable[None]] | None = None
        """Called before a long wait in which nothing is under way."""
        self._pages_left: Callable[[], int] = lambda: 1
        self.rate_limit: RateLimit | None = None
        """What the last answer said."""
        self.sent: int = 0
        self.quota_wait_s: float = 0.0
        """Time during which the quota, and nothing else, kept the next request back."""
        self.outage_wait_s: float = 0.0
        """The same of outages."""

    def expect(self, pages_left: Callable[[], int]) -> None:
        """``pages_left`` tells from now on how many are still to be fetched; until then it is one."""
        self._pages_left = pages_left
        self._look()
        self._news.wake_all()

    @property
    def is_down(self) -> bool:
        """Whether the source is taken to be down."""
        return self._breaker.is_open

    @property
    def under_way(self) -> int:
        """Requests that were not answered yet."""
        return self._under_way

    @property
    def closed_s(self) -> float:
        """Seconds in which nothing goes out, whoever asks: a ``Retry-After``, or an outage."""
        now_s = self._clock()
        return max(self._breaker.next_attempt_s(now_s), self._quota.pacing.held_s(now_s))

    def close(self, reason: NeowsError) -> None:
        """Let nothing out any more: ``reason`` is raised to whoever waits or comes. What is under way may come in."""
        self._closed_with = reason
        self._closing.set()
        self._news.wake_all()

    @property
    def is_closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed_with is not None

    async def sleep(self, seconds: float) -> None:
        """Until then, or until it is closed."""
        with anyio.move_on_after(seconds):
            await self._closing.wait()

    @asynccontextmanager
    async def permit(self, page: int) -> AsyncIterator[Permit]:
        """Wait for one's turn; inside, one request for ``page`` may go out.

        :raises PausedError: it is too far off, or the budget is spent
        :raises OutageError: the source has been down for too long
        :raises NeowsError: what the gate was closed with
        """
        async with self._first_in_line:
            ticket = await self._wait()
            self.sent += 1
            self._breaker.sent(self._clock())
            self._under_way += 1
            turn = Permit(self, page, ticket, self._under_way)
        try:
            yield turn
        finally:
            turn.end()
            await self._quota.settle()

    async def _wait(self) -> int:
        """Wait for the next slot, and take it."""
        budget = self._limits.budget_requests
        if budget is not None and self.sent >= budget:
            raise PausedError(f"the budget of {budget} requests is spent", resume_at_s=self._clock())
        while True:
            self._check_open()
            news = self._news.next_event()
            if self._under_way >= self._allowed:
                await news.wait()
                continue
            now_s = self._clock()
            outage_s = self._breaker.next_attempt_s(now_s)
            wanted = max(1.0, self._pages_left() - self._under_way)
            if budget is not None:
                wanted = min(wanted, budget - self.sent)
            quota_s, ticket = await self._quota.take(wanted=wanted, only_look=outage_s > 0)
            if ticket is not None:
                return await self._taken(ticket)
            wait_s = max(quota_s, outage_s)
            if self._breaker.given_up(now_s):
                outage = self._breaker.outage
                since_s = outage.since_s if outage else now_s
                raise OutageError(
                    f"the source has been down for {now_s - since_s:.0f} s, longer than --max-outage; run the same "
                    "command again to go on"
                )
            self._consider(now_s, quota_s)
            if _LONG_S < wait_s < math.inf and self._under_way == 0 and self.rest is not None:
                await self.rest()
            look_again_s = _OTHERS_S if self._quota.shared and wait_s == math.inf else _LOOK_AGAIN_S
            started_s = anyio.current_time()
            with anyio.move_on_after(min(wait_s, look_again_s, self._breaker.gives_up_s(now_s))):
                await news.wait()
            waited_s = anyio.current_time() - started_s
            if outage_s > 0:
                self.outage_wait_s += waited_s
            elif math.isfinite(quota_s):
                self.quota_wait_s += waited_s

    def _check_open(self) -> None:
        if self._closed_with is not None:
            raise self._closed_with

    async def _taken(self, ticket: int) -> int:
        """``ticket``, unless the gate was closed while it was taken."""
        if self._closed_with is not None:
            self._quota.lost(ticket)
            await self._quota.settle()
            raise self._closed_with
        return ticket

    def _consider(self, now_s: float, wait_s: float) -> None:
        """Whether to wait so long for the quota, and whether to say so."""
        if not math.isfinite(wait_s):
            return
        most_s, until_s = self._limits.max_wait_s, now_s + wait_s
        if most_s is not None and wait_s > most_s:
            raise PausedError(
                f"the quota lets the next request out in {wait_s:.0f} s, which is longer than --max-wait {most_s:g} s",
                resume_at_s=until_s,
            )
        if wait_s > _WORTH_TELLING_S and until_s > self._told_until_s + _WORTH_TELLING_S:
            self._told_until_s = until_s
            self._listener(WaitingForQuota(until_s=until_s, wait_s=wait_s))

    def answered(self, ticket: int, rate_limit: RateLimit | None) -> None:
        """The request of ``ticket`` was answered, well or badly, but not with 429."""
        self._metered = self._metered or rate_limit is not None
        self.rate_limit = rate_limit or self.rate_limit
        self._quota.answered(ticket, rate_limit or (None if self._metered else _UNLIMITED))
        self._news.wake_all()

    def limited(self, ticket: int, retry_after_s: float | None) -> None:
        """It was refused with 429."""
        self._quota.limited(ticket, retry_after_s)
        self._news.wake_all()

    def lost(self, ticket: int) -> None:
        """It ended without an answer."""
        self._quota.lost(ticket)
        self._news.wake_all()

    def came_in(self) -> int:
        """A request is under way no more. How many were, with that one."""
        self._under_way -= 1
        self._news.wake_all()
        return self._under_way + 1

    def page_came(self, sent_as: int, most: int, fetch_s: float) -> None:
        """A whole, right page: no outage any more.

        :param sent_as: so many requests were under way when it was asked for, with that one; ``most`` meanwhile
        :param fetch_s: from then to its answer
        """
        first = self._concurrency.answered(most, fetch_s, sent_as=sent_as)
        self._answers += 1
        # As soon as one more may be worth it, and once in a round: it costs forecasts.
        if first or self._answers >= self._next_look:
            self._look()
        outage = self._breaker.outage
        self._breaker.succeeded()
        if outage is not None:
            self._told_probe_s = None
            self._listener(SourceUp(down_s=self._clock() - outage.since_s))
        self._news.wake_all()

    def page_failed(self, page: int, reason: str) -> None:
        """The source failed at ``page``."""
        self._concurrency.failed()
        self._breaker.failed(page, self._clock())
        outage = self._breaker.outage
        if outage is None:
            return
        told_s, self._told_probe_s = self._told_probe_s, outage.next_probe_s
        if told_s is None:
            self._listener(SourceDown(outage.since_s, outage.next_probe_s, reason))
        elif told_s < outage.next_probe_s:
            self._listener(SourceStillDown(outage.since_s, outage.next_probe_s, reason))

    def _look(self) -> None:
        before, self._allowed = self._allowed, self._best_concurrency()
        self._next_look = self._answers + (1 if self._allowed > before else self._allowed)

    def _best_concurrency(self) -> int:
        """As many as let the run end earliest, by the forecast."""
        now_s = self._clock()
        pacing = self._quota.pacing
        counts = pacing.counts(now_s, hopeful=True)
        if counts is None:
            return 1

        def run_s(concurrency: int, latency_s: float) -> float:
            outlook = Outlook(
                pages=max(1, self._pages_left()),
                limit=pacing.limit or 1,
                counts=counts,
                latency_s=latency_s,
                concurrency=concurrency,
                max_rate_per_s=self._limits.rate_per_s,
            )
            return forecast(outlook, now_s).run_s

        most = self._limits.concurrency
        self._concurrency.gain_s = min(_GAIN_S, _GAIN_SHARE * run_s(most, self._concurrency.latency_s(most) or 0.0))
        return self._concurrency.wanted(run_s)


class Permit:
    """One request's passage. It is told how the request ended; untold, it was lost.

    :param sent_as: so many are under way, with this one
    """

    def __init__(self, gate: Gate, page: int, ticket: int, sent_as: int) -> None:
        self._gate = gate
        self._page = page
        self._ticket = ticket
        self._answered = False
        self._sent_as = sent_as
        self._most = sent_as  # while it was under way
        self._under_way = True

    def answered(self, rate_limit: RateLimit | None) -> None:
        """An answer came that may be a page. While it is judged and kept the next request may go out."""
        self._answered = True
        self._come_in()
        self._gate.answered(self._ticket, rate_limit)

    def good(self, fetch_s: float) -> None:
        """It was the whole, right page, and took so long."""
        self._gate.page_came(self._sent_as, self._most, fetch_s)

    def failed(self, exc: AttemptError) -> None:
        """It was none, or nothing came."""
        if isinstance(exc, RateLimitedError):
            self._answered = True
            self._gate.limited(self._ticket, exc.retry_after_s)
            return
        if exc.status is not None and not self._answered:
            self.answered(exc.rate_limit)
        self._gate.page_failed(self._page, str(exc))

    def end(self) -> None:
        """Whatever was not answered is lost."""
        if not self._answered:
            self._gate.lost(self._ticket)
        self._come_in()

    def _come_in(self) -> None:
        if self._under_way:
            self._under_way = False
            self._most = max(self._sent_as, self._gate.came_in())

"""The gate that every request passes: it waits until the quota, the breaker and the concurrency allow one more."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

import anyio

from neows_async._wakeup import Wakeup
from neows_async.errors import OutageError, PausedError, RateLimit, RateLimitedError
from neows_async.pacing.concurrency import AdaptiveConcurrency
from neows_async.pacing.shared_quota import SharedQuota
from neows_async.telemetry.events import SourceDown, SourceStillDown, SourceUp, WaitingForQuota

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from neows_async.errors import AttemptError, NeowsError
    from neows_async.pacing.breaker import CircuitBreaker
    from neows_async.pacing.quota import QuotaModel
    from neows_async.pacing.quota_store import QuotaStore
    from neows_async.telemetry.events import Listener

# Clocks get set and machines sleep, so a longer wait is computed again.
_LONGEST_SLEEP_S: Final = 60.0
# Responses of other runs change the store, which has no notification.
_POLL_STORE_S: Final = 0.5
_REPORTED_S: Final = 5.0  # shorter waits are not reported
_IDLE_S: Final = 30.0
# A response without quota headers, if no response had any: there is no quota.
_UNLIMITED: Final = RateLimit(limit=1_000_000_000, remaining=999_999_999)


@dataclass(frozen=True, slots=True)
class GateLimits:
    """Limits of one run.

    :param concurrency: requests in flight, at most; fewer while the source slows down or fails
    :param max_wait_s: a longer wait for the quota pauses the run; None is no limit
    :param budget_requests: the run pauses after this many requests; None is no limit
    """

    concurrency: int = 4
    max_wait_s: float | None = None
    budget_requests: int | None = None


class Gate:
    """Gives permits for requests one at a time, in the order of the calls.

    :param clock: UTC, seconds since 1970
    :param quota_store: shared with other gates of the same key; None shares nothing
    :param pages_left: returns the number of pages still to be requested, those in flight included
    :param on_idle: called before a long wait with no request in flight
    """

    def __init__(  # noqa: PLR0913 - the collaborators of a run, each by its name
        self,
        quota: QuotaModel,
        breaker: CircuitBreaker,
        limits: GateLimits,
        *,
        clock: Callable[[], float],
        listener: Listener,
        quota_store: QuotaStore | None = None,
        pages_left: Callable[[], int] = lambda: 1,
        on_idle: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._quota = SharedQuota(quota, quota_store, clock=clock, listener=listener)
        self._breaker = breaker
        self._limits = limits
        self._clock = clock
        self._listener = listener
        self._pages_left = pages_left
        self._on_idle = on_idle
        # anyio's locks are fair: the order of the calls is the order of the permits, so no page starves.
        self._first_in_line = anyio.Lock(fast_acquire=True)
        self._concurrency = AdaptiveConcurrency(limits.concurrency)
        self._shared = _Shared(self._quota, breaker, self._concurrency, clock, listener)
        self._reported_until_s = -math.inf
        self._closed_with: NeowsError | None = None
        self._closing = anyio.Event()
        self.sent: int = 0  # requests, with those of count_unpaced
        self.quota_wait_s: float = 0.0  # while only the quota held the next request back
        self.outage_wait_s: float = 0.0  # while an outage did

    @property
    def rate_limit(self) -> RateLimit | None:
        """The quota headers of the last response that had any."""
        return self._shared.rate_limit

    @property
    def is_down(self) -> bool:
        """Whether the source counts as down."""
        return self._breaker.is_open

    @property
    def in_flight(self) -> int:
        """Requests without a response."""
        return self._shared.in_flight

    @property
    def held_s(self) -> float:
        """Seconds during which no request is sent at all, because of a ``Retry-After`` or an outage."""
        now_s = self._clock()
        return max(self._breaker.next_attempt_s(now_s), self._quota.model.held_s(now_s))

    def count_unpaced(self, requests: int) -> None:
        """Count requests that need no permit, because a local source serves them."""
        self.sent += requests

    def close(self, reason: NeowsError) -> None:
        """Give no more permits: each call that waits, and each later call, raises ``reason``."""
        # First the reason, then the wake-ups: a task that wakes must find it.
        self._closed_with = reason
        self._closing.set()
        self._shared.changed.wake_all()

    @property
    def is_closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed_with is not None

    async def sleep(self, seconds: float) -> None:
        """Sleep, at most until the gate is closed."""
        with anyio.move_on_after(seconds):
            await self._closing.wait()

    @asynccontextmanager
    async def permit(self, page: int) -> AsyncIterator[Permit]:
        """Wait for a slot. Inside the block one request for ``page`` may be sent.

        :raises PausedError: the wait is too long, or the budget is spent
        :raises OutageError: the source has been down for too long
        :raises NeowsError: the gate was closed with it
        """
        # Only the first in line decides: two decisions at once could both take the last slot.
        async with self._first_in_line:
            ticket = await self._wait_for_ticket()
            # No await from here to the block: a cancellation in between would count a request that was never sent.
            self.sent += 1
            self._breaker.sent(self._clock())
            permit = Permit(self._shared, page, ticket)
        try:
            with permit:
                yield permit
        finally:
            # Also after an error: other runs must learn the outcome, or the ticket counts as in flight for minutes.
            await self._quota.flush()

    async def _wait_for_ticket(self) -> int:
        budget = self._limits.budget_requests
        if budget is not None and self.sent >= budget:
            raise PausedError(f"the budget of {budget} requests is spent", resume_at_s=self._clock())
        while True:
            if self._closed_with is not None:
                # Read in each round: the gate may be closed during any wait.
                raise self._closed_with
            # Take the event before reading any state: a change during an await below must end the wait.
            changed = self._shared.changed.next_event()
            # Before the quota: a slot must not be taken for a request that may not be sent.
            if self.in_flight >= self._concurrency.limit:
                await changed.wait()
                continue
            now_s = self._clock()
            outage_s = self._breaker.next_attempt_s(now_s)
            wanted = self._wanted()
            if outage_s > 0:
                # Only a look: during an outage no slot is taken, so none is lost.
                quota_s = await self._quota.next_slot_s(wanted=wanted)
            else:
                quota_s, ticket = await self._quota.take(wanted=wanted)
                if ticket is not None:
                    return await self._unless_closed(ticket)
            # Before the wait: a wait that is too long ends the run now, not after it.
            self._check_patience(now_s, quota_s)
            wait_s = max(quota_s, outage_s)
            if _IDLE_S < wait_s < math.inf and self.in_flight == 0 and self._on_idle is not None:
                # With nothing in flight: the source closes its connections, and a server would do it in a long wait
                # anyway.
                await self._on_idle()
            # No end of the wait is known while a response must come first. It may be another run's response.
            poll_s = _POLL_STORE_S if self._quota.shared and wait_s == math.inf else _LONGEST_SLEEP_S
            started_s = anyio.current_time()
            # Whichever is first: the slot, a change in the store, the end of patience, or a wake-up.
            with anyio.move_on_after(min(wait_s, poll_s, self._breaker.gives_up_s(now_s))):
                await changed.wait()
            waited_s = anyio.current_time() - started_s
            if outage_s > 0:
                self.outage_wait_s += waited_s
            elif math.isfinite(quota_s):
                self.quota_wait_s += waited_s

    def _wanted(self) -> float:
        wanted = max(1, self._pages_left() - self.in_flight)
        budget = self._limits.budget_requests
        return wanted if budget is None else min(wanted, budget - self.sent)

    async def _unless_closed(self, ticket: int) -> int:
        """Return ``ticket``, or give it back if the gate was closed while the store was busy."""
        if self._closed_with is not None:
            # Given back as lost, not as unused: other runs may have decided with it already.
            self._quota.no_response(ticket)
            await self._quota.flush()
            raise self._closed_with
        return ticket

    def _check_patience(self, now_s: float, quota_s: float) -> None:
        """Report a long wait for the quota."""
        outage = self._breaker.outage
        if outage is not None and self._breaker.given_up(now_s):
            raise OutageError(
                f"the source has been down for {now_s - outage.since_s:.0f} s, longer than --max-outage; run the same "
                "command again to continue"
            )
        # No end is known: a response in flight decides, and its own time limit ends this wait.
        if not math.isfinite(quota_s):
            return
        most_s, until_s = self._limits.max_wait_s, now_s + quota_s
        if most_s is not None and quota_s > most_s:
            raise PausedError(
                f"the next request must wait {quota_s:.0f} s for the quota, longer than --max-wait {most_s:g} s",
                resume_at_s=until_s,
            )
        if quota_s > _REPORTED_S and until_s > self._reported_until_s + _REPORTED_S:
            self._reported_until_s = until_s
            self._listener(WaitingForQuota(until_s=until_s, wait_s=quota_s))


@dataclass(slots=True)
class _Shared:
    """What a gate shares with its permits."""

    quota: SharedQuota
    breaker: CircuitBreaker
    concurrency: AdaptiveConcurrency
    clock: Callable[[], float]
    listener: Listener
    changed: Wakeup = field(default_factory=Wakeup)
    in_flight: int = 0
    rate_limit: RateLimit | None = None
    reported_probe_s: float | None = None


class Permit:
    """One request. Its outcome is reported here; a request without a reported response counts as lost."""

    def __init__(self, shared: _Shared, page: int, ticket: int) -> None:
        self._shared = shared
        self._page = page
        self._ticket = ticket
        self._sent_s = anyio.current_time()
        self._settled = False  # the quota knows the outcome
        # From here on the request counts as in flight, until _end.
        shared.in_flight += 1
        self._in_flight = shared.in_flight
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._settled:
            # No outcome was reported: cancelled, timed out, or broken. The gateway may have counted it.
            self._shared.quota.no_response(self._ticket)
        self._end()

    def response_received(self, rate_limit: RateLimit | None) -> None:
        """Report a response that may be a valid page. The next request may be sent before it is checked."""
        # The latency counts now: the next request must not be sent under a limit that this response lowers.
        self._shared.concurrency.succeeded(self._sent_s, anyio.current_time(), self._in_flight)
        self._settle(rate_limit)

    def page_received(self) -> None:
        """Report that the response was the valid page."""
        shared = self._shared
        # Read before the success, which ends it.
        outage = shared.breaker.outage
        shared.breaker.succeeded()
        if outage is not None:
            shared.reported_probe_s = None
            shared.listener(SourceUp(down_s=shared.clock() - outage.since_s))
        shared.changed.wake_all()

    def failed(self, exc: AttemptError) -> None:
        """Report that there was no response, or that it was no valid page."""
        if isinstance(exc, RateLimitedError):
            # A 429 is no failure of the source: breaker and concurrency do not learn from it.
            self._settled = True
            self._shared.quota.rate_limited(self._ticket, exc.retry_after_s)
            self._shared.changed.wake_all()
            return
        # A response of any status has quota headers; without a response __exit__ reports the loss.
        if exc.status is not None and not self._settled:
            self._settle(exc.rate_limit)
        self._page_failed(str(exc))

    def _page_failed(self, reason: str) -> None:
        shared = self._shared
        # During an outage the failures do not depend on the load: the limit is kept for its end.
        if not shared.breaker.is_open:
            shared.concurrency.failed(self._sent_s, anyio.current_time())
        shared.breaker.failed(self._page, shared.clock())
        outage = shared.breaker.outage
        if outage is None:
            return
        reported_s, shared.reported_probe_s = shared.reported_probe_s, outage.next_probe_s
        if reported_s is None:
            shared.listener(SourceDown(outage.since_s, outage.next_probe_s, reason))
        # Once for each probe, although several requests in flight may fail.
        elif reported_s < outage.next_probe_s:
            shared.listener(SourceStillDown(outage.since_s, outage.next_probe_s, reason))

    def _settle(self, rate_limit: RateLimit | None) -> None:
        shared = self._shared
        self._settled = True
        # No await between the two: the next request sees the free place and the new quota at once.
        self._end()
        # Sticky: once there were headers, a response without them is a gap and not the absence of a quota.
        shared.rate_limit = rate_limit or shared.rate_limit
        shared.quota.response_received(self._ticket, rate_limit or (None if shared.rate_limit else _UNLIMITED))
        shared.changed.wake_all()

    def _end(self) -> None:
        # Once: a response ends the flight, and so does the end of the block.
        if not self._ended:
            self._ended = True
            self._shared.in_flight -= 1
            self._shared.changed.wake_all()

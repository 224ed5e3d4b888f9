"""A run, simulated request by request: when it ends, where it waits, and the best minute to start it. Pure.

:mod:`neows_async.pacing.forecast` computes the end from the same window rule, an hour at a time. It leaves out the
first rounds, the daily limit, and the limits at which a run pauses.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from neows_async.pacing.forecast import RunConditions, forecast_end_s
from neows_async.pacing.hour import DAY_S, HOUR_S, SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_YEAR_S: Final = 366 * 86_400.0
_MOST_SIMULATED: Final = 20_000  # later requests are forecast
_MOST_SEARCHED: Final = 10_000  # longer runs get no search for the best minute
_LONGEST_SEARCHED_S: Final = 48 * 3_600.0
_SHORTEST_WAIT_S: Final = 60.0
_SAME_S: Final = 60.0  # a smaller difference does not matter, since people plan in minutes


@dataclass(frozen=True, slots=True)
class Wait:
    """A time in which no request is sent. UTC, seconds since 1970.

    :param from_s: the last request before it was sent then, or the run started then
    :param to_s: the next request is sent then
    """

    from_s: float
    to_s: float


@dataclass(frozen=True, slots=True)
class SimulatedRun:
    """A run that starts at ``start_s``. All times are UTC, seconds since 1970.

    :param end_s: when its last response arrives; ``inf`` if not within a year
    :param left: requests that were not sent because the run pauses
    :param resume_s: when the same command can continue the run; None if the run does not pause
    :param waits: waits of a minute or more, ascending
    :param sent_s: when each request is sent, ascending; only the first 20,000
    """

    start_s: float
    end_s: float
    left: int
    resume_s: float | None
    waits: tuple[Wait, ...]
    sent_s: tuple[float, ...]

    @property
    def lasts_s(self) -> float:
        """The length of the run."""
        return self.end_s - self.start_s

    @property
    def done(self) -> bool:
        """Whether the run ends without a pause."""
        return self.resume_s is None


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Three starts.

    :param now: a run that starts now
    :param best: the shortest of the runs that end within a minute of the earliest end; it may be ``now``
    :param shortest: the shortest of all runs; it may be ``best``
    """

    now: SimulatedRun
    best: SimulatedRun
    shortest: SimulatedRun


def compare_starts(conditions: RunConditions, now_s: float, *, within_s: float = HOUR_S) -> RunOptions:
    """Return a run that starts now, and the best of those that start at a whole minute of the next ``within_s``.

    No run ends earlier than the one that starts now, because waiting never frees a slot earlier. A later start may end
    at the same time without the waits, or it may be shorter and end later.
    """
    now = simulate(conditions, now_s)
    best, shortest = _best_starts(conditions, now, within_s)
    return RunOptions(now, best, shortest)


def _best_starts(conditions: RunConditions, now: SimulatedRun, within_s: float) -> tuple[SimulatedRun, SimulatedRun]:
    # A run that ends at its budget ends there in any minute. For a run of days a minute does not matter.
    over_budget = conditions.budget_requests is not None and conditions.budget_requests < conditions.requests
    if over_budget or conditions.requests > _MOST_SEARCHED or now.lasts_s > _LONGEST_SEARCHED_S:
        return now, now
    ends_s = dict(_ends(conditions, [now.start_s, *_whole_minutes(now.start_s, within_s)]))
    if not ends_s:
        return now, now
    earliest_s = min(ends_s.values())
    on_time = [start_s for start_s, end_s in ends_s.items() if end_s <= earliest_s + _SAME_S]

    def shortest(starts_s: Sequence[float], so_far: SimulatedRun) -> SimulatedRun:
        least_s = min(ends_s[start_s] - start_s for start_s in starts_s)
        # Of the runs that are equally short, to the minute, the earliest.
        start_s = next(one for one in starts_s if ends_s[one] - one <= least_s + _SAME_S / 2)
        run = simulate(conditions, start_s)
        return run if run.done and (not so_far.done or run.lasts_s < so_far.lasts_s - _SAME_S) else so_far

    best = shortest(on_time, now)
    return best, shortest(list(ends_s), best)


def _ends(conditions: RunConditions, starts_s: Sequence[float]) -> Iterator[tuple[float, float]]:
    """Yield (start, end) of the runs that do not pause, ascending by start."""
    for start_s in starts_s:
        if conditions.daily_limit is None and conditions.max_wait_s is None:
            # The result differs by some seconds, and takes a hundredth of the time.
            yield start_s, forecast_end_s(conditions, max(start_s, conditions.not_before_s))
        else:
            run = simulate(conditions, start_s)
            if run.done:
                yield start_s, run.end_s


def _whole_minutes(now_s: float, within_s: float) -> Iterator[float]:
    start_s = (math.floor(now_s / 60) + 1) * 60.0
    while start_s <= now_s + within_s:
        yield start_s
        start_s += 60


def simulate(conditions: RunConditions, start_s: float) -> SimulatedRun:
    """Return the run that starts at ``start_s``, to its end or to its pause."""
    quota = _Quota(conditions, start_s)
    in_flight = _InFlight(conditions)
    sent_s: list[float] = []
    waits: list[Wait] = []
    budget = math.inf if conditions.budget_requests is None else conditions.budget_requests
    simulated = min(conditions.requests, _MOST_SIMULATED)
    free_s = start_s

    def paused(resume_s: float) -> SimulatedRun:
        """Return the run that pauses now: the responses in flight arrive first."""
        end_s, left = in_flight.last_response_s(start_s), conditions.requests - len(sent_s)
        return SimulatedRun(start_s, end_s, left, max(resume_s, end_s), tuple(waits), tuple(sent_s))

    while len(sent_s) < simulated:
        free_s = in_flight.free_at_s(free_s)
        if len(sent_s) >= budget:
            return paused(free_s)
        spaced_s = sent_s[-1] + 1 / conditions.max_rate_per_s if sent_s and conditions.max_rate_per_s else free_s
        slot_s = quota.free_at_s(max(free_s, spaced_s, conditions.not_before_s))
        if conditions.max_wait_s is not None and slot_s - free_s > conditions.max_wait_s:
            return paused(slot_s)
        # Whatever the limits: the simulation ends.
        if slot_s - start_s > _YEAR_S:
            return SimulatedRun(start_s, math.inf, 0, None, tuple(waits), tuple(sent_s))
        last_s = sent_s[-1] if sent_s else start_s
        if slot_s - last_s >= max(_SHORTEST_WAIT_S, conditions.latency_s):
            waits.append(Wait(last_s, slot_s))
        quota.count(slot_s)
        in_flight.send(slot_s)
        sent_s.append(slot_s)
        free_s = slot_s
    end_s = in_flight.last_response_s(start_s)
    if conditions.requests > simulated:
        rest = replace(conditions, requests=conditions.requests - simulated, counts=quota.hour)
        end_s = forecast_end_s(rest, free_s)
    return SimulatedRun(start_s, end_s, 0, None, tuple(waits), tuple(sent_s))


class _InFlight:
    """The requests in flight: each response raises their number by one, as :class:`AdaptiveConcurrency` does."""

    def __init__(self, conditions: RunConditions) -> None:
        self._conditions = conditions
        self._responses_s: list[float] = []
        self._limit = 1
        self._last_response_s = -math.inf
        self._alone = True

    def free_at_s(self, now_s: float) -> float:
        """Return the time from which one more may be in flight."""
        self._receive(now_s)
        while len(self._responses_s) >= (1 if self._alone else self._limit):
            now_s = self._responses_s[0]
            self._receive(now_s)
        return now_s

    def send(self, now_s: float) -> None:
        """Put one more in flight."""
        self._receive(now_s)
        # As QuotaModel: after a long silence one request goes alone.
        if now_s - self._last_response_s > self._conditions.stale_after_s:
            self._alone = True
        heapq.heappush(self._responses_s, now_s + self._conditions.latency_s)

    def last_response_s(self, otherwise_s: float) -> float:
        """Return when the last response arrives, or arrived; ``otherwise_s`` if there is none."""
        return max(self._responses_s, default=max(self._last_response_s, otherwise_s))

    def _receive(self, now_s: float) -> None:
        while self._responses_s and self._responses_s[0] <= now_s:
            self._last_response_s = heapq.heappop(self._responses_s)
            self._limit = min(self._conditions.concurrency, self._limit + 1)
            self._alone = False


class _Quota:
    """The gateway's limits over an hour and a day, as it counts them."""

    def __init__(self, conditions: RunConditions, start_s: float) -> None:
        self._conditions = conditions
        self.hour = conditions.counts.at(start_s)
        today = SlidingWindow(int(start_s // DAY_S), 0, 0, DAY_S)
        self._day = (conditions.day_counts or today).at(start_s)

    def free_at_s(self, now_s: float) -> float:
        """Return the time from which one more request passes both."""
        limits = ((self._day, self._conditions.daily_limit), (self.hour, self._conditions.limit))
        while True:
            slot_s = now_s
            for window, limit in limits:
                if limit is not None:
                    slot_s = window.free_at_s(limit, slot_s, margin_s=self._conditions.margin_s)
            # Both agree. A slot of the hour may be outside the day's limit, and the other way round.
            if slot_s == now_s:
                return now_s
            now_s = slot_s

    def count(self, now_s: float) -> None:
        self.hour, self._day = self.hour.counted(now_s), self._day.counted(now_s)

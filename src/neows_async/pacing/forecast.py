"""When a run will end, where it will pause, and when best to start it. Pure.

By the gateway's own rule, an hour at a time. All of a run's requests are as early as they can be,
which is best: let ``A(t)`` be all that was ever counted until ``t``. In an hour that began at ``b``,
at its share ``s``, the rule lets a request pass while ::

    A(t) < limit + ceil((1 - s) * A(b - 1 h) + s * A(b))

Both terms on the right only grow when earlier requests come earlier. So of all schedules that the
gateway lets pass, the one that never waits is ahead of every other at every moment; a request saved
up for later gains nothing, not even in the hour after next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from neows_async.pacing.hour import HourCounts

_HOUR_S: Final = 3600
_PAUSE_S: Final = 300.0
_LONGEST_HOURS: Final = 24 * 366
BURST_RATE_PER_S: Final = 150 / 15 / 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a forecast is made of.

    :param pages: still to be fetched
    :param limit: requests an hour
    :param counts: what the gateway has counted for the key
    :param latency_s: from a request to its answer, on average
    :param concurrency: requests under way at once
    :param max_rate_per_s: requests a second at most; None is no limit. By default what pacing makes
        of the gateway's burst limits in the long run
    :param failing: share of requests that fail and are sent again; each costs quota
    """

    pages: int
    limit: int
    counts: HourCounts
    latency_s: float
    concurrency: int
    max_rate_per_s: float | None = BURST_RATE_PER_S
    failing: float = 0.0

    @property
    def requests(self) -> int:
        """How many it takes."""
        return math.ceil(self.pages / (1 - min(self.failing, 0.99)))

    @property
    def rate_per_s(self) -> float:
        """Requests a second while the hour's quota lasts."""
        rate = self.concurrency / max(self.latency_s, 0.001)
        return rate if self.max_rate_per_s is None else min(rate, self.max_rate_per_s)


@dataclass(frozen=True, slots=True)
class Pause:
    """A time in which nothing can be sent. UTC, seconds since 1970."""

    from_s: float
    to_s: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """How a run goes that starts at ``start_s``. All times are UTC, seconds since 1970.

    :param pauses: of five minutes or more, ascending
    :param finish_s: when the last answer comes; ``inf`` if not within a year
    """

    start_s: float
    finish_s: float
    requests: int
    pauses: tuple[Pause, ...]

    @property
    def run_s(self) -> float:
        """How long the run takes."""
        return self.finish_s - self.start_s


def forecast(outlook: Outlook, start_s: float) -> Forecast:
    """How a run that starts at ``start_s`` will go, if nobody else uses the key."""
    pauses: list[Pause] = []
    left, now_s, idle_since_s = outlook.requests, start_s, start_s
    counts = outlook.counts.at(int(start_s // _HOUR_S))
    for _ in range(_LONGEST_HOURS):
        if left <= 0:
            return Forecast(start_s, now_s + outlook.latency_s, outlook.requests, tuple(pauses))
        passed = _hour(outlook, counts, now_s, left)
        if passed.sent:
            if passed.first_s - idle_since_s >= _PAUSE_S:
                pauses.append(Pause(idle_since_s, passed.first_s))
            idle_since_s = passed.last_s
            if passed.stalled_s is not None and passed.slot_every_s >= _PAUSE_S:
                idle_since_s = passed.stalled_s  # what trickles through is no progress
        left -= passed.sent
        now_s = passed.last_s if left <= 0 else (counts.hour + 1) * _HOUR_S
        counts = replace(counts, current=counts.current + passed.sent).at(counts.hour + 1)
    return Forecast(start_s, math.inf, outlook.requests, tuple(pauses))


@dataclass(frozen=True, slots=True)
class _Passed:
    """What passes in one hour: how many, the first, the last, and since when only freed slots do."""

    sent: int
    first_s: float
    last_s: float
    stalled_s: float | None
    slot_every_s: float


def _hour(outlook: Outlook, counts: HourCounts, from_s: float, left: int) -> _Passed:
    end_s, rate = (counts.hour + 1) * _HOUR_S, outlook.rate_per_s
    every_s = _HOUR_S / counts.previous if counts.previous else math.inf
    last_s = from_s + (left - 1) / rate
    # Whatever share of the previous hour is counted, there is room for all of them, and time.
    there_is_room = counts.previous + counts.current + left <= outlook.limit
    if there_is_room and end_s - _HOUR_S <= from_s <= last_s < end_s:
        return _Passed(left, from_s, last_s, None, every_s)

    def allowed_s(number: int) -> float:
        """From when the estimate leaves room for the ``number``-th request (from 1) from here."""
        room = outlook.limit - counts.current - number
        if room < 0:
            return math.inf
        # At most so large a share of the previous hour, whose product is rounded down.
        share = (room + 1) / counts.previous if counts.previous else 1.0
        return max(from_s, end_s - min(1.0, share) * _HOUR_S)

    def passes_s(number: int) -> float:
        """When it passes: the quota and the fetchers both let it."""
        return max(allowed_s(number), allowed_s(1) + (number - 1) / rate)

    # Both only grow with the number, so the last one that passes in this hour can be searched for.
    low, high = 0, left
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if passes_s(middle) < end_s else (low, middle - 1)
    if not low:
        return _Passed(0, end_s, end_s, None, every_s)
    first_s, last_s = passes_s(1), passes_s(low)
    full = max(0, min(low, outlook.limit - counts.estimate(from_s)))
    stalled_s = passes_s(full) if 0 < full < low else (from_s if not full else None)
    return _Passed(low, first_s, last_s, stalled_s, every_s)


def best_start(outlook: Outlook, now_s: float, *, within_s: float = _HOUR_S, tolerance_s: float = 60.0) -> Forecast:
    """The shortest of the runs that end as early as one can.

    No run ends earlier than one that starts now, since waiting never helps; but one that starts
    later may end at the same time, and spare its hours of waiting for quota.

    :param within_s: how far ahead to look, a whole minute at a time; starting now is among them
    :param tolerance_s: ends that differ by less are the same
    """
    first_s = (math.floor(now_s / 60) + 1) * 60
    runs = [forecast(outlook, now_s)]
    runs += [forecast(outlook, first_s + 60 * minute) for minute in range(int((now_s + within_s - first_s) // 60) + 1)]
    earliest_s = min(run.finish_s for run in runs)
    return min((run for run in runs if run.finish_s <= earliest_s + tolerance_s), key=lambda run: run.run_s)

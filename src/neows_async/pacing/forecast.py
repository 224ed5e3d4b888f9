"""When a run ends, computed an hour at a time. Pure.

Each request is sent as early as the gateway and the concurrency allow, which is the best schedule. Let ``A(t)`` be the
number of requests ever counted until ``t``. In an hour that began at ``b``, of which the share ``s`` of the previous
hour still counts, a request passes while ::

    A(t) < limit + ceil((1 - s) * A(b - 1 h) + s * A(b))

Both terms on the right only grow if earlier requests are sent earlier. So of all schedules that the gateway accepts,
the one that never waits is ahead of every other at every moment. A request that is saved for later gains nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from neows_async.pacing.hour import SlidingWindow

_LONGEST_HOURS: Final = 24 * 366
_NO_LIMIT: Final = 1_000_000_000
BURST_RATE_PER_S: Final = 150 / 15 / 1.5
"""The rate that api.data.gov's burst limits allow in the long run, as :mod:`neows_async.pacing.bursts` keeps them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConditions:
    """What the length of a run depends on.

    :param requests: still to be sent, one a page
    :param limit: requests an hour; None if the gateway has no hourly quota
    :param counts: what the gateway has counted for the key in this hour and the one before
    :param latency_s: from a request to its response, on average
    :param concurrency: requests in flight, at most
    :param max_rate_per_s: requests a second, at most; None is no limit
    :param daily_limit: requests a day; None is no limit
    :param day_counts: what the gateway has counted for the key today and yesterday; None is nothing
    :param not_before_s: UTC, seconds since 1970: no request may be sent earlier
    :param max_wait_s: a longer wait for the quota pauses the run; None is no limit
    :param budget_requests: the run pauses after this many requests; None is no limit
    :param margin_s: a slot of the quota is used this much later than the gateway's rule allows
    :param stale_after_s: after this long without a response one request goes alone
    """

    requests: int
    limit: int | None
    counts: SlidingWindow
    latency_s: float
    concurrency: int
    max_rate_per_s: float | None = None
    daily_limit: int | None = None
    day_counts: SlidingWindow | None = None
    not_before_s: float = -math.inf
    max_wait_s: float | None = None
    budget_requests: int | None = None
    margin_s: float = 2.0
    stale_after_s: float = 600.0

    @property
    def rate_per_s(self) -> float:
        """Requests a second while the hour's quota lasts."""
        rate = self.concurrency / max(self.latency_s, 0.001)
        return rate if self.max_rate_per_s is None else min(rate, self.max_rate_per_s)


def forecast_end_s(conditions: RunConditions, start_s: float) -> float:
    """Return when the last response of a run arrives that starts at ``start_s``; ``inf`` if not within a year.

    Times are UTC, seconds since 1970. Only the hourly quota, the rate, the latency and the concurrency count. The
    result is some seconds early, because the first rounds have fewer requests in flight.
    """
    left, now_s = conditions.requests, start_s
    window = conditions.counts.at(start_s)
    for _ in range(_LONGEST_HOURS):
        if left <= 0:
            return now_s + conditions.latency_s
        sent, last_s = _one_hour(conditions, window, now_s, left)
        left -= sent
        now_s = last_s if left <= 0 else window.ends_s
        # Counted at the hour's beginning: within the hour only the number matters.
        window = window.counted(window.begins_s, sent).at(window.ends_s)
    return math.inf


def _one_hour(conditions: RunConditions, window: SlidingWindow, from_s: float, left: int) -> tuple[int, float]:
    """Return the number of requests that pass from ``from_s`` to the hour's end, and when the last one does."""
    limit, rate = conditions.limit or _NO_LIMIT, conditions.rate_per_s
    first_s = window.free_at_s(limit, from_s)

    def passes_s(number: int) -> float:
        """Return when the ``number``-th request (from 1) passes: both the quota and the concurrency allow it."""
        return max(window.free_at_s(limit, from_s, requests=number), first_s + (number - 1) / rate)

    # The time only grows with the number, so the last request of this hour is found by bisection.
    low, high = 0, left
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if passes_s(middle) < window.ends_s else (low, middle - 1)
    return low, passes_s(low) if low else window.ends_s

"""The gateway's limits over seconds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neows_async.pacing.rules import Burst


def next_s(bursts: Sequence[Burst], arrived_s: Sequence[float], under_way: int, now_s: float) -> float:
    """UTC, from when one more request stays inside every limit; ``inf`` while too many are under way.

    :param arrived_s: for each request that is over, the latest moment it can have arrived; ascending
    :param under_way: requests that may arrive at any moment, all at once if need be
    """
    return max((_next_s(burst, arrived_s, under_way, now_s) for burst in bursts), default=now_s)


def _next_s(burst: Burst, arrived_s: Sequence[float], under_way: int, now_s: float) -> float:
    allowed = burst.requests - under_way
    if allowed <= 0:
        return math.inf
    recent = [one for one in arrived_s if one > now_s - 2 * burst.per_s]
    if _weight(burst, recent, now_s) < allowed:
        return now_s
    soon_s, late_s = now_s, now_s + 2 * burst.per_s
    while late_s - soon_s > 0.001:  # noqa: PLR2004 - a millisecond is close enough
        middle_s = (soon_s + late_s) / 2
        if _weight(burst, recent, middle_s) < allowed:
            late_s = middle_s
        else:
            soon_s = middle_s
    return late_s


def _weight(burst: Burst, arrived_s: Sequence[float], now_s: float) -> float:
    """At least the gateway's estimate, wherever its windows begin.

    One window knows nothing of our clock's margin, so each request weighs the most that it can:
    whole while it may be in the current window, then what is left of the one before at best.
    """
    return sum(min(1.0, max(0.0, 2 - (now_s - one) / burst.per_s)) for one in arrived_s)

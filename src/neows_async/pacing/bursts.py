"""The gateway's limits over seconds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neows_async.pacing.rules import Burst


def next_slot_s(bursts: Sequence[Burst], arrived_s: Sequence[float], in_flight: int, now_s: float) -> float:
    """Return the time (UTC) from which one more request is inside every limit; ``inf`` if a response must come first.

    :param arrived_s: for each request with a response, the latest time at which it can have reached the gateway;
        ascending
    :param in_flight: requests that may reach the gateway at any time, all of them at once in the worst case
    """
    return max((_next_slot_s(burst, arrived_s, in_flight, now_s) for burst in bursts), default=now_s)


def _next_slot_s(burst: Burst, arrived_s: Sequence[float], in_flight: int, now_s: float) -> float:
    allowed = burst.requests - in_flight
    # All of them may arrive in one moment, so only a response can show room.
    if allowed <= 0:
        return math.inf
    recent = [one for one in arrived_s if one > now_s - 2 * burst.per_s]
    if _weight(burst, recent, now_s) < allowed:
        return now_s
    soon_s, late_s = now_s, now_s + 2 * burst.per_s
    # Bisection: the weight only falls while nothing is sent.
    while late_s - soon_s > 0.001:  # noqa: PLR2004 - a millisecond is close enough
        middle_s = (soon_s + late_s) / 2
        if _weight(burst, recent, middle_s) < allowed:
            late_s = middle_s
        else:
            soon_s = middle_s
    return late_s


def _weight(burst: Burst, arrived_s: Sequence[float], now_s: float) -> float:
    """Return an upper bound of the gateway's estimate.

    Windows of a second are shorter than the clocks' margin, so their borders are unknown. Each request has the highest
    weight that is possible: 1 while it may be in the current window, then the largest share left of the previous one.
    """
    return sum(min(1.0, max(0.0, 2 - (now_s - one) / burst.per_s)) for one in arrived_s)

"""The gateway's word on each request, from the facts known of api.data.gov's software. Pure: the time is an argument.

The hour is a sliding estimate, aligned to the epoch: what was counted this hour, and of last
hour's count the share that is still inside the window. Refused requests are not counted.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

_HOUR_S: Final = 3600
_DAY_S: Final = 86_400
DEMO_KEY: Final = "DEMO_KEY"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gateway does with a request.

    :param status: 200 lets it through; 403 and 429 end it
    :param code: the gateway's own name for a refusal
    :param limit: requests an hour; None where the gateway says nothing of it
    """

    status: int
    code: str = ""
    limit: int | None = None
    remaining: int | None = None
    retry_after_s: int | None = None


@dataclass(slots=True)
class Gateway:
    """Counts requests by key.

    :param hourly_limit: of every key but ``DEMO_KEY``, which has 30 an hour and 50 a day
    :param refused_keys: key → code, e.g. ``API_KEY_DISABLED``
    :param known_keys: when given, other keys are ``API_KEY_INVALID``
    """

    hourly_limit: int = 1_000
    refused_keys: dict[str, str] = field(default_factory=dict)
    known_keys: frozenset[str] | None = None
    _hours: dict[str, Counter[int]] = field(default_factory=dict)
    _days: dict[str, Counter[int]] = field(default_factory=dict)

    def judge(self, key: str | None, now_s: float) -> Verdict:
        """One request of ``key``, arriving at ``now_s`` (UTC, seconds since 1970)."""
        if not key:
            return Verdict(403, "API_KEY_MISSING")
        if key in self.refused_keys:
            return Verdict(403, self.refused_keys[key])
        if self.known_keys is not None and key not in self.known_keys and key != DEMO_KEY:
            return Verdict(403, "API_KEY_INVALID")
        limit = 30 if key == DEMO_KEY else self.hourly_limit
        hour, into_s = divmod(now_s, _HOUR_S)
        hours = self._hours.setdefault(key, Counter())
        days = self._days.setdefault(key, Counter())
        for old in [one for one in hours if one < hour - 1]:
            del hours[old]
        if key == DEMO_KEY and days[int(now_s // _DAY_S)] >= 50:  # noqa: PLR2004 - a day's limit
            return Verdict(429, "OVER_RATE_LIMIT", limit, 0, math.ceil(_DAY_S - now_s % _DAY_S))
        used = _estimate(hours, int(hour), into_s)
        if used >= limit:
            return Verdict(429, "OVER_RATE_LIMIT", limit, 0, _retry_after_s(hours, int(hour), into_s, limit))
        hours[int(hour)] += 1
        days[int(now_s // _DAY_S)] += 1
        return Verdict(200, limit=limit, remaining=limit - used - 1)


def _estimate(hours: Counter[int], hour: int, into_s: float) -> int:
    return hours[hour] + math.floor(hours[hour - 1] * (_HOUR_S - into_s) / _HOUR_S)


def _retry_after_s(hours: Counter[int], hour: int, into_s: float, limit: int) -> int:
    """Whole seconds until the estimate is below the limit again."""
    for wait_s in range(1, 2 * _HOUR_S + 1):
        later, then_s = divmod(into_s + wait_s, _HOUR_S)
        if _estimate(hours, hour + int(later), then_s) < limit:
            return wait_s
    return 2 * _HOUR_S

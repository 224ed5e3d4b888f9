"""How many requests may be in flight: additive increase, multiplicative decrease. Pure: the time is an argument.

The rule, for each round of responses::

    latency normal     limit + 1; before the first decrease + 1 for each response
    latency high       limit / 2
    a fifth failed     limit / 2

The latency is high if a round's sum exceeds 1.5 times what it normally is. Each decrease doubles the rounds that the next
increase takes, so that the limit rarely returns to where the source slowed down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

_ROUND: Final = 20
# The first responses, of one or two requests in flight, are the first reference.
_FIRST_ROUND: Final = 3
_TOLERANCE: Final = 1.5
# The reference may rise this much a round: a source that becomes slower for good gets its concurrency back.
_DRIFT: Final = 1.05
_FAILED_SHARE: Final = 0.2
_MOST_ROUNDS: Final = 16


@dataclass(slots=True)
class AdaptiveConcurrency:
    """A limit between 1 and ``maximum``. It starts at 1.

    :param maximum: requests in flight, at most
    """

    maximum: int
    limit: int = field(default=1, init=False)
    """Requests that may be in flight now."""
    _normal_s: float = field(default=math.inf, init=False)
    _decreased_s: float = field(default=-math.inf, init=False)
    _sum_s: float = field(default=0.0, init=False)
    _responses: int = field(default=0, init=False)
    _failures: int = field(default=0, init=False)
    _rounds: int = field(default=0, init=False)
    _rounds_to_increase: int = field(default=0, init=False)

    def succeeded(self, sent_s: float, received_s: float, in_flight: int) -> None:
        """Count a valid response.

        :param sent_s: when the request was sent, in seconds on any clock that never goes back
        :param received_s: when the response arrived, on the same clock
        :param in_flight: requests in flight when this one was sent, with this one
        """
        # A request from before the last decrease shows the load that the decrease has already answered.
        if sent_s < self._decreased_s:
            return
        self._sum_s += received_s - sent_s
        self._responses += 1
        size = max(_ROUND, self.limit) if math.isfinite(self._normal_s) else _FIRST_ROUND
        # Few very slow responses decide before the round ends.
        if self._sum_s > _TOLERANCE * self._normal_s * size:
            self._halve(received_s, min(_MOST_ROUNDS, 2 * self._rounds_to_increase))
            return
        ends = self._responses >= size
        if ends:
            self._normal_s = min(self._sum_s / self._responses, _DRIFT * self._normal_s)
            self._rounds += 1
            self._begin_round()
        due = ends and self._rounds >= self._rounds_to_increase
        # If something else limits the requests in flight, the latency shows nothing about a higher limit.
        if (due or not self._rounds_to_increase) and 2 * in_flight > self.limit:
            self.limit = min(self.maximum, self.limit + 1)
            self._rounds = 0

    def failed(self, sent_s: float, failed_s: float) -> None:
        """Count a failure of the source: no response, a timeout, or 5xx. Not 429, which is the quota's.

        :param sent_s: as in :meth:`succeeded`
        :param failed_s: when the failure was known, on the same clock
        """
        if sent_s < self._decreased_s:
            return
        self._failures += 1
        if self._failures >= _FAILED_SHARE * max(_ROUND, self.limit):
            self._halve(failed_s, self._rounds_to_increase)

    def _begin_round(self) -> None:
        self._sum_s, self._responses, self._failures = 0.0, 0, 0

    def _halve(self, now_s: float, rounds: int) -> None:
        self.limit = (self.limit + 1) // 2
        self._decreased_s = now_s
        self._rounds, self._rounds_to_increase = 0, max(1, rounds)
        self._begin_round()

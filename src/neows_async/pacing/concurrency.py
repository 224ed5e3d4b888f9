"""How many requests may be in flight: additive increase, multiplicative decrease. Pure: the time is an argument.

The rule::

    responses as fast as normal   limit + 1 for every 20; before the first decrease for each
    responses slow                limit / 2
    requests fail                 limit / 2

Responses are slow if ``latency / normal - 1.5``, summed from the last time that the sum was 0, exceeds 4: a single
response of more than 5.5 times the normal latency, or 9 of twice the normal latency. The limit then remembers where the
source became slow. It returns to that number after 80 responses, the next time after 320, at last after 1,280.

A source that is slow with one request in flight is not overloaded. Its latency is the new normal one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

_INCREASE_AFTER: Final = 20
_MOST_RESPONSES: Final = 1_280
_SLOW: Final = 1.5
_SLOW_SUM: Final = 4.0
# On a busy machine a response of a millisecond may take a hundred: that shows nothing about the source.
_LEAST_NORMAL_S: Final = 0.1
# The mean of the first responses is the first reference. Then it follows slowly, so that load does not become normal.
_FIRST_RESPONSES: Final = 3
_WEIGHT: Final = 0.01
# If 1 request in 20 fails at random, the sum rarely reaches 3. It reaches 3 soon if more than 1 in 8 fail.
_FAILURES: Final = 3
_FAILURE_FADES: Final = 0.15


@dataclass(slots=True)
class AdaptiveConcurrency:
    """A limit between 1 and ``maximum``. It starts at 1.

    :param maximum: requests in flight, at most
    """

    maximum: int
    limit: int = field(default=1, init=False)
    """Requests that may be in flight now."""
    _normal_s: float = field(default=0.0, init=False)
    _responses: int = field(default=0, init=False)
    _slow_sum: float = field(default=0.0, init=False)
    _failures: float = field(default=0.0, init=False)
    _since_change: int = field(default=0, init=False)
    _slow_at: int | None = field(default=None, init=False)
    _return_after: int = field(default=_INCREASE_AFTER, init=False)
    _decreased_s: float = field(default=-math.inf, init=False)

    def succeeded(self, sent_s: float, now_s: float, in_flight: int) -> None:
        """Count a response, before the next request is sent.

        :param sent_s: when the request was sent, in seconds on any clock that never goes back
        :param now_s: when the response arrived, on the same clock
        :param in_flight: requests in flight when this one was sent, with this one
        """
        # A request from before the last decrease met the load of that time, not the present one.
        if sent_s < self._decreased_s:
            return
        latency_s = now_s - sent_s
        # Fades with each success, so only failures in quick succession count.
        self._failures = max(0.0, self._failures - _FAILURE_FADES)
        self._responses += 1
        if self._responses <= _FIRST_RESPONSES:
            self._normal_s += (latency_s - self._normal_s) / self._responses
        else:
            # Capped: one very slow response must not become the normal one.
            self._normal_s += _WEIGHT * (min(latency_s, _SLOW * self._normal_s) - self._normal_s)
        self._slow_sum = max(0.0, self._slow_sum + latency_s / max(self._normal_s, _LEAST_NORMAL_S) - _SLOW)
        # A sum, not one value: jitter cancels out, and a lasting slowdown adds up.
        if self._slow_sum > _SLOW_SUM:
            self._slow(now_s)
            return
        self._since_change += 1
        # If something else keeps the requests in flight low, the latency shows nothing about a higher limit.
        if self._since_change >= self._increase_after() and 2 * in_flight > self.limit:
            self.limit = min(self.maximum, self.limit + 1)
            self._since_change = 0

    def failed(self, sent_s: float, now_s: float) -> None:
        """Count a failure of the source: no response, a timeout, or 5xx. Not 429, which is the quota's.

        :param sent_s: as in :meth:`succeeded`
        :param now_s: when the failure was known, on the same clock
        """
        if sent_s < self._decreased_s:
            return
        self._failures += 1
        if self._failures >= _FAILURES:
            self._decrease(now_s)

    def _increase_after(self) -> int:
        if self._slow_at is None:
            return 1
        return self._return_after if self.limit + 1 == self._slow_at else _INCREASE_AFTER

    def _slow(self, now_s: float) -> None:
        if self.limit > 1:
            self._decrease(now_s)
        else:
            # One request in flight is the floor. Measure again, or a slower source would keep the limit at 1 for
            # ever.
            self._responses, self._normal_s, self._slow_sum, self._slow_at = 0, 0.0, 0.0, None

    def _decrease(self, now_s: float) -> None:
        if self.limit > 1:
            self._slow_at, self._return_after = self.limit, min(_MOST_RESPONSES, 4 * self._return_after)
        # Rounded up, so that it never reaches 0.
        self.limit = (self.limit + 1) // 2
        # Responses to requests from before this moment are ignored: they would halve the limit again for the same
        # load.
        self._decreased_s = now_s
        self._since_change, self._slow_sum, self._failures = 0, 0.0, 0.0

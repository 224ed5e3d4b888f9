"""How many requests to have under way at once. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_NEWEST: Final = 0.2  # the weight of the newest latency in the average
_RECENT: Final = 20  # so many outcomes are looked at
_BAD_SHARE: Final = 0.2


@dataclass(slots=True)
class AdaptiveConcurrency:
    """Between 1 and ``maximum``: more exactly when the run then ends earlier.

    The quota comes first: what it lets through may need one fetcher, and the others would only load
    a slow source. Failures come second: when many of the last requests failed, half as many are let
    go, and one more again after as many good ones. Latency decides the rest, as measured at each
    number: a source that answers slower the more it is asked gains nothing from more.

    :param maximum: never more
    :param gain_s: the run must end at least so much earlier for one more to be worth it
    """

    maximum: int
    gain_s: float = 5.0
    _allowed: int = 0
    _tried: int = 0
    _latency_s: dict[int, float] = field(default_factory=dict)
    _outcomes: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._allowed = self.maximum

    def answered(self, under_way: int, latency_s: float, *, sent_as: int | None = None) -> bool:
        """A good answer came.

        :param under_way: the most that were while its request was, with it. What it took is owed to them: when many
            slow answers come in one after the other, the last is not what one alone would have taken
        :param sent_as: so many were under way when it was sent, with it; None is as many
        :returns: whether it was sent as one of more than any that was answered before
        """
        before_s = self._latency_s.get(under_way, latency_s)
        self._latency_s[under_way] = before_s + _NEWEST * (latency_s - before_s)
        self._outcome(good=True)
        tried, self._tried = self._tried, max(self._tried, sent_as or under_way)
        return self._tried > tried

    def failed(self) -> None:
        """A request failed in a way that speaks of the source. Not for 429, which is pacing's."""
        self._outcome(good=False)

    def _outcome(self, *, good: bool) -> None:
        self._outcomes.append(good)
        if len(self._outcomes) < _RECENT:
            return
        bad = self._outcomes.count(False) / len(self._outcomes)
        if bad > _BAD_SHARE:
            # Of those that were tried: halving what was never reached would change nothing.
            self._allowed = max(1, min(self._allowed, self._tried) // 2)
            self._outcomes.clear()
        elif bad == 0:
            self._allowed = min(self.maximum, self._allowed + 1)
            self._outcomes.clear()
        else:
            del self._outcomes[0]

    def latency_s(self, under_way: int) -> float | None:
        """From a request to its answer when so many are under way; None before the first.

        Not measured yet: as at the nearest number below that is, or else at the lowest above. Beyond all that are, it
        goes on to rise as it rose from half as many.
        """
        most = max(self._latency_s, default=0)
        fewer = [number for number in self._latency_s if number < most]
        if under_way > most and fewer:
            half = min(fewer, key=lambda number: abs(2 * number - most))
            rise_s = max(0.0, self._latency_s[most] - self._latency_s[half]) / (most - half)
            return self._latency_s[most] + rise_s * (under_way - most)
        below = [number for number in self._latency_s if number <= under_way]
        nearest = max(below) if below else min(self._latency_s, default=None)
        return None if nearest is None else self._latency_s[nearest]

    def wanted(self, finish_s: Callable[[int, float], float]) -> int:
        """How many now: the fewest with which the run ends as early as with any other number.

        Before the first answer it is 1. It is at most half as many again as were tried, or one more: one, two, three,
        four, six, nine.

        :param finish_s: the forecast: for a number of fetchers and a latency, when the run ends
        """
        if not self._latency_s:
            return 1
        most = min(self._allowed, self._tried + max(1, self._tried // 2))
        ends_s = {number: finish_s(number, self.latency_s(number) or 0.0) for number in range(1, most + 1)}
        earliest_s = min(ends_s.values())
        return next(number for number, end_s in ends_s.items() if end_s <= earliest_s + self.gain_s)

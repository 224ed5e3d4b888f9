"""Whether the source is down, and how rarely to ask while it is. Pure: the time is an argument."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Outage:
    """What to tell a person.

    :param since_s: UTC, seconds since 1970: the first of the failures in a row
    :param next_probe_s: UTC, when it is asked next
    :param ends_s: UTC, when the waiting is given up; None is never
    :param failures: since then, probes included
    """

    since_s: float
    next_probe_s: float
    ends_s: float | None
    failures: int


@dataclass(slots=True)
class CircuitBreaker:
    """Opens when different pages fail in a row, and closes at the first good answer.

    A page that fails alone, however often, does not open it.

    :param pages_to_open: so many different pages must fail with no good answer between them
    :param failures_to_open: and there must have been so many failures
    :param probe_every_s: while it is open, from one request to the next
    :param max_outage_s: how long to wait for the end, from the first failure; None is no limit
    """

    pages_to_open: int = 3
    failures_to_open: int = 1
    probe_every_s: float = 300.0
    max_outage_s: float | None = None
    _failed: set[int] = field(default_factory=set)
    _failures: int = 0
    _since_s: float = 0.0
    _asked_s: float = -math.inf

    @property
    def is_open(self) -> bool:
        """Whether the source is taken to be down."""
        return len(self._failed) >= self.pages_to_open and self._failures >= self.failures_to_open

    @property
    def outage(self) -> Outage | None:
        """What is known of the outage; None while there is none."""
        if not self.is_open:
            return None
        ends_s = None if self.max_outage_s is None else self._since_s + self.max_outage_s
        return Outage(self._since_s, self._next_probe_s(), ends_s, self._failures)

    def next_attempt_s(self, now_s: float) -> float:
        """Seconds until a request may go out; 0 is now. While open, only one is let out each time."""
        return max(0.0, self._next_probe_s() - now_s) if self.is_open else 0.0

    def sent(self, now_s: float) -> None:
        """A request goes out."""
        self._asked_s = max(self._asked_s, now_s)

    def failed(self, page: int, now_s: float) -> None:
        """A request for ``page`` failed in a way that speaks of the source: no answer, 5xx, no whole page.

        Not for 429, nor for what is refused for good.
        """
        if not self._failed:
            self._since_s = now_s
        if not self.is_open:
            self._failed.add(page)
        self._failures += 1

    def succeeded(self) -> None:
        """A good answer came: whatever there was is over."""
        self._failed.clear()
        self._failures = 0

    def given_up(self, now_s: float) -> bool:
        """Whether the outage has lasted longer than is to be waited for."""
        return self.gives_up_s(now_s) == 0

    def gives_up_s(self, now_s: float) -> float:
        """Seconds until then, if it does not end; ``inf`` is never."""
        outage = self.outage
        return math.inf if outage is None or outage.ends_s is None else max(0.0, outage.ends_s - now_s)

    def _next_probe_s(self) -> float:
        return max(self._asked_s, self._since_s) + self.probe_every_s

"""Whether the source is down, and how often to probe it then. Pure: the time is an argument."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class OutageState:
    """An outage of the source. All times are UTC, seconds since 1970.

    :param since_s: the first of the failures in a row
    :param next_probe_s: when the next request may be sent
    :param ends_s: when the run gives up; None is never
    :param failures: failed requests since then, with the probes
    """

    since_s: float
    next_probe_s: float
    ends_s: float | None
    failures: int


@dataclass(slots=True)
class CircuitBreaker:
    """Opens when requests for different pages fail in a row, and closes at the first valid response.

    A page that fails alone does not open it, however often it fails.

    :param pages_to_open: different pages that must fail without a valid response between them
    :param failures_to_open: failed requests that this must take, at least
    :param probe_every_s: the time between two requests while it is open
    :param max_outage_s: give up this long after the first failure; None is never
    """

    pages_to_open: int = 3
    failures_to_open: int = 1
    probe_every_s: float = 300.0
    max_outage_s: float | None = None
    _failed: set[int] = field(default_factory=set)
    _failures: int = 0
    _since_s: float = 0.0
    _sent_s: float = -math.inf

    @property
    def is_open(self) -> bool:
        """Whether the source counts as down."""
        return len(self._failed) >= self.pages_to_open and self._failures >= self.failures_to_open

    @property
    def outage(self) -> OutageState | None:
        """The current outage, if there is one."""
        if not self.is_open:
            return None
        ends_s = None if self.max_outage_s is None else self._since_s + self.max_outage_s
        return OutageState(self._since_s, self._next_probe_s(), ends_s, self._failures)

    def next_attempt_s(self, now_s: float) -> float:
        """Return the seconds until a request may be sent; 0 is now. While open, one request is sent per probe time."""
        return max(0.0, self._next_probe_s() - now_s) if self.is_open else 0.0

    def sent(self, now_s: float) -> None:
        """Record that a request is sent."""
        self._sent_s = max(self._sent_s, now_s)

    def failed(self, page: int, now_s: float) -> None:
        """Record a failure of the source at ``page``: no response, 5xx, or no valid page. Not for 429 or a refusal."""
        # The first failure of the row; a success clears the set.
        if not self._failed:
            self._since_s = now_s
        # The set stays small in a long outage: only its size matters.
        if not self.is_open:
            self._failed.add(page)
        self._failures += 1

    def succeeded(self) -> None:
        """Record a valid response: an outage ends."""
        self._failed.clear()
        self._failures = 0

    def given_up(self, now_s: float) -> bool:
        """Return whether the outage has lasted longer than ``max_outage_s``."""
        return self.gives_up_s(now_s) == 0

    def gives_up_s(self, now_s: float) -> float:
        """Return the seconds until the run gives up, if the outage lasts; ``inf`` is never."""
        outage = self.outage
        return math.inf if outage is None or outage.ends_s is None else max(0.0, outage.ends_s - now_s)

    def _next_probe_s(self) -> float:
        # From the last request, whatever it was: probes are spaced even if requests in flight fail late.
        return max(self._sent_s, self._since_s) + self.probe_every_s

"""The gateway's rule for an hour, as plain arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

HOUR_S: Final = 3600


@dataclass(frozen=True, slots=True)
class HourCounts:
    """What the gateway has counted for a key.

    :param hour: hours since 1970; the gateway aligns them to the epoch
    :param current: requests counted in that hour
    :param previous: requests counted in the hour before
    """

    hour: int
    current: int
    previous: int

    def at(self, hour: int) -> HourCounts:
        """The same counts seen in a later ``hour``, if nothing was sent since."""
        if hour <= self.hour:
            return self
        return HourCounts(hour, 0, self.current if hour == self.hour + 1 else 0)

    def estimate(self, now_s: float) -> int:
        """The gateway's sliding estimate at ``now_s``; a request passes while it is below the limit."""
        here = self.at(int(now_s // HOUR_S))
        inside = (here.hour + 1) - now_s / HOUR_S
        return here.current + math.floor(here.previous * min(1.0, inside))

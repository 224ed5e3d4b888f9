"""What is known of the gateway and is not in its responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Burst:
    """At most ``requests`` in ``per_s`` seconds, by the same sliding estimate as the hour."""

    requests: int
    per_s: float


API_DATA_GOV_BURSTS: Final = (Burst(20, 1), Burst(150, 15), Burst(50, 1), Burst(250, 15))
"""The default configuration of api.data.gov's software: the first two per key, the others per IP address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PacingRules:
    """The gateway's limits besides the hourly quota, which is in its responses.

    :param bursts: limits over seconds; empty is none
    :param max_rate_per_s: requests a second, at most; None is no limit
    :param daily_limit: requests a day, which no response shows (50 for ``DEMO_KEY``); None is no limit
    :param clock_margin_s: the most that the gateway's clock may differ from ours
    :param default_wait_s: the wait after a 429 without ``Retry-After``; also the least wait after a 429 for the probe
        that follows a first 429
    :param lost_after_s: a request without a response for this long counts as lost
    :param stale_after_s: after this long without a response others may have used the key, so one request goes alone
    :param guess_after_s: how long to wait if the very first response leaves nothing. Then it is unknown whether slots
        come free before the next hour. None waits for the next hour, which is certain. With a value, one request is
        sent after that wait: it gains up to an hour if slots come free, and costs one 429 if they do not
    """

    bursts: tuple[Burst, ...] = API_DATA_GOV_BURSTS
    max_rate_per_s: float | None = None
    daily_limit: int | None = None
    clock_margin_s: float = 2.0
    default_wait_s: float = 60.0
    lost_after_s: float = 300.0
    stale_after_s: float = 600.0
    guess_after_s: float | None = None

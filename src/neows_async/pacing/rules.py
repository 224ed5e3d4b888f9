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
"""The default configuration of api.data.gov's software: the first two per key, the others per IP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PacingRules:
    """What the gateway is known to demand beside the hour, which it tells itself.

    :param bursts: limits over seconds; empty is none
    :param max_rate_per_s: requests a second, at most; None is no limit
    :param daily_limit: 50 for ``DEMO_KEY``, which no answer tells; None is no limit
    :param clock_margin_s: how much the gateway's clock may differ from ours
    :param default_wait_s: after a 429 that does not say when to come back, and at least so long after
        one that refuses the probe which came back when it had been told to
    :param lost_after_s: a request without an answer for so long is over
    :param stale_after_s: after so long without an answer others may have used the key: one request
        goes first
    :param guess_after_s: when the first answer of all leaves nothing, nobody knows whether slots come
        free before the next hour. None waits for that, which is surely right. Else one request goes
        out after so long: up to an hour is won if they do, and one 429 had if they don't
    """

    bursts: tuple[Burst, ...] = API_DATA_GOV_BURSTS
    max_rate_per_s: float | None = None
    daily_limit: int | None = None
    clock_margin_s: float = 2.0
    default_wait_s: float = 60.0
    lost_after_s: float = 300.0
    stale_after_s: float = 600.0
    guess_after_s: float | None = None

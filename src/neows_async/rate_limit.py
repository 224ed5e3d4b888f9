"""What an answer says of the quota."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What the last answer said of the hour; it may jump between answers, since several nodes count.

    :param limit: ``X-RateLimit-Limit``: requests an hour
    :param remaining: ``X-RateLimit-Remaining``: those left of them
    """

    limit: int
    remaining: int

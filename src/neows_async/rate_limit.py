"""What an answer says of the quota."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RateLimit:
    """``X-RateLimit-Limit`` and ``X-RateLimit-Remaining``: requests an hour. It may jump between answers."""

    limit: int
    remaining: int

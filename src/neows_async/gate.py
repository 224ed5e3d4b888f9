"""The one gate that every request goes through."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from neows_async.errors import AttemptError, RateLimitedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from neows_async.rate_limit import RateLimit


class Turn:
    """One request's passage: tell it how the request ended."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def answered(self, rate_limit: RateLimit | None) -> None:
        """A good answer came."""
        self._gate.observe(rate_limit)

    def failed(self, exc: AttemptError) -> None:
        """It failed."""
        self._gate.observe(exc.rate_limit)
        if isinstance(exc, RateLimitedError):
            self._gate.hold(exc.retry_after_s if exc.retry_after_s is not None else 60.0)


class Gate:
    """Spaces requests, and holds all of them while the source asks for it.

    :param max_rate_per_s: None is no limit
    """

    def __init__(self, *, max_rate_per_s: float | None) -> None:
        self._spacing_s = 0.0 if max_rate_per_s is None else 1.0 / max_rate_per_s
        self._next_s = 0.0
        self._lock = anyio.Lock()
        self.rate_limit: RateLimit | None = None

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Turn]:
        """Wait for one's turn; first come, first served."""
        async with self._lock:
            while anyio.current_time() < self._next_s:  # noqa: ASYNC110 - it may be put off while we wait
                await anyio.sleep_until(self._next_s)
            self._next_s = anyio.current_time() + self._spacing_s
        yield Turn(self)

    def observe(self, rate_limit: RateLimit | None) -> None:
        """Remember what the last answer said of the quota."""
        self.rate_limit = rate_limit or self.rate_limit

    def hold(self, wait_s: float) -> None:
        """Let nobody through for so long."""
        self._next_s = max(self._next_s, anyio.current_time() + wait_s)

"""The gateway's decision on each request, as api.data.gov's software makes it. Pure: the time is an argument.

Each limit applies to a sliding estimate over windows aligned to the epoch::

    current window's count + floor(previous window's count * share of it still inside)

Refused requests are not counted.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Final

import msgspec

from neows_async.errors import SettingsError
from neows_async.settings import DEMO_KEY

OVER_RATE_LIMIT: Final = "OVER_RATE_LIMIT"
REFUSALS: Final = (
    "API_KEY_MISSING",
    "API_KEY_INVALID",
    "API_KEY_DISABLED",
    "API_KEY_UNVERIFIED",
    "API_KEY_UNAUTHORIZED",
)
"""The gateway's reasons for a 403."""

_HOUR_S: Final = 3600
_DAY_S: Final = 86_400
_DROP_EVERY: Final = 10_000
_PERMITTED, _FORBIDDEN, _TOO_MANY = 200, 403, 429


class GatewayRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The gateway's limits.

    :param hourly_limit: requests an hour for each key except ``DEMO_KEY``
    :param demo_hourly_limit: requests an hour with ``DEMO_KEY`` from one address; ``demo_daily_limit``: a day
    :param burst_limits: also apply 20 requests/s and 150 per 15 s to a key, 50/s and 250 per 15 s to an address
    :param known_keys: other keys are ``API_KEY_INVALID``; None accepts every key
    :param refused_keys: key → one of :data:`REFUSALS`
    :param remaining_jitter: the largest error of ``X-RateLimit-Remaining``, as when several nodes count

    :raises SettingsError: a limit below 1, or an unknown refusal
    """

    hourly_limit: int = 1_000
    demo_hourly_limit: int = 30
    demo_daily_limit: int = 50
    burst_limits: bool = False
    known_keys: frozenset[str] | None = None
    refused_keys: dict[str, str] = {}
    remaining_jitter: int = 0

    def __post_init__(self) -> None:
        for name in ("hourly_limit", "demo_hourly_limit", "demo_daily_limit"):
            if getattr(self, name) < 1:
                raise SettingsError(f"gateway: {name} must be 1 or more, not {getattr(self, name)}")
        if self.remaining_jitter < 0:
            raise SettingsError(f"gateway: remaining_jitter must be 0 or more, not {self.remaining_jitter}")
        for code in self.refused_keys.values():
            if code not in REFUSALS:
                raise SettingsError(f"gateway: there is no refusal {code!r}; there are {', '.join(REFUSALS)}")


@dataclass(frozen=True, slots=True)
class Decision:
    """The gateway's decision on a request.

    :param status: 200 forwards the request; 403 and 429 refuse it
    :param code: the gateway's name of the refusal
    :param limit: requests an hour; None if the response has no such header
    :param remaining: requests left of ``limit`` after this one
    :param retry_after_s: whole seconds until a request is forwarded again; None unless the status is 429
    """

    status: int
    code: str = ""
    limit: int | None = None
    remaining: int | None = None
    retry_after_s: int | None = None


@dataclass(slots=True)
class _RateWindow:
    """One client's count against one limit."""

    limit: int
    length_s: int
    number: int = 0
    now: int = 0
    before: int = 0

    def roll(self, now_s: float) -> None:
        number = math.floor(now_s / self.length_s)
        # Never backwards: the clock of a test may jump.
        if number > self.number:
            self.before = self.now if number == self.number + 1 else 0
            self.now = 0
            self.number = number

    def used(self, now_s: float) -> int:
        """The estimate at ``now_s``, in this window or a later one."""
        behind = math.floor(now_s / self.length_s) - self.number
        now, before = ((self.now, self.before), (0, self.now), (0, 0))[min(max(behind, 0), 2)]
        return now + math.floor(before * (1 - now_s / self.length_s % 1))

    def retry_after_s(self, now_s: float) -> int:
        """The fewest whole seconds after which the estimate is below the limit; at least 1."""
        least, most = 1, 2 * self.length_s
        while least < most:  # without further requests the estimate only falls
            middle = (least + most) // 2
            if self.used(now_s + middle) < self.limit:
                most = middle
            else:
                least = middle + 1
        return least


class Gateway:
    """Counts requests by key and by address.

    :param hourly_limit: replaces the limit of ``rules``
    """

    def __init__(self, rules: GatewayRules | None = None, *, hourly_limit: int | None = None) -> None:
        rules = rules or GatewayRules()
        self.rules: GatewayRules = (
            rules if hourly_limit is None else msgspec.structs.replace(rules, hourly_limit=hourly_limit)
        )
        self._windows: dict[str, list[_RateWindow]] = {}
        self._counted = 0
        self._jitter = random.Random("several nodes")  # noqa: S311 - not a secret

    def check(self, key: str | None, now_s: float, address: str = "") -> Decision:
        """The decision on a request with ``key`` from ``address`` at ``now_s`` (UTC, seconds since 1970).

        It does not count the request: see :meth:`count`.
        """
        if not key:
            return Decision(_FORBIDDEN, "API_KEY_MISSING")
        if key in self.rules.refused_keys:
            return Decision(_FORBIDDEN, self.rules.refused_keys[key])
        if self.rules.known_keys is not None and key not in self.rules.known_keys and key != DEMO_KEY:
            return Decision(_FORBIDDEN, "API_KEY_INVALID")
        limit = self.rules.demo_hourly_limit if key == DEMO_KEY else self.rules.hourly_limit
        windows = self._windows_of(key, address)
        for window in windows:
            window.roll(now_s)
        # All windows are tested: the longest wait is the one that helps.
        exceeded = [window for window in windows if window.used(now_s) >= window.limit]
        if exceeded:
            wait_s = max(window.retry_after_s(now_s) for window in exceeded)
            return Decision(_TOO_MANY, OVER_RATE_LIMIT, limit, 0, wait_s)
        remaining = limit - next(window for window in windows if window.length_s == _HOUR_S).used(now_s) - 1
        off = round((2 * self._jitter.random() - 1) * self.rules.remaining_jitter)
        return Decision(_PERMITTED, limit=limit, remaining=min(max(remaining + off, 0), limit))

    def count(self, key: str, now_s: float, address: str = "") -> None:
        """Count a forwarded request."""
        for window in self._windows_of(key, address):
            window.roll(now_s)
            window.now += 1
        self._counted += 1
        # Rarely: it visits every client.
        if self._counted % _DROP_EVERY == 0:
            self._drop_unused(now_s)

    def _windows_of(self, key: str, address: str) -> list[_RateWindow]:
        """The windows that count a request."""
        demo = key == DEMO_KEY
        client = f"key {key} {address if demo else ''}"
        if client not in self._windows:
            limit = self.rules.demo_hourly_limit if demo else self.rules.hourly_limit
            windows = [_RateWindow(limit, _HOUR_S)]
            if demo:
                windows.append(_RateWindow(self.rules.demo_daily_limit, _DAY_S))
            if self.rules.burst_limits:
                windows += [_RateWindow(20, 1), _RateWindow(150, 15)]
            self._windows[client] = windows
        if not self.rules.burst_limits:
            return self._windows[client]
        by_address = f"address {address}"
        if by_address not in self._windows:
            self._windows[by_address] = [_RateWindow(50, 1), _RateWindow(250, 15)]
        return self._windows[client] + self._windows[by_address]

    def _drop_unused(self, now_s: float) -> None:
        """Drop clients whose windows are empty: every key is accepted, so their number has no limit."""
        self._windows = {
            client: windows
            for client, windows in self._windows.items()
            if any(window.used(now_s) for window in windows)
        }

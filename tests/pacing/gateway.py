"""A gateway by the published rule, the best run that it allows, and a run that a quota model paces.

Nothing here depends on how pacing decides: the gateway counts or refuses each request when it arrives.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from neows_async.errors import RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from neows_async.pacing.quota import QuotaModel

HOUR_S = 3600
MIDNIGHT_S = 1_800_000_000 // 86_400 * 86_400


@dataclass
class Gateway:
    """Counts requests by its own clock.

    :param clock_s: how far its clock is ahead of the others
    :param bursts: (requests, seconds), with the same estimate
    """

    limit: int = 1_000
    clock_s: float = 0.0
    bursts: tuple[tuple[int, float], ...] = ()
    hours: Counter[int] = field(default_factory=Counter)
    windows: Counter[tuple[float, int]] = field(default_factory=Counter)

    def estimate(self, now_s: float) -> int:
        now_s += self.clock_s
        hour = math.floor(now_s / HOUR_S)
        share = (hour + 1) - now_s / HOUR_S
        return self.hours[hour] + math.floor(self.hours[hour - 1] * share)

    def _bursting(self, now_s: float) -> bool:
        for requests, per_s in self.bursts:
            window = math.floor(now_s / per_s)
            share = (window + 1) - now_s / per_s
            if self.windows[per_s, window] + math.floor(self.windows[per_s, window - 1] * share) >= requests:
                return True
        return False

    def request(self, now_s: float) -> RateLimit | None:
        """Count a request and return its quota headers; None is 429."""
        if self.estimate(now_s) >= self.limit or self._bursting(now_s + self.clock_s):
            return None
        self.hours[math.floor((now_s + self.clock_s) / HOUR_S)] += 1
        for _, per_s in self.bursts:
            self.windows[per_s, math.floor((now_s + self.clock_s) / per_s)] += 1
        return RateLimit(self.limit, self.limit - self.estimate(now_s))

    def retry_after_s(self, now_s: float) -> int:
        return next(
            wait_s for wait_s in itertools.count(1)
            if self.estimate(now_s + wait_s) < self.limit and not self._bursting(now_s + self.clock_s + wait_s)
        )  # fmt: skip


@dataclass
class Ran:
    makespan_s: float
    refused: int
    sent: int


@dataclass
class Network:
    """The latency of each request: the i-th has the same in every run.

    :param failing: share of requests that fail after they were counted
    """

    seed: int = 0
    shortest_s: float = 0.5
    longest_s: float = 4.0
    failing: float = 0.0

    def of(self, number: int) -> tuple[float, float, bool]:
        """Return the seconds to the gateway, the latency in seconds, and whether the request fails."""
        dice = random.Random(self.seed * 1_000_003 + number)
        whole_s = dice.uniform(self.shortest_s, self.longest_s)
        return whole_s * dice.uniform(0.02, 0.5), whole_s, dice.random() < self.failing


def optimum(gateway: Gateway, start_s: float, pages: int, concurrency: int, network: Network) -> Ran:
    """Send each request as early as the gateway allows, with all its knowledge."""
    free_s = [start_s] * concurrency
    done = sent = 0
    end_s = start_s
    while done < pages:
        now_s = heapq.heappop(free_s)
        travel_s, whole_s, fails = network.of(sent)
        now_s = _first_pass_s(gateway, now_s + travel_s) - travel_s
        assert gateway.request(now_s + travel_s) is not None
        sent += 1
        done += not fails
        end_s = max(end_s, now_s + whole_s)
        heapq.heappush(free_s, now_s + whole_s)
    return Ran(end_s - start_s, 0, sent)


def _first_pass_s(gateway: Gateway, now_s: float) -> float:
    """Return the first time from ``now_s`` on at which a request passes."""
    if gateway.estimate(now_s) < gateway.limit:
        return now_s
    early_s, late_s = now_s, now_s + 2 * HOUR_S
    while late_s - early_s > 0.001:
        middle_s = (early_s + late_s) / 2
        if gateway.estimate(middle_s) < gateway.limit:
            late_s = middle_s
        else:
            early_s = middle_s
    return late_s


@dataclass
class Run:
    """Requests of a run that ``model`` paces.

    :param blur: changes the quota headers of a response
    :param others_s: when other users of the key send a request
    """

    gateway: Gateway
    model: QuotaModel
    start_s: float
    concurrency: int = 4
    network: Network = field(default_factory=Network)
    blur: Callable[[float, RateLimit], RateLimit] = lambda _, rate_limit: rate_limit
    others_s: tuple[float, ...] = ()
    longest_s: float = 48 * HOUR_S
    refused: int = 0
    sent: int = 0
    done: int = 0
    _events: list[tuple[float, int, str, int]] = field(default_factory=list)
    _order: Iterator[int] = field(default_factory=itertools.count)
    _in_flight: dict[int, _Request] = field(default_factory=dict)
    _wake_s: float = math.inf

    def fetch(self, pages: int) -> Ran:
        for one_s in self.others_s:
            self._plan(one_s, "other")
        self._wake_s = self.start_s
        self._plan(self.start_s, "wake")
        now_s = self.start_s
        while self.done < pages:
            assert self._events, f"stuck after {self.done} pages: nothing is in flight, and there is no slot"
            now_s, _, what, ticket = heapq.heappop(self._events)
            assert now_s - self.start_s < self.longest_s, f"only {self.done} pages after {self.longest_s} s"
            if what == "other":
                self.gateway.request(now_s)
            elif what == "arrive":
                self._arrives(now_s, ticket)
            else:
                if what == "response":
                    self._receives(now_s, ticket)
                elif now_s >= self._wake_s:
                    self._wake_s = math.inf
                self._send(now_s, pages)
        return Ran(now_s - self.start_s, self.refused, self.sent)

    def _plan(self, at_s: float, what: str, ticket: int = -1) -> None:
        heapq.heappush(self._events, (at_s, next(self._order), what, ticket))

    def _send(self, now_s: float, pages: int) -> None:
        while len(self._in_flight) < self.concurrency and self.done + len(self._in_flight) < pages:
            wait_s = self.model.next_slot_s(now_s, pages - self.done - len(self._in_flight))
            if wait_s > 0:
                # A response may bring the slot forward: then there are two wake-ups, and the second does nothing.
                if now_s + wait_s < self._wake_s:
                    self._wake_s = now_s + wait_s
                    self._plan(self._wake_s, "wake")
                return
            ticket = self.model.sent(now_s)
            travel_s, whole_s, fails = self.network.of(self.sent)
            self.sent += 1
            self._in_flight[ticket] = _Request(now_s + whole_s, fails)
            self._plan(now_s + travel_s, "arrive", ticket)

    def _arrives(self, now_s: float, ticket: int) -> None:
        request = self._in_flight[ticket]
        request.headers = self.gateway.request(now_s)
        if request.headers is None:
            request.ends_s = now_s + 0.1
            request.retry_after_s = self.gateway.retry_after_s(now_s)
        self._plan(request.ends_s, "response", ticket)

    def _receives(self, now_s: float, ticket: int) -> None:
        request = self._in_flight.pop(ticket)
        if request.headers is None:
            self.refused += 1
            self.model.rate_limited(ticket, now_s, request.retry_after_s)
        else:
            self.done += not request.fails
            self.model.response_received(ticket, now_s, self.blur(now_s, request.headers))


@dataclass
class _Request:
    ends_s: float
    fails: bool
    headers: RateLimit | None = None
    retry_after_s: int = 0


def used_before(gateway: Gateway, requests: int, begin_s: float, *, hours_ago: int) -> Gateway:
    """Count ``requests`` in the hour of ``begin_s``, or in an earlier one, and return ``gateway``."""
    gateway.hours[math.floor((begin_s + gateway.clock_s) / HOUR_S) - hours_ago] += requests
    return gateway

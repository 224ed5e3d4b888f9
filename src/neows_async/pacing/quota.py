"""The decision: how long until one more request is inside every limit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from neows_async.pacing import bursts
from neows_async.pacing.hour import CONFIRMED_FOR_S, DAY_S, HOUR_S, HourEstimate, SlidingWindow
from neows_async.pacing.rules import PacingRules
from neows_async.pacing.state import QuotaState

if TYPE_CHECKING:
    from neows_async.errors import RateLimit

_LAST_SLOTS: Final = 8
_TRAVEL_S: Final = 5.0  # from here to the gateway; nearly every request is faster
_KEPT_S: Final = 30.0  # twice the longest burst window


class QuotaModel:
    """Computes when the next request may be sent, from the outcomes of the requests before.

    No clock: ``now_s`` is UTC in seconds since 1970. A time before the latest one counts as the latest one. The model
    allows no request that the gateway could count over its limit, unless others use the key faster than the responses
    show.

    :param restored: the state of another :class:`QuotaModel`; then the first request goes alone
    """

    def __init__(self, rules: PacingRules | None = None, restored: QuotaState | None = None) -> None:
        self._rules = rules or PacingRules()
        state = restored or QuotaState()
        self._hour = state.hour
        self._in_flight = dict(state.in_flight)
        self._next_ticket = state.next_ticket
        self._held_until_s = -math.inf if state.held_until_s is None else state.held_until_s
        self._probing = state.probing
        self._probe = state.probe
        self._sent_s = -math.inf if state.sent_s is None else state.sent_s
        self._arrived_s = list(state.arrived_s)
        self._days = dict(state.days)
        # Never restored: another machine's clock may be ahead.
        self._now_s = -math.inf

    def with_state(self, state: QuotaState) -> QuotaModel:
        """Return a model with the same rules and another state."""
        return QuotaModel(self._rules, state)

    def state(self) -> QuotaState:
        """Return everything that another :class:`QuotaModel` needs to continue."""
        return QuotaState(
            hour=self._hour,
            in_flight=tuple(self._in_flight.items()),
            next_ticket=self._next_ticket,
            held_until_s=self._held_until_s if math.isfinite(self._held_until_s) else None,
            probing=self._probing,
            probe=self._probe,
            sent_s=self._sent_s if math.isfinite(self._sent_s) else None,
            arrived_s=tuple(self._arrived_s),
            days=tuple(self._days.items()),
        )

    @property
    def limit(self) -> int | None:
        """Requests an hour, from the last response; None before the first."""
        return None if self._hour is None else self._hour.limit

    @property
    def remaining(self) -> int | None:
        """Requests that certainly pass, as of the last call; None before the first response."""
        if self._hour is None:
            return None
        return max(0, self._hour.limit - self._hour.estimate() - len(self._in_flight))

    def counts(self, now_s: float, *, optimistic: bool = False) -> SlidingWindow | None:
        """Return the gateway's counts of this hour and the one before; None before the first response.

        For the first hour it is unknown in which of the two hours earlier requests were counted. The cautious answer is
        this hour, where they count longest; the optimistic one is the hour before.
        """
        self._advance(now_s)
        return None if self._hour is None else self._hour.counts(optimistic=optimistic)

    def day_counts(self, now_s: float) -> SlidingWindow:
        """Return our own counts of today and yesterday: no response shows those of the gateway."""
        today = int(now_s // DAY_S)
        # A day that has begun by another clock, and not by this one yet, is today.
        current = sum(count for day, count in self._days.items() if day >= today)
        return SlidingWindow(today, current, self._days.get(today - 1, 0), DAY_S)

    def next_slot_s(self, now_s: float, wanted: float = math.inf) -> float:
        """Return the seconds until one more request may be sent; 0 is now, ``inf`` is after the next response.

        Call it again after each of :meth:`sent`, :meth:`response_received`, :meth:`rate_limited` and
        :meth:`no_response`, which may change the result.

        :param wanted: requests still to be sent, with this one. If all of them fit into what is free, none is kept back
            to find out when slots come free
        """
        now_s = self._advance(now_s)
        alone = self._hour is None or self._probing or now_s - self._hour.response_s > self._rules.stale_after_s
        # Nothing is known, or no longer: one request at a time, until a response shows the count.
        if alone and (self._probe in self._in_flight if self._probing else self._in_flight):
            return math.inf
        slots_s = [now_s, self._held_until_s, self._burst_slot_s(now_s), self._day_slot_s(now_s)]
        if self._hour is not None:
            slots_s.append(self._hour_slot_s(self._hour, now_s, wanted))
        return max(slots_s) - now_s

    def held_s(self, now_s: float) -> float:
        """Return the seconds during which a 429 forbids every request; 0 is none."""
        return max(0.0, self._held_until_s - now_s)

    def sent(self, now_s: float) -> int:
        """Record that a request is sent, and return its ticket, which names the request when it ends."""
        now_s = self._advance(now_s)
        ticket = self._next_ticket
        self._next_ticket += 1
        # Before the request leaves: from here on it counts, whatever happens to this process.
        self._in_flight[ticket] = self._sent_s = now_s
        if self._hour is not None:
            self._hour = self._hour.sent()
        if self._probing:
            self._probe = ticket
        day = int(now_s // DAY_S)
        # Only two days have a weight.
        self._days = {one: count for one, count in self._days.items() if one >= day - 1}
        self._days[day] = self._days.get(day, 0) + 1
        return ticket

    def response_received(self, ticket: int, now_s: float, rate_limit: RateLimit | None) -> None:
        """Record a response of any status but 429. A ticket that is not in flight is ignored."""
        sent_s = self._ended(ticket, now_s)
        if sent_s is None:
            return
        # Any status but 429 shows that the gateway lets requests through again.
        if ticket == self._probe:
            self._probing, self._probe = False, None
        if rate_limit is None or rate_limit.limit < 1:
            self._no_figures()
            return
        in_flight = len(self._in_flight)
        hour = self._hour or HourEstimate.unknown(self._now_s, self._rules.clock_margin_s, in_flight + 1)
        # Within 0 and the limit: the arithmetic below must hold for any header.
        remaining = min(max(0, rate_limit.remaining), rate_limit.limit)
        self._hour = hour.response_received(sent_s, rate_limit.limit, remaining, in_flight)

    def rate_limited(self, ticket: int, now_s: float, retry_after_s: float | None) -> None:
        """Record a 429: nothing is sent for ``retry_after_s``, then one probe, then the others.

        After a 429 for the probe the wait has a minimum, whatever ``Retry-After`` says. Otherwise a gateway that sends
        429 and ``Retry-After: 0`` to everything would get requests as fast as it responds.

        A 429 also says ``Remaining: 0`` if a burst limit caused it, so it teaches nothing about the hour.
        """
        sent_s = self._ended(ticket, now_s)
        if sent_s is None:
            return
        day = int(sent_s // DAY_S)
        # A refused request is not counted, so it is taken back.
        self._days[day] = max(0, self._days.get(day, 0) - 1)
        if self._hour is not None:
            self._hour = self._hour.refused(len(self._in_flight))
        wait_s = self._rules.default_wait_s if retry_after_s is None else max(0.0, retry_after_s)
        if ticket == self._probe:
            wait_s = max(wait_s, self._rules.default_wait_s)
        until_s = self._now_s + wait_s
        if self._hour is None and retry_after_s is not None:
            # The response for the very first free slot would be `Remaining: 0`, without a sign of when the second slot
            # comes free. A little later several are free, and their responses show the pace.
            until_s += (HOUR_S - until_s % HOUR_S) / 64
        self._held_until_s = max(self._held_until_s, until_s)
        # One request alone after the wait: if the gateway still refuses, the others must not follow it.
        self._probing, self._probe = True, None

    def no_response(self, ticket: int, now_s: float) -> None:
        """Record that no response came (no connection, a timeout, cancelled): the gateway may have counted it."""
        if self._ended(ticket, now_s) is not None:
            self._no_figures()

    def _no_figures(self) -> None:
        if self._hour is not None:
            self._hour = self._hour.no_figures()

    def _ended(self, ticket: int, now_s: float) -> float | None:
        now_s = self._advance(now_s)
        sent_s = self._in_flight.pop(ticket, None)
        if sent_s is not None:
            # The end of the request, not its start: the latest time at which it can have reached the gateway.
            self._arrived_s.append(now_s)
        return sent_s

    def _advance(self, now_s: float) -> float:
        # A clock that is set back must not let slots come free twice.
        self._now_s = now_s = max(self._now_s, now_s)
        if self._hour is not None:
            self._hour = self._hour.at(now_s, len(self._in_flight))
        while self._arrived_s and self._arrived_s[0] < now_s - _KEPT_S:
            del self._arrived_s[0]
        # A response that never comes must not hold a slot for ever.
        for ticket, sent_s in list(self._in_flight.items()):
            if now_s - sent_s > self._rules.lost_after_s:
                del self._in_flight[ticket]
                self._no_figures()
        return now_s

    def _burst_slot_s(self, now_s: float) -> float:
        rate = self._rules.max_rate_per_s
        # From the sending, not the response: the rate is the user's promise to the source.
        spaced_s = now_s if rate is None else self._sent_s + 1 / rate
        return max(spaced_s, bursts.next_slot_s(self._rules.bursts, self._arrived_s, len(self._in_flight), now_s))

    def _day_slot_s(self, now_s: float) -> float:
        limit, margin_s = self._rules.daily_limit, self._rules.clock_margin_s
        if limit is None:
            return now_s
        # The gateway's clock may be behind ours by the margin, so the day begins and falls that much later.
        gateway_s = now_s - margin_s
        return self.day_counts(gateway_s).free_at_s(limit, gateway_s) + margin_s

    def _hour_slot_s(self, hour: HourEstimate, now_s: float, wanted: float) -> float:
        in_flight = len(self._in_flight)
        most = hour.limit - 1 - in_flight - self._reserve(hour, now_s)
        if most < 0:
            return math.inf if in_flight else now_s + self._rules.default_wait_s
        slot_s = hour.free_at_s(most, in_flight)
        if hour.doubted_s is not None and not in_flight:
            # Only another response can show that the doubtful one was wrong.
            return min(slot_s, max(now_s, hour.doubted_s + CONFIRMED_FOR_S))
        spare = most - hour.estimate() + 1
        if self._probing or spare > min(_LAST_SLOTS, wanted - 1) or hour.history_known:
            return slot_s
        if in_flight:
            return math.inf
        # It is unknown when the next slot comes free, and only responses can show it. So the last slots are not spent
        # at once. Each waits for a part of the rest of the hour: half of it for the last slot, a quarter for the one
        # before, and so on. If slots come free meanwhile, the responses show the pace.
        left_s = HOUR_S - self._sent_s % HOUR_S
        slot_s = min(
            max(hour.free_at_s(most + 1 - free, 0), self._sent_s + left_s * 0.5**free, now_s)
            for free in range(1, min(_LAST_SLOTS, most + 1) + 1)
        )
        if self._rules.guess_after_s is not None and hour.own_min <= 1 and hour.previous_min == 0:
            return min(slot_s, max(now_s, hour.response_s + self._rules.guess_after_s))
        return slot_s

    def _reserve(self, hour: HourEstimate, now_s: float) -> int:
        """Return the slots kept free for others with the same key: their requests may arrive before our responses."""
        if hour.others_per_s * HOUR_S < 1:
            return hour.overrun
        expected = hour.others_per_s * (now_s - hour.response_s + _TRAVEL_S)
        return hour.overrun + min(math.ceil(expected + 3 * math.sqrt(expected)), hour.limit // 20)

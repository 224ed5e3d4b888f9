"""The decision: how long until one more request stays inside every limit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from neows_async.pacing import bursts
from neows_async.pacing.hour import HIGH_S, HOUR_S, HourEstimate
from neows_async.pacing.rules import PacingRules
from neows_async.pacing.state import QuotaState

if TYPE_CHECKING:
    from neows_async.errors import RateLimit
    from neows_async.pacing.hour import HourCounts

_DAY_S: Final = 86_400
_SCOUTS: Final = 8
_TRAVEL_S: Final = 5.0  # at most, most of the time, from here to the gateway
_KEPT_S: Final = 30.0  # twice the longest burst window


class QuotaModel:
    """Tells when the next request may go out, from what became of those before.

    No clock: ``now_s`` is UTC in seconds since 1970, and never goes back (an earlier one is taken
    for the latest). No request is let out that the gateway could count over its limit, as long as
    nobody else uses the key faster than its answers tell us.

    :param restored: what another :class:`QuotaModel` knew; its first request then goes alone
    """

    def __init__(self, rules: PacingRules | None = None, restored: QuotaState | None = None) -> None:
        self._rules = rules or PacingRules()
        known = restored or QuotaState()
        self._hour = known.hour
        self._under_way = dict(known.under_way)
        self._next_ticket = known.next_ticket
        self._held_until_s = -math.inf if known.held_until_s is None else known.held_until_s
        self._probing = known.probing
        self._probe = known.probe
        self._sent_s = -math.inf if known.sent_s is None else known.sent_s
        self._arrived_s = list(known.arrived_s)
        self._days = dict(known.days)
        self._now_s = -math.inf

    def resumed(self, known: QuotaState) -> QuotaModel:
        """One of the same rules that goes on from what another one knew."""
        return QuotaModel(self._rules, known)

    def state(self) -> QuotaState:
        """All that is known, for :class:`QuotaModel` to go on from."""
        return QuotaState(
            hour=self._hour,
            under_way=tuple(self._under_way.items()),
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
        """Requests an hour, by the last answer; None before the first."""
        return None if self._hour is None else self._hour.limit

    @property
    def remaining(self) -> int | None:
        """Requests that may surely still go out, as of the last call; None before the first answer."""
        if self._hour is None:
            return None
        return max(0, self._hour.limit - self._hour.estimate() - len(self._under_way))

    def counts(self, now_s: float, *, hopeful: bool = False) -> HourCounts | None:
        """What the gateway has counted, for a forecast; None before the first answer.

        Until an hour has passed it is unknown in which hour earlier requests were counted:
        cautiously in this one, whose requests weigh longest; hopefully in the previous one.
        """
        self._advance(now_s)
        return None if self._hour is None else self._hour.counts(hopeful=hopeful)

    def next_slot_s(self, now_s: float, wanted: float = math.inf) -> float:
        """Seconds until one more request may go out, if nothing is answered until then; 0 is now.

        :param wanted: so many are still to go out, as far as is known. While all of them fit into what is free,
            none has to be spared to learn when more comes free.

        ``inf``: not before something under way is answered. Ask again after each of
        :meth:`answered`, :meth:`limited`, :meth:`lost` and :meth:`sent`, which may change it.
        """
        now_s = self._advance(now_s)
        alone = self._hour is None or self._probing or now_s - self._hour.answered_s > self._rules.stale_after_s
        if alone and (self._probe in self._under_way if self._probing else self._under_way):
            return math.inf
        slots_s = [now_s, self._held_until_s, self._burst_slot_s(now_s), self._day_slot_s(now_s)]
        if self._hour is not None:
            slots_s.append(self._hour_slot_s(self._hour, now_s, wanted))
        return max(slots_s) - now_s

    def held_s(self, now_s: float) -> float:
        """Seconds in which nothing goes out since a 429 said so; 0 is no such time."""
        return max(0.0, self._held_until_s - now_s)

    def sent(self, now_s: float) -> int:
        """A request goes out; its ticket is for telling what became of it."""
        now_s = self._advance(now_s)
        ticket = self._next_ticket
        self._next_ticket += 1
        self._under_way[ticket] = self._sent_s = now_s
        if self._hour is not None:
            self._hour = self._hour.sent()
        if self._probing:
            self._probe = ticket
        day = int(now_s // _DAY_S)
        self._days = {one: count for one, count in self._days.items() if one >= day - 1}
        self._days[day] = self._days.get(day, 0) + 1
        return ticket

    def answered(self, ticket: int, now_s: float, rate_limit: RateLimit | None) -> None:
        """It was answered, in whatever way but 429. A ticket that is not under way is ignored."""
        sent_s = self._over(ticket, now_s)
        if sent_s is None:
            return
        if ticket == self._probe:
            self._probing, self._probe = False, None
        if rate_limit is None or rate_limit.limit < 1:
            self._unanswered()
            return
        under_way = len(self._under_way)
        hour = self._hour or HourEstimate.unknown(self._now_s, self._rules.clock_margin_s, under_way + 1)
        remaining = min(max(0, rate_limit.remaining), rate_limit.limit)
        self._hour = hour.answered(sent_s, rate_limit.limit, remaining, under_way)

    def limited(self, ticket: int, now_s: float, retry_after_s: float | None) -> None:
        """It was refused with 429: nothing goes out for ``retry_after_s``, then one probe, then the others.

        A probe that is refused in its turn waits for a while whatever it is told: a gateway that says 429 and
        ``Retry-After: 0`` to everything would else be asked as fast as it answers.

        A 429 says ``Remaining: 0`` also when it is a burst's, or nobody's: it teaches nothing of the hour.
        """
        sent_s = self._over(ticket, now_s)
        if sent_s is None:
            return
        day = int(sent_s // _DAY_S)
        self._days[day] = max(0, self._days.get(day, 0) - 1)
        if self._hour is not None:
            self._hour = self._hour.refused(len(self._under_way))
        wait_s = self._rules.default_wait_s if retry_after_s is None else max(0.0, retry_after_s)
        if ticket == self._probe:
            wait_s = max(wait_s, self._rules.default_wait_s)
        until_s = self._now_s + wait_s
        if self._hour is None and retry_after_s is not None:
            # The first free slot is not worth taking: its answer would be `Remaining: 0`, and say
            # nothing of when the second comes. A little later there are some to measure with.
            until_s += (HOUR_S - until_s % HOUR_S) / 64
        self._held_until_s = max(self._held_until_s, until_s)
        self._probing, self._probe = True, None

    def lost(self, ticket: int, now_s: float) -> None:
        """It ended without an answer (no connection, timed out, cancelled): it may have been counted."""
        if self._over(ticket, now_s) is not None:
            self._unanswered()

    def _unanswered(self) -> None:
        if self._hour is not None:
            self._hour = self._hour.unanswered()

    def _over(self, ticket: int, now_s: float) -> float | None:
        now_s = self._advance(now_s)
        sent_s = self._under_way.pop(ticket, None)
        if sent_s is not None:
            self._arrived_s.append(now_s)
        return sent_s

    def _advance(self, now_s: float) -> float:
        self._now_s = now_s = max(self._now_s, now_s)
        if self._hour is not None:
            self._hour = self._hour.at(now_s, len(self._under_way))
        while self._arrived_s and self._arrived_s[0] < now_s - _KEPT_S:
            del self._arrived_s[0]
        for ticket, sent_s in list(self._under_way.items()):
            if now_s - sent_s > self._rules.lost_after_s:
                del self._under_way[ticket]
                self._unanswered()
        return now_s

    def _burst_slot_s(self, now_s: float) -> float:
        rate = self._rules.max_rate_per_s
        spaced_s = now_s if rate is None else self._sent_s + 1 / rate
        return max(spaced_s, bursts.next_s(self._rules.bursts, self._arrived_s, len(self._under_way), now_s))

    def _day_slot_s(self, now_s: float) -> float:
        """By our own count, since no answer tells the day's; the rule is the hour's."""
        limit = self._rules.daily_limit
        if limit is None:
            return now_s
        day = int((now_s - self._rules.clock_margin_s) // _DAY_S)
        today = sum(count for one, count in self._days.items() if one >= day)
        yesterday = self._days.get(day - 1, 0)
        if today >= limit:  # tomorrow all of today's are yesterday's
            day, today, yesterday = day + 1, 0, today
        share = min(1.0, (limit - today - 0.001) / yesterday) if yesterday else 1.0
        return max(now_s, (day + 1 - share) * _DAY_S + self._rules.clock_margin_s)

    def _hour_slot_s(self, hour: HourEstimate, now_s: float, wanted: float) -> float:
        under_way = len(self._under_way)
        most = hour.limit - 1 - under_way - self._reserve(hour, now_s)
        if most < 0:
            return math.inf if under_way else now_s + self._rules.default_wait_s
        slot_s = hour.free_at_s(most, under_way)
        if hour.doubted_s is not None and not under_way:
            # Without asking nobody would ever tell us that the answer was wrong.
            return min(slot_s, max(now_s, hour.doubted_s + HIGH_S))
        spare = most - hour.estimate() + 1
        if self._probing or spare > min(_SCOUTS, wanted - 1) or hour.history_known:
            return slot_s
        if under_way:
            return math.inf
        # Nobody knows when the next slot comes, and only answers can tell. So the last ones are
        # not spent at once: each waits for half of what is left of the hour, the last; a quarter,
        # the one before … If anything comes free meanwhile, it shows, and the pace is known.
        left_s = HOUR_S - self._sent_s % HOUR_S
        slot_s = min(
            max(hour.free_at_s(most + 1 - free, 0), self._sent_s + left_s * 0.5**free, now_s)
            for free in range(1, min(_SCOUTS, most + 1) + 1)
        )
        if self._rules.guess_after_s is not None and hour.own_min <= 1 and hour.previous_min == 0:
            return min(slot_s, max(now_s, hour.answered_s + self._rules.guess_after_s))
        return slot_s

    def _reserve(self, hour: HourEstimate, now_s: float) -> int:
        """Slots left to others who use the key, since they don't wait for our answers."""
        if hour.others_per_s * HOUR_S < 1:
            return hour.overrun
        expected = hour.others_per_s * (now_s - hour.answered_s + _TRAVEL_S)
        return hour.overrun + min(math.ceil(expected + 3 * math.sqrt(expected)), hour.limit // 20)

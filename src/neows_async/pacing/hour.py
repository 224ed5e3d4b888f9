"""The gateway's sliding window, and an upper bound of its estimate for this hour, from the responses alone.

The rule: ``current_count + floor(previous_count * share of the previous window that still counts)``. The gateway knows
both counts. A client knows neither. These facts give the client a bound:

* Without new requests the estimate never rises, not even when an hour begins: then the current count becomes the
  previous one, with its whole weight. So ``Remaining`` in a response bounds the estimate from then on. Only requests
  that may have been counted since are added.
* Within an hour the estimate falls by ``previous_count``. Two responses show a lower bound of that fall, after our own
  requests are taken out of both. After a whole hour of our own observation the count is known.
* Other users of the key can only raise the estimate and make it fall more slowly. Both errors are on the safe side.

Clocks differ by up to a margin. Around the full hour nothing is assumed to fall, and a request in flight then belongs
to neither hour for certain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec.structs import replace

HOUR_S: Final = 3_600
DAY_S: Final = 86_400
_TINY: Final = 1e-6  # rounding of floats; in time, some microseconds
_LOW_RESPONSES: Final = 20  # a lower estimate than possible is accepted after this many responses in a row
CONFIRMED_FOR_S: Final = 60.0  # or if no response confirmed the bound for this long
_OTHERS_MEMORY_S: Final = 900.0
_OTHERS_PER_S: Final = 20  # the gateway's burst limit: no user of a key is faster
_PROJECTED_HOURS: Final = 50
_WELL_KNOWN_SHARE: Final = 0.8
_FEW: Final = 2


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """The gateway's counts for a key, and its rule. A request passes while the estimate is below the limit.

    :param number: windows since 1970; the gateway aligns them to the epoch
    :param current: requests counted in that window
    :param previous: requests counted in the window before
    :param length_s: an hour, or a day
    """

    number: int
    current: int
    previous: int
    length_s: int = HOUR_S

    @property
    def begins_s(self) -> float:
        """UTC, seconds since 1970."""
        return self.number * self.length_s

    @property
    def ends_s(self) -> float:
        """UTC, seconds since 1970; the next window begins then."""
        return (self.number + 1) * self.length_s

    def at(self, now_s: float) -> SlidingWindow:
        """Return the window of ``now_s``, if no request was counted since. An earlier time changes nothing."""
        number = int(now_s // self.length_s)
        if number <= self.number:
            return self
        # After two windows nothing counts any more.
        return SlidingWindow(number, 0, self.current if number == self.number + 1 else 0, self.length_s)

    def counted(self, now_s: float, requests: int = 1) -> SlidingWindow:
        """Return the window of ``now_s`` with ``requests`` more."""
        here = self.at(now_s)
        return SlidingWindow(here.number, here.current + requests, here.previous, here.length_s)

    def estimate(self, now_s: float) -> int:
        """Return the gateway's estimate at ``now_s``."""
        here = self.at(now_s)
        share = here.number + 1 - now_s / here.length_s
        return here.current + math.floor(here.previous * min(1.0, share))

    def free_at_s(self, limit: int, now_s: float, *, requests: int = 1, margin_s: float = 0.0) -> float:
        """Return the time from which ``requests`` more pass at once; ``now_s`` if they pass now, ``inf`` if never.

        :param margin_s: added to each time that depends on the gateway's clock
        """
        if requests > limit:
            return math.inf
        here = self.at(now_s)
        # At most two more windows: then both counts are zero.
        while True:
            room = limit - here.current - (requests - 1)
            if room >= 1:
                # The last one passes while floor(previous * share) < room: from previous * share == room on.
                share = room / here.previous if here.previous > room else 1.0
                slot_s = here.begins_s + (1 - share) * here.length_s
                slot_s += margin_s if here.previous >= room else 0.0
                if slot_s <= now_s:
                    return now_s
                if slot_s < here.ends_s:
                    return slot_s
            here = here.at(here.ends_s)


class HourEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """The state. Each method returns a new one. Counts exclude requests in flight, unless the parameter says otherwise.

    It is a struct because a dataclass takes ten times as long to replace, which happens a dozen times a request.

    :param limit: requests an hour, from the last response
    :param margin_s: the most that the gateway's clock may differ from ours
    :param hour: hours since 1970
    :param at_s: UTC, from when ``bound`` holds
    :param bound: the estimate is the floor of a number below this one
    :param previous_min: the previous hour's count is at least this; ``bound`` falls by it in an hour
    :param previous_max: the previous hour's count is at most this
    :param ceiling: until this hour's first response: ``bound`` at the hour's beginning, all of which falls
    :param own_min: our requests that were certainly counted in this hour
    :param own_max: our requests that were possibly counted in this hour, with those in flight
    :param edge: requests of this hour's end that the gateway may count in the next hour
    :param unsure: requests that may have been counted in the hour before or, if they are ours, not at all
    :param others_min: requests of others that were certainly counted in this hour
    :param reference: (UTC, the least count of others then), from this hour's first response
    :param response_s: UTC, when the last response arrived
    :param recent: (UTC of arrival, estimate) of each response that may be the one counted last
    :param doubled: requests that may be both in ``bound`` and in flight
    :param confirmed_s: UTC, when a response last confirmed ``bound``
    :param doubted_s: UTC, when a response raised ``bound`` by more than others can have sent; None if it did not
    :param low: the highest estimate of the responses since then that were lower than possible, and their number
    :param jump: the largest fall without an explanation: the error of the responses
    :param others_per_s: recent rate of others with the same key
    :param overrun: recent requests that the gateway refused although its responses had left room
    """

    limit: int
    margin_s: float
    hour: int
    at_s: float
    bound: float
    previous_min: float = 0.0
    previous_max: float = math.inf
    ceiling: int | None = None
    own_min: int = 0
    own_max: int = 0
    edge: int = 0
    unsure: int = 0
    others_min: float = 0.0
    reference: tuple[float, float] | None = None
    response_s: float
    recent: tuple[tuple[float, int], ...] = ()
    doubled: int = 0
    confirmed_s: float
    doubted_s: float | None = None
    low: tuple[float, int] = (0.0, 0)
    jump: float = 0.0
    others_per_s: float = 0.0
    overrun: int = 0

    @classmethod
    def unknown(cls, now_s: float, margin_s: float, in_flight: int) -> HourEstimate:
        """Return the state before the first response: any count is possible."""
        hour = int(now_s // HOUR_S)
        return cls(
            limit=0, margin_s=margin_s, hour=hour, at_s=now_s, bound=math.inf,
            own_max=in_flight, response_s=-math.inf, confirmed_s=-math.inf,
        )  # fmt: skip

    @property
    def known(self) -> bool:
        """Whether a response has arrived."""
        return math.isfinite(self.bound)

    def estimate(self) -> int:
        """Return an upper bound of the gateway's estimate at ``at_s``."""
        return math.ceil(self.bound - _TINY) - 1

    def at(self, now_s: float, in_flight: int) -> HourEstimate:
        """Return the state at a later time: hours have ended, and the bound has fallen by what is certain."""
        here = self
        # Hour by hour: each end moves a count, and a machine may have slept for several.
        while now_s >= (here.hour + 1) * HOUR_S:
            here = here._next_hour(in_flight)
        if now_s <= here.at_s:
            return here
        return replace(here, at_s=now_s, bound=here._bound(now_s))  # noqa: SLF001 - of the same class

    def _bound(self, now_s: float) -> float:
        # Within the margin around the full hour nothing falls: the gateway's hour may not have begun, or have ended.
        falls_from_s = max(self.at_s, self.hour * HOUR_S + self.margin_s)
        falls_to_s = min(now_s, (self.hour + 1) * HOUR_S - self.margin_s)
        bound = self.bound - self.previous_min * max(0.0, falls_to_s - falls_from_s) / HOUR_S
        if self.ceiling is not None:
            into_s = max(0.0, now_s - self.margin_s - self.hour * HOUR_S)
            bound = min(bound, self.own_min + self.unsure + self.ceiling * (1 - into_s / HOUR_S) + 2 * _TINY)
        # Our own requests of this hour are counted, even if a response says less.
        return max(bound, self.own_min + 2 * _TINY)

    def _next_hour(self, in_flight: int) -> HourEstimate:
        end_s = (self.hour + 1) * HOUR_S
        bound = self._bound(end_s)
        # Requests around the full hour are counted on both sides, so neither side is too low.
        maybe = self.edge + in_flight
        return replace(
            self,
            hour=self.hour + 1,
            at_s=end_s,
            bound=bound,
            previous_min=max(0.0, min(self.own_min + self.others_min, bound)),
            previous_max=bound + in_flight,
            ceiling=max(0, math.ceil(bound - _TINY) - 1),
            own_min=0,
            own_max=maybe,
            edge=0,
            unsure=maybe,
            others_min=0.0,
            reference=None,
            # Old errors fade: half of them each hour.
            jump=self.jump / 2,
            overrun=self.overrun // 2,
        )

    def sent(self) -> HourEstimate:
        """Count one of our requests as in flight."""
        return replace(self, own_max=self.own_max + 1)

    def refused(self, in_flight: int) -> HourEstimate:
        """Record that the gateway refused one of our requests, and so did not count it.

        Far from the limit the refusal came from a burst limit. Near the limit, others were faster or the responses were
        out of date: then the estimate has reached the limit, and a reserve is kept from now on.
        """
        # Refused means not counted: our own upper bound goes back by one.
        here = replace(self, own_max=max(0, self.own_max - 1))
        if self.limit - self.estimate() - in_flight > self.limit // 20:
            return here
        return replace(here, bound=max(self.bound, self.limit + 1.0), overrun=min(self.overrun + 1, self.limit // 20))

    def no_figures(self) -> HourEstimate:
        """Record that one of our requests ended without quota headers: the gateway may have counted it."""
        at_edge = self.at_s > (self.hour + 1) * HOUR_S - self.margin_s
        # Added at once, since the gateway may have counted it; it may also fall out without a trace, hence unsure.
        return replace(self, bound=self.bound + 1, unsure=self.unsure + 1, edge=self.edge + at_edge)

    def response_received(self, sent_s: float, limit: int, remaining: int, in_flight: int) -> HourEstimate:
        """Learn from a response that arrived at ``at_s``.

        :param sent_s: when its request was sent; the gateway counted it between then and ``at_s``
        :param in_flight: requests in flight, without this one
        """
        counted = limit - remaining
        # A response that arrived before this request was sent is older than this response for certain. The others may
        # have overtaken it, so the highest of them holds.
        recent = (*(one for one in self.recent if one[0] > sent_s), (self.at_s, counted))
        highest = max(estimate for _, estimate in recent)
        inside = sent_s >= self.hour * HOUR_S + self.margin_s
        before_end = self.at_s <= (self.hour + 1) * HOUR_S - self.margin_s
        here = replace(
            self, limit=limit, recent=recent, own_min=self.own_min + (inside and before_end), response_s=self.at_s
        )
        here = here._reconciled(highest, in_flight)  # noqa: SLF001 - of the same class
        if inside and before_end:
            here = here._history_learned(sent_s, counted)  # noqa: SLF001
        if inside:
            here = replace(here, ceiling=None)
        # Around the full hour no request, ours or another's, belongs to either hour for certain.
        rise = max(1, here.estimate() - self.estimate()) if self.known else here.estimate()
        return replace(here, edge=here.edge + (0 if before_end else rise), unsure=here.unsure + (0 if inside else rise))

    def _reconciled(self, reported: int, in_flight: int) -> HourEstimate:
        """Accept the estimate ``reported``, unless it is lower than possible."""
        expected = self.bound + 1
        quiet_s = min(self.at_s - self.confirmed_s, HOUR_S)
        others_per_s = self.others_per_s * math.exp(-quiet_s / _OTHERS_MEMORY_S)
        confirmed = replace(
            self, confirmed_s=self.at_s, doubted_s=None, low=(0.0, 0), doubled=in_flight, others_per_s=others_per_s
        )
        # The first response is the only evidence, whatever it says.
        if not self.known:
            return replace(confirmed, bound=reported + 1.0)
        rise = reported + 1 - expected
        # Higher than expected: others use the key, or requests in flight were counted first. A higher figure is
        # always accepted: too high only costs time.
        if rise >= 1:
            others = max(0, math.floor(rise - in_flight))
            doubted_s = self.at_s if others > _OTHERS_PER_S * (1 + quiet_s) else None
            others_per_s += 0 if doubted_s else others / _OTHERS_MEMORY_S
            recent = () if doubted_s else self.recent
            return replace(
                confirmed, bound=reported + 1.0, doubted_s=doubted_s, recent=recent, others_per_s=others_per_s
            )
        # Lower than expected: accepted only as far as the rule and unsure requests explain it.
        may_fall = self._others_max() / max(1.0, (self.hour + 1) * HOUR_S - self.at_s)
        explained = 2 + self.doubled + self.unsure + may_fall * quiet_s
        if -rise <= explained:
            return replace(confirmed, bound=min(reported + 1.0, expected))
        highest, responses = self.low
        low = (max(reported + 1.0, highest + 1 if responses else 0.0), responses + 1)
        jump = max(self.jump, -rise - explained)
        # Believed in the end: a bound that is too high for ever would stop the run.
        if low[1] >= _LOW_RESPONSES or quiet_s >= CONFIRMED_FOR_S:
            return replace(confirmed, bound=min(low[0], expected), jump=jump)
        return replace(self, bound=expected, low=low, jump=jump)

    def _others_max(self) -> float:
        """Return the most of the estimate that can still fall in this hour."""
        return max(0.0, self.bound - self.own_min)

    def _history_learned(self, sent_s: float, counted: int) -> HourEstimate:
        """Bound the previous hour's count, and others' count in this hour, by comparison with the first response."""
        others_least = float(counted - self.own_max)
        others_most = self._others_max()
        left = max(_TINY, (self.hour + 1) - self.at_s / HOUR_S)
        # The most that others can still have: all of the estimate that is not ours falls with the previous hour.
        previous_max = min(self.previous_max, others_most / left)
        left_when_sent = min(1.0, (self.hour + 1) - (sent_s - self.margin_s) / HOUR_S)
        others_min = max(self.others_min, others_least - previous_max * left_when_sent - self.jump)
        if self.reference is None:
            reference, previous_min = (sent_s, others_least), self.previous_min
        else:
            reference = self.reference
            # What others have lost since the first response. Only the previous hour can lose.
            fell = reference[1] - others_most - self.jump
            previous_min = max(self.previous_min, fell * HOUR_S / max(1.0, self.at_s - reference[0]))
        return replace(
            self,
            reference=reference,
            previous_min=min(previous_min, previous_max),
            previous_max=previous_max,
            others_min=max(0.0, others_min),
        )

    @property
    def history_known(self) -> bool:
        """Whether the part of the estimate that falls in this hour is well known."""
        left = max(_TINY, (self.hour + 1) - self.at_s / HOUR_S)
        at_most = min(self.previous_max, self._others_max() / left)
        return at_most <= _FEW or self.previous_min >= _WELL_KNOWN_SHARE * at_most

    def free_at_s(self, most: int, in_flight: int) -> float:
        """Return the time (UTC) from which the estimate is certainly at most ``most``; ``inf`` if not in two days."""
        here, goal = self, float(most + 1)
        for _ in range(_PROJECTED_HOURS):
            if here.estimate() <= most:
                return here.at_s
            found_s = here._falls_to_s(goal)
            if found_s < (here.hour + 1) * HOUR_S:
                return found_s
            here = here._next_hour(in_flight)
        return math.inf

    def _falls_to_s(self, goal: float) -> float:
        if goal <= self.own_min:
            return math.inf
        begins_s, ends_s = self.hour * HOUR_S + self.margin_s, (self.hour + 1) * HOUR_S - self.margin_s
        found_s = math.inf
        if self.previous_min > 0:
            falls_from_s = max(self.at_s, begins_s)
            reached_s = falls_from_s + (self.bound - goal) * HOUR_S / self.previous_min
            found_s = reached_s if reached_s <= ends_s else math.inf
        if self.ceiling:
            share = (goal - 2 * _TINY - self.own_min - self.unsure) / self.ceiling
            if share >= 0:
                found_s = min(found_s, max(self.at_s, begins_s + HOUR_S * (1 - share)))
        return found_s

    def counts(self, *, optimistic: bool) -> SlidingWindow:
        """Return counts that fit the responses: those that free slots soonest if ``optimistic``, else latest."""
        left = max(_TINY, (self.hour + 1) - self.at_s / HOUR_S)
        estimate = self.estimate()
        most = min(self.previous_max, max(0, estimate - self.own_min) / left, self.limit)
        previous = int(most if optimistic else self.previous_min)
        return SlidingWindow(self.hour, max(0, estimate - int(previous * left)), previous)

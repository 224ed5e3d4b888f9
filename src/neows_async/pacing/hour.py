"""An upper bound of the gateway's sliding estimate, held from the answers alone.

The rule: ``current_hour_count + floor(previous_hour_count * share of it still inside the window)``.
What makes it tractable for a client that knows neither count:

* Without new requests the estimate never rises, not even when an hour begins: at the full hour the
  current count becomes the previous one, with its whole weight. So an answer's ``Remaining`` bounds
  the estimate for ever after: add what may have been counted since.
* Within an hour it falls by ``previous_hour_count`` an hour. How many that surely are shows in how
  the estimate fell between two answers, when our own requests are taken out of both; and once an
  hour has passed under our eyes, its count is known.
* Whoever else uses the key can only raise it, and makes it *seem* to fall slower. Both err on our side.

Clocks may differ by a margin, so around the full hour nothing is taken to fall, and requests that
were under way then belong to neither hour for sure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec.structs import replace

HOUR_S: Final = 3600
_TINY: Final = 1e-6  # what floats may be off; of a slot, some microseconds
_HIGH_ANSWERS: Final = 20  # so many answers in a row must agree that the estimate is lower than it can be
HIGH_S: Final = 60.0  # or this long must have passed since one said it was high
_OTHERS_MEMORY_S: Final = 900.0
_OTHERS_PER_S: Final = 20  # the gateway lets no key go faster
_PROJECTED_HOURS: Final = 50
_WELL: Final = 0.8
_FEW: Final = 2


@dataclass(frozen=True, slots=True)
class HourCounts:
    """What the gateway has counted for a key.

    :param hour: hours since 1970; the gateway aligns them to the epoch
    :param current: requests counted in that hour
    :param previous: requests counted in the hour before
    """

    hour: int
    current: int
    previous: int

    def at(self, hour: int) -> HourCounts:
        """The same counts seen in a later ``hour``, if nothing was sent since."""
        if hour <= self.hour:
            return self
        return HourCounts(hour, 0, self.current if hour == self.hour + 1 else 0)

    def estimate(self, now_s: float) -> int:
        """The gateway's sliding estimate at ``now_s``; a request passes while it is below the limit."""
        here = self.at(int(now_s // HOUR_S))
        inside = (here.hour + 1) - now_s / HOUR_S
        return here.current + math.floor(here.previous * min(1.0, inside))


class HourEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """The state; every method gives a new one. Counts leave out the requests under way, unless said.

    A struct, since a dataclass takes ten times as long to replace, which happens a dozen times a request.

    :param limit: requests an hour, as the last answer said
    :param margin_s: how much the gateway's clock may differ from ours
    :param hour: hours since 1970
    :param at_s: UTC, from when ``bound`` holds
    :param bound: the estimate is the floor of something below this
    :param previous_min: the previous hour has surely at least so many; how fast ``bound`` falls in an hour
    :param previous_max: and at most so many
    :param ceiling: until this hour's first answer: ``bound`` at its beginning, all of which falls
    :param own_min: ours, surely counted in this hour
    :param own_max: ours, possibly counted in this hour; here with those under way
    :param edge: those of this hour's end that the gateway may count in the next
    :param unsure: those that may have been counted in the hour before, or, of ours, not at all
    :param others_min: not ours, surely counted in this hour
    :param reference: (UTC, the least that was not ours then), of this hour's first answer
    :param answered_s: UTC, when the last answer came
    :param last: (UTC of its coming, estimate) of each answer that may be the one counted last
    :param doubled: how many requests may be in ``bound`` and under way at once
    :param highest_s: UTC, when an answer last confirmed ``bound``
    :param doubted_s: UTC, when an answer raised ``bound`` by more than others can have sent; None: it did not
    :param low: the highest of the answers since that were lower than can be; and their number
    :param jump: the largest fall that had no explanation: how far answers can't be trusted
    :param others_per_s: how fast others use the key, of late
    :param overrun: how often, of late, the gateway refused what by its answers was free
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
    answered_s: float
    last: tuple[tuple[float, int], ...] = ()
    doubled: int = 0
    highest_s: float
    doubted_s: float | None = None
    low: tuple[float, int] = (0.0, 0)
    jump: float = 0.0
    others_per_s: float = 0.0
    overrun: int = 0

    @classmethod
    def unknown(cls, now_s: float, margin_s: float, under_way: int) -> HourEstimate:
        """Before the first answer: any count is possible."""
        hour = int(now_s // HOUR_S)
        return cls(
            limit=0, margin_s=margin_s, hour=hour, at_s=now_s, bound=math.inf,
            own_max=under_way, answered_s=-math.inf, highest_s=-math.inf,
        )  # fmt: skip

    @property
    def known(self) -> bool:
        """Whether there was an answer."""
        return math.isfinite(self.bound)

    def estimate(self) -> int:
        """The gateway's estimate is at most this at ``at_s``, and all further requests."""
        return math.ceil(self.bound - _TINY) - 1

    def at(self, now_s: float, under_way: int) -> HourEstimate:
        """The same, later: hours end, and what surely fell has fallen."""
        here = self
        while now_s >= (here.hour + 1) * HOUR_S:
            here = here._next_hour(under_way)
        if now_s <= here.at_s:
            return here
        return replace(here, at_s=now_s, bound=here._bound(now_s))  # noqa: SLF001 - a state of our own

    def _bound(self, now_s: float) -> float:
        falls_from_s = max(self.at_s, self.hour * HOUR_S + self.margin_s)
        falls_to_s = min(now_s, (self.hour + 1) * HOUR_S - self.margin_s)
        bound = self.bound - self.previous_min * max(0.0, falls_to_s - falls_from_s) / HOUR_S
        if self.ceiling is not None:
            into_s = max(0.0, now_s - self.margin_s - self.hour * HOUR_S)
            bound = min(bound, self.own_min + self.unsure + self.ceiling * (1 - into_s / HOUR_S) + 2 * _TINY)
        # What we surely sent in this hour is counted, whatever the answers say.
        return max(bound, self.own_min + 2 * _TINY)

    def _next_hour(self, under_way: int) -> HourEstimate:
        end_s = (self.hour + 1) * HOUR_S
        bound = self._bound(end_s)
        maybe = self.edge + under_way
        return replace(
            self,
            hour=self.hour + 1,
            at_s=end_s,
            bound=bound,
            previous_min=max(0.0, min(self.own_min + self.others_min, bound)),
            previous_max=bound + under_way,
            ceiling=max(0, math.ceil(bound - _TINY) - 1),
            own_min=0,
            own_max=maybe,
            edge=0,
            unsure=maybe,
            others_min=0.0,
            reference=None,
            jump=self.jump / 2,
            overrun=self.overrun // 2,
        )

    def sent(self) -> HourEstimate:
        """One of ours goes out."""
        return replace(self, own_max=self.own_max + 1)

    def refused(self, under_way: int) -> HourEstimate:
        """The gateway refused one of ours, and so did not count it.

        Far from the limit this was a burst's refusal, or nobody's. Near it others were faster, or
        the answers behind the truth: the estimate has reached the limit, and they are given room.
        """
        here = replace(self, own_max=max(0, self.own_max - 1))
        if self.limit - self.estimate() - under_way > self.limit // 20:
            return here
        return replace(here, bound=max(self.bound, self.limit + 1.0), overrun=min(self.overrun + 1, self.limit // 20))

    def unanswered(self) -> HourEstimate:
        """One of ours ended without a word about the quota: it may have been counted."""
        at_edge = self.at_s > (self.hour + 1) * HOUR_S - self.margin_s
        return replace(self, bound=self.bound + 1, unsure=self.unsure + 1, edge=self.edge + at_edge)

    def answered(self, sent_s: float, limit: int, remaining: int, under_way: int) -> HourEstimate:
        """An answer came at ``at_s``.

        :param sent_s: when its request was sent; it was counted between then and now
        :param under_way: how many others are still under way
        """
        counted = limit - remaining
        # Those that came before this one was sent were counted before it.
        last = (*(one for one in self.last if one[0] > sent_s), (self.at_s, counted))
        seen = max(estimate for _, estimate in last)
        inside = sent_s >= self.hour * HOUR_S + self.margin_s
        before_end = self.at_s <= (self.hour + 1) * HOUR_S - self.margin_s
        here = replace(
            self,
            limit=limit,
            last=last,
            own_min=self.own_min + (inside and before_end),
            answered_s=self.at_s,
        )
        here = here._seen(seen, under_way)  # noqa: SLF001 - a state of our own
        if inside and before_end:
            here = here._learned(sent_s, counted)  # noqa: SLF001
        if inside:
            here = replace(here, ceiling=None)
        # Around the full hour nobody's requests belong to either hour for sure.
        rise = max(1, here.estimate() - self.estimate()) if self.known else here.estimate()
        return replace(
            here,
            edge=here.edge + (0 if before_end else rise),
            unsure=here.unsure + (0 if inside else rise),
        )

    def _seen(self, seen: int, under_way: int) -> HourEstimate:
        """Take the estimate ``seen`` for the truth, unless it is lower than it can be."""
        expected = self.bound + 1
        quiet_s = min(self.at_s - self.highest_s, HOUR_S)
        others_per_s = self.others_per_s * math.exp(-quiet_s / _OTHERS_MEMORY_S)
        believed = replace(
            self, highest_s=self.at_s, doubted_s=None, low=(0.0, 0), doubled=under_way, others_per_s=others_per_s
        )
        if not self.known:
            return replace(believed, bound=seen + 1.0)
        rise = seen + 1 - expected
        if rise >= 1:
            others = max(0, math.floor(rise - under_way))
            doubted_s = self.at_s if others > _OTHERS_PER_S * (1 + quiet_s) else None
            others_per_s += 0 if doubted_s else others / _OTHERS_MEMORY_S
            last = () if doubted_s else self.last
            return replace(believed, bound=seen + 1.0, doubted_s=doubted_s, last=last, others_per_s=others_per_s)
        may_fall = self._others_max() / max(1.0, (self.hour + 1) * HOUR_S - self.at_s)
        explained = 2 + self.doubled + self.unsure + may_fall * quiet_s
        if -rise <= explained:
            return replace(believed, bound=min(seen + 1.0, expected))
        highest, answers = self.low
        low = (max(seen + 1.0, highest + 1 if answers else 0.0), answers + 1)
        jump = max(self.jump, -rise - explained)
        if low[1] >= _HIGH_ANSWERS or quiet_s >= HIGH_S:
            return replace(believed, bound=min(low[0], expected), jump=jump)
        return replace(self, bound=expected, low=low, jump=jump)

    def _others_max(self) -> float:
        """At most so many in the estimate can still fall in this hour."""
        return max(0.0, self.bound - self.own_min)

    def _learned(self, sent_s: float, counted: int) -> HourEstimate:
        """What this answer, against this hour's first, says of the previous hour and of others in this one."""
        others_least = float(counted - self.own_max)
        others_most = self._others_max()
        left = max(_TINY, (self.hour + 1) - self.at_s / HOUR_S)
        previous_max = min(self.previous_max, others_most / left)
        left_when_sent = min(1.0, (self.hour + 1) - (sent_s - self.margin_s) / HOUR_S)
        others_min = max(self.others_min, others_least - previous_max * left_when_sent - self.jump)
        if self.reference is None:
            reference, previous_min = (sent_s, others_least), self.previous_min
        else:
            reference = self.reference
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
        """Whether it is known well how much of the estimate falls in this hour."""
        left = max(_TINY, (self.hour + 1) - self.at_s / HOUR_S)
        at_most = min(self.previous_max, self._others_max() / left)
        return at_most <= _FEW or self.previous_min >= _WELL * at_most

    def free_at_s(self, most: int, under_way: int) -> float:
        """UTC, from when the estimate is surely at most ``most``; ``inf`` if not within two days."""
        here, goal = self, float(most + 1)
        for _ in range(_PROJECTED_HOURS):
            if here.estimate() <= most:
                return here.at_s
            found_s = here._falls_to_s(goal)
            if found_s < (here.hour + 1) * HOUR_S:
                return found_s
            here = here._next_hour(under_way)
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

    def counts(self, *, hopeful: bool) -> HourCounts:
        """The counts that fit what is known: those that free slots soonest, or latest."""
        left = max(_TINY, (self.hour + 1) - self.at_s / HOUR_S)
        estimate = self.estimate()
        most = min(self.previous_max, max(0, estimate - self.own_min) / left, self.limit)
        previous = int(most if hopeful else self.previous_min)
        return HourCounts(self.hour, max(0, estimate - int(previous * left)), previous)

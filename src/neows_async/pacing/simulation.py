"""What a run would be like: when it ends, where it waits, and the best minute to start it. Pure.

Request by request, as the gate lets them out, against the gateway's own rule. :mod:`neows_async.pacing.forecast` knows
the same rule an hour at a time, and leaves out what does not change an end: how many requests are under way,
the first one, which goes alone, the day's limit, and where a run is told to stop.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from neows_async.pacing.forecast import Outlook, Pause, forecast
from neows_async.pacing.hour import HourCounts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_HOUR_S: Final = 3_600
_DAY_S: Final = 86_400
_YEAR_S: Final = 366 * 86_400.0
# More requests than this are not followed one by one, and no minute is searched for them.
_FOLLOWED: Final = 20_000
_SEARCHED: Final = 10_000
_SEARCHED_S: Final = 48 * 3_600.0
_WAIT_S: Final = 60.0  # shorter ones are no news
_LOOK_AGAIN_S: Final = 300.0
# As the gate has them: one more request at once must gain so much.
_GAIN_S: Final = 5.0
_GAIN_SHARE: Final = 0.01
_SAME_S: Final = 60.0  # runs that differ by less are the same to whoever reads minutes


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConditions:
    """What a run is held to.

    :param requests: still to be sent, one a page
    :param limit: requests an hour; None where the gateway tells of none
    :param counts: what it has counted for the key in this hour and the one before
    :param answer_s: from a request to its answer
    :param concurrency: requests under way at once, at most
    :param max_rate_per_s: requests a second, at most; None is no limit
    :param daily_limit: requests a day; None is no limit
    :param days: (days since 1970, requests counted), of today and yesterday
    :param not_before_s: UTC, seconds since 1970: nothing may go out earlier
    :param max_wait_s: a longer wait ends the run; None waits as long as it takes
    :param budget_requests: so many requests, then the run ends; None is no limit
    :param margin_s: how much later than by its rule a slot is taken for free
    :param stale_after_s: after so long without an answer one request goes alone
    """

    requests: int
    limit: int | None
    counts: HourCounts
    answer_s: float
    concurrency: int
    max_rate_per_s: float | None = None
    daily_limit: int | None = None
    days: tuple[tuple[int, int], ...] = ()
    not_before_s: float = -math.inf
    max_wait_s: float | None = None
    budget_requests: int | None = None
    margin_s: float = 2.0
    stale_after_s: float = 600.0


@dataclass(frozen=True, slots=True)
class SimulatedRun:
    """How a run goes that starts at ``start_s``. All times are UTC, seconds since 1970.

    :param end_s: when its last answer comes; ``inf`` if not within a year
    :param left: requests that it does not get to, since it is told to stop before
    :param resume_s: from when the same command would go on then; None for a run that is done
    :param waits: of a minute or more, in which nothing goes out; ascending
    :param sent_s: when each request goes out, ascending; of a very long run the first ones
    """

    start_s: float
    end_s: float
    left: int
    resume_s: float | None
    waits: tuple[Pause, ...]
    sent_s: tuple[float, ...]

    @property
    def lasts_s(self) -> float:
        """How long it takes."""
        return self.end_s - self.start_s

    @property
    def done(self) -> bool:
        """Whether it comes to its end without being told to stop."""
        return self.resume_s is None


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The answers.

    :param now: a run that starts now
    :param best: the shortest of those that end within a minute of the earliest end; it may be ``now``
    :param shortest: the shortest of all; it may be ``best``
    """

    now: SimulatedRun
    best: SimulatedRun
    shortest: SimulatedRun


def compare_starts(terms: RunConditions, now_s: float, *, within_s: float = _HOUR_S) -> RunOptions:
    """A run now, and the best of those that start at a whole minute of the next ``within_s``.

    Nobody ends earlier than who starts now, since waiting never brings a slot forward. But one who starts later
    may end at the same time, and spare the waits; or last shorter, and end later. Both are looked for.
    """
    now = simulate(terms, now_s)
    best, shortest = _best_starts(terms, now, within_s)
    return RunOptions(now, best, shortest)


def _best_starts(terms: RunConditions, now: SimulatedRun, within_s: float) -> tuple[SimulatedRun, SimulatedRun]:
    # Who stops for the budget stops in any minute, and where days count, minutes do not.
    spent = terms.budget_requests is not None and terms.budget_requests < terms.requests
    if spent or terms.requests > _SEARCHED or now.lasts_s > _SEARCHED_S:
        return now, now
    ends_s = dict(_ends(terms, [now.start_s, *_whole_minutes(now.start_s, within_s)]))
    if not ends_s:
        return now, now
    earliest_s = min(ends_s.values())
    on_time = [start_s for start_s, end_s in ends_s.items() if end_s <= earliest_s + _SAME_S]

    def shortest(among: Sequence[float], so_far: SimulatedRun) -> SimulatedRun:
        least_s = min(ends_s[start_s] - start_s for start_s in among)
        # Of those that are as short, to the minute, the earliest.
        start_s = next(one for one in among if ends_s[one] - one <= least_s + _SAME_S / 2)
        run = simulate(terms, start_s)
        return run if run.done and (not so_far.done or run.lasts_s < so_far.lasts_s - _SAME_S) else so_far

    best = shortest(on_time, now)
    return best, shortest(list(ends_s), best)


def _ends(terms: RunConditions, starts_s: Sequence[float]) -> Iterator[tuple[float, float]]:
    """When runs end that start so, of those that are not told to stop; ascending by start."""
    for start_s in starts_s:
        if terms.daily_limit is None and terms.max_wait_s is None:
            # The same to some seconds, and a hundred times as quick.
            outlook = _outlook(terms, terms.counts, terms.requests)
            yield start_s, forecast(outlook, max(start_s, terms.not_before_s)).finish_s
        else:
            run = simulate(terms, start_s, lanes=terms.concurrency)
            if run.done:
                yield start_s, run.end_s


def _whole_minutes(now_s: float, within_s: float) -> Iterator[float]:
    start_s = (math.floor(now_s / 60) + 1) * 60.0
    while start_s <= now_s + within_s:
        yield start_s
        start_s += 60


def simulate(terms: RunConditions, start_s: float, *, lanes: int | None = None) -> SimulatedRun:
    """Follow a run that starts at ``start_s`` to its end, or to where it is told to stop.

    :param lanes: so many requests under way at once, as soon as the first answers allow; None is as many as the
        gate would choose: the fewest with which the run ends as early
    """
    windows = _Windows(terms, start_s)
    gate = _Gate(terms, lanes)
    sent_s: list[float] = []
    waits: list[Pause] = []
    budget = math.inf if terms.budget_requests is None else terms.budget_requests
    followed = min(terms.requests, _FOLLOWED)
    free_s = start_s
    while len(sent_s) < followed:
        free_s = gate.free_s(free_s, windows, terms.requests - len(sent_s))
        if len(sent_s) >= budget:
            return _stopped(terms, start_s, gate, waits, sent_s, free_s)
        spaced_s = sent_s[-1] + 1 / terms.max_rate_per_s if sent_s and terms.max_rate_per_s else free_s
        slot_s = max(free_s, spaced_s, windows.free_at_s(max(free_s, spaced_s, terms.not_before_s)))
        if terms.max_wait_s is not None and slot_s - free_s > terms.max_wait_s:
            return _stopped(terms, start_s, gate, waits, sent_s, slot_s)
        if slot_s - start_s > _YEAR_S:
            return SimulatedRun(start_s, math.inf, 0, None, tuple(waits), tuple(sent_s))
        if slot_s - (sent_s[-1] if sent_s else start_s) >= max(_WAIT_S, terms.answer_s):
            waits.append(Pause(max(start_s, sent_s[-1] if sent_s else start_s), slot_s))
        windows.count(slot_s)
        gate.sent(slot_s)
        sent_s.append(slot_s)
        free_s = slot_s
    end_s = gate.last_answer_s(start_s)
    if terms.requests > followed:
        end_s = forecast(_outlook(terms, windows.counts, terms.requests - followed), free_s).finish_s
    return SimulatedRun(start_s, end_s, 0, None, tuple(waits), tuple(sent_s))


def _stopped(
    terms: RunConditions, start_s: float, gate: _Gate, waits: list[Pause], sent_s: list[float], resume_s: float
) -> SimulatedRun:
    """What is under way comes in, then the run ends."""
    end_s = gate.last_answer_s(start_s)
    return SimulatedRun(start_s, end_s, terms.requests - len(sent_s), max(resume_s, end_s), tuple(waits), tuple(sent_s))


class _Gate:
    """How many requests are under way, and when there may be one more."""

    def __init__(self, terms: RunConditions, lanes: int | None) -> None:
        self._terms = terms
        self._fixed = lanes is not None
        self._lanes = terms.concurrency if lanes is None else lanes
        self._under_way: list[float] = []
        self._most_seen = 0
        self._answered_s = -math.inf
        self._chosen_s = -math.inf
        self._alone = True

    def free_s(self, now_s: float, windows: _Windows, left: int) -> float:
        """From when one more may go out, as far as those under way are concerned."""
        while self._under_way and self._under_way[0] <= now_s:
            self._take_answer()
        while len(self._under_way) >= self._room:
            # One that goes alone after a long wait does so however many others might.
            may_choose = not self._fixed and not (self._alone and math.isfinite(self._chosen_s))
            now_s = self._take_answer()
            if may_choose and now_s >= self._chosen_s + _LOOK_AGAIN_S:
                self._chosen_s = now_s
                self._lanes = _lanes(self._terms, windows, left, now_s)
        return now_s

    def _take_answer(self) -> float:
        self._most_seen = max(self._most_seen, len(self._under_way))
        self._answered_s = heapq.heappop(self._under_way)
        self._alone = False
        return self._answered_s

    @property
    def _room(self) -> int:
        return 1 if self._alone else min(self._lanes, self._most_seen + 1)

    def sent(self, now_s: float) -> None:
        """One goes out."""
        while self._under_way and self._under_way[0] <= now_s:
            self._take_answer()
        if now_s - self._answered_s > self._terms.stale_after_s:
            self._alone = True
        heapq.heappush(self._under_way, now_s + self._terms.answer_s)

    def last_answer_s(self, otherwise_s: float) -> float:
        """When the last of those under way is answered."""
        return max(self._under_way, default=max(self._answered_s, otherwise_s))


def _lanes(terms: RunConditions, windows: _Windows, left: int, now_s: float) -> int:
    """The fewest with which the rest ends as early as it can."""
    if terms.concurrency == 1 or left > _FOLLOWED:
        return terms.concurrency
    outlook = _outlook(terms, windows.counts, left)
    most_s = forecast(outlook, now_s).run_s
    gain_s = min(_GAIN_S, _GAIN_SHARE * most_s)
    ends_s = (
        (lanes, forecast(replace(outlook, concurrency=lanes), now_s).run_s) for lanes in range(1, terms.concurrency)
    )
    return next((lanes for lanes, end_s in ends_s if end_s <= most_s + gain_s), terms.concurrency)


def _outlook(terms: RunConditions, counts: HourCounts, left: int) -> Outlook:
    return Outlook(
        pages=left,
        limit=terms.limit or 1_000_000_000,
        counts=counts,
        latency_s=terms.answer_s,
        concurrency=terms.concurrency,
        max_rate_per_s=terms.max_rate_per_s,
    )


class _Windows:
    """The gateway's limits over an hour and a day, as it counts them."""

    def __init__(self, terms: RunConditions, start_s: float) -> None:
        counts = terms.counts.at(int(start_s // _HOUR_S))
        self._hour = _Window(terms.limit, _HOUR_S, counts.hour, counts.current, counts.previous, terms.margin_s)
        days, today = dict(terms.days), int(start_s // _DAY_S)
        self._day = _Window(
            terms.daily_limit, _DAY_S, today, days.get(today, 0), days.get(today - 1, 0), terms.margin_s
        )

    @property
    def counts(self) -> HourCounts:
        return HourCounts(self._hour.number, self._hour.current, self._hour.previous)

    def free_at_s(self, now_s: float) -> float:
        """From when one more passes both."""
        while (slot_s := self._day.free_at_s(self._hour.free_at_s(now_s))) > now_s:
            now_s = slot_s
        return now_s

    def count(self, now_s: float) -> None:
        self._hour.count(now_s)
        self._day.count(now_s)


class _Window:
    """One sliding estimate: this window's count, and of the last one's the share that is still inside."""

    __slots__ = ("_length_s", "_limit", "_margin_s", "current", "number", "previous")

    def __init__(
        self, limit: int | None, length_s: int, number: int, current: int, previous: int, margin_s: float
    ) -> None:
        self._limit = limit
        self._length_s = length_s
        self._margin_s = margin_s
        self.number = number
        self.current = current
        self.previous = previous

    def free_at_s(self, now_s: float) -> float:
        """From when one more passes; ``now_s`` if it does now."""
        if self._limit is None:
            return now_s
        number, current, previous = self._at(now_s)
        while True:
            begins_s, room = number * self._length_s, self._limit - current
            if room >= 1:
                # It passes while floor(previous * share) < room, so from where previous * share is room.
                share = room / previous if previous > room else 1.0
                slot_s = begins_s + (1 - share) * self._length_s
                slot_s += self._margin_s if previous >= room else 0.0
                if slot_s <= now_s:
                    return now_s
                if slot_s < begins_s + self._length_s:
                    return slot_s
            number, current, previous = number + 1, 0, current

    def count(self, now_s: float) -> None:
        """One passes."""
        self.number, self.current, self.previous = self._at(now_s)
        self.current += 1

    def _at(self, now_s: float) -> tuple[int, int, int]:
        number = int(now_s // self._length_s)
        if number <= self.number:
            return self.number, self.current, self.previous
        return number, 0, self.current if number == self.number + 1 else 0

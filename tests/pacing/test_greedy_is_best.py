"""A run that never waits is the best schedule: compared with all schedules of a small gateway."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tests.pacing.gateway import HOUR_S, Gateway

SLICES = 5  # moments an hour at which requests can be sent
HOURS = 3


def counts_at(limit: int, schedule: tuple[int, ...], previous: int) -> list[int] | None:
    """Return the requests sent until each moment; None if the gateway refuses one."""
    gateway = Gateway(limit)
    gateway.hours[-1] = previous
    passed = []
    total = 0
    for moment, requests in enumerate(schedule):
        for _ in range(requests):
            if gateway.request(moment * HOUR_S / SLICES) is None:
                return None
        total += requests
        passed.append(total)
    return passed


def greedy(limit: int, most_at_once: int, previous: int) -> tuple[int, ...]:
    gateway = Gateway(limit)
    gateway.hours[-1] = previous
    return tuple(
        sum(gateway.request(moment * HOUR_S / SLICES) is not None for _ in range(most_at_once))
        for moment in range(SLICES * HOURS)
    )


@given(limit=st.integers(1, 12), most_at_once=st.integers(1, 6), previous=st.integers(0, 12), data=st.data())
def test_no_random_schedule_is_ever_ahead(limit: int, most_at_once: int, previous: int, data: st.DataObject) -> None:
    best = counts_at(limit, greedy(limit, most_at_once, previous), previous)
    assert best is not None
    gateway = Gateway(limit)
    gateway.hours[-1] = previous
    ahead = []
    for moment in range(SLICES * HOURS):
        tried = data.draw(st.integers(0, most_at_once))
        ahead.append(sum(gateway.request(moment * HOUR_S / SLICES) is not None for _ in range(tried)))
    assert all(other <= greedy for other, greedy in zip(itertools.accumulate(ahead), best, strict=True))


def test_no_schedule_of_two_hours_is_ever_ahead() -> None:
    """With up to two requests at each of four moments of an hour."""
    for limit, previous in itertools.product((2, 3), (0, 2, 3)):
        best = counts_at(limit, greedy(limit, 2, previous), previous)
        assert best is not None
        for some in itertools.product(range(3), repeat=8):
            # The fifth moment of each hour stays unused: 3 ** 8 schedules.
            schedule = (*some[:4], 0, *some[4:], 0)
            passed = counts_at(limit, schedule, previous)
            if passed is not None:
                assert all(other <= greedy for other, greedy in zip(passed, best, strict=False))

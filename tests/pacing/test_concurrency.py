"""The limit of requests in flight: never above the maximum, lower while the source is slow or fails, and back again."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neows_async.pacing.concurrency import AdaptiveConcurrency

if TYPE_CHECKING:
    from collections.abc import Callable


def limits(concurrency: AdaptiveConcurrency, latency_s: Callable[[int, float], float], responses: int) -> list[int]:
    """Keep as many requests in flight as the limit allows.

    :param latency_s: for the requests in flight and the time
    :returns: the limit after each response
    """
    now_s, seen = 0.0, list[int]()
    in_flight: list[tuple[float, float, int]] = []
    while len(seen) < responses:
        while len(in_flight) < concurrency.limit:
            number = len(in_flight) + 1
            heapq.heappush(in_flight, (now_s + latency_s(number, now_s), now_s, number))
        now_s, sent_s, number = heapq.heappop(in_flight)
        concurrency.succeeded(sent_s, now_s, number)
        seen.append(concurrency.limit)
    return seen


def grown_to(limit: int) -> AdaptiveConcurrency:
    concurrency = AdaptiveConcurrency(limit)
    limits(concurrency, lambda *_: 1.0, 200)
    assert concurrency.limit == limit
    return concurrency


def test_limit_starts_at_1() -> None:
    assert AdaptiveConcurrency(16).limit == 1


def test_limit_reaches_maximum_quickly_if_latency_does_not_depend_on_load() -> None:
    seen = limits(AdaptiveConcurrency(16), lambda *_: 1.0, 25)
    assert seen[0] == 2
    assert seen[-1] == 16


def test_limit_stays_low_for_a_source_that_serves_one_request_at_a_time() -> None:
    seen = limits(AdaptiveConcurrency(16), lambda number, _: float(number), 1_000)
    assert sum(seen[500:]) / 500 < 4


def test_limit_is_1_if_latency_rises_faster_than_the_load() -> None:
    seen = limits(AdaptiveConcurrency(16), lambda number, _: 0.5 * number**2, 1_000)
    assert sum(seen[500:]) / 500 < 1.2


@pytest.mark.parametrize("most", [2, 4, 8])
def test_limit_stays_at_the_number_beyond_which_responses_are_slow(most: int) -> None:
    seen = limits(AdaptiveConcurrency(16), lambda number, _: 1.0 if number <= most else 10.0, 4_000)
    late = seen[2_000:]
    assert most - 1 <= sum(late) / len(late) <= most + 0.1


def test_limit_recovers_after_a_slow_time() -> None:
    seen = limits(AdaptiveConcurrency(8), lambda _, now_s: 10.0 if 20 < now_s < 60 else 1.0, 1_500)
    assert min(seen[20:]) <= 2
    assert seen[-1] == 8


def test_limit_recovers_if_the_source_is_slower_from_now_on_with_any_load() -> None:
    seen = limits(AdaptiveConcurrency(8), lambda _, now_s: 3.0 if now_s > 20 else 1.0, 400)
    assert min(seen[20:]) == 1
    assert seen[-1] == 8


def test_three_failures_close_to_each_other_halve_the_limit_once() -> None:
    concurrency = grown_to(8)
    for _ in range(2):
        concurrency.failed(1_000.0, 1_001.0)
    assert concurrency.limit == 8
    for _ in range(5):
        concurrency.failed(1_000.0, 1_001.0)
    assert concurrency.limit == 4, "requests sent before the decrease say nothing about the new limit"


def test_one_failure_of_twenty_requests_does_not_change_the_limit() -> None:
    concurrency = grown_to(8)
    for round_s in range(1_000, 1_020):
        concurrency.failed(round_s, round_s + 1.0)
        for _ in range(19):
            concurrency.succeeded(round_s, round_s + 1.0, 8)
    assert concurrency.limit == 8


def test_limit_recovers_after_failures() -> None:
    concurrency = grown_to(8)
    for _ in range(3):
        concurrency.failed(1_000.0, 1_001.0)
    for second in range(1_002, 1_002 + 3 * 20 + 80):
        concurrency.succeeded(second, second + 1.0, concurrency.limit)
    assert concurrency.limit == 8


def test_limit_does_not_grow_while_the_quota_keeps_one_request_in_flight() -> None:
    concurrency = AdaptiveConcurrency(16)
    for second in range(1_000):
        concurrency.succeeded(second, second + 1.0, 1)
    assert concurrency.limit == 2


@pytest.mark.parametrize("maximum", [1, 2, 16])
@given(outcomes=st.lists(st.tuples(st.booleans(), st.floats(0, 100), st.integers(1, 16)), max_size=200))
def test_limit_is_always_between_1_and_maximum(maximum: int, outcomes: list[tuple[bool, float, int]]) -> None:
    concurrency = AdaptiveConcurrency(maximum)
    for second, (is_valid, latency_s, in_flight) in enumerate(outcomes):
        if is_valid:
            concurrency.succeeded(second, second + latency_s, in_flight)
        else:
            concurrency.failed(second, second + latency_s)
        assert 1 <= concurrency.limit <= maximum


def test_delays_of_a_busy_machine_do_not_slow_down_a_fast_source() -> None:
    rule = AdaptiveConcurrency(8)
    now_s = 0.0
    for number in range(400):
        latency_s = 0.12 if number % 3 == 0 else 0.001
        rule.succeeded(now_s, now_s + latency_s, rule.limit)
        now_s += latency_s
    assert rule.limit == 8

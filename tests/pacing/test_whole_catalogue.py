"""The whole catalogue in simulated hours, compared with the best run that the gateway allows."""

from __future__ import annotations

import itertools
import math

import pytest

from neows_async.errors import RateLimit
from neows_async.pacing.forecast import RunConditions, forecast_end_s
from neows_async.pacing.hour import SlidingWindow
from neows_async.pacing.quota import QuotaModel
from neows_async.pacing.rules import PacingRules
from tests.pacing.gateway import HOUR_S, MIDNIGHT_S, Gateway, Network, Run, optimum, used_before

NOON_S = MIDNIGHT_S + 12 * HOUR_S
PAGES = 2_065
RULES = PacingRules(bursts=(), clock_margin_s=2)  # the best run has no burst limits either

CLOCKS_S = itertools.cycle([0.0, 1.7, -1.7])
BEGINNINGS = [
    pytest.param(minute, used, hours_ago, next(CLOCKS_S), id=f":{minute:02}, {used} used {hours_ago} hours ago")
    for minute, used, hours_ago in [
        (0, 0, 0), (0, 300, 1), (0, 900, 1), (0, 995, 1),
        (30, 0, 0), (30, 300, 0), (30, 300, 1), (30, 900, 0), (30, 900, 1), (30, 995, 1),
        (55, 0, 0), (55, 300, 0), (55, 300, 1), (55, 900, 0), (55, 900, 1), (55, 995, 0),
    ]
]  # fmt: skip


@pytest.mark.parametrize("concurrency", [4, 16])
@pytest.mark.parametrize(("minute", "used", "hours_ago", "clock_s"), BEGINNINGS)
def test_run_is_as_short_as_the_gateway_allows_without_a_429(
    minute: int, used: int, hours_ago: int, clock_s: float, concurrency: int
) -> None:
    start_s, network = NOON_S + 60 * minute, Network(seed=minute)
    best = optimum(key(used, hours_ago, clock_s), start_s, PAGES, concurrency, network)
    ran = Run(key(used, hours_ago, clock_s), QuotaModel(RULES), start_s, concurrency, network).fetch(PAGES)
    assert ran.refused == 0
    assert ran.makespan_s <= 1.01 * best.makespan_s


@pytest.mark.parametrize("concurrency", [4, 16])
@pytest.mark.parametrize("minute", [0, 30, 55])
def test_failures_cost_as_much_as_in_the_best_run(minute: int, concurrency: int) -> None:
    start_s, network = NOON_S + 60 * minute, Network(seed=minute, failing=0.05)
    best = optimum(key(300, 1), start_s, PAGES, concurrency, network)
    ran = Run(key(300, 1), QuotaModel(RULES), start_s, concurrency, network).fetch(PAGES)
    assert ran.refused == 0
    assert ran.makespan_s <= 1.03 * best.makespan_s


@pytest.mark.parametrize("late_s", [0, 1, 2, 3])
@pytest.mark.parametrize("minute", [1, 30, 55])
def test_exhausted_key_costs_one_429(minute: int, late_s: int) -> None:
    """Or none, if a slot has just come free: then a guess shows when the next one does."""
    start_s = NOON_S + 60 * minute + late_s
    gateway = key(1_000, 1)
    gateway.hours[int(NOON_S // HOUR_S)] = 1_000 - gateway.estimate(NOON_S + 60 * minute)
    best = optimum(Gateway(hours=gateway.hours.copy()), start_s, PAGES, 4, Network())
    rules = PacingRules(bursts=(), guess_after_s=60)
    ran = Run(gateway, QuotaModel(rules), start_s).fetch(PAGES)
    assert ran.refused <= 1
    assert ran.makespan_s <= 1.01 * best.makespan_s


@pytest.mark.parametrize(("used", "minute"), [(0, 0), (0, 30), (0, 55), (300, 0), (900, 30)])
def test_forecast_is_close_to_the_run(used: int, minute: int) -> None:
    start_s, network = NOON_S + 60 * minute, Network(seed=1)
    ran = Run(key(used, 1), QuotaModel(RULES), start_s, network=network).fetch(PAGES)
    counts = SlidingWindow(int(NOON_S // HOUR_S), 0, used)
    conditions = RunConditions(requests=PAGES, limit=1_000, counts=counts, latency_s=2.25, concurrency=4)
    assert forecast_end_s(conditions, start_s) - start_s == pytest.approx(ran.makespan_s, rel=0.02)


@pytest.mark.parametrize(("minute", "takes_min"), [(0, 122), (55, 67)])
def test_known_lengths_of_2034_pages_at_4_a_second(minute: int, takes_min: float) -> None:
    start_s = NOON_S + 60 * minute
    ran = Run(key(0, 0), QuotaModel(RULES), start_s, network=Network(0, 1, 1)).fetch(2_034)
    assert ran.makespan_s / 60 == pytest.approx(takes_min, abs=0.5)


@pytest.mark.parametrize(("per_hour", "refusals"), [(20, 3), (100, 5), (600, 8)])
def test_others_with_the_same_key_get_their_share(per_hour: int, refusals: int) -> None:
    """Their requests arrive at random, so a few 429 cannot be avoided."""
    others_s = Network(per_hour, 0, 2 * HOUR_S / per_hour)
    arrivals_s = itertools.accumulate((others_s.of(number)[1] for number in range(10 * per_hour)), initial=NOON_S)
    gateway = key(0, 0)
    ran = Run(gateway, QuotaModel(RULES), NOON_S + 1800, others_s=tuple(arrivals_s)).fetch(PAGES)
    assert ran.refused <= refusals
    # The rest of the first hour, then what the others leave.
    assert ran.makespan_s <= 1.1 * (1800 + HOUR_S * (PAGES - (1_000 - per_hour / 2)) / (1_000 - per_hour))


@pytest.mark.parametrize("minute", [0, 30])
def test_one_response_with_remaining_0_does_not_cost_the_hour(minute: int) -> None:
    start_s = NOON_S + 60 * minute

    def blur(now_s: float, headers: RateLimit) -> RateLimit:
        return RateLimit(headers.limit, 0 if 100 < now_s - start_s < 101 else headers.remaining)

    ran = Run(key(0, 0), QuotaModel(RULES), start_s, blur=blur).fetch(PAGES)
    best = optimum(key(0, 0), start_s, PAGES, 4, Network())
    assert ran.refused == 0
    assert ran.makespan_s <= 1.01 * best.makespan_s


@pytest.mark.parametrize("short", [1, 5])
def test_responses_with_too_high_remaining_get_a_reserve(short: int) -> None:
    dice = Network(seed=4)

    def blur(now_s: float, headers: RateLimit) -> RateLimit:
        too_many = int(dice.of(int(now_s * 1000))[1] * 1000) % (short + 1)
        return RateLimit(headers.limit, min(headers.limit, headers.remaining + too_many))

    ran = Run(key(0, 0), QuotaModel(RULES), NOON_S, blur=blur).fetch(PAGES)
    assert ran.refused <= 2 + 2 * short


def test_responses_with_too_low_remaining_cost_time_but_no_429() -> None:
    dice = Network(seed=5)

    def blur(now_s: float, headers: RateLimit) -> RateLimit:
        fewer = math.floor(dice.of(int(now_s * 1000))[1] * 1000) % 20
        return RateLimit(headers.limit, max(0, headers.remaining - fewer))

    ran = Run(key(0, 0), QuotaModel(RULES), NOON_S, blur=blur).fetch(PAGES)
    best = optimum(key(0, 0), NOON_S, PAGES, 4, Network())
    assert ran.refused == 0
    assert ran.makespan_s <= 1.15 * best.makespan_s


def key(used: int, hours_ago: int, clock_s: float = 0.0) -> Gateway:
    return used_before(Gateway(clock_s=clock_s), used, NOON_S + HOUR_S / 2, hours_ago=hours_ago)

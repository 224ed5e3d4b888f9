from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neows_async.api.plan_facts import LakeFacts, PlanFacts, QuotaFacts
from neows_async.cli import plan_view
from neows_async.cli.timeline import draw_timeline
from neows_async.endpoints.browse.page_plan import PagePlan
from neows_async.pacing.forecast import RunConditions, forecast_end_s
from neows_async.pacing.hour import SlidingWindow
from neows_async.pacing.simulation import compare_starts, simulate
from neows_async.sandbox.rate_limits import Gateway as Demo
from neows_async.settings import DEMO_KEY
from tests.pacing.gateway import Gateway

NOON_S = 1_800_014_400
HOUR = NOON_S // 3600


def conditions(*, current: int = 0, previous: int = 0, **changes: Any) -> RunConditions:
    counts = SlidingWindow(HOUR, current, previous)
    plain = RunConditions(requests=2_065, limit=1_000, counts=counts, latency_s=1.4, concurrency=4)
    return replace(plain, **changes)


runs = st.builds(
    conditions,
    requests=st.integers(0, 900),
    limit=st.integers(10, 500),
    current=st.integers(0, 600),
    previous=st.integers(0, 600),
    latency_s=st.floats(0.1, 30),
    concurrency=st.integers(1, 8),
)
starts_s = st.floats(NOON_S, NOON_S + 7_200)


def test_run_of_more_than_a_year_has_no_end() -> None:
    of = RunConditions(
        requests=20, limit=1_000, counts=SlidingWindow(HOUR, 0, 0), latency_s=1.0, concurrency=4, max_rate_per_s=0.00001
    )
    assert simulate(of, NOON_S).end_s == pytest.approx(NOON_S + 19 * 100_000, rel=1e-6)
    slow = replace(of, requests=20_000)
    options = compare_starts(slow, NOON_S)
    assert (options.now.end_s, options.now.done, options.best) == (math.inf, True, options.now)


@given(runs, starts_s)
@settings(max_examples=25)
def test_simulated_end_is_close_to_the_forecast(of: RunConditions, start_s: float) -> None:
    run = simulate(of, start_s)
    if not of.requests:
        assert run.end_s == start_s
        return
    # The first rounds have fewer requests in flight. A request that misses the hour's end for that reason waits until
    # a slot comes free. Each hour costs some seconds more for the difference of the clocks.
    late = (of.concurrency + 1) * of.concurrency / 2
    slack_s = late * (of.latency_s + 3_600 / (of.limit or 1)) + 10 + 0.01 * run.lasts_s
    assert abs(run.end_s - forecast_end_s(of, start_s)) <= slack_s


@given(runs, starts_s)
@settings(max_examples=25)
def test_gateway_refuses_no_simulated_request(of: RunConditions, start_s: float) -> None:
    run = simulate(of, start_s)
    assert len(run.sent_s) + run.left == of.requests
    assert list(run.sent_s) == sorted(run.sent_s)
    gateway = Gateway(limit=of.limit or 0)
    gateway.hours[HOUR], gateway.hours[HOUR - 1] = of.counts.current, of.counts.previous
    assert all(gateway.request(at_s) is not None for at_s in run.sent_s)
    for wait in run.waits:
        assert start_s <= wait.from_s < wait.to_s <= run.end_s
        assert not any(wait.from_s < at_s < wait.to_s for at_s in run.sent_s)
    for at_s in run.sent_s:
        assert sum(at_s - of.latency_s + 1e-4 < other_s <= at_s for other_s in run.sent_s) <= of.concurrency


@given(runs, starts_s)
@settings(max_examples=8)
def test_best_start_ends_no_later_and_the_shortest_run_is_no_longer(of: RunConditions, now_s: float) -> None:
    options = compare_starts(of, now_s)
    assert options.best.end_s <= options.now.end_s + 60 + 0.02 * options.now.lasts_s + 60 * of.latency_s
    assert options.shortest.lasts_s <= options.best.lasts_s <= options.now.lasts_s
    for run in (options.best, options.shortest):
        assert run is options.now or (run.start_s % 60 == 0 and now_s < run.start_s <= now_s + 3_600)


def test_daily_limit_of_the_demo_key_is_kept() -> None:
    run = simulate(conditions(limit=30, daily_limit=50, requests=200), NOON_S)
    gateway = Demo()
    for at_s in run.sent_s:
        assert gateway.check(DEMO_KEY, at_s).status == 200
        gateway.count(DEMO_KEY, at_s)
    assert 3 < run.lasts_s / 86_400 < 5


@pytest.mark.parametrize("max_wait_s", [None, 300.0])
def test_half_used_quota_is_best_started_late_in_the_hour(max_wait_s: float | None) -> None:
    now_s = NOON_S + 37 * 60
    options = compare_starts(conditions(current=360, max_wait_s=max_wait_s), now_s)
    assert options.now.done == (max_wait_s is None)
    assert NOON_S + 54 * 60 <= options.best.start_s < NOON_S + 3_600
    assert options.best.done
    if max_wait_s is None:
        [wait] = options.now.waits
        assert wait.to_s == NOON_S + 3_602
        assert options.best.lasts_s < options.now.lasts_s - 15 * 60
        assert options.shortest.end_s > options.best.end_s + 60
    else:
        assert len(options.now.sent_s) == 640
        assert options.now.resume_s == NOON_S + 3_602


def test_budget_ends_a_run_at_a_gateway_without_a_quota() -> None:
    run = simulate(conditions(limit=None, budget_requests=70), NOON_S)
    assert (len(run.sent_s), run.left, run.done) == (70, 1_995, False)
    assert simulate(conditions(limit=None, requests=400), NOON_S).lasts_s < 400 * 1.4 / 4 + 3


def test_run_waits_for_retry_after() -> None:
    run = simulate(conditions(requests=5, not_before_s=NOON_S + 900.0), NOON_S)
    assert run.sent_s[0] == NOON_S + 900
    assert [(wait.from_s, wait.to_s) for wait in run.waits] == [(NOON_S, NOON_S + 900)]


def test_long_run_is_forecast_to_its_end() -> None:
    run = simulate(conditions(requests=100_000), NOON_S)
    assert 98 < run.lasts_s / 3_600 < 101


@given(runs.filter(lambda of: of.requests > 0), starts_s, st.booleans())
@settings(max_examples=25)
def test_drawing_fits_the_screen(of: RunConditions, start_s: float, fine: bool) -> None:
    now, later = simulate(of, start_s), simulate(of, start_s + 1_800)
    lines = draw_timeline([("now", now), ("12:30", later)], unicode=fine)
    assert len(lines) == 4
    assert max(map(len, lines)) <= 79
    assert fine or "".join(lines).isascii()
    hours, drawn = lines[0][7:], lines[1][7:]
    if now.sent_s:  # the first request is drawn in its place
        cell = int((now.sent_s[0] - start_s) / (max(now.end_s, later.end_s) - start_s) * 64)
        assert drawn[max(0, cell - 1) : cell + 2].strip(" .·")
        assert not drawn[: max(0, cell - 1)].strip(" .·")
    assert len(hours) == 64


@pytest.mark.parametrize("at_h", [hours / 8 for hours in range(96)])
def test_lines_of_a_plan_fit_the_screen_if_the_run_ends_on_another_day(at_h: float) -> None:
    at_s = NOON_S + 3_600 * at_h
    hour = int(at_s) // 3600
    now, optimistic = (
        replace(conditions(), counts=counts) for counts in (SlidingWindow(hour, 361, 0), SlidingWindow(hour, 0, 361))
    )
    facts = PlanFacts(
        at_s=at_s,
        lake=LakeFacts(),
        page_plan=PagePlan(41_282, 20, 41_282),
        pages_kept=0,
        requests_sent=1,
        quota=QuotaFacts("answer", 1_000, 639),
        latency_from="answer",
        responses=1,
        conditions=now,
        optimistic=optimistic,
    )
    said = [
        *plan_view.lines(facts, compare_starts(now, at_s, within_s=3_600), simulate(optimistic, at_s), unicode=False)
    ]
    assert any("or as early as" in line for line in said)
    assert max(map(len, said)) <= 80

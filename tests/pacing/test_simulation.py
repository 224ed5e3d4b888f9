from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neows_async.api.plan import LakeFacts, PlanFacts, QuotaKnown
from neows_async.cli import plan_view
from neows_async.cli.timeline import draw_timeline
from neows_async.endpoints.browse.page_plan import PagePlan
from neows_async.pacing.forecast import Outlook, forecast
from neows_async.pacing.hour import HourCounts
from neows_async.pacing.simulation import RunConditions, compare_starts, simulate
from neows_async.sandbox.rate_limits import DEMO_KEY
from neows_async.sandbox.rate_limits import Gateway as Demo
from tests.pacing.gateway import Gateway

NOON_S = 1_800_014_400
HOUR = NOON_S // 3600


def terms(*, current: int = 0, previous: int = 0, **changes: Any) -> RunConditions:
    counts = HourCounts(HOUR, current, previous)
    plain = RunConditions(requests=2_065, limit=1_000, counts=counts, answer_s=1.4, concurrency=4)
    return replace(plain, **changes)


runs = st.builds(
    terms,
    requests=st.integers(0, 900),
    limit=st.integers(10, 500),
    current=st.integers(0, 600),
    previous=st.integers(0, 600),
    answer_s=st.floats(0.1, 30),
    concurrency=st.integers(1, 8),
)
starts_s = st.floats(NOON_S, NOON_S + 7_200)


def test_what_takes_longer_than_a_year_has_no_end() -> None:
    of = RunConditions(
        requests=20, limit=1_000, counts=HourCounts(HOUR, 0, 0), answer_s=1.0, concurrency=4, max_rate_per_s=0.00001
    )
    assert simulate(of, NOON_S).end_s == pytest.approx(NOON_S + 19 * 100_000, rel=1e-6)
    slow = replace(of, requests=20_000)
    prospect = compare_starts(slow, NOON_S)
    assert (prospect.now.end_s, prospect.now.done, prospect.best) == (math.inf, True, prospect.now)


@given(runs, starts_s)
@settings(max_examples=25)
def test_it_ends_when_the_forecast_says(of: RunConditions, start_s: float) -> None:
    run = simulate(of, start_s)
    outlook = Outlook(
        pages=of.requests, limit=of.limit or 0, counts=of.counts, latency_s=of.answer_s, concurrency=of.concurrency,
        max_rate_per_s=None,
    )  # fmt: skip
    if not of.requests:
        assert run.end_s == start_s
        return
    # Beside the first rounds, with fewer under way, some seconds each hour for clocks that differ. What is not sent
    # before an hour's end for those rounds comes as late as slots come free.
    late = (of.concurrency + 1) * of.concurrency / 2
    slack_s = late * (of.answer_s + 3_600 / (of.limit or 1)) + 10 + 0.01 * run.lasts_s
    assert abs(run.end_s - forecast(outlook, start_s).finish_s) <= slack_s


@given(runs, starts_s)
@settings(max_examples=25)
def test_no_request_is_one_that_the_gateway_refuses(of: RunConditions, start_s: float) -> None:
    run = simulate(of, start_s)
    assert len(run.sent_s) + run.left == of.requests
    assert list(run.sent_s) == sorted(run.sent_s)
    gateway = Gateway(limit=of.limit or 0)
    gateway.hours[HOUR], gateway.hours[HOUR - 1] = of.counts.current, of.counts.previous
    assert all(gateway.judge(at_s) is not None for at_s in run.sent_s)
    for wait in run.waits:
        assert start_s <= wait.from_s < wait.to_s <= run.end_s
        assert not any(wait.from_s < at_s < wait.to_s for at_s in run.sent_s)
    for at_s in run.sent_s:
        assert sum(at_s - of.answer_s + 1e-4 < other_s <= at_s for other_s in run.sent_s) <= of.concurrency


@given(runs, starts_s)
@settings(max_examples=8)
def test_the_best_start_ends_no_later_and_the_shortest_is_no_longer(of: RunConditions, now_s: float) -> None:
    ahead = compare_starts(of, now_s)
    assert ahead.best.end_s <= ahead.now.end_s + 60 + 0.02 * ahead.now.lasts_s + 60 * of.answer_s
    assert ahead.shortest.lasts_s <= ahead.best.lasts_s <= ahead.now.lasts_s
    for run in (ahead.best, ahead.shortest):
        assert run is ahead.now or (run.start_s % 60 == 0 and now_s < run.start_s <= now_s + 3_600)


def test_the_demo_keys_day_is_kept_too() -> None:
    run = simulate(terms(limit=30, daily_limit=50, requests=200), NOON_S)
    gateway = Demo()
    for at_s in run.sent_s:
        assert gateway.check(DEMO_KEY, at_s).status == 200
        gateway.count(DEMO_KEY, at_s)
    assert 3 < run.lasts_s / 86_400 < 5


@pytest.mark.parametrize("max_wait_s", [None, 300.0])
def test_a_half_spent_key_does_best_late_in_the_hour(max_wait_s: float | None) -> None:
    now_s = NOON_S + 37 * 60
    ahead = compare_starts(terms(current=360, max_wait_s=max_wait_s), now_s)
    assert ahead.now.done == (max_wait_s is None)
    assert NOON_S + 54 * 60 <= ahead.best.start_s < NOON_S + 3_600
    assert ahead.best.done
    if max_wait_s is None:
        [wait] = ahead.now.waits
        assert wait.to_s == NOON_S + 3_602
        assert ahead.best.lasts_s < ahead.now.lasts_s - 15 * 60
        assert ahead.shortest.end_s > ahead.best.end_s + 60
    else:
        assert len(ahead.now.sent_s) == 640
        assert ahead.now.resume_s == NOON_S + 3_602


def test_a_budget_and_a_gateway_without_a_quota() -> None:
    run = simulate(terms(limit=None, budget_requests=70), NOON_S)
    assert (len(run.sent_s), run.left, run.done) == (70, 1_995, False)
    assert simulate(terms(limit=None, requests=400), NOON_S).lasts_s < 400 * 1.4 / 4 + 3


def test_not_before_the_source_said() -> None:
    run = simulate(terms(requests=5, not_before_s=NOON_S + 900.0), NOON_S)
    assert run.sent_s[0] == NOON_S + 900
    assert [(wait.from_s, wait.to_s) for wait in run.waits] == [(NOON_S, NOON_S + 900)]


def test_millions_of_pages_are_foreseen_too() -> None:
    run = simulate(terms(requests=100_000), NOON_S)
    assert 98 < run.lasts_s / 3_600 < 101


@given(runs.filter(lambda of: of.requests > 0), starts_s, st.booleans())
@settings(max_examples=25)
def test_a_drawing_fits_the_screen(of: RunConditions, start_s: float, fine: bool) -> None:
    now, later = simulate(of, start_s), simulate(of, start_s + 1_800)
    lines = draw_timeline([("now", now), ("12:30", later)], unicode=fine)
    assert len(lines) == 4
    assert max(map(len, lines)) <= 79
    assert fine or "".join(lines).isascii()
    hours, drawn = lines[0][7:], lines[1][7:]
    if now.sent_s:  # what goes out first is seen where it does
        cell = int((now.sent_s[0] - start_s) / (max(now.end_s, later.end_s) - start_s) * 64)
        assert drawn[max(0, cell - 1) : cell + 2].strip(" .·")
        assert not drawn[: max(0, cell - 1)].strip(" .·")
    assert len(hours) == 64


@pytest.mark.parametrize("at_h", [hours / 8 for hours in range(96)])
def test_a_plan_has_room_in_a_line_also_when_its_run_ends_on_another_day(at_h: float) -> None:
    at_s = NOON_S + 3_600 * at_h
    hour = int(at_s) // 3600
    now, hopeful = (replace(terms(), counts=counts) for counts in (HourCounts(hour, 361, 0), HourCounts(hour, 0, 361)))
    known = PlanFacts(
        at_s=at_s,
        lake=LakeFacts(),
        plan=PagePlan(41_282, 20, 41_282),
        pages_kept=0,
        asked=1,
        quota=QuotaKnown("answer", 1_000, 639),
        answer_from="answer",
        answers=1,
        terms=now,
        hopeful=hopeful,
    )
    said = [*plan_view.lines(known, compare_starts(now, at_s, within_s=3_600), simulate(hopeful, at_s), unicode=False)]
    assert any("or as early as" in line for line in said)
    assert max(map(len, said)) <= 80

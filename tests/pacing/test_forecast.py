from __future__ import annotations

import math
import time

from hypothesis import given
from hypothesis import strategies as st

from neows_async.pacing.forecast import BURST_RATE_PER_S, RunConditions, forecast_end_s
from neows_async.pacing.hour import SlidingWindow

NOON_S = 1_800_014_400
HOUR = NOON_S // 3600


def conditions(
    *, requests: int = 2_065, limit: int | None = 1_000, current: int = 0, previous: int = 0, latency_s: float = 1.0
) -> RunConditions:
    return RunConditions(
        requests=requests,
        limit=limit,
        counts=SlidingWindow(HOUR, current, previous),
        latency_s=latency_s,
        concurrency=4,
        max_rate_per_s=BURST_RATE_PER_S,
    )


def run_s(of: RunConditions, start_s: float = NOON_S) -> float:
    return forecast_end_s(of, start_s) - start_s


def test_run_at_the_full_hour_waits_for_the_next_hours() -> None:
    assert 7_430 < run_s(conditions()) < 7_440


def test_run_late_in_the_hour_is_short_and_ends_no_later() -> None:
    start_s = NOON_S + 55 * 60
    assert 60 * 67 < run_s(conditions(), start_s) < 60 * 69
    assert forecast_end_s(conditions(), start_s) <= forecast_end_s(conditions(), NOON_S) + 60


def test_run_within_the_quota_is_as_fast_as_its_concurrency() -> None:
    assert 100 <= run_s(conditions(requests=400)) <= 102
    assert 250 <= run_s(conditions(requests=1_000, limit=None)) <= 252


def test_quota_of_the_demo_key_takes_days() -> None:
    assert 2_065 / 30 - 1 < run_s(conditions(limit=30)) / 3_600 < 2_065 / 30 + 1


def test_run_of_more_than_a_year_has_no_end() -> None:
    assert run_s(conditions(requests=10_000, limit=1)) == math.inf


def test_sixty_forecasts_take_less_than_a_tenth_of_a_second() -> None:
    started_s = time.process_time()
    for minute in range(60):
        forecast_end_s(conditions(previous=500), NOON_S + 60 * minute)
    assert time.process_time() - started_s < 0.1


@given(
    requests=st.integers(1, 5_000),
    limit=st.integers(1, 2_000),
    used=st.tuples(st.integers(0, 2_000), st.integers(0, 2_000)),
    latency_s=st.floats(0.1, 60),
    into_s=st.floats(0, 7_200),
    later_s=st.floats(0, 3_600),
)
def test_later_start_never_ends_earlier(
    requests: int, limit: int, used: tuple[int, int], latency_s: float, into_s: float, later_s: float
) -> None:
    of = conditions(requests=requests, limit=limit, current=used[0], previous=used[1], latency_s=latency_s)
    early_s, late_s = forecast_end_s(of, NOON_S + into_s), forecast_end_s(of, NOON_S + into_s + later_s)
    slack_s = 1 + 0.001 * (early_s - NOON_S) + 2 * latency_s
    assert early_s <= late_s + slack_s

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from neows_async.pacing.forecast import Outlook, best_start, forecast
from neows_async.pacing.hour import HourCounts

NOON_S = 1_800_014_400
HOUR = NOON_S // 3600


def outlook(
    *, pages: int = 2_065, limit: int = 1_000, current: int = 0, previous: int = 0, latency_s: float = 1.0
) -> Outlook:
    counts = HourCounts(HOUR, current, previous)
    return Outlook(pages=pages, limit=limit, counts=counts, latency_s=latency_s, concurrency=4)


def test_a_run_on_the_hour_pauses_until_the_next() -> None:
    run = forecast(outlook(), NOON_S)
    assert 7_430 < run.run_s < 7_440
    (pause,) = run.pauses
    assert 240 < pause.from_s - NOON_S < 260
    assert 3_600 <= pause.to_s - NOON_S < 3_610


def test_what_fits_into_the_quota_is_not_paused() -> None:
    run = forecast(outlook(pages=400), NOON_S)
    assert run.pauses == ()
    assert 100 <= run.run_s <= 102


def test_the_best_minute_spares_the_pause_and_ends_no_later() -> None:
    now, best = forecast(outlook(), NOON_S), best_start(outlook(), NOON_S)
    assert best.finish_s <= now.finish_s + 60
    assert NOON_S + 55 * 60 <= best.start_s <= NOON_S + 56 * 60
    assert 60 * 67 < best.run_s < 60 * 69
    assert best.pauses == ()


def test_a_run_that_fits_starts_now() -> None:
    assert best_start(outlook(pages=20), NOON_S + 7).start_s == NOON_S + 7


def test_failures_cost_quota() -> None:
    plain = outlook(pages=950)
    failing = Outlook(
        pages=950, limit=1_000, counts=plain.counts, latency_s=1, concurrency=4, failing=0.5
    )  # fmt: skip
    assert failing.requests == 1_900
    assert forecast(failing, NOON_S).run_s > 3_600 > forecast(plain, NOON_S).run_s


def test_the_demo_keys_quota_takes_days() -> None:
    run = forecast(outlook(limit=30), NOON_S)
    assert 2_065 / 30 - 1 < run.run_s / 3_600 < 2_065 / 30 + 1


def test_the_best_of_sixty_minutes_is_found_at_once() -> None:
    started_s = time.perf_counter()
    best_start(outlook(previous=500), NOON_S)
    assert time.perf_counter() - started_s < 0.1


@given(
    pages=st.integers(1, 5_000),
    limit=st.integers(1, 2_000),
    used=st.tuples(st.integers(0, 2_000), st.integers(0, 2_000)),
    latency_s=st.floats(0.1, 60),
    into_s=st.floats(0, 7_200),
    later_s=st.floats(0, 3_600),
)
def test_starting_later_never_ends_earlier(
    pages: int, limit: int, used: tuple[int, int], latency_s: float, into_s: float, later_s: float
) -> None:
    seen = outlook(pages=pages, limit=limit, current=used[0], previous=used[1], latency_s=latency_s)
    early, late = forecast(seen, NOON_S + into_s), forecast(seen, NOON_S + into_s + later_s)
    slack_s = 1 + 0.001 * early.run_s + 2 * latency_s
    assert early.finish_s <= late.finish_s + slack_s
    assert all(one.from_s < one.to_s <= early.finish_s for one in early.pauses)

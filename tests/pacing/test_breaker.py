from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neows_async.pacing.breaker import CircuitBreaker


def opened(**settings: float) -> CircuitBreaker:
    breaker = CircuitBreaker(pages_to_open=3, probe_every_s=300, **settings)  # type: ignore[arg-type]
    for page in range(3):
        breaker.sent(100 + page)
        breaker.failed(page, 110 + page)
    return breaker


def test_failures_of_different_pages_in_a_row_open_it() -> None:
    breaker = opened()
    outage = breaker.outage
    assert outage is not None
    assert (outage.since_s, outage.next_probe_s, outage.failures, outage.ends_s) == (110, 410, 3, None)
    assert breaker.next_attempt_s(112) == 298


def test_failures_of_one_page_do_not_open_it() -> None:
    breaker = CircuitBreaker(pages_to_open=2)
    for now_s in range(100):
        breaker.failed(7, now_s)
    assert breaker.outage is None
    assert breaker.next_attempt_s(100) == 0


def test_valid_response_between_failures_starts_a_new_row() -> None:
    breaker = CircuitBreaker(pages_to_open=2)
    breaker.failed(1, 0)
    breaker.succeeded()
    breaker.failed(2, 10)
    assert not breaker.is_open
    breaker.failed(3, 20)
    assert breaker.outage is not None
    assert breaker.outage.since_s == 10


def test_first_valid_response_closes_it() -> None:
    breaker = opened()
    breaker.sent(410)
    breaker.succeeded()
    assert breaker.outage is None
    assert breaker.next_attempt_s(411) == 0


def test_late_response_to_an_earlier_request_closes_it() -> None:
    breaker = opened()
    breaker.succeeded()
    assert not breaker.is_open


def test_run_gives_up_after_max_outage() -> None:
    breaker = opened(max_outage_s=3_600)
    assert not breaker.given_up(3_709)
    assert breaker.given_up(3_710)
    assert not CircuitBreaker(max_outage_s=0).given_up(10)


@given(steps=st.lists(st.floats(0, 1_000), max_size=60))
def test_requests_during_an_outage_are_a_probe_time_apart(steps: list[float]) -> None:
    breaker = opened()
    now_s, sent_s = 112.0, []
    for step_s in steps:
        now_s += step_s
        if breaker.next_attempt_s(now_s) == 0:
            breaker.sent(now_s)
            sent_s.append(now_s)
            assert breaker.next_attempt_s(now_s) == pytest.approx(300)
        breaker.failed(99, now_s)
    assert all(later - earlier >= 299.999 for earlier, later in itertools.pairwise(sent_s))
    assert not sent_s or sent_s[0] >= 402

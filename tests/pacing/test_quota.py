"""When the quota model allows the next request, step by step."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neows_async.errors import RateLimit
from neows_async.pacing.quota import QuotaModel
from neows_async.pacing.rules import Burst, PacingRules
from neows_async.pacing.state import QuotaState

NOON_S = 1_800_014_400.0
HOUR_S = 3600
FREE = PacingRules(bursts=(), clock_margin_s=2)


def headers(remaining: int, limit: int = 1_000) -> RateLimit:
    return RateLimit(limit, remaining)


def begun(remaining: int = 999, *, rules: PacingRules = FREE, now_s: float = NOON_S + 10) -> QuotaModel:
    """Return a model after one response."""
    model = QuotaModel(rules)
    model.response_received(model.sent(now_s - 1), now_s, headers(remaining))
    return model


def test_nothing_is_known_before_the_first_response() -> None:
    model = QuotaModel()
    assert (model.limit, model.remaining, model.counts(NOON_S)) == (None, None, None)


def test_response_shows_limit_and_remaining() -> None:
    model = begun(700)
    assert (model.limit, model.remaining) == (1_000, 700)
    model.sent(NOON_S + 11)
    assert model.remaining == 699


@pytest.mark.parametrize("first", [None, RateLimit(0, 0)])
def test_requests_go_one_at_a_time_after_a_response_without_figures(first: RateLimit | None) -> None:
    model = QuotaModel(FREE)
    model.response_received(model.sent(NOON_S), NOON_S + 1, first)
    assert model.next_slot_s(NOON_S + 1) == 0
    model.sent(NOON_S + 1)
    assert model.next_slot_s(NOON_S + 1) == math.inf


def test_retry_after_is_honoured_in_full_and_one_probe_goes_first() -> None:
    model = begun()
    first, second = model.sent(NOON_S + 11), model.sent(NOON_S + 11)
    model.rate_limited(first, NOON_S + 12, 2_870)
    assert model.next_slot_s(NOON_S + 12) == pytest.approx(2_870)
    model.response_received(second, NOON_S + 14, headers(997))
    assert model.next_slot_s(NOON_S + 12 + 2_869) == pytest.approx(1)
    resumed_s = NOON_S + 12 + 2_870
    assert model.next_slot_s(resumed_s) == 0
    probe = model.sent(resumed_s)
    assert model.next_slot_s(resumed_s + 1) == math.inf
    model.response_received(probe, resumed_s + 2, headers(996))
    assert model.next_slot_s(resumed_s + 2) == 0
    model.sent(resumed_s + 2)
    assert model.next_slot_s(resumed_s + 2) == 0


def test_lost_probe_is_followed_by_another_one() -> None:
    model = begun()
    model.rate_limited(model.sent(NOON_S + 11), NOON_S + 12, 5)
    model.no_response(model.sent(NOON_S + 17), NOON_S + 20)
    assert model.next_slot_s(NOON_S + 20) == 0
    model.sent(NOON_S + 20)
    assert model.next_slot_s(NOON_S + 20) == math.inf


def test_last_slots_are_kept_back_only_if_more_are_wanted() -> None:
    model = begun(5)
    assert model.next_slot_s(NOON_S + 11, 6) > 0
    assert model.next_slot_s(NOON_S + 11, 5) == 0
    for wanted in range(5, 0, -1):
        assert model.next_slot_s(NOON_S + 11, wanted) == 0
        model.sent(NOON_S + 11)
    assert model.next_slot_s(NOON_S + 11, 1) == math.inf, "none is free, and the responses in flight will show more"


@pytest.mark.parametrize(("retry_after_s", "waits_s"), [(0, 60), (1, 60), (None, 60), (300, 300)])
def test_refused_probe_is_not_sent_again_at_once(retry_after_s: int | None, waits_s: float) -> None:
    model = begun()
    model.rate_limited(model.sent(NOON_S + 11), NOON_S + 12, 0)
    assert model.next_slot_s(NOON_S + 12) == 0
    model.rate_limited(model.sent(NOON_S + 12), NOON_S + 13, retry_after_s)
    assert model.next_slot_s(NOON_S + 13) == pytest.approx(waits_s)
    model.response_received(model.sent(NOON_S + 13 + waits_s), NOON_S + 14 + waits_s, headers(990))
    model.rate_limited(model.sent(NOON_S + 400), NOON_S + 401, 1)
    assert model.next_slot_s(NOON_S + 401) == pytest.approx(1), "after a valid response Retry-After counts alone again"


def test_later_429_never_shortens_the_wait() -> None:
    model = begun()
    first, second = model.sent(NOON_S + 11), model.sent(NOON_S + 11)
    model.rate_limited(first, NOON_S + 12, 31_714)
    model.rate_limited(second, NOON_S + 13, 1)
    assert model.next_slot_s(NOON_S + 13) == pytest.approx(31_713)


def test_429_without_retry_after_has_a_default_wait() -> None:
    model = begun()
    model.rate_limited(model.sent(NOON_S + 11), NOON_S + 12, None)
    assert model.next_slot_s(NOON_S + 12) == FREE.default_wait_s


def test_refused_request_is_not_counted_but_a_lost_one_is() -> None:
    model = begun(999)
    model.rate_limited(model.sent(NOON_S + 11), NOON_S + 12, 1)
    assert model.remaining == 999
    model.no_response(model.sent(NOON_S + 13), NOON_S + 60)
    assert model.remaining == 998


def test_request_without_a_response_is_lost_after_a_time() -> None:
    model = begun()
    model.sent(NOON_S + 11)
    model.rate_limited(model.sent(NOON_S + 11), NOON_S + 12, 1)
    probe = model.sent(NOON_S + 13)
    assert model.next_slot_s(NOON_S + 20) == math.inf
    assert model.next_slot_s(NOON_S + 14 + FREE.lost_after_s) == 0
    model.response_received(probe, NOON_S + 400, headers(1))  # too late: it is ignored


def test_after_a_long_time_without_responses_one_request_goes_first() -> None:
    model = begun()
    later_s = NOON_S + 10 + FREE.stale_after_s + 1
    assert model.next_slot_s(later_s) == 0
    model.sent(later_s)
    assert model.next_slot_s(later_s) == math.inf


def test_used_up_hour_ends_when_the_gateway_has_certainly_begun_the_next() -> None:
    model = begun(0)
    wait_s = model.next_slot_s(NOON_S + 10)
    # It is unknown how much was counted in this hour, so the first slot of the next hour is a little later.
    assert HOUR_S - 10 + 2 <= wait_s <= HOUR_S - 10 + 60


def test_last_slots_of_an_unknown_hour_are_used_one_by_one() -> None:
    model = begun(3)
    waits_s = []
    now_s = NOON_S + 10
    for remaining in (2, 1, 0):
        waits_s.append(model.next_slot_s(now_s))
        now_s += waits_s[-1]
        model.response_received(model.sent(now_s), now_s, headers(remaining))
    assert waits_s == sorted(waits_s)
    assert 400 < waits_s[0] < 500
    assert now_s < NOON_S + HOUR_S


def test_burst_limits_hold_although_the_hour_has_room() -> None:
    model = begun(999, rules=PacingRules(bursts=(Burst(3, 1),)))
    now_s = NOON_S + 20
    tickets = []
    while model.next_slot_s(now_s) == 0:
        tickets.append(model.sent(now_s))
    assert len(tickets) == 3
    assert model.next_slot_s(now_s) == math.inf
    for ticket in tickets:
        model.response_received(ticket, now_s + 0.1, headers(996))
    assert 1 < model.next_slot_s(now_s + 0.1) <= 2


def test_max_rate_spaces_requests() -> None:
    model = begun(rules=PacingRules(bursts=(), max_rate_per_s=4))
    model.sent(NOON_S + 11)
    assert model.next_slot_s(NOON_S + 11) == pytest.approx(0.25)


def test_daily_limit_of_the_demo_key_is_kept() -> None:
    model = QuotaModel(PacingRules(bursts=(), daily_limit=50))
    now_s = NOON_S
    for number in range(50):
        assert model.next_slot_s(now_s) == 0
        model.response_received(model.sent(now_s), now_s, headers(29 - number % 20, 30))
        now_s += 130
    wait_s = model.next_slot_s(now_s)
    midnight_s = NOON_S + 12 * HOUR_S
    # All fifty count fully until midnight. Half an hour later one of them does not count any more.
    assert midnight_s <= now_s + wait_s <= midnight_s + 1_800


def test_clock_that_goes_back_changes_nothing() -> None:
    model = begun()
    model.rate_limited(model.sent(NOON_S + 100), NOON_S + 100, 10)
    assert model.next_slot_s(NOON_S) == 10


@given(
    remaining=st.integers(0, 1_000),
    limit=st.integers(-5, 2_000),
    steps=st.lists(st.tuples(st.floats(0, 4_000), st.sampled_from(["ok", "lost", "429", "in flight"])), max_size=30),
)
def test_state_survives_json(remaining: int, limit: int, steps: list[tuple[float, str]]) -> None:
    model, now_s = QuotaModel(), NOON_S
    for step_s, what in steps:
        now_s += step_s
        ticket = model.sent(now_s)
        if what == "ok":
            model.response_received(ticket, now_s, headers(remaining, limit))
        elif what == "lost":
            model.no_response(ticket, now_s)
        elif what == "429":
            model.rate_limited(ticket, now_s, step_s)
    known = model.state()
    read = QuotaState.from_json(json.loads(json.dumps(known.as_json(), allow_nan=False)))
    assert read == known
    assert QuotaModel(restored=read).next_slot_s(now_s) == model.next_slot_s(now_s)


@pytest.mark.parametrize("plain", [{}, {"hour": {}}, {"hour": None, "colour": 1}, {"hour": 3}])
def test_foreign_state_is_refused(plain: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a quota state"):
        QuotaState.from_json(plain)

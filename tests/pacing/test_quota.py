"""What pacing lets out, and when, step by step."""

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


def told(remaining: int, limit: int = 1_000) -> RateLimit:
    return RateLimit(limit, remaining)


def begun(remaining: int = 999, *, rules: PacingRules = FREE, now_s: float = NOON_S + 10) -> QuotaModel:
    """After one answer."""
    pacing = QuotaModel(rules)
    pacing.answered(pacing.sent(now_s - 1), now_s, told(remaining))
    return pacing


def test_nothing_is_known_before_the_first_answer() -> None:
    pacing = QuotaModel()
    assert (pacing.limit, pacing.remaining, pacing.counts(NOON_S)) == (None, None, None)


def test_an_answer_tells_limit_and_remaining() -> None:
    pacing = begun(700)
    assert (pacing.limit, pacing.remaining) == (1_000, 700)
    pacing.sent(NOON_S + 11)
    assert pacing.remaining == 699


@pytest.mark.parametrize("told_first", [None, RateLimit(0, 0)])
def test_an_answer_without_figures_leaves_it_one_at_a_time(told_first: RateLimit | None) -> None:
    pacing = QuotaModel(FREE)
    pacing.answered(pacing.sent(NOON_S), NOON_S + 1, told_first)
    assert pacing.next_slot_s(NOON_S + 1) == 0
    pacing.sent(NOON_S + 1)
    assert pacing.next_slot_s(NOON_S + 1) == math.inf


def test_retry_after_is_honoured_in_full_then_one_probe_goes_first() -> None:
    pacing = begun()
    first, second = pacing.sent(NOON_S + 11), pacing.sent(NOON_S + 11)
    pacing.limited(first, NOON_S + 12, 2_870)
    assert pacing.next_slot_s(NOON_S + 12) == pytest.approx(2_870)
    pacing.answered(second, NOON_S + 14, told(997))
    assert pacing.next_slot_s(NOON_S + 12 + 2_869) == pytest.approx(1)
    resumed_s = NOON_S + 12 + 2_870
    assert pacing.next_slot_s(resumed_s) == 0
    probe = pacing.sent(resumed_s)
    assert pacing.next_slot_s(resumed_s + 1) == math.inf
    pacing.answered(probe, resumed_s + 2, told(996))
    assert pacing.next_slot_s(resumed_s + 2) == 0
    pacing.sent(resumed_s + 2)
    assert pacing.next_slot_s(resumed_s + 2) == 0


def test_a_probe_that_is_lost_is_followed_by_another_one() -> None:
    pacing = begun()
    pacing.limited(pacing.sent(NOON_S + 11), NOON_S + 12, 5)
    pacing.lost(pacing.sent(NOON_S + 17), NOON_S + 20)
    assert pacing.next_slot_s(NOON_S + 20) == 0
    pacing.sent(NOON_S + 20)
    assert pacing.next_slot_s(NOON_S + 20) == math.inf


def test_the_last_ones_are_spared_only_where_more_are_wanted() -> None:
    pacing = begun(5)
    assert pacing.next_slot_s(NOON_S + 11, 6) > 0
    assert pacing.next_slot_s(NOON_S + 11, 5) == 0
    for wanted in range(5, 0, -1):
        assert pacing.next_slot_s(NOON_S + 11, wanted) == 0
        pacing.sent(NOON_S + 11)
    assert pacing.next_slot_s(NOON_S + 11, 1) == math.inf, "none is free, and what is under way will tell"


@pytest.mark.parametrize(("retry_after_s", "waits_s"), [(0, 60), (1, 60), (None, 60), (300, 300)])
def test_a_probe_that_is_refused_too_is_not_sent_again_at_once(retry_after_s: int | None, waits_s: float) -> None:
    pacing = begun()
    pacing.limited(pacing.sent(NOON_S + 11), NOON_S + 12, 0)
    assert pacing.next_slot_s(NOON_S + 12) == 0
    pacing.limited(pacing.sent(NOON_S + 12), NOON_S + 13, retry_after_s)
    assert pacing.next_slot_s(NOON_S + 13) == pytest.approx(waits_s)
    pacing.answered(pacing.sent(NOON_S + 13 + waits_s), NOON_S + 14 + waits_s, told(990))
    pacing.limited(pacing.sent(NOON_S + 400), NOON_S + 401, 1)
    assert pacing.next_slot_s(NOON_S + 401) == pytest.approx(1), "after a good answer its word counts again"


def test_a_later_429_never_shortens_the_wait() -> None:
    pacing = begun()
    first, second = pacing.sent(NOON_S + 11), pacing.sent(NOON_S + 11)
    pacing.limited(first, NOON_S + 12, 31_714)
    pacing.limited(second, NOON_S + 13, 1)
    assert pacing.next_slot_s(NOON_S + 13) == pytest.approx(31_713)


def test_a_429_without_retry_after_waits_a_while() -> None:
    pacing = begun()
    pacing.limited(pacing.sent(NOON_S + 11), NOON_S + 12, None)
    assert pacing.next_slot_s(NOON_S + 12) == FREE.default_wait_s


def test_a_refusal_is_not_counted_but_a_lost_request_may_be() -> None:
    pacing = begun(999)
    pacing.limited(pacing.sent(NOON_S + 11), NOON_S + 12, 1)
    assert pacing.remaining == 999
    pacing.lost(pacing.sent(NOON_S + 13), NOON_S + 60)
    assert pacing.remaining == 998


def test_what_never_ends_is_lost_some_day() -> None:
    pacing = begun()
    pacing.sent(NOON_S + 11)
    pacing.limited(pacing.sent(NOON_S + 11), NOON_S + 12, 1)
    probe = pacing.sent(NOON_S + 13)
    assert pacing.next_slot_s(NOON_S + 20) == math.inf
    assert pacing.next_slot_s(NOON_S + 14 + FREE.lost_after_s) == 0
    pacing.answered(probe, NOON_S + 400, told(1))  # too late, and no harm


def test_after_a_long_silence_one_goes_first() -> None:
    pacing = begun()
    later_s = NOON_S + 10 + FREE.stale_after_s + 1
    assert pacing.next_slot_s(later_s) == 0
    pacing.sent(later_s)
    assert pacing.next_slot_s(later_s) == math.inf


def test_a_spent_hour_ends_when_the_gateway_surely_has_begun_the_next() -> None:
    pacing = begun(0)
    wait_s = pacing.next_slot_s(NOON_S + 10)
    # Nobody knows yet how much was counted in this hour, so the first of the next one waits for some more.
    assert HOUR_S - 10 + 2 <= wait_s <= HOUR_S - 10 + 60


def test_the_last_slots_of_an_unknown_hour_are_sent_ahead_one_by_one() -> None:
    pacing = begun(3)
    waits_s = []
    now_s = NOON_S + 10
    for remaining in (2, 1, 0):
        waits_s.append(pacing.next_slot_s(now_s))
        now_s += waits_s[-1]
        pacing.answered(pacing.sent(now_s), now_s, told(remaining))
    assert waits_s == sorted(waits_s)
    assert 400 < waits_s[0] < 500
    assert now_s < NOON_S + HOUR_S


def test_burst_limits_hold_whatever_the_hour_leaves() -> None:
    pacing = begun(999, rules=PacingRules(bursts=(Burst(3, 1),)))
    now_s = NOON_S + 20
    tickets = []
    while pacing.next_slot_s(now_s) == 0:
        tickets.append(pacing.sent(now_s))
    assert len(tickets) == 3
    assert pacing.next_slot_s(now_s) == math.inf
    for ticket in tickets:
        pacing.answered(ticket, now_s + 0.1, told(996))
    assert 1 < pacing.next_slot_s(now_s + 0.1) <= 2


def test_a_rate_of_ones_own_spaces_requests() -> None:
    pacing = begun(rules=PacingRules(bursts=(), max_rate_per_s=4))
    pacing.sent(NOON_S + 11)
    assert pacing.next_slot_s(NOON_S + 11) == pytest.approx(0.25)


def test_the_demo_key_has_a_day_too() -> None:
    pacing = QuotaModel(PacingRules(bursts=(), daily_limit=50))
    now_s = NOON_S
    for number in range(50):
        assert pacing.next_slot_s(now_s) == 0
        pacing.answered(pacing.sent(now_s), now_s, told(29 - number % 20, 30))
        now_s += 130
    wait_s = pacing.next_slot_s(now_s)
    midnight_s = NOON_S + 12 * HOUR_S
    # All fifty weigh whole until midnight; one in fifty is out of the day half an hour later.
    assert midnight_s <= now_s + wait_s <= midnight_s + 1_800


def test_a_clock_that_goes_back_changes_nothing() -> None:
    pacing = begun()
    pacing.limited(pacing.sent(NOON_S + 100), NOON_S + 100, 10)
    assert pacing.next_slot_s(NOON_S) == 10


@given(
    remaining=st.integers(0, 1_000),
    limit=st.integers(-5, 2_000),
    steps=st.lists(st.tuples(st.floats(0, 4_000), st.sampled_from(["ok", "lost", "429", "silent"])), max_size=30),
)
def test_a_snapshot_carries_on_where_it_was(remaining: int, limit: int, steps: list[tuple[float, str]]) -> None:
    pacing, now_s = QuotaModel(), NOON_S
    for step_s, what in steps:
        now_s += step_s
        ticket = pacing.sent(now_s)
        if what == "ok":
            pacing.answered(ticket, now_s, told(remaining, limit))
        elif what == "lost":
            pacing.lost(ticket, now_s)
        elif what == "429":
            pacing.limited(ticket, now_s, step_s)
    known = pacing.state()
    read = QuotaState.from_json(json.loads(json.dumps(known.as_json(), allow_nan=False)))
    assert read == known
    assert QuotaModel(restored=read).next_slot_s(now_s) == pacing.next_slot_s(now_s)


@pytest.mark.parametrize("plain", [{}, {"hour": {}}, {"hour": None, "colour": 1}, {"hour": 3}])
def test_a_foreign_snapshot_is_refused(plain: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a pacing snapshot"):
        QuotaState.from_json(plain)

"""No request is refused, for any earlier use of the key and any difference of the clocks."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from neows_async.pacing.quota import QuotaModel
from neows_async.pacing.rules import API_DATA_GOV_BURSTS, PacingRules
from neows_async.pacing.state import QuotaState
from tests.pacing.gateway import HOUR_S, MIDNIGHT_S, Gateway, Network, Run

NOON_S = MIDNIGHT_S + 12 * HOUR_S
HOUR_ONLY = PacingRules(bursts=(), clock_margin_s=2)


@st.composite
def worlds(draw: st.DrawFn, *, limits: tuple[int, int] = (3, 60)) -> dict[str, Any]:
    """Draw a key with an unknown past, for which at least one request passes, and a run with it."""
    limit = draw(st.integers(*limits))
    into_s = draw(st.one_of(st.floats(0, HOUR_S - 0.01), st.sampled_from([0.0, 1.0, 1799.5, 3590.0, 3599.9])))
    clock_s = draw(st.floats(-2, 2))
    gateway = Gateway(limit, clock_s)
    hour = int((NOON_S + into_s + clock_s) // HOUR_S)
    gateway.hours[hour - 1] = draw(st.integers(0, limit))
    gateway.hours[hour] = draw(st.integers(0, limit - 1))
    while gateway.estimate(NOON_S + into_s) >= limit:
        gateway.hours[hour - 1] -= 1
    shortest_s = draw(st.floats(0.01, 5))
    return {
        "gateway": gateway,
        "start_s": NOON_S + into_s,
        "concurrency": draw(st.integers(1, 16)),
        "network": Network(
            draw(st.integers(0, 10**6)),
            shortest_s,
            shortest_s + draw(st.floats(0, 55)),
            draw(st.sampled_from([0, 0.3])),
        ),
        "longest_s": 200 * HOUR_S,
    }


@given(world=worlds(), pages=st.integers(1, 150))
@settings(max_examples=300)
def test_no_request_is_refused(world: dict[str, Any], pages: int) -> None:
    ran = Run(model=QuotaModel(HOUR_ONLY), **world).fetch(pages)
    assert ran.refused == 0
    assert ran.sent >= pages


@given(world=worlds(limits=(400, 1200)))
@settings(max_examples=15)
def test_no_request_is_refused_with_burst_limits(world: dict[str, Any]) -> None:
    world["gateway"].bursts = ((20, 1), (150, 15))
    world["network"] = Network(world["network"].seed, 0.01, 2.0)
    ran = Run(model=QuotaModel(PacingRules(bursts=API_DATA_GOV_BURSTS)), **world | {"concurrency": 64}).fetch(300)
    assert ran.refused == 0


@given(world=worlds(), cuts=st.lists(st.integers(1, 60), min_size=1, max_size=4))
@settings(max_examples=50)
def test_no_request_is_refused_if_runs_continue_each_others_state(world: dict[str, Any], cuts: list[int]) -> None:
    model = QuotaModel(HOUR_ONLY)
    for pages in cuts:
        ran = Run(model=model, **world).fetch(pages)
        assert ran.refused == 0
        world["start_s"] += ran.makespan_s
        model = QuotaModel(HOUR_ONLY, QuotaState.from_json(model.state().as_json()))


def test_request_before_the_first_response_goes_alone() -> None:
    model = QuotaModel()
    assert model.next_slot_s(NOON_S) == 0
    ticket = model.sent(NOON_S)
    assert model.next_slot_s(NOON_S + 1) == math.inf
    model.no_response(ticket, NOON_S + 2)
    assert model.next_slot_s(NOON_S + 2) == 0

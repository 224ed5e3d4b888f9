from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neows_async.errors import SettingsError
from neows_async.sandbox.rate_limits import REFUSALS, Decision, Gateway, GatewayRules

HOUR_S = 3600
MIDNIGHT_S = 20_000 * 86_400.0


def send(gateway: Gateway, key: str, now_s: float, address: str = "") -> Decision:
    """A request, checked and counted as in the application."""
    decision = gateway.check(key, now_s, address)
    if decision.status == 200:
        gateway.count(key, now_s, address)
    return decision


def minutes_for(pages: int, start_s: float) -> float:
    """Minutes for ``pages`` pages at 4 requests/s, with the waits in Retry-After."""
    gateway, now_s, done = Gateway(), start_s, 0
    while done < pages:
        decision = send(gateway, "key", now_s)
        done += decision.status == 200
        now_s += 0.25 if decision.retry_after_s is None else decision.retry_after_s
    return (now_s - start_s) / 60


@pytest.mark.parametrize(("start_minute", "minutes"), [(0, 122), (55, 67)])
def test_whole_catalogue_takes_the_measured_time(start_minute: int, minutes: int) -> None:
    assert minutes_for(2034, MIDNIGHT_S + start_minute * 60) == pytest.approx(minutes, abs=1)


def test_window_slides_and_refused_requests_are_not_counted() -> None:
    gateway = Gateway(GatewayRules(hourly_limit=4))
    remaining = [send(gateway, "k", MIDNIGHT_S + second).remaining for second in range(4)]
    assert remaining == [3, 2, 1, 0]
    refused = [send(gateway, "k", MIDNIGHT_S + 600) for _ in range(9)]
    # Within the hour all four count. In the next hour, the first leaves after more than 0 s.
    assert {(v.status, v.code, v.limit, v.remaining, v.retry_after_s) for v in refused} == {
        (429, "OVER_RATE_LIMIT", 4, 0, 3001)
    }
    assert send(gateway, "k", MIDNIGHT_S + HOUR_S).status == 429
    assert send(gateway, "k", MIDNIGHT_S + HOUR_S + 1).remaining == 0
    # In the middle of the next hour, half of the four still count, and the one of this hour.
    assert send(gateway, "k", MIDNIGHT_S + HOUR_S * 1.5).remaining == 0
    assert send(gateway, "k", MIDNIGHT_S + HOUR_S * 3.5).remaining == 3


@given(
    st.lists(st.floats(0, 4 * HOUR_S), max_size=40).map(sorted),
    st.integers(1, 9),
    st.floats(0, 2 * HOUR_S),
)
def test_retry_after_is_the_shortest_sufficient_wait(times: list[float], limit: int, later_s: float) -> None:
    gateway = Gateway(GatewayRules(hourly_limit=limit))
    for at_s in times:
        send(gateway, "k", at_s)
    now_s = (times[-1] if times else 0) + later_s
    decision = gateway.check("k", now_s)
    if decision.retry_after_s is not None:
        assert gateway.check("k", now_s + decision.retry_after_s).status == 200
    gateway = Gateway(GatewayRules(hourly_limit=limit))
    for at_s in times:
        send(gateway, "k", at_s)
    if decision.retry_after_s is not None and decision.retry_after_s > 1:
        assert gateway.check("k", now_s + decision.retry_after_s - 1).status == 429


def test_demo_key_has_limits_by_address() -> None:
    gateway = Gateway()
    first = [send(gateway, "DEMO_KEY", MIDNIGHT_S, "1.1.1.1") for _ in range(31)]
    assert [decision.status for decision in first] == [200] * 30 + [429]
    assert {decision.limit for decision in first} == {30}
    assert send(gateway, "DEMO_KEY", MIDNIGHT_S, "2.2.2.2").remaining == 29
    later = [send(gateway, "DEMO_KEY", MIDNIGHT_S + 2 * HOUR_S, "1.1.1.1") for _ in range(21)]
    assert [decision.status for decision in later] == [200] * 20 + [429]
    # The daily limit lasts for hours, as the observed one (31,714 s).
    assert later[-1].retry_after_s is not None
    assert later[-1].retry_after_s > 20 * HOUR_S
    assert send(gateway, "another", MIDNIGHT_S, "1.1.1.1").limit == 1000


def test_keys_are_counted_separately() -> None:
    gateway = Gateway(hourly_limit=1)
    assert [send(gateway, key, MIDNIGHT_S).status for key in ("a", "b", "a")] == [200, 200, 429]


def test_burst_limits_apply_to_keys_and_addresses() -> None:
    rules = GatewayRules(burst_limits=True)
    gateway = Gateway(rules)
    by_key = [send(gateway, "k", MIDNIGHT_S, "a") for _ in range(21)]
    assert [decision.status for decision in by_key] == [200] * 20 + [429]
    assert (by_key[-1].remaining, by_key[-1].retry_after_s) == (0, 2)
    gateway = Gateway(rules)
    by_address = [send(gateway, f"k{n}", MIDNIGHT_S, "a").status for n in range(51)]
    assert by_address == [200] * 50 + [429]
    assert gateway.check("k1", MIDNIGHT_S, "b").status == 200
    gateway = Gateway(rules)
    at_15_s = [send(gateway, "k", MIDNIGHT_S + n / 12, "a").status for n in range(151)]
    assert at_15_s == [200] * 150 + [429]
    assert Gateway().check("k", MIDNIGHT_S).status == 200
    assert {send(Gateway(), "k", MIDNIGHT_S).status for _ in range(200)} == {200}


@pytest.mark.parametrize("code", REFUSALS)
def test_refused_key_gets_a_reason_and_no_quota_headers(code: str) -> None:
    gateway = Gateway(GatewayRules(refused_keys={"bad": code}, known_keys=frozenset({"good"})))
    assert gateway.check("bad", MIDNIGHT_S) == Decision(403, code)


def test_unknown_and_missing_keys_are_refused() -> None:
    gateway = Gateway(GatewayRules(known_keys=frozenset({"good"})))
    assert gateway.check("", MIDNIGHT_S) == gateway.check(None, MIDNIGHT_S) == Decision(403, "API_KEY_MISSING")
    assert gateway.check("other", MIDNIGHT_S) == Decision(403, "API_KEY_INVALID")
    assert gateway.check("good", MIDNIGHT_S).status == gateway.check("DEMO_KEY", MIDNIGHT_S).status == 200


def test_remaining_jitters_when_several_nodes_count() -> None:
    gateway = Gateway(GatewayRules(remaining_jitter=50))
    seen = [send(gateway, "k", MIDNIGHT_S).remaining for _ in range(100)]
    steps = [one - other for one, other in zip(seen[1:], seen, strict=False) if one is not None and other is not None]
    assert min(steps) < -1
    assert max(steps) > 1
    assert all(value is not None and abs(value - (999 - n)) <= 50 for n, value in enumerate(seen))


def test_unused_keys_are_dropped() -> None:
    gateway = Gateway()
    for n in range(30_000):
        send(gateway, f"k{n}", MIDNIGHT_S + n * 10)
    assert len(gateway._windows) < 15_000


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ({"hourly_limit": 0}, "hourly_limit must be 1 or more"),
        ({"demo_daily_limit": 0}, "demo_daily_limit must be 1 or more"),
        ({"remaining_jitter": -1}, "remaining_jitter must be 0 or more"),
        ({"refused_keys": {"k": "NO"}}, "no refusal 'NO'; there are API_KEY_MISSING"),
    ],
)
def test_invalid_rules_are_refused(rules: dict[str, object], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        GatewayRules(**rules)  # type: ignore[arg-type]

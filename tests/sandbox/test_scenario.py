from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neows_async.errors import SettingsError
from neows_async.sandbox import scenario as scenario_module
from neows_async.sandbox.rate_limits import GatewayRules
from neows_async.sandbox.scenario import (
    Change,
    Cut,
    Fault,
    Hang,
    Latency,
    Outage,
    Refused,
    Scenario,
    Slow,
    Status,
    parse_scenario,
    read_scenario,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_first_fault_that_applies_is_used() -> None:
    scenario = Scenario(faults=(Hang(pages=frozenset({1})), Cut(), Outage()))
    assert scenario.fault_for(1, 1, 0) == scenario.faults[0]
    assert scenario.fault_for(2, 1, 0) == scenario.faults[1]
    assert Scenario().fault_for(1, 1, 0) is None


def test_fault_applies_if_all_conditions_are_met() -> None:
    fault = Status(pages=frozenset({3, 4}), attempts=frozenset({1, 2}), from_s=10, until_s=20)
    scenario = Scenario(faults=(fault,))
    affected = {
        (page, attempt, elapsed_s)
        for page in range(6)
        for attempt in range(1, 4)
        for elapsed_s in (0, 10, 19.9, 20)
        if scenario.fault_for(page, attempt, elapsed_s) is fault
    }
    assert affected == {(page, attempt, elapsed_s) for page in (3, 4) for attempt in (1, 2) for elapsed_s in (10, 19.9)}


@given(st.integers(0, 5), st.floats(0, 1), st.permutations(range(40)))
def test_order_of_requests_does_not_change_the_faults(seed: int, rate: float, order: list[int]) -> None:
    scenario = Scenario(seed=seed, faults=(Outage(rate=rate),))
    forwards = {page: scenario.fault_for(page, 1, 0) for page in range(40)}
    assert {page: scenario.fault_for(page, 1, 0) for page in order} == forwards
    if rate in (0, 1):
        assert set(forwards.values()) == ({scenario.faults[0]} if rate else {None})


def test_rate_is_the_share_of_requests_with_the_fault() -> None:
    one, two = (Scenario(seed=seed, faults=(Outage(rate=0.2),)) for seed in (1, 2))
    affected = [{page for page in range(5_000) if each.fault_for(page, 1, 0)} for each in (one, two)]
    assert len(affected[0]) == pytest.approx(1_000, rel=0.1)
    assert affected[0] != affected[1]
    # A second attempt has its own random number.
    again = {page for page in affected[0] if one.fault_for(page, 2, 0)}
    assert len(again) == pytest.approx(200, rel=0.2)


def test_latency_has_its_median_spread_and_maximum() -> None:
    scenario = Scenario(latency=Latency(median_s=2, spread=2, most_s=10))
    waits = sorted(scenario.latency_s(page, 1) for page in range(4_001))
    assert waits[2_000] == pytest.approx(2, rel=0.1)
    assert sum(1 <= wait <= 4 for wait in waits) / 4_001 == pytest.approx(0.683, abs=0.03)
    assert waits[-1] == 10
    assert Scenario(latency=Latency(median_s=3)).latency_s(1, 1) == 3
    assert Scenario().latency_s(1, 1) == 0


def test_example_in_the_docstring_is_a_scenario() -> None:
    text = (scenario_module.__doc__ or "").partition("A scenario file::")[2]
    assert parse_scenario(text) == Scenario(
        seed=7,
        gateway=GatewayRules(hourly_limit=100),
        latency=Latency(median_s=2.0),
        faults=(
            Outage(from_s=60, until_s=180),
            Cut(rate=0.05),
            Status(status=502, pages=frozenset({3, 4}), attempts=frozenset({1, 2})),
        ),
        changes=(Change(after_requests=5, add=1),),
    )


def test_every_fault_can_be_read_from_a_file(tmp_path: Path) -> None:
    required = {"slow": "delay_s = 1.5", "replace": 'body = "{}"'}
    kinds = [str(kind.__struct_config__.tag) for kind in get_args(Fault)]
    file = tmp_path / "scenario.toml"
    file.write_text("\n".join(f'[[faults]]\nkind = "{kind}"\n{required.get(kind, "")}' for kind in kinds))
    found = read_scenario(file).faults
    assert [type(fault) for fault in found] == list(get_args(Fault))
    assert found[kinds.index("slow")] == Slow(delay_s=1.5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a = ", "not TOML"),
        ("sede = 1", "there is no 'sede'; did you mean 'seed'?"),
        ("zzz = 1", "there is no 'zzz'; there are seed, gateway, latency, faults, changes"),
        ("[gateway]\nhourly_limits = 1", "gateway: there is no 'hourly_limits'; did you mean 'hourly_limit'?"),
        ("[latency]\nmedian = 1", "latency: there is no 'median'; did you mean 'median_s'?"),
        ("[[faults]]\nrate = 1", r"faults\[0\] has no kind; there are outage, status"),
        ('[[faults]]\nkind = "outage"\n[[faults]]\nkind = "outtage"', r"faults\[1\]: .*did you mean 'outage'"),
        ('[[faults]]\nkind = "status"\ncode = 1', r"faults\[0\]: there is no 'code'"),
        ('[[faults]]\nkind = "status"\nstatus = "500"', r"Expected `int`, got `str` - at `faults\[0\]\.status`"),
        ('[[faults]]\nkind = "slow"', "missing required field `delay_s`"),
        ('[[faults]]\nkind = "hang"\nafter = "lunch"', r"Invalid enum value 'lunch' - at `faults\[0\]\.after`"),
        ('[[faults]]\nkind = "cut"\nrate = 2', "fault 'cut': rate must be from 0 to 1"),
        ('[[faults]]\nkind = "cut"\nattempts = [0]', "attempts count from 1"),
        ("[[faults]]\nkind = 3", "there is no kind 3"),
        ("[[changes]]\nadd = 1", "give either after_requests or after_s"),
        ("[[changes]]\nafter = 1", r"changes\[0\]: there is no 'after'; did you mean 'after_s'"),
        ("faults = 3", "Expected `array`"),
        ("changes = [1]", "Expected `object`"),
        ("gateway = 1", "Expected `object`"),
        ('[gateway.refused_keys]\nk = "X"', "gateway: there is no refusal 'X'"),
    ],
)
def test_error_in_a_scenario_file_is_one_line(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=reason) as caught:
        read_scenario(file)
    assert str(caught.value).startswith(f"--scenario {file}: ")
    assert "\n" not in str(caught.value)


def test_unreadable_scenario_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b"\xff")
    for name in ("none.toml", "latin.toml", "."):
        with pytest.raises(SettingsError, match="cannot be read"):
            read_scenario(tmp_path / name)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Outage(rate=-0.1), "'outage': rate must be from 0 to 1"),
        (lambda: Outage(from_s=float("nan")), "from_s must be 0 or more"),
        (lambda: Outage(from_s=5, until_s=5), "until_s must be after from_s, 5"),
        (lambda: Hang(pages=frozenset({-1})), "'hang': pages must be 0 or more"),
        (lambda: Status(status=200), "status must be from 400 to 599"),
        (lambda: Refused(code="NO"), "code must be one of API_KEY_MISSING"),
        (lambda: Slow(delay_s=-1.0), "delay_s must be 0 or more"),
        (lambda: Latency(median_s=1, spread=0.5), "spread 1 or more"),
        (lambda: Change(after_requests=1, after_s=1), "either after_requests or after_s"),
        (lambda: Change(after_s=1, remove=-1), "must be 0 or more"),
    ],
)
def test_invalid_values_are_refused(make: Any, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        make()

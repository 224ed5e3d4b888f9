"""The whole catalogue in simulated hours: against the optimum, with failures, with others on the key.

    python benchmarks/quota.py

The gateway and the optimum are those of ``tests/pacing/gateway.py``, made from the published rule.
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

from neows_async.errors import RateLimit
from neows_async.pacing.forecast import Outlook, best_start, forecast
from neows_async.pacing.hour import HourCounts
from neows_async.pacing.quota import QuotaModel
from neows_async.pacing.rules import PacingRules
from neows_async.pacing.simulation import RunConditions, simulate
from tests.pacing.gateway import HOUR_S, MIDNIGHT_S, Gateway, Network, Run, optimum, used_before

if TYPE_CHECKING:
    from collections.abc import Callable

NOON_S = MIDNIGHT_S + 12 * HOUR_S
PAGES = 2_065
RULES = PacingRules(bursts=(), clock_margin_s=2)
MINUTES = (0, 30, 55)
PASTS = ((0, 0), (300, 1), (300, 0), (900, 1), (900, 0))


def key(used: int, hours_ago: int) -> Gateway:
    return used_before(Gateway(clock_s=1.5), used, NOON_S + HOUR_S / 2, hours_ago=hours_ago)


def against_the_optimum() -> None:
    print(f"{PAGES:,} pages, 1,000 an hour, 0.5-4 s an answer, the gateway's clock 1.5 s ahead\n")
    print("failing fetchers start  used before             optimum      pacing   over  429s  forecast    plan")
    most_off = 0.0
    for failing, concurrency, minute, (used, ago) in itertools.product((0.0, 0.05), (4, 16), MINUTES, PASTS):
        if minute == 0 and used and not ago:
            continue
        start_s, network = NOON_S + 60 * minute, Network(seed=minute, failing=failing)
        best = optimum(key(used, ago), start_s, PAGES, concurrency, network)
        ran = Run(key(used, ago), QuotaModel(RULES), start_s, concurrency, network).fetch(PAGES)
        counts = HourCounts(int(NOON_S // HOUR_S), 0 if ago else used, used if ago else 0)
        outlook = Outlook(
            pages=PAGES, limit=1_000, counts=counts, latency_s=2.25, concurrency=concurrency,
            max_rate_per_s=None, failing=failing,
        )  # fmt: skip
        expected = forecast(outlook, start_s)
        terms = RunConditions(
            requests=outlook.requests, limit=1_000, counts=counts, answer_s=2.25, concurrency=concurrency
        )  # fmt: skip
        planned = simulate(terms, start_s).lasts_s / ran.makespan_s - 1
        most_off = max(most_off, abs(planned))
        past = f"{used:4} in {'the hour before' if ago else 'this hour      '}" if used else "   0" + " " * 19
        print(
            f"{failing:6.0%}  {concurrency:8}   :{minute:02}  {past}  {best.makespan_s / 60:6.1f} min"
            f"  {ran.makespan_s / 60:6.1f} min {ran.makespan_s / best.makespan_s - 1:6.2%}  {ran.refused:4}"
            f"  {expected.run_s / ran.makespan_s - 1:+7.2%} {planned:+7.2%}"
        )
    print(f"the plan is off by {most_off:.2%} at most")


def with_others() -> None:
    print("\nothers on the key, at random  start      pacing  429s")
    for per_hour, minute in itertools.product((20, 100, 300, 600), MINUTES):
        dice = random.Random(per_hour)  # noqa: S311 - a seeded generator, not a secret
        arrivals_s = itertools.accumulate(
            (dice.expovariate(per_hour / HOUR_S) for _ in range(8 * per_hour)), initial=float(NOON_S)
        )
        ran = Run(key(0, 0), QuotaModel(RULES), NOON_S + 60 * minute, others_s=tuple(arrivals_s)).fetch(PAGES)
        print(f"{per_hour:19} an hour    :{minute:02}  {ran.makespan_s / 60:6.1f} min  {ran.refused:4}")


def with_jumps() -> None:
    print("\nRemaining jumps                       start      pacing   over  429s")
    for name, jump in _jumps().items():
        for minute in MINUTES:
            start_s = NOON_S + 60 * minute
            best = optimum(key(0, 0), start_s, PAGES, 4, Network())
            ran = Run(key(0, 0), QuotaModel(RULES), start_s, blur=jump).fetch(PAGES)
            over = ran.makespan_s / best.makespan_s - 1
            print(f"{name:36}    :{minute:02}  {ran.makespan_s / 60:6.1f} min {over:6.2%}  {ran.refused:4}")


def _jumps() -> dict[str, Callable[[float, RateLimit], RateLimit]]:
    dice = random.Random(1)  # noqa: S311 - a seeded generator, not a secret

    def by(draw: Callable[[], int]) -> Callable[[float, RateLimit], RateLimit]:
        return lambda _, told: RateLimit(told.limit, max(0, min(told.limit, told.remaining + draw())))

    return {
        "half the answers say 20 more": by(lambda: dice.choice((0, 20))),
        "half the answers say 20 fewer": by(lambda: dice.choice((0, -20))),
        "each says up to 30 more or fewer": by(lambda: dice.randint(-30, 30)),
        "each says up to 5 more": by(lambda: dice.randint(0, 5)),
        "one in 500 says nothing is left": by(lambda: -1_000 if dice.random() < 0.002 else 0),  # noqa: PLR2004
    }


def speed() -> None:
    outlook = Outlook(
        pages=PAGES, limit=1_000, counts=HourCounts(int(NOON_S // HOUR_S), 0, 300), latency_s=2.25, concurrency=4
    )
    started_s = time.perf_counter()
    best = best_start(outlook, NOON_S)
    print(f"\nbest of 60 minutes: :{(best.start_s - NOON_S) / 60:02.0f}, {best.run_s / 60:.1f} min;", end=" ")
    print(f"found in {1000 * (time.perf_counter() - started_s):.1f} ms")
    started_s = time.perf_counter()
    Run(key(300, 1), QuotaModel(), NOON_S).fetch(PAGES)
    print(f"a whole simulated run, burst limits included: {time.perf_counter() - started_s:.2f} s")


if __name__ == "__main__":
    against_the_optimum()
    with_others()
    with_jumps()
    speed()

"""The whole catalogue in simulated hours: compared with the best run, with failures, with other users of the key.

    python benchmarks/quota.py

The gateway and the best run are those of ``tests/pacing/gateway.py``, made from the published rule.
"""

from __future__ import annotations

import itertools
import math
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

from neows_async.errors import RateLimit
from neows_async.pacing.forecast import RunConditions, forecast_end_s
from neows_async.pacing.hour import SlidingWindow
from neows_async.pacing.quota import QuotaModel
from neows_async.pacing.rules import PacingRules
from neows_async.pacing.simulation import compare_starts, simulate
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


def compare_with_the_best_run() -> None:
    print(f"{PAGES:,} pages, 1,000 an hour, latency 0.5-4 s, the gateway's clock 1.5 s ahead\n")
    print("failing fetchers start  used before             optimum      pacing   over  429s  forecast    plan")
    most_off = 0.0
    for failing, concurrency, minute, (used, ago) in itertools.product((0.0, 0.05), (4, 16), MINUTES, PASTS):
        if minute == 0 and used and not ago:
            continue
        start_s, network = NOON_S + 60 * minute, Network(seed=minute, failing=failing)
        best = optimum(key(used, ago), start_s, PAGES, concurrency, network)
        ran = Run(key(used, ago), QuotaModel(RULES), start_s, concurrency, network).fetch(PAGES)
        counts = SlidingWindow(int(NOON_S // HOUR_S), 0 if ago else used, used if ago else 0)
        requests = math.ceil(PAGES / (1 - failing))
        conditions = RunConditions(
            requests=requests, limit=1_000, counts=counts, latency_s=2.25, concurrency=concurrency
        )  # fmt: skip
        forecast = (forecast_end_s(conditions, start_s) - start_s) / ran.makespan_s - 1
        planned = simulate(conditions, start_s).lasts_s / ran.makespan_s - 1
        most_off = max(most_off, abs(planned))
        past = f"{used:4} in {'the hour before' if ago else 'this hour      '}" if used else "   0" + " " * 19
        print(
            f"{failing:6.0%}  {concurrency:8}   :{minute:02}  {past}  {best.makespan_s / 60:6.1f} min"
            f"  {ran.makespan_s / 60:6.1f} min {ran.makespan_s / best.makespan_s - 1:6.2%}  {ran.refused:4}"
            f"  {forecast:+7.2%} {planned:+7.2%}"
        )
    print(f"the plan is off by {most_off:.2%} at most")


def run_with_others() -> None:
    print("\nothers with the key, at random  start      pacing  429s")
    for per_hour, minute in itertools.product((20, 100, 300, 600), MINUTES):
        dice = random.Random(per_hour)  # noqa: S311 - a seeded generator, not a secret
        arrivals_s = itertools.accumulate(
            (dice.expovariate(per_hour / HOUR_S) for _ in range(8 * per_hour)), initial=float(NOON_S)
        )
        ran = Run(key(0, 0), QuotaModel(RULES), NOON_S + 60 * minute, others_s=tuple(arrivals_s)).fetch(PAGES)
        print(f"{per_hour:19} an hour    :{minute:02}  {ran.makespan_s / 60:6.1f} min  {ran.refused:4}")


def run_with_wrong_headers() -> None:
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
        return lambda _, headers: RateLimit(headers.limit, max(0, min(headers.limit, headers.remaining + draw())))

    return {
        "half the responses say 20 more": by(lambda: dice.choice((0, 20))),
        "half the responses say 20 fewer": by(lambda: dice.choice((0, -20))),
        "each says up to 30 more or fewer": by(lambda: dice.randint(-30, 30)),
        "each says up to 5 more": by(lambda: dice.randint(0, 5)),
        "one in 500 says nothing is left": by(lambda: -1_000 if dice.random() < 0.002 else 0),  # noqa: PLR2004
    }


def speed() -> None:
    counts = SlidingWindow(int(NOON_S // HOUR_S), 0, 300)
    conditions = RunConditions(requests=PAGES, limit=1_000, counts=counts, latency_s=2.25, concurrency=4)
    started_s = time.perf_counter()
    best = compare_starts(conditions, NOON_S).best
    print(f"\nbest of 60 minutes: :{(best.start_s - NOON_S) / 60:02.0f}, {best.lasts_s / 60:.1f} min;", end=" ")
    print(f"found in {1000 * (time.perf_counter() - started_s):.1f} ms")
    started_s = time.perf_counter()
    Run(key(300, 1), QuotaModel(), NOON_S).fetch(PAGES)
    print(f"a whole simulated run, burst limits included: {time.perf_counter() - started_s:.2f} s")


if __name__ == "__main__":
    compare_with_the_best_run()
    run_with_others()
    run_with_wrong_headers()
    speed()

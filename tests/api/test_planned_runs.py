"""The plan against the run: the same gate, client and gateway, hours in seconds. The aim is 2 %.

A fifth of the catalogue and of the quota: the hours are the same, the tests are five times as quick.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from neows_async.api import plan
from neows_async.api.plan import LakeFacts
from neows_async.errors import PausedError
from neows_async.pacing.gate import GateLimits
from neows_async.pacing.quota import QuotaModel
from neows_async.pacing.quota_store import MemoryQuotaStore
from neows_async.pacing.rules import PacingRules
from neows_async.pacing.shared_quota import SharedQuota
from neows_async.pacing.simulation import compare_starts, simulate
from neows_async.pages.values import PageInfo
from neows_async.sandbox.transport import AsgiTransport
from neows_async.settings import Settings
from neows_async.sources.nasa import NasaSource
from tests.pipeline.test_whole_catalogue import FULL_HOUR_S, KEY, Fetching

if TYPE_CHECKING:
    from neows_async.api.plan import PlanFacts

pytestmark = [pytest.mark.virtual_time, pytest.mark.asyncio_only]  # what differs between loops is tested elsewhere

PAGES = 413
SCENARIO = "[gateway]\nhourly_limit = 200\n[latency]\nmedian_s = 1.4\n"
UNEVEN = "[gateway]\nhourly_limit = 200\n[latency]\nmedian_s = 1.4\nspread = 1.7\nmost_s = 60\n"
MEAN_S = 1.4 * math.exp(math.log(1.7) ** 2 / 2)  # of the log-normal distribution
AIM = 0.02
RULES = PacingRules(bursts=())


async def planned(run: Fetching, found: LakeFacts | None = None, **settings: Any) -> PlanFacts:
    """What ``plan`` knows before ``run``, with one request."""
    before = len(run.app.served)
    quota = SharedQuota(QuotaModel(RULES), run.quota_store, clock=run.clock, listener=run.heard.append)
    chosen = Settings(api_key=KEY, **({"limit": None} | settings))
    async with httpx.AsyncClient(transport=AsgiTransport(run.app), timeout=60) as client:
        source = NasaSource(client, base_url="https://sandbox.invalid", api_key=KEY)
        answer = await plan.ask(source, quota, chosen, run.clock)
    assert len(run.app.served) == before + 1
    return plan.facts_of(chosen, found or LakeFacts(), quota.pacing, RULES, answer, run.clock())


async def went(run: Fetching) -> float:
    """How long it took."""
    started_s = run.clock()
    await run.run()
    assert set(run.statuses()) == {200}
    return run.clock() - started_s


def off(forecast_s: float, took_s: float) -> float:
    """Shown by ``-rP``."""
    sys.stdout.write(
        f"forecast {forecast_s / 60:.2f} min, took {took_s / 60:.2f} min, {forecast_s / took_s - 1:+.2%}\n"
    )
    return abs(forecast_s / took_s - 1)


@pytest.mark.parametrize("minute", [0, 30])
async def test_a_fresh_key(minute: int) -> None:
    run = Fetching(PAGES, SCENARIO, starts_s=FULL_HOUR_S + 60 * minute)
    known = await planned(run)
    assert (known.quota.limit, known.quota.left) == (200, 199)
    assert known.terms.requests == PAGES
    assert off(simulate(known.terms, known.at_s).lasts_s, await went(run)) < AIM


async def test_the_best_minute_is_as_good_as_it_says() -> None:
    run = Fetching(PAGES, SCENARIO, starts_s=FULL_HOUR_S + 60 * 10)
    known = await planned(run)
    ahead = compare_starts(known.terms, known.at_s)
    assert ahead.best.lasts_s < ahead.now.lasts_s - 1_800
    assert ahead.best.end_s < ahead.now.end_s + 60
    await anyio.sleep(ahead.best.start_s - run.clock())
    assert off(ahead.best.lasts_s, await went(run)) < AIM
    assert abs(run.clock() - ahead.now.end_s) < AIM * ahead.now.lasts_s


async def test_an_unfinished_snapshot_of_a_run_that_the_quota_store_knows() -> None:
    quota_store = MemoryQuotaStore()
    first = Fetching(
        PAGES, SCENARIO, starts_s=FULL_HOUR_S + 60 * 35, quota_store=quota_store, limits=GateLimits(budget_requests=120)
    )
    await first.run()
    await anyio.sleep(600)
    stored = frozenset(first.landed)
    run = Fetching(PAGES, SCENARIO, starts_s=first.clock(), quota_store=quota_store, stored=stored)
    run.app = first.app
    found = LakeFacts("a", kept=(stored,), first=PageInfo(20, PAGES * 20, 0))
    known = await planned(run, found)
    assert known.pages_kept == 120
    assert known.terms.requests == PAGES - 120
    now = simulate(known.terms, known.at_s)
    assert off(now.lasts_s, await went(run)) < AIM
    assert set(run.landed) == set(range(PAGES)) - stored


@pytest.mark.parametrize("minute", [5, 55])
async def test_a_key_that_others_have_used(minute: int) -> None:
    # When they did is not known: ten minutes ago, in this hour or in the one before.
    run = Fetching(PAGES, UNEVEN, starts_s=FULL_HOUR_S + 60 * minute, used_before=100)
    known = await planned(run)
    # The mean of many answers is what a receipt knows; one answer alone may have been quick or slow.
    late, early = (simulate(replace(terms, answer_s=MEAN_S), known.at_s) for terms in (known.terms, known.hopeful))
    assert early.lasts_s < late.lasts_s * (1 - 2 * AIM)
    truth = early if minute < 10 else late
    assert off(truth.lasts_s, await went(run)) < AIM


async def test_a_budget_is_spent_where_it_says() -> None:
    run = Fetching(PAGES, SCENARIO, limits=GateLimits(budget_requests=33))
    known = await planned(run, budget_requests=33)
    now = simulate(known.terms, known.at_s)
    assert (now.done, len(now.sent_s), now.left) == (False, 33, PAGES - 33)
    assert off(now.lasts_s, await went(run)) < AIM
    assert run.paused is not None
    assert len(run.landed) == 33


async def test_a_wait_that_is_too_long_ends_it_where_it_says() -> None:
    run = Fetching(PAGES, SCENARIO, starts_s=FULL_HOUR_S + 60 * 30, limits=GateLimits(max_wait_s=120))
    known = await planned(run, max_wait_s=120)
    ahead = compare_starts(known.terms, known.at_s)
    assert not ahead.now.done
    assert ahead.best.done
    # Pacing keeps the last few back while it is unknown when the next ones come, and lets them go one by one.
    await went(run)
    assert isinstance(run.paused, PausedError)
    assert len(ahead.now.sent_s) - 8 <= len(run.landed) <= len(ahead.now.sent_s)
    assert abs(run.clock() - ahead.now.end_s) < 2 * 120
    # For one of them the run may be resumed earlier; for the others not.
    assert ahead.now.resume_s is not None
    assert run.paused.resume_at_s < ahead.now.resume_s + 10


async def test_a_short_run_begins_with_one_request_at_once() -> None:
    run = Fetching(10, SCENARIO)
    known = await planned(run)
    now = simulate(known.terms, known.at_s)
    assert now.waits == ()
    assert off(now.lasts_s, await went(run)) < AIM

"""A plan compared with its run, with the same gate, client and gateway, in virtual time. The aim is 2 %.

The catalogue and the quota are a fifth of the real ones: the hours are the same, and the tests take a fifth.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from neows_async.api.plan import request_first_page
from neows_async.api.plan_facts import LakeFacts, facts_of
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
    from neows_async.api.plan_facts import PlanFacts

pytestmark = [pytest.mark.virtual_time, pytest.mark.asyncio_only]  # what differs between loops is tested elsewhere

PAGES = 413
SCENARIO = "[gateway]\nhourly_limit = 200\n[latency]\nmedian_s = 1.4\n"
UNEVEN = "[gateway]\nhourly_limit = 200\n[latency]\nmedian_s = 1.4\nspread = 1.7\nmost_s = 60\n"
MEAN_S = 1.4 * math.exp(math.log(1.7) ** 2 / 2)  # of the log-normal distribution
AIM = 0.02
RULES = PacingRules(bursts=())


async def planned(run: Fetching, found: LakeFacts | None = None, **settings: Any) -> PlanFacts:
    """Return what a plan knows before ``run``, with one request."""
    before = len(run.app.served)
    quota = SharedQuota(QuotaModel(RULES), run.quota_store, clock=run.clock, listener=run.heard.append)
    chosen = Settings(api_key=KEY, **({"limit": None} | settings))
    async with httpx.AsyncClient(transport=AsgiTransport(run.app), timeout=60) as client:
        source = NasaSource(client, base_url="https://sandbox.invalid", api_key=KEY)
        response = await request_first_page(source, quota, chosen, run.clock)
    assert len(run.app.served) == before + 1
    return facts_of(chosen, found or LakeFacts(), quota.model, RULES, response, run.clock())


async def run_s(run: Fetching) -> float:
    """Return the length of the run."""
    started_s = run.clock()
    await run.run()
    assert set(run.statuses()) == {200}
    return run.clock() - started_s


def error_of(forecast_s: float, took_s: float) -> float:
    """Return the relative error, and print it."""
    sys.stdout.write(
        f"forecast {forecast_s / 60:.2f} min, took {took_s / 60:.2f} min, {forecast_s / took_s - 1:+.2%}\n"
    )
    return abs(forecast_s / took_s - 1)


@pytest.mark.parametrize("minute", [0, 30])
async def test_plan_of_a_fresh_key(minute: int) -> None:
    run = Fetching(PAGES, SCENARIO, starts_s=FULL_HOUR_S + 60 * minute)
    facts = await planned(run)
    assert (facts.quota.limit, facts.quota.left) == (200, 199)
    assert facts.conditions.requests == PAGES
    assert error_of(simulate(facts.conditions, facts.at_s).lasts_s, await run_s(run)) < AIM


async def test_best_minute_is_as_good_as_planned() -> None:
    run = Fetching(PAGES, SCENARIO, starts_s=FULL_HOUR_S + 60 * 10)
    facts = await planned(run)
    options = compare_starts(facts.conditions, facts.at_s)
    assert options.best.lasts_s < options.now.lasts_s - 1_800
    assert options.best.end_s < options.now.end_s + 60
    await anyio.sleep(options.best.start_s - run.clock())
    assert error_of(options.best.lasts_s, await run_s(run)) < AIM
    assert abs(run.clock() - options.now.end_s) < AIM * options.now.lasts_s


async def test_plan_of_an_unfinished_snapshot_whose_run_is_in_the_quota_store() -> None:
    quota_store = MemoryQuotaStore()
    first = Fetching(
        PAGES, SCENARIO, starts_s=FULL_HOUR_S + 60 * 35, quota_store=quota_store, limits=GateLimits(budget_requests=120)
    )
    await first.run()
    await anyio.sleep(600)
    kept = frozenset(first.arrived)
    run = Fetching(PAGES, SCENARIO, starts_s=first.clock(), quota_store=quota_store, stored=kept)
    run.app = first.app
    found = LakeFacts("a", kept=(kept,), first=PageInfo(20, PAGES * 20, 0))
    facts = await planned(run, found)
    assert facts.pages_kept == 120
    assert facts.conditions.requests == PAGES - 120
    now = simulate(facts.conditions, facts.at_s)
    assert error_of(now.lasts_s, await run_s(run)) < AIM
    assert set(run.arrived) == set(range(PAGES)) - kept


@pytest.mark.parametrize("minute", [5, 55])
async def test_plan_of_a_key_that_others_have_used(minute: int) -> None:
    # They used it ten minutes ago, in this hour or in the one before. The plan cannot know which.
    run = Fetching(PAGES, UNEVEN, starts_s=FULL_HOUR_S + 60 * minute, used_before=100)
    facts = await planned(run)
    # A receipt has the mean of many responses; a single response may be fast or slow.
    late, early = (
        simulate(replace(conditions, latency_s=MEAN_S), facts.at_s)
        for conditions in (facts.conditions, facts.optimistic)
    )
    assert early.lasts_s < late.lasts_s * (1 - 2 * AIM)
    truth = early if minute < 10 else late
    assert error_of(truth.lasts_s, await run_s(run)) < AIM


async def test_budget_is_spent_as_planned() -> None:
    run = Fetching(PAGES, SCENARIO, limits=GateLimits(budget_requests=33))
    facts = await planned(run, budget_requests=33)
    now = simulate(facts.conditions, facts.at_s)
    assert (now.done, len(now.sent_s), now.left) == (False, 33, PAGES - 33)
    assert error_of(now.lasts_s, await run_s(run)) < AIM
    assert run.paused is not None
    assert len(run.arrived) == 33


async def test_wait_that_is_too_long_pauses_the_run_as_planned() -> None:
    run = Fetching(PAGES, SCENARIO, starts_s=FULL_HOUR_S + 60 * 30, limits=GateLimits(max_wait_s=120))
    facts = await planned(run, max_wait_s=120)
    options = compare_starts(facts.conditions, facts.at_s)
    assert not options.now.done
    assert options.best.done
    # Pacing keeps the last few slots back while it is unknown when slots come free, and then uses them one by one.
    await run_s(run)
    assert isinstance(run.paused, PausedError)
    assert len(options.now.sent_s) - 8 <= len(run.arrived) <= len(options.now.sent_s)
    assert abs(run.clock() - options.now.end_s) < 2 * 120
    # The run may be resumed earlier, for one of those slots.
    assert options.now.resume_s is not None
    assert run.paused.resume_at_s < options.now.resume_s + 10


async def test_short_run_starts_at_once() -> None:
    run = Fetching(10, SCENARIO)
    facts = await planned(run)
    now = simulate(facts.conditions, facts.at_s)
    assert now.waits == ()
    assert error_of(now.lasts_s, await run_s(run)) < AIM

"""The whole catalogue through client, gate and retries, against the faithful gateway, hours in seconds.

The clock is virtual: it stands while anything can run. Only threads are left out, since they live in real time.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from neows_async.endpoints.browse.receive import ReceiveOptions, Receiver
from neows_async.errors import OutageError, PausedError, UnavailableError
from neows_async.pacing.breaker import CircuitBreaker
from neows_async.pacing.gate import Gate, GateLimits
from neows_async.pacing.quota import QuotaModel
from neows_async.pacing.rules import PacingRules
from neows_async.pipeline.fetch_loop import FAILURES_TO_OPEN, SPARE_TASKS
from neows_async.pipeline.fetcher import FetchLimits, PageFetcher, PageRequest
from neows_async.pipeline.scheduler import FetchSchedule
from neows_async.sandbox.app import SandboxApp
from neows_async.sandbox.catalogue import SyntheticCatalogue
from neows_async.sandbox.scenario import parse_scenario
from neows_async.sandbox.transport import AsgiTransport
from neows_async.sources.nasa import NasaSource
from neows_async.telemetry import events
from tests.pipeline.in_loop import pool_in_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from neows_async.pacing.quota_store import QuotaStore

KEY = "0123456789abcdef" * 2
FULL_HOUR_S = 1_795_384_800.0


class Fetching:
    """Fetches pages as a run does, without writing them."""

    def __init__(
        self,
        pages: int,
        scenario: str = "",
        *,
        starts_s: float = FULL_HOUR_S,
        concurrency: int = 4,
        used_before: int = 0,
        breaker: CircuitBreaker | None = None,
        patience: FetchLimits | None = None,
        limits: GateLimits | None = None,
        stored: frozenset[int] = frozenset(),
        quota_store: QuotaStore | None = None,
        on_idle: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.pages = pages
        self.concurrency = concurrency
        self.patience = patience or FetchLimits()
        self.quota_store = quota_store
        self.heard: list[events.Event] = []
        self.arrived: Counter[int] = Counter()
        self.given_up: dict[int, str] = {}
        self.paused: PausedError | None = None
        self._starts_s = starts_s - anyio.current_time()
        self.app = SandboxApp(
            SyntheticCatalogue(pages * 20, approaches=0),
            scenario=parse_scenario(scenario),
            clock=self.clock,
            threads=False,
        )
        for _ in range(used_before):
            self.app.gateway.count(KEY, starts_s - 600)
        self.gate = Gate(
            QuotaModel(PacingRules(bursts=(), max_rate_per_s=None)),
            breaker or CircuitBreaker(failures_to_open=FAILURES_TO_OPEN),
            limits or GateLimits(concurrency=concurrency),
            clock=self.clock,
            listener=self.heard.append,
            quota_store=quota_store,
            pages_left=lambda: self.schedule.left,
            on_idle=on_idle,
        )
        self.schedule = FetchSchedule(pages, stored=stored)
        self.news = anyio.Event()

    def clock(self) -> float:
        """UTC, seconds since 1970."""
        return self._starts_s + anyio.current_time()

    async def run(self) -> None:
        """Until every page is in or given up, or the gate pauses."""
        async with httpx.AsyncClient(transport=AsgiTransport(self.app), timeout=60) as client:
            source = NasaSource(client, base_url="https://sandbox.invalid", api_key=KEY)
            fetcher = PageFetcher(
                source,
                gate=self.gate,
                decoder=pool_in_loop(Receiver(ReceiveOptions(api_key=KEY)).receive),
                limits=self.patience,
                listener=self.heard.append,
            )
            if not self.schedule.is_in(0):
                await self._fetch(fetcher, 0)
            self.schedule = FetchSchedule(self.pages, stored=frozenset({0, *self.arrived}) | self._kept())
            async with anyio.create_task_group() as tasks:
                for _ in range(self.concurrency + SPARE_TASKS):
                    tasks.start_soon(self._fetcher, fetcher, tasks)

    def _kept(self) -> frozenset[int]:
        return frozenset(number for number in range(self.pages) if self.schedule.is_in(number))

    async def _fetcher(self, fetcher: PageFetcher, tasks: Any) -> None:
        while self.paused is None:
            number = self.schedule.next_page()
            if number is None:
                if all(self.schedule.is_in(one) or one in self.given_up for one in range(self.pages)):
                    tasks.cancel_scope.cancel()
                news = self.news
                await news.wait()
                continue
            try:
                await self._fetch(fetcher, number)
            except PausedError as exc:
                self.paused = exc
            except OutageError:
                raise
            except UnavailableError as exc:
                if not self.schedule.retry_later(number):
                    self.given_up[number] = str(exc)
            self.news.set()
            self.news = anyio.Event()

    async def _fetch(self, fetcher: PageFetcher, number: int) -> None:
        page = await fetcher.fetch(PageRequest(number, 20))
        self.arrived[page.number] += 1
        self.schedule.arrived(page.number)

    def statuses(self) -> Counter[int]:
        return Counter(served.status for served in self.app.served)


@pytest.mark.virtual_time
async def test_without_one_429() -> None:
    # A fifth of the catalogue and of the quota: the hours are the same, the test is five times as quick.
    fifth = "[gateway]\nhourly_limit = 200\n[latency]\nmedian_s = 1.4\nspread = 1.7\nmost_s = 4.0\n"
    run = Fetching(413, fifth, starts_s=FULL_HOUR_S + 55 * 60)
    started_s = run.clock()
    await run.run()
    assert run.arrived == Counter(range(413))
    assert run.statuses() == {200: 413}
    # The least that the gateway allows is 68.8 minutes: see benchmarks/quota.py.
    assert (run.clock() - started_s) / 60 < 68.8 * 1.01


@pytest.mark.virtual_time
async def test_a_day_with_an_outage_of_six_hours() -> None:
    outage = '[latency]\nmedian_s = 1\n[[faults]]\nkind = "outage"\nfrom_s = 60\nuntil_s = 21660\n'
    run = Fetching(400, outage)
    await run.run()
    assert run.arrived == Counter(range(400)), "every page once, none given up"
    failed = run.statuses()[503]
    down = [event for event in run.heard if isinstance(event, events.SourceDown)]
    up = [event for event in run.heard if isinstance(event, events.SourceUp)]
    assert len(down) == len(up) == 1
    # Some until it was known, then one in five minutes.
    assert failed <= 12 + 6 * 12
    ended_s = next(served.at_s for served in run.app.served if served.at_s > down[0].since_s and served.status == 200)
    assert ended_s - (run.app.served[0].at_s + 21_660) <= 300
    # Each probe was reported with the time of the next one, and no failure announced an earlier attempt.
    probes_s = [served.at_s for served in run.app.served if served.at_s > down[0].next_probe_s - 1]
    still = [event for event in run.heard if isinstance(event, events.SourceStillDown)]
    assert {event.since_s for event in still} == {down[0].since_s}
    announced_s = [down[0].next_probe_s, *(event.next_probe_s for event in still)]
    assert announced_s == pytest.approx(probes_s[: len(announced_s)], abs=1)
    waits_s = [event.wait_s for event in run.heard if isinstance(event, events.AttemptFailed)]
    assert all(wait_s is not None and wait_s > 290 for wait_s in waits_s[-len(still) :])


@pytest.mark.virtual_time
async def test_an_outage_counts_against_no_page_however_short_it_is_tried() -> None:
    outage = '[latency]\nmedian_s = 1\n[[faults]]\nkind = "outage"\nfrom_s = 60\nuntil_s = 7260\n'
    run = Fetching(200, outage, patience=FetchLimits(retry_budget_s=8))
    await run.run()
    assert run.arrived == Counter(range(200)), "every page once, none given up"
    assert run.statuses()[503] <= 12 + 2 * 12


@pytest.mark.virtual_time
async def test_a_gate_that_is_closed_wakes_all_and_lets_nobody_through() -> None:
    run = Fetching(4)
    reason, ended_s = UnavailableError("page 3 is gone"), []

    async def sleep() -> None:
        await run.gate.sleep(600)
        ended_s.append(run.clock())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sleep)
        await anyio.wait_all_tasks_blocked()
        run.gate.close(reason)
    assert ended_s == [pytest.approx(FULL_HOUR_S, abs=1)]
    with pytest.raises(UnavailableError, match="page 3 is gone"):
        async with run.gate.permit(1):
            pass
    assert (run.gate.sent, run.gate.is_closed) == (0, True)


@pytest.mark.virtual_time
async def test_an_outage_in_which_nothing_is_answered_is_one_too() -> None:
    hangs = '[latency]\nmedian_s = 1\n[[faults]]\nkind = "hang"\nfrom_s = 60\nuntil_s = 21660\n'
    run = Fetching(400, hangs)
    await run.run()
    assert run.arrived == Counter(range(400)), "every page once, none given up"
    hung = [served for served in run.app.served if served.fault is not None]
    assert len(hung) <= 12 + 6 * 12
    assert sum(isinstance(event, events.SourceDown) for event in run.heard) == 1


@pytest.mark.virtual_time
async def test_a_run_gives_up_an_outage_after_its_limit() -> None:
    outage = '[[faults]]\nkind = "outage"\nfrom_s = 0.5\n[latency]\nmedian_s = 0.1\n'
    run = Fetching(50, outage, breaker=CircuitBreaker(max_outage_s=3_600))
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - a group, or the one in it
        await run.run()
    assert caught.group_contains(OutageError, match="longer than --max-outage")
    [down] = [event for event in run.heard if isinstance(event, events.SourceDown)]
    assert run.clock() - down.since_s == pytest.approx(3_600, abs=1)


@pytest.mark.virtual_time
async def test_an_answer_that_takes_longer_than_a_page_is_tried_is_waited_for() -> None:
    run = Fetching(6, '[latency]\nmedian_s = 1\n[[faults]]\nkind = "slow"\ndelay_s = 45\npages = [0, 4]\n')
    await run.run()
    assert run.arrived == Counter(range(6))
    assert run.statuses() == {200: 6}, "not one was asked for twice"


@pytest.mark.virtual_time
async def test_no_attempt_begins_that_the_page_has_no_time_for() -> None:
    run = Fetching(6, '[latency]\nmedian_s = 1\n[[faults]]\nkind = "hang"\npages = [4]\n')
    await run.run()
    assert list(run.given_up) == [4]
    failed = [event for event in run.heard if isinstance(event, events.AttemptFailed)]
    assert [(event.number, event.attempt, event.reason, event.wait_s) for event in failed] == [
        (4, 1, "sandbox.invalid: no complete response within 60 s", None),
        (4, 1, "sandbox.invalid: no complete response within 60 s", None),
    ]


@pytest.mark.virtual_time
async def test_one_page_that_always_fails_opens_nothing_and_blocks_nobody() -> None:
    broken = '[latency]\nmedian_s = 1\n[[faults]]\nkind = "status"\nstatus = 500\npages = [7]\n'
    run = Fetching(60, broken)
    await run.run()
    assert list(run.given_up) == [7]
    assert len(run.arrived) == 59
    assert not any(isinstance(event, events.SourceDown) for event in run.heard)
    last_good_s = max(served.at_s for served in run.app.served if served.status == 200)
    assert last_good_s - FULL_HOUR_S < 60, "the others did not wait"


@pytest.mark.virtual_time
async def test_retry_after_is_honoured_by_all_and_one_probe_goes_first() -> None:
    spurious = (
        '[latency]\nmedian_s = 1\n[[faults]]\nkind = "over_rate_limit"\nretry_after_s = 2870\n'
        "pages = [20]\nattempts = [1]\n"
    )
    idle_s: list[float] = []

    async def on_idle() -> None:
        idle_s.append(run.clock())

    run = Fetching(40, spurious, concurrency=8, on_idle=on_idle)
    await run.run()
    assert run.arrived == Counter(range(40))
    refused_s = next(served.at_s for served in run.app.served if served.status == 429)
    after_s = sorted(served.at_s for served in run.app.served if served.at_s > refused_s + 60)
    assert after_s[0] >= refused_s + 2_870
    assert after_s[1] >= after_s[0] + 0.5, "the probe is answered before others follow"
    assert run.statuses()[429] == 1
    [failed] = [event for event in run.heard if isinstance(event, events.AttemptFailed)]
    assert failed.wait_s == pytest.approx(2_870)
    assert idle_s, "no connection is held meanwhile"
    assert all(refused_s < at_s < refused_s + 2_870 for at_s in idle_s)


@pytest.mark.virtual_time
async def test_a_gateway_that_refuses_everything_is_not_asked_as_fast_as_it_answers() -> None:
    broken = '[latency]\nmedian_s = 0.1\n[[faults]]\nkind = "over_rate_limit"\nretry_after_s = 0\nfrom_s = 1\n'
    run = Fetching(200, f"{broken}until_s = 1800\n", concurrency=8)
    await run.run()
    assert run.arrived == Counter(range(200))
    # Those that were under way, the probe of each of the first seconds, and one a minute.
    assert run.statuses()[429] <= 8 + 2 + 30


@pytest.mark.virtual_time
@pytest.mark.parametrize("failing", ["", '[[faults]]\nkind = "status"\npages = [3, 9]\nattempts = [1]\n'])
async def test_what_fits_into_the_quota_is_fetched_at_once(failing: str) -> None:
    run = Fetching(28, f"[gateway]\nhourly_limit = 30\n[latency]\nmedian_s = 1\n{failing}")
    await run.run()
    assert run.arrived == Counter(range(28))
    assert run.statuses()[429] == 0
    assert run.clock() - FULL_HOUR_S < 60


@pytest.mark.virtual_time
async def test_a_wait_that_is_too_long_pauses_and_says_until_when() -> None:
    run = Fetching(200, "[gateway]\nhourly_limit = 100\n", limits=GateLimits(max_wait_s=60))
    await run.run()
    assert run.paused is not None
    assert run.paused.resume_at_s > run.clock() + 60
    # The last few are spared while it is unknown when the next ones come.
    assert run.statuses().keys() == {200}
    assert 90 <= run.statuses()[200] <= 100
    assert len(run.arrived) == run.statuses()[200], "what was under way came in"


@pytest.mark.virtual_time
async def test_a_budget_is_spent_to_the_last_request_and_not_beyond() -> None:
    run = Fetching(200, "[latency]\nmedian_s = 1\n", limits=GateLimits(budget_requests=33))
    await run.run()
    assert run.paused is not None
    assert "the budget of 33 requests is spent" in str(run.paused)
    assert run.statuses() == {200: 33}
    assert len(run.arrived) == 33


@pytest.mark.virtual_time
async def test_every_twentieth_request_fails() -> None:
    failing = '[latency]\nmedian_s = 1\n[[faults]]\nkind = "status"\nstatus = 502\nrate = 0.05\n'
    run = Fetching(600, failing, concurrency=4)
    await run.run()
    assert run.arrived == Counter(range(600))
    assert not any(isinstance(event, events.SourceDown) for event in run.heard)
    assert run.clock() - FULL_HOUR_S < 600 / 4 * 1.25

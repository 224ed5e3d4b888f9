"""Runs over a source whose latency depends on the requests in flight; in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from neows_async.errors import AttemptError
from neows_async.pacing.breaker import CircuitBreaker
from neows_async.pacing.gate import Gate, GateLimits
from neows_async.pacing.quota import QuotaModel
from neows_async.pages.values import RawPage
from neows_async.pipeline.fetch_loop import FAILURES_TO_OPEN, SPARE_TASKS, UNPACED
from neows_async.pipeline.fetcher import FetchLimits, PageFetcher, PageRequest
from neows_async.telemetry import events
from tests.pipeline.in_loop import accept_any, pool_in_loop

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.virtual_time

PAGES = 400


class LoadedSource:
    """Its latency depends on the requests in flight when it gets a request, with this one.

    :param fails_above: a request fails if more are in flight
    """

    origin = "test"
    synthetic = True

    def __init__(self, latency_s: Callable[[int], float], *, fails_above: int = 1_000) -> None:
        self.latency_s = latency_s
        self.fails_above = fails_above
        self.in_flight = 0
        self.seen: list[int] = []
        self.failed = 0

    async def fetch(self, number: int, size: int) -> RawPage:
        self.in_flight += 1
        seen = self.in_flight
        self.seen.append(seen)
        try:
            await anyio.sleep(self.latency_s(seen))
        finally:
            self.in_flight -= 1
        if seen > self.fails_above:
            self.failed += 1
            raise AttemptError("503", status=503)
        return RawPage(number, b" " * size)


async def run_s(source: LoadedSource, concurrency: int, pages: int = PAGES) -> float:
    """Fetch all pages, and return the seconds that it took."""
    left = pages

    gate = Gate(
        QuotaModel(UNPACED),
        CircuitBreaker(failures_to_open=FAILURES_TO_OPEN),
        GateLimits(concurrency=concurrency),
        clock=anyio.current_time,
        listener=events.ignore,
        pages_left=lambda: left,
    )
    fetcher = PageFetcher(
        source, gate=gate, decoder=pool_in_loop(accept_any), limits=FetchLimits(), listener=events.ignore
    )
    started_s = anyio.current_time()
    await fetcher.fetch(PageRequest(0, 20))
    numbers = iter(range(1, pages))

    async def work() -> None:
        nonlocal left
        for number in numbers:
            await fetcher.fetch(PageRequest(number, 20))
            left -= 1

    async with anyio.create_task_group() as tasks:
        for _ in range(concurrency + SPARE_TASKS):
            tasks.start_soon(work)
    return anyio.current_time() - started_s


@pytest.mark.parametrize("concurrency", [4, 16, 64])
@pytest.mark.parametrize(
    ("latency_s", "best"),
    [
        pytest.param(lambda _: 1.0, 64, id="1 s with any load"),
        pytest.param(lambda n: 1.0 if n <= 4 else 20.0, 4, id="slow above 4"),
        pytest.param(lambda n: 1.0 if n <= 2 else 10.0, 2, id="slow above 2"),
        pytest.param(lambda n: 1.0 * n, 1, id="serves one at a time"),
        pytest.param(lambda n: 0.5 * n * n, 1, id="slows down faster than the load rises"),
    ],
)
async def test_run_over_a_slow_source_takes_little_longer_than_with_the_best_concurrency(
    latency_s: Callable[[int], float], best: int, concurrency: int
) -> None:
    source = LoadedSource(latency_s)
    took_s = await run_s(source, concurrency)
    best = min(best, concurrency)
    # Beyond a tenth: the responses that show for the first time that the source is slow.
    assert took_s <= 1.1 * PAGES * latency_s(best) / best + 90
    assert max(source.seen) <= concurrency


@pytest.mark.parametrize("concurrency", [4, 16])
async def test_source_that_fails_above_a_load_gets_few_requests_above_it(concurrency: int) -> None:
    source = LoadedSource(lambda _: 1.0, fails_above=4)
    took_s = await run_s(source, concurrency)
    assert source.failed <= (0 if concurrency <= 4 else 30)
    # Six failures in a row count as an outage, and then the next request is sent after five minutes.
    assert took_s <= PAGES / 4 + 330


@pytest.mark.parametrize(("pages", "concurrency", "rounds"), [(10, 4, 4), (16, 8, 5), (24, 8, 6), (104, 8, 16)])
async def test_requests_in_flight_rise_in_the_first_rounds(pages: int, concurrency: int, rounds: int) -> None:
    assert await run_s(LoadedSource(lambda _: 2.0), concurrency, pages) <= 2 * rounds

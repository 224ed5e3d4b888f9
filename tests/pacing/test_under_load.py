"""How many requests are under way at a source that takes the longer the more it is asked; in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from neows_async.pacing.breaker import CircuitBreaker
from neows_async.pacing.gate import Gate, GateLimits
from neows_async.pacing.quota import QuotaModel
from neows_async.pages.values import RawPage
from neows_async.pipeline.fetch_loop import FAILURES_TO_OPEN, SPARE_TASKS, UNPACED
from neows_async.pipeline.fetcher import FetchLimits, PageFetcher, PageRequest
from tests.pipeline.in_loop import accept_any, pool_in_loop

if TYPE_CHECKING:
    from collections.abc import Callable

PAGES = 400


class Loaded:
    """Takes ``latency_s`` of how many requests are under way when it is asked."""

    origin = "test"
    synthetic = True

    def __init__(self, latency_s: Callable[[int], float]) -> None:
        self.latency_s = latency_s
        self.under_way = 0
        self.seen: list[int] = []

    async def fetch(self, number: int, size: int) -> RawPage:
        self.under_way += 1
        self.seen.append(self.under_way)
        try:
            await anyio.sleep(self.latency_s(self.under_way))
        finally:
            self.under_way -= 1
        return RawPage(number, b" " * size)


async def fetched(source: Loaded, concurrency: int) -> float:
    """The seconds that all pages take."""
    gate = Gate(
        QuotaModel(UNPACED),
        CircuitBreaker(failures_to_open=FAILURES_TO_OPEN),
        GateLimits(concurrency=concurrency),
        clock=anyio.current_time,
        listener=print,
    )
    decoder = pool_in_loop(accept_any)
    fetcher = PageFetcher(source, gate=gate, decoder=decoder, limits=FetchLimits(), listener=print)
    started_s = anyio.current_time()
    await fetcher.fetch(PageRequest(0, 20))
    left = iter(range(1, PAGES))
    gate.expect(lambda: PAGES - len(source.seen))

    async def work() -> None:
        for number in left:
            await fetcher.fetch(PageRequest(number, 20))

    async with anyio.create_task_group() as tasks:
        for _ in range(concurrency + SPARE_TASKS):
            tasks.start_soon(work)
    return anyio.current_time() - started_s


@pytest.mark.virtual_time
@pytest.mark.parametrize("concurrency", [4, 16, 64])
@pytest.mark.parametrize(
    ("latency_s", "bears"),
    [
        pytest.param(lambda _: 1.0, 64, id="takes a second"),
        pytest.param(lambda n: 1.0 if n <= 4 else 20.0, 4, id="suffers from five"),
        pytest.param(lambda n: 1.0 if n <= 2 else 10.0, 2, id="suffers from three"),
        pytest.param(lambda n: 1.0 * n, 1, id="does one after the other"),
        pytest.param(lambda n: 0.5 * n * n, 1, id="gets ever slower"),
    ],
)
async def test_a_source_is_asked_as_much_as_it_bears(
    latency_s: Callable[[int], float], bears: int, concurrency: int
) -> None:
    source = Loaded(latency_s)
    took_s = await fetched(source, concurrency)
    best = min(bears, concurrency)
    # What is tried costs some rounds, and what was too many comes in late.
    assert took_s <= 1.1 * PAGES * latency_s(best) / best + 60
    late = source.seen[PAGES * 3 // 4 :]
    assert sum(late) / len(late) <= best

"""When the next request is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from neows_async import Settings, ingest
from neows_async.pacing.breaker import CircuitBreaker
from neows_async.pacing.gate import Gate, GateLimits
from neows_async.pacing.quota import QuotaModel
from neows_async.pages.values import RawPage, StoredPage
from neows_async.pipeline.fetch_loop import UNPACED
from neows_async.pipeline.fetcher import FetchLimits, PageFetcher, PageRequest
from neows_async.testing import ListSource
from tests.neos import catalogue
from tests.pipeline.in_loop import accept_any, pool_in_loop

if TYPE_CHECKING:
    from pathlib import Path


class RecordingSource:
    """Records when it gets a request, and when its response is decoded."""

    origin = "test"
    synthetic = True

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def fetch(self, number: int, size: int) -> RawPage:
        await checkpoint()  # as a stream does before it sends
        self.seen.append("requested")
        await checkpoint()
        return RawPage(number, b"{}" * size)

    def receive(self, page: RawPage | StoredPage, size: int | None) -> StoredPage:
        self.seen.append("decoded")
        return accept_any(page, size)


async def test_next_request_is_sent_before_a_response_is_checked() -> None:
    source = RecordingSource()
    limits = GateLimits(concurrency=1)
    gate = Gate(
        QuotaModel(UNPACED), CircuitBreaker(failures_to_open=6), limits, clock=anyio.current_time, listener=print
    )
    decoder = pool_in_loop(source.receive)
    fetcher = PageFetcher(source, gate=gate, decoder=decoder, limits=FetchLimits(), listener=print)

    async def fetch(number: int) -> None:
        await fetcher.fetch(PageRequest(number, 20))

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(fetch, number)
    assert source.seen == ["requested", "requested", "decoded", "requested", "decoded", "decoded"]


async def test_two_requests_are_in_flight_as_soon_as_page_0_shows_the_number_of_pages(tmp_path: Path) -> None:
    class Pair(ListSource):
        async def fetch(self, number: int, size: int) -> RawPage:
            if number == 2:
                second.set()
            if number == 1:
                with anyio.fail_after(60):
                    await second.wait()
            return await super().fetch(number, size)

    second = anyio.Event()
    settings = Settings(root=str(tmp_path), limit=None, concurrency=2)
    receipt = await ingest(settings, source=Pair(catalogue(80)))
    assert receipt.pages.fetched == 4

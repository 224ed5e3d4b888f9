"""One run through the library, watched from its event loop: ``watched.py URL PAGES ROOT [--no-archive]``.

Prints JSON: the loop's lag, and where the parts spent their time. A part is watched through its seam, by
wrapping the object that is handed to the run; what has no seam is measured by ``stages.py``.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from neows_async._process import tune_allocators

tune_allocators()

import anyio

from neows_async.lake.storage.local import LocalStorage
from neows_async.outputs.aggregate_files import JsonAggregates
from neows_async.outputs.close_approaches import CloseApproachesByYear, CloseApproachesWithin
from neows_async.outputs.parquet import ParquetSink
from neows_async.pipeline.run import Parts, ingest
from neows_async.settings import Settings
from neows_async.sources import http_pool, nasa
from neows_async.telemetry import events

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from neows_async.pages.values import Page, RawPage

_TICK_S: Final = 0.001


class _Stopwatch:
    """Seconds by stage, summed over what ran at once."""

    def __init__(self) -> None:
        self.spent_s: dict[str, float] = {}

    def add(self, stage: str, since_s: float) -> None:
        self.spent_s[stage] = self.spent_s.get(stage, 0.0) + time.perf_counter() - since_s


class _Source(nasa.NasaSource):
    watch: _Stopwatch

    async def fetch(self, number: int, size: int) -> RawPage:
        began_s = time.perf_counter()
        came = await super().fetch(number, size)
        self.watch.add("fetch", began_s)
        return came


class _Storage(LocalStorage):
    watch: _Stopwatch

    def put(self, key: str, data: bytes) -> None:
        began_s = time.perf_counter()
        super().put(key, data)
        self.watch.add("archive", began_s)


class _Sink(ParquetSink):
    watch: _Stopwatch

    async def write(self, page: Page) -> None:
        began_s = time.perf_counter()
        await super().write(page)
        self.watch.add("write", began_s)


class _Within(CloseApproachesWithin):
    watch: _Stopwatch

    def update(self, batches: Mapping[str, pa.RecordBatch]) -> None:
        began_s = time.perf_counter()
        super().update(batches)
        self.watch.add("aggregate", began_s)


class _ByYear(CloseApproachesByYear):
    watch: _Stopwatch

    def update(self, batches: Mapping[str, pa.RecordBatch]) -> None:
        began_s = time.perf_counter()
        super().update(batches)
        self.watch.add("aggregate", began_s)


async def main(url: str, pages: int, root: Path, archive: bool) -> dict[str, Any]:  # noqa: FBT001 - passed on by position
    settings = Settings(limit=None, base_url=url, root=str(root), concurrency=8, archive=archive)
    watch = _Stopwatch()
    landed_s: dict[int, float] = {}
    lags_s: list[float] = []

    def listener(event: events.Event) -> None:
        if isinstance(event, events.PageFetched):
            landed_s[event.number] = time.perf_counter()
        elif isinstance(event, events.PageWritten):
            watch.add("from fetched to written", landed_s[event.number])

    async def tick() -> None:
        while True:
            due_s = time.perf_counter() + _TICK_S
            await anyio.sleep(_TICK_S)
            lags_s.append(max(0.0, time.perf_counter() - due_s))

    async with AsyncExitStack() as stack:
        transport = http_pool.open_transport(connections=settings.concurrency)
        client = await stack.enter_async_context(
            nasa.open_client(transport, connect_timeout_s=4, timeout_s=settings.request_timeout_s)
        )
        source = _Source(client, base_url=url, api_key="k" * 40)
        storage = _Storage(root)
        sinks = [_Sink(name) for name in ("neos", "close_approaches")]
        within, by_year = _Within(settings.within_au, None), _ByYear(None)
        source.watch = storage.watch = within.watch = by_year.watch = watch
        for sink in sinks:
            sink.watch = watch
        parts = Parts(
            storage=storage,
            source=source,
            source_name="nasa",
            sinks=sinks,
            aggregators=[within, by_year],
            aggregate_writer=JsonAggregates(),
        )
        began_s = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tick)
            await ingest(settings, parts, listener)
            tasks.cancel_scope.cancel()
        took_s = time.perf_counter() - began_s
    lags_s.sort()
    return {
        "took_s": took_s,
        "lag_p99_ms": 1000 * lags_s[int(len(lags_s) * 0.99)],
        "lag_p999_ms": 1000 * lags_s[int(len(lags_s) * 0.999)],
        "lag_max_ms": 1000 * lags_s[-1],
        "ms_a_page": {stage: 1000 * spent_s / pages for stage, spent_s in watch.spent_s.items()},
    }


if __name__ == "__main__":
    print(json.dumps(anyio.run(main, sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), "--no-archive" not in sys.argv)))

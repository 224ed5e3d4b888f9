"""The processor time of each stage by itself, one page after the other: ``stages.py PAGES`` prints JSON.

What a page costs where nothing else runs. The sum is what one core must do for a page, but for the
event loop, the handing over between threads and what several threads cost each other.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[2]))

from neows_async._process import tune_allocators

tune_allocators()

import anyio

from benchmarks.measured import server
from neows_async.endpoints.browse import envelope
from neows_async.endpoints.browse.decode import PageJson, decode
from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.staging import LakeStage
from neows_async.lake.storage.local import LocalStorage
from neows_async.outputs.close_approaches import CloseApproachesByYear, CloseApproachesWithin
from neows_async.outputs.parquet import ParquetSink
from neows_async.pages.redact import Redactor
from neows_async.pages.stored import compress, expand
from neows_async.pipeline.admission import Admission

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from neows_async.pages.values import Page
    from neows_async.protocols import Aggregator


def main(pages: int) -> dict[str, float]:
    made = server.templates()
    scrub = Redactor("k" * 40)
    admission = Admission(limit=None, max_rejects=0)
    aggregators: list[Aggregator] = [CloseApproachesWithin(0.2, None), CloseApproachesByYear(None)]
    spent_s: dict[str, float] = {}

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        began_s = time.process_time()
        yield
        spent_s[stage] = spent_s.get(stage, 0.0) + time.process_time() - began_s

    read: list[Page] = []
    with tempfile.TemporaryDirectory() as root:
        storage = LocalStorage(Path(root))
        for number in range(pages):
            body = b"".join(server.answer(made[number % server.DISTINCT], number, pages)[1:])
            with timed("scrub"):
                body = scrub(body)
            with timed("check"):
                envelope.check(body, number)
            with timed("compress"):
                data = compress(body)
            with timed("put, durable"):
                storage.put(f"raw/{number}", data)
            with timed("expand"):
                expand(data, 1 << 30)
            with timed("decode"):
                page = decode(PageJson(number, body, hashlib.sha256(body).digest()), None)
            with timed("admit"):
                page = admission.admit(page)
            with timed("aggregate"):
                for aggregator in aggregators:
                    aggregator.update(page.batches)
            read.append(page)
        with timed("write"):
            anyio.run(_write, LocalStorage(Path(root)), read)
    return {stage: 1000 * taken_s / pages for stage, taken_s in spent_s.items()}


async def _write(storage: LocalStorage, pages: Iterable[Page]) -> None:
    async with LakeStage(AsyncStorage(storage), "stages") as stage:
        for name in ("neos", "close_approaches"):
            sink = ParquetSink(name)
            await sink.open(stage)
            for page in pages:
                await sink.write(page)
            await sink.finish()


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))

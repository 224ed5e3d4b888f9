"""What safety costs: the wall time of a run with all of it, without syncs, and without an archive.

A thousand pages from a source in memory, so that the storing is what shows. Each round does every way
once, in turn; the ratios are medians over the rounds, each against the first way of the same round.
``python benchmarks/safety.py [PAGES [FOLDER]]``: the folder is on the disk that is to be measured.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio

from neows_async.lake.storage.local import LocalStorage
from neows_async.outputs.aggregate_files import JsonAggregates
from neows_async.outputs.close_approaches import CloseApproachesByYear, CloseApproachesWithin
from neows_async.outputs.parquet import ParquetSink
from neows_async.pages.values import RawPage
from neows_async.pipeline.run import Parts, ingest
from neows_async.sandbox.catalogue import SyntheticCatalogue
from neows_async.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neows_async.sandbox.catalogue import CatalogueEntry

ROUNDS: Final = 5
PAGE_SIZE: Final = 20
DISTINCT: Final = 50  # page bodies that are made; the others have the same objects under other ids
WAYS: Final = {
    "with all of it": (True, True),
    "without syncs": (True, False),
    "without an archive": (False, True),
    "without either": (False, False),
}


class MemorySource:
    """Pages that cost nothing to come by."""

    synthetic = True
    origin = "memory"

    def __init__(self, pages: int) -> None:
        entries = SyntheticCatalogue(DISTINCT * PAGE_SIZE).entries(0, DISTINCT * PAGE_SIZE)
        shown = [entries[first : first + PAGE_SIZE] for first in range(0, len(entries), PAGE_SIZE)]
        self._bodies = [_body(number, pages, shown[number % DISTINCT]) for number in range(pages)]
        self.mb = sum(map(len, self._bodies)) / 1e6

    async def fetch(self, number: int, size: int) -> RawPage:  # noqa: ARG002 - they have the size they have
        """Page ``number``."""
        return RawPage(number, self._bodies[number])


def main() -> None:
    pages = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    folder = sys.argv[2] if len(sys.argv) > 2 else None  # noqa: PLR2004 - the second argument
    source = MemorySource(pages)
    times_s: dict[str, list[float]] = {way: [] for way in WAYS}
    _run(source, *WAYS["with all of it"], folder)  # the first loads what is needed
    for _ in range(ROUNDS):
        for way, (archive, durable) in WAYS.items():
            times_s[way].append(_run(source, archive, durable, folder))
    whole = times_s["with all of it"]
    print(f"{pages:,} pages, {source.mb:.0f} MB; medians of {ROUNDS} rounds")
    print(f"{'':20}{'s':>8}{'ms a page':>12}{'ratio':>8}")
    for way, taken in times_s.items():
        ratio = statistics.median(one / all_ for one, all_ in zip(taken, whole, strict=True))
        median_s = statistics.median(taken)
        print(f"{way:20}{median_s:8.2f}{1000 * median_s / pages:12.2f}{ratio:8.2f}")


def _run(source: MemorySource, archive: bool, durable: bool, folder: str | None) -> float:  # noqa: FBT001 - both have names above
    settings = Settings(limit=None, archive=archive, snapshot="a")
    with tempfile.TemporaryDirectory(dir=folder) as root:
        parts = Parts(
            storage=LocalStorage(Path(root, "lake"), durable=durable),
            source=source,
            source_name="memory",
            sinks=[ParquetSink(name) for name in ("neos", "close_approaches")],
            aggregators=[CloseApproachesWithin(settings.within_au, None), CloseApproachesByYear(None)],
            aggregate_writer=JsonAggregates(),
        )
        began_s = time.perf_counter()
        receipt = anyio.run(ingest, settings, parts)
        took_s = time.perf_counter() - began_s
    if receipt.complete is not True:
        raise RuntimeError(f"not a whole catalogue: {receipt.complete}")
    return took_s


def _body(number: int, pages: int, entries: Sequence[CatalogueEntry]) -> bytes:
    offset = number // DISTINCT * DISTINCT * PAGE_SIZE
    objects = [
        entry.body.replace(f'"{entry.id}"'.encode(), f'"{int(entry.id) + offset * 100}"'.encode()) for entry in entries
    ]
    info = {"size": PAGE_SIZE, "total_elements": pages * PAGE_SIZE, "total_pages": pages, "number": number}
    return b'{"links":{},"page":%b,"near_earth_objects":[%b]}' % (json.dumps(info).encode(), b",".join(objects))


if __name__ == "__main__":
    main()

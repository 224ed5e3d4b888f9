"""Lakes for tests: snapshots made by real runs, and how to bend them."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.raw_zone import RawZone, find_raw
from neows_async.outputs.aggregate_files import JsonAggregates
from neows_async.outputs.close_approaches import CloseApproachesByYear, CloseApproachesWithin
from neows_async.outputs.parquet import ParquetSink
from neows_async.pipeline.run import Parts, ingest
from neows_async.settings import Settings
from neows_async.sources.archive import ArchiveSource
from neows_async.testing import ListSource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from neows_async.lake.receipt import Receipt
    from neows_async.lake.storage.interface import Storage
    from neows_async.protocols import Source


async def make(storage: Storage, objects: Sequence[Mapping[str, Any]], snapshot: str, **settings: Any) -> Receipt:
    """A snapshot of ``objects``."""
    return await write(storage, ListSource(objects), Settings(snapshot=snapshot, **({"limit": None} | settings)))


async def rebuild(storage: Storage, parent: str, snapshot: str, **settings: Any) -> Receipt:
    """A snapshot from the raw pages of ``parent``."""
    raw = await find_raw(AsyncStorage(storage), parent)
    zone = RawZone(AsyncStorage(storage), raw.snapshot, max_body_bytes=1 << 24)
    source = ArchiveSource(zone, snapshot=raw.snapshot, synthetic=raw.synthetic)
    chosen = Settings(snapshot=snapshot, **({"limit": raw.limit} | settings))
    return await write(storage, source, chosen, parent=raw.named, raw_snapshot=raw.snapshot)


async def write(storage: Storage, source: Source, settings: Settings, **more: Any) -> Receipt:
    """One run with our own parts."""
    layouts = settings.partitions
    parts = Parts(
        storage=storage,
        source=source,
        source_name="test",
        sinks=[ParquetSink(name, layouts.get(name)) for name in ("neos", "close_approaches")],
        aggregators=[
            CloseApproachesWithin(settings.within_au, settings.orbiting_body),
            CloseApproachesByYear(settings.orbiting_body),
        ],
        aggregate_writer=JsonAggregates(),
        **more,
    )
    return await ingest(settings, parts)


def keys(storage: Storage, prefix: str = "") -> list[str]:
    """The keys below the folder ``prefix``."""
    return [entry.key for entry in storage.list(prefix)]


def rewrite_receipt(root: Path, snapshot: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a receipt, and ``latest`` if it is the same."""
    path, latest = root / f"_runs/{snapshot}.json", root / "_runs/latest.json"
    both = latest.read_bytes() == path.read_bytes()
    receipt = json.loads(path.read_bytes())
    change(receipt)
    for one in (path, latest) if both else (path,):
        one.write_text(json.dumps(receipt))


def own_up(root: Path, snapshot: str, file: str) -> None:
    """Let the receipt say of ``file`` what is there now."""

    def change(receipt: dict[str, Any]) -> None:
        [entry] = [entry for entry in receipt["files"] if entry["path"] == file]
        data = (root / file).read_bytes()
        entry.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    rewrite_receipt(root, snapshot, change)

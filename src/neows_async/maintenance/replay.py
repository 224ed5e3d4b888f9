"""Reads the rejected objects of a snapshot again: after a fix of the program they may be readable. Sends no request."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from neows_async.endpoints.browse.neo import Neo, Unreadable, parse
from neows_async.errors import DataError, NotFoundError, SettingsError
from neows_async.lake.lake import AsyncLake
from neows_async.maintenance.made_with import settings_of
from neows_async.outputs import registry
from neows_async.pages.values import Rejected

if TYPE_CHECKING:
    from collections.abc import Callable

    from neows_async.lake.async_storage import AsyncStorage
    from neows_async.lake.receipt import Receipt
    from neows_async.outputs.registry import RegisteredPart
    from neows_async.settings import Settings

_CHUNK_BYTES: Final = 1 << 20


async def read_rejected(storage: AsyncStorage, receipt: Receipt, take: Callable[[Rejected], None]) -> None:
    """Pass each rejected object of a snapshot to ``take``, in page order. About 1 MB of them is in memory.

    :param take: called in a worker thread, never concurrently with itself
    :raises DataError: the quarantine is missing or damaged
    """
    for file in receipt.files:
        if file.dataset == "quarantine":
            try:
                async with storage.open_input(file.path) as opened:
                    read = _RejectedLines(opened, file.path, take)
                    # One chunk for each call: each has its own time limit, and a cancellation ends between two.
                    while await storage.call(file.path, read.some):
                        pass
            except NotFoundError as exc:
                raise DataError(
                    f"{storage.uri}: {file.path} is missing; 'neows-async verify' lists what else is"
                ) from exc


class _RejectedLines:
    def __init__(self, opened: BinaryIO, path: str, take: Callable[[Rejected], None]) -> None:
        self._opened = opened
        self._path = path
        self._take = take
        self._number = 0

    def some(self) -> bool:
        """Read and pass on some lines; False at the end of the file."""
        lines = self._opened.readlines(_CHUNK_BYTES)
        for line in lines:
            self._number += 1
            try:
                entry = Rejected(**json.loads(line))
            except (ValueError, TypeError) as exc:
                raise DataError(f"{self._path}: line {self._number} is damaged; rebuild the snapshot") from exc
            self._take(entry)
        return bool(lines)


def rejection_reason(entry: Rejected) -> str | None:
    """Why this version of the program rejects the object; None if it can read it."""
    try:
        Neo.from_value(parse(entry.raw.encode()))
    except Unreadable as exc:
        return exc.reason
    except ValueError:
        return "not JSON"
    return None


@dataclass(frozen=True, slots=True)
class Replay:
    """The rejected objects of a snapshot, read again.

    :param rejected: their number
    :param readable: the Browse positions of those that can be read now
    """

    receipt: Receipt
    rejected: int
    readable: tuple[int, ...]


async def plan_replay(storage: AsyncStorage, snapshot: str) -> Replay:
    """Read the rejected objects of ``snapshot`` again. It writes nothing."""
    receipt = await AsyncLake(storage).receipt(snapshot)
    rejected = 0
    readable: list[int] = []

    def take(entry: Rejected) -> None:
        nonlocal rejected
        rejected += 1
        if rejection_reason(entry) is None:
            readable.append(entry.position)

    await read_rejected(storage, receipt, take)
    return Replay(receipt, rejected, tuple(readable))


@dataclass(frozen=True, slots=True)
class RebuildRequest:
    """How to write a snapshot again from its raw pages.

    :param settings: those that decide what is written; the root and the operation settings have their defaults
    :param sinks: names in the registry, as ``aggregators`` and ``aggregate_writer``
    """

    settings: Settings
    sinks: tuple[str, ...]
    aggregators: tuple[str, ...]
    aggregate_writer: str


def rebuild_request(receipt: Receipt) -> RebuildRequest:
    """How ``receipt``'s snapshot was written.

    :raises SettingsError: it has no raw pages, or a part is not one of ours: a receipt has a part's name, and not
        where to import it from
    :raises DataError: the receipt has settings that no run can have
    """
    if receipt.raw.snapshot is None:
        raise SettingsError(
            f"snapshot {receipt.snapshot} was made with --no-archive: its raw pages were not stored, so only a new run "
            "can add the objects"
        )
    made_with = receipt.derivation
    writer = made_with.get("aggregate_writer")
    names: dict[str, tuple[tuple[RegisteredPart, ...], list[Any]]] = {
        "sinks": (registry.SINKS, [*made_with.get("sinks", ())]),
        "aggregators": (registry.AGGREGATORS, [*made_with.get("aggregators", ())]),
        "aggregate_writer": (registry.AGGREGATE_WRITERS, [writer]),
    }
    parts = {kind: [_ours(ours, name, receipt) for name in recorded] for kind, (ours, recorded) in names.items()}
    # As recorded, not as the defaults are today: the positions of the objects depend on them.
    identity = {name: receipt.identity[name] for name in ("page_size", "limit") if name in receipt.identity}
    return RebuildRequest(
        settings=settings_of(receipt, **identity, max_missing_pages=None),
        sinks=tuple(dict.fromkeys(parts["sinks"])),  # both Parquet sinks have one name in the registry
        aggregators=tuple(parts["aggregators"]),
        aggregate_writer=parts["aggregate_writer"][0],
    )


def _ours(parts: tuple[RegisteredPart, ...], receipt_name: str, receipt: Receipt) -> str:
    part = registry.find(parts, receipt_name)
    if part is None:
        raise SettingsError(
            f"snapshot {receipt.snapshot} was made with {receipt_name}, which is not one of ours; to rebuild it, run "
            f"'neows-async run --source archive --from-snapshot {receipt.snapshot}' with that part"
        )
    return part.name

"""What a lake holds: its snapshots in whatever state, from receipts, staging folders and names alone."""

from __future__ import annotations

import datetime as dt
import re
from collections import defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final

from neows_async.errors import DataError
from neows_async.lake import layout
from neows_async.lake.lake import receipt_or_none, unfinished_or_none
from neows_async.settings import SNAPSHOT_ID

if TYPE_CHECKING:
    from neows_async.lake.async_storage import AsyncStorage
    from neows_async.lake.receipt import Receipt, RunNote

_ID: Final = SNAPSHOT_ID.pattern
# What a run writes under the id of a snapshot, as far as that shows in a name. What has no such name is somebody
# else's, or named by a receipt: the aggregates of somebody else's aggregator.
_OURS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        rf"raw/snapshot=(?P<id>{_ID})/gen=\d+/page=\d{{5,}}\.json\.zst",
        rf"(?:neos|close_approaches)/snapshot=(?P<id>{_ID})/(?:[a-z_]+=[^/]+/)?part-\d{{5,}}\.parquet",
        rf"aggregates/snapshot=(?P<id>{_ID})/close_approaches_(?:within|by_year)\.(?:json|csv)",
        rf"quarantine/snapshot=(?P<id>{_ID})/rejected\.jsonl",
        rf"_staging/(?P<id>{_ID})/(?:(?:run|commit|removed)\.json|(?:files|bad|damaged)/.+)",
        rf"_staging/(?P<id>{_ID})\.lock",
    )
)
_DATASETS: Final = ("raw", "neos", "close_approaches", "aggregates", "quarantine")


class State(StrEnum):
    """What a snapshot is, in the words that people see."""

    COMMITTED = "committed"
    WRITTEN = "being written"
    READY = "ready to be rolled forward"
    UNFINISHED = "unfinished"
    REMOVED = "half removed"
    LEFTOVER = "leftover"
    DAMAGED = "damaged receipt"


@dataclass(frozen=True, slots=True)
class SnapshotEntry:
    """One snapshot, or what is left of one.

    :param at: the time it stands for; when it was begun; when its last file was written
    :param holder: the live run that has its lock
    :param pages: raw pages that lie with it
    :param bytes: of all its files
    :param modified_s: of its newest file, apart from those that its receipt names; UTC, seconds since 1970
    :param staged: whether anything of it lies under ``_staging``, if only a lock
    :param needs: the snapshots that must stay for its sake, since their raw pages are what it is made from
    """

    snapshot: str
    state: State
    at: dt.datetime
    holder: str | None
    pages: int
    bytes: int
    modified_s: float
    staged: bool
    receipt: Receipt | None
    unfinished: RunNote | None
    needs: frozenset[str]

    @property
    def order(self) -> tuple[dt.datetime, dt.datetime]:
        """Later is newer; among committed ones the order in which ``latest`` moves."""
        return self.at, self.receipt.committed_at if self.receipt else self.at


@dataclass(slots=True)
class _Found:
    names: set[str] = field(default_factory=set)
    pages: int = 0
    bytes: int = 0
    modified_s: float = 0.0


def owner_of(key: str) -> str | None:
    """The id of the snapshot to which the object belongs by its name; None if no run wrote such a name."""
    return next((found["id"] for pattern in _OURS if (found := pattern.fullmatch(key))), None)


async def folder_in_use(lake: AsyncStorage, snapshot: str) -> str | None:
    """The first folder of raw pages or of a dataset in which something lies that a run wrote as ``snapshot``."""
    for dataset in _DATASETS:
        folder = layout.dataset_folder(dataset, snapshot)
        if any(owner_of(entry.key) == snapshot for entry in await lake.list(folder)):
            return folder
    return None


async def committed_ids(lake: AsyncStorage) -> list[str]:
    """The ids of all receipts, ascending."""
    keys = [entry.key for entry in await lake.list(layout.RECEIPTS)]
    names = [key.removeprefix(f"{layout.RECEIPTS}/").removesuffix(".json") for key in keys if key.endswith(".json")]
    return sorted(name for name in names if SNAPSHOT_ID.fullmatch(name) and name != "latest")


async def list_snapshots(lake: AsyncStorage) -> list[SnapshotEntry]:
    """Every snapshot of the lake, newest first.

    Opens receipts and the notes of unfinished runs, never a dataset. Memory: some 10 kB a snapshot.

    :raises StorageError: the lake cannot be read
    """
    found: defaultdict[str, _Found] = defaultdict(_Found)
    for folder in ("_staging", *_DATASETS):
        await lake.call(folder, partial(_look_into, lake, folder, found))
    receipts: dict[str, Receipt] = {}
    damaged: set[str] = set()
    for snapshot in await committed_ids(lake):
        try:
            receipt = await receipt_or_none(lake, snapshot)
        except DataError:
            receipt = None
        if receipt is not None and receipt.snapshot == snapshot:
            receipts[snapshot] = receipt
        else:
            damaged.add(snapshot)
    ids = {*found, *receipts, *damaged}
    entries = [await _entry(lake, snapshot, found[snapshot], receipts, damaged) for snapshot in ids]
    return sorted(entries, key=lambda entry: (entry.order, entry.snapshot), reverse=True)


def _look_into(lake: AsyncStorage, folder: str, found: defaultdict[str, _Found]) -> None:
    for entry in lake.storage.list(folder):
        snapshot = owner_of(entry.key)
        if snapshot is None:
            continue
        one = found[snapshot]
        one.bytes += entry.bytes
        one.modified_s = max(one.modified_s, entry.modified_s)
        one.pages += folder == "raw"
        if folder == "_staging":
            one.names.add(entry.key.removeprefix(f"_staging/{snapshot}").removeprefix("/"))


async def _entry(
    lake: AsyncStorage, snapshot: str, found: _Found, receipts: dict[str, Receipt], damaged: set[str]
) -> SnapshotEntry:
    receipt = receipts.get(snapshot)
    unfinished = None
    if receipt is None and "run.json" in found.names:
        try:
            unfinished = await unfinished_or_none(lake, snapshot)
        except DataError:
            damaged.add(snapshot)
    holder = await lake.holder(layout.lock_key(snapshot)) if ".lock" in found.names else None
    at = receipt.logical_at if receipt else unfinished.started_at if unfinished else None
    others = sum(file.bytes for file in receipt.files if owner_of(file.path) is None) if receipt else 0
    return SnapshotEntry(
        snapshot=snapshot,
        state=_state(found.names, receipt, unfinished, holder, damaged=snapshot in damaged),
        at=at or dt.datetime.fromtimestamp(found.modified_s, dt.UTC),
        holder=holder,
        pages=found.pages,
        bytes=found.bytes + others,
        modified_s=found.modified_s,
        staged=bool(found.names),
        receipt=receipt,
        unfinished=unfinished,
        needs=needs_of(receipt, unfinished, receipts),
    )


def _state(
    staged: set[str], receipt: Receipt | None, unfinished: RunNote | None, holder: str | None, *, damaged: bool
) -> State:
    if holder is not None:
        return State.WRITTEN
    if receipt is not None:
        return State.COMMITTED
    if damaged:
        return State.DAMAGED
    if "removed.json" in staged:
        return State.REMOVED
    if unfinished is None:
        return State.LEFTOVER
    return State.READY if "commit.json" in staged else State.UNFINISHED


def needs_of(receipt: Receipt | None, unfinished: RunNote | None, receipts: dict[str, Receipt]) -> frozenset[str]:
    """Whose raw pages a snapshot is, or is being, made from, other than its own."""
    if receipt is not None:
        return frozenset({receipt.raw.snapshot} - {receipt.snapshot, None})  # type: ignore[arg-type]
    if unfinished is None or unfinished.parent is None:
        return frozenset()
    parent = receipts.get(unfinished.parent)
    home = parent.raw.snapshot if parent and parent.raw.snapshot else unfinished.parent
    return frozenset({unfinished.parent, home})

"""All snapshots of a lake, in every state, found from receipts, staging folders and object names alone."""

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
from neows_async.lake.lake import AsyncLake
from neows_async.settings import SNAPSHOT_ID

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neows_async.lake.async_storage import AsyncStorage
    from neows_async.lake.receipt import Receipt, RunNote
    from neows_async.lake.storage.interface import Storage

_ID: Final = SNAPSHOT_ID.pattern
# The names that a run gives to the objects outside the datasets.
_LAKE_NAMES: Final = (
    rf"raw/snapshot=(?P<id>{_ID})/gen=\d+/page=\d{{5,}}\.json\.zst",
    rf"_staging/(?P<id>{_ID})/(?:(?:run|commit|removed)\.json|(?:files|bad|damaged)/.+)",
    rf"_staging/(?P<id>{_ID})\.lock",
)


class ObjectNames:
    """The names that a run gives to its objects.

    An object with another name was written by somebody else, or a receipt names it: the files of a custom sink or
    aggregator.

    :param files: dataset → regular expression of the paths that our sinks and writers write below
        ``<dataset>/snapshot=<id>/``; see :func:`neows_async.outputs.registry.file_patterns`
    """

    def __init__(self, files: Mapping[str, str]) -> None:
        of_datasets = (rf"{re.escape(name)}/snapshot=(?P<id>{_ID})/(?:{files[name]})" for name in files)
        self._patterns = tuple(re.compile(pattern) for pattern in (*_LAKE_NAMES, *of_datasets))
        self.folders: tuple[str, ...] = tuple(dict.fromkeys((*layout.SNAPSHOT_FOLDERS, *files)))
        """The folders that have a ``snapshot=<id>`` below them."""

    def owner_of(self, key: str) -> str | None:
        """The id of the snapshot that the object belongs to by its name; None if no run gives such a name."""
        # Unknown names have no owner, so prune never removes a file that a run did not write.
        return next((found["id"] for pattern in self._patterns if (found := pattern.fullmatch(key))), None)


class State(StrEnum):
    """The state of a snapshot, as the commands print it."""

    COMMITTED = "committed"
    WRITTEN = "being written"
    READY = "ready to be rolled forward"
    UNFINISHED = "unfinished"
    REMOVED = "half removed"
    LEFTOVER = "leftover"
    DAMAGED = "damaged receipt"


@dataclass(frozen=True, slots=True)
class SnapshotEntry:
    """One snapshot, or the rest of one.

    :param at: its logical time if committed, else its start, else the time of its newest file
    :param lock_owner: the live run that has its lock
    :param pages: number of its raw pages
    :param bytes: of all its files
    :param modified_s: of its newest file, apart from those that only its receipt names; UTC, seconds since 1970
    :param staged: whether any object of it is under ``_staging``, including a lock
    :param needs: the snapshots that must stay because this one is made from their raw pages
    """

    snapshot: str
    state: State
    at: dt.datetime
    lock_owner: str | None
    pages: int
    bytes: int
    modified_s: float
    staged: bool
    receipt: Receipt | None
    unfinished: RunNote | None
    needs: frozenset[str]

    @property
    def order(self) -> tuple[dt.datetime, dt.datetime]:
        """The sort key: larger is newer. Of committed snapshots the largest is ``latest``."""
        return self.at, self.receipt.committed_at if self.receipt else self.at


@dataclass(slots=True)
class _Objects:
    """The objects of one snapshot; ``staged`` holds the names below its staging folder, and ``.lock``."""

    staged: set[str] = field(default_factory=set)
    pages: int = 0
    bytes: int = 0
    modified_s: float = 0.0


async def folder_in_use(storage: AsyncStorage, snapshot: str, names: ObjectNames) -> str | None:
    """The first folder of raw pages or of a dataset that holds an object which a run wrote as ``snapshot``."""
    for name in names.folders:
        folder = layout.dataset_folder(name, snapshot)
        if any(names.owner_of(entry.key) == snapshot for entry in await storage.list(folder)):
            return folder
    return None


async def list_snapshots(storage: AsyncStorage, names: ObjectNames) -> list[SnapshotEntry]:
    """Every snapshot of the lake, newest first. Opens records, never a dataset. Memory: about 10 kB per snapshot."""
    lake = AsyncLake(storage)
    found: defaultdict[str, _Objects] = defaultdict(_Objects)

    def collect(blocking: Storage, folder: str) -> None:  # streamed: a lake has millions of objects
        for entry in blocking.list(folder):
            if (snapshot := names.owner_of(entry.key)) is None:
                continue
            objects = found[snapshot]
            objects.bytes += entry.bytes
            objects.modified_s = max(objects.modified_s, entry.modified_s)
            objects.pages += folder == layout.RAW
            if folder == layout.STAGING:
                objects.staged.add(entry.key.removeprefix(layout.staging_folder(snapshot)).removeprefix("/"))

    # Listings before receipts: a run that commits in between shows as committed, never as a leftover without one.
    for folder in (layout.STAGING, *names.folders):
        await storage.use(folder, partial(collect, folder=folder))
    receipts: dict[str, Receipt] = {}
    damaged: set[str] = set()
    for snapshot in await lake.committed_ids():
        try:
            receipt = await lake.find_receipt(snapshot)
        except DataError:
            receipt = None
        if receipt is not None and receipt.snapshot == snapshot:
            receipts[snapshot] = receipt
        else:
            # Also a receipt under another id's name: prune must not remove files on its word.
            damaged.add(snapshot)
    ids = {*found, *receipts, *damaged}
    entries = [await _entry(storage, snapshot, found[snapshot], names, receipts, damaged) for snapshot in ids]
    return sorted(entries, key=lambda entry: (entry.order, entry.snapshot), reverse=True)


async def _entry(
    storage: AsyncStorage,
    snapshot: str,
    objects: _Objects,
    names: ObjectNames,
    receipts: dict[str, Receipt],
    damaged: set[str],
) -> SnapshotEntry:
    receipt = receipts.get(snapshot)
    unfinished = None
    if receipt is None and "run.json" in objects.staged:
        try:
            unfinished = await AsyncLake(storage).run_note(snapshot)
        except DataError:
            # An unreadable note hides which parent it reads, so it counts as damage and not as absent.
            damaged.add(snapshot)
    lock_owner = await storage.lock_owner(layout.lock_key(snapshot)) if ".lock" in objects.staged else None
    at = receipt.logical_at if receipt else unfinished.started_at if unfinished else None
    others = sum(file.bytes for file in receipt.files if names.owner_of(file.path) is None) if receipt else 0
    return SnapshotEntry(
        snapshot=snapshot,
        state=_state(objects.staged, receipt, unfinished, lock_owner, damaged=snapshot in damaged),
        at=at or dt.datetime.fromtimestamp(objects.modified_s, dt.UTC),
        lock_owner=lock_owner,
        pages=objects.pages,
        bytes=objects.bytes + others,
        modified_s=objects.modified_s,
        staged=bool(objects.staged),
        receipt=receipt,
        unfinished=unfinished,
        needs=needs_of(receipt, unfinished, receipts),
    )


def _state(
    staged: set[str], receipt: Receipt | None, unfinished: RunNote | None, lock_owner: str | None, *, damaged: bool
) -> State:
    # First: whatever the objects show, a live run may change it at any moment.
    if lock_owner is not None:
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
    """The other snapshots whose raw pages a snapshot is made from, or is being made from."""
    if receipt is not None:
        return frozenset({receipt.raw.snapshot} - {receipt.snapshot, None})  # type: ignore[arg-type]
    if unfinished is None or unfinished.parent is None:
        return frozenset()
    parent = receipts.get(unfinished.parent)
    home = parent.raw.snapshot if parent and parent.raw.snapshot else unfinished.parent
    # Both: the parent's receipt names the raw pages, and its own parent has them.
    return frozenset({unfinished.parent, home})

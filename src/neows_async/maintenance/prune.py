"""Removes old snapshots and the leftovers of dead runs. A kill at any step leaves no half snapshot that looks whole.

::

    _staging/<id>.lock                                acquired: no run writes the snapshot
    _runs/<id>.json → _staging/<id>/removed.json      one move: the snapshot no longer exists
    did a rebuild from its raw pages begin?           if so, move the receipt back and stop
    datasets, raw pages, the rest of the staging      removed, in any order
    _staging/<id>/removed.json                        removed last

A leftover without receipt and note gets a new ``removed.json``. After a kill, the next ``prune`` finds
``removed.json`` and continues.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from neows_async.errors import NotFoundError, SnapshotHeldError, most_relevant
from neows_async.lake import layout
from neows_async.lake.inventory import ObjectNames, SnapshotEntry, State, list_snapshots, needs_of
from neows_async.lake.lake import AsyncLake
from neows_async.lake.receipt import Receipt
from neows_async.lake.snapshot import lock_snapshot, update_latest
from neows_async.outputs import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from neows_async.lake.async_storage import AsyncLock, AsyncStorage


# Objects removed between two checks of the lock: on S3 it must be renewed well within a minute.
_BATCH: Final = 256


@dataclass(frozen=True, slots=True)
class Rules:
    """What to remove.

    :param keep: number of committed snapshots that stay, the newest ones; at least 1
    :param resume_within_s: leftovers of dead runs are removed once they are older than this
    :param dry_run: only report what would be removed
    """

    keep: int
    resume_within_s: float
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ValueError("at least one snapshot must stay")


@dataclass(frozen=True, slots=True)
class Removed:
    """A snapshot, or the rest of one, was removed; in a dry run it would be.

    :param files: number of its objects
    :param bytes: of its objects
    :param foreign: number of objects in its folders that no run wrote, by their names; they stay
    """

    snapshot: str
    state: State
    files: int
    bytes: int
    foreign: int


@dataclass(frozen=True, slots=True)
class Left:
    """A snapshot that the rules would remove, but that stays for ``reason``."""

    snapshot: str
    state: State
    reason: str


Outcome: TypeAlias = Removed | Left


@dataclass(frozen=True, slots=True)
class Pruned:
    """The result of one ``prune``.

    :param kept: the committed snapshots that exist now, newest first
    :param swept: number of unfinished files of dead writers that were also removed
    """

    outcomes: tuple[Outcome, ...]
    kept: tuple[str, ...]
    swept: int


async def prune(
    storage: AsyncStorage, rules: Rules, *, now: dt.datetime, report: Callable[[Outcome], None] = lambda _: None
) -> Pruned:
    """Remove all but the newest committed snapshots, and the leftovers of dead runs.

    These stay: ``latest``, a snapshot from whose raw pages a remaining one is made, a snapshot that a live run has
    locked, and every object that no run wrote. Can be cancelled or killed at any time; the next call continues.

    :param report: called with each outcome as it happens
    :raises DataError: ``latest`` is damaged
    :raises StorageError: the lake could not be read or written
    """
    try:
        return await _Pruning(storage, rules, now, report).execute()
    except BaseExceptionGroup as group:
        relevant = most_relevant(group)
        raise relevant from relevant.__cause__


class _Pruning:
    def __init__(
        self, storage: AsyncStorage, rules: Rules, now: dt.datetime, report: Callable[[Outcome], None]
    ) -> None:
        self._storage = storage
        self._lake = AsyncLake(storage)
        self._names = ObjectNames(registry.file_patterns())
        self._rules = rules
        self._now = now
        self._report = report
        self._existing: dict[str, SnapshotEntry] = {}
        self._outcomes: list[Outcome] = []

    async def execute(self) -> Pruned:
        entries = await list_snapshots(self._storage, self._names)
        self._existing = {entry.snapshot: entry for entry in entries}
        # First: latest never goes, so it must be right before anything is chosen.
        latest = await self._correct_latest(entries)
        # Leftovers before snapshots: a dead rebuild would keep its parent.
        for entry in entries:
            if entry.receipt is None:
                await self._try_leftover(entry)
        doomed = _to_remove(entries, latest, self._rules.keep)
        # Children before parents, see _to_remove: else a parent would stay for a rebuild that goes, too.
        for entry in doomed:
            await self._try_to_remove(entry)
        for entry in entries:
            if entry.receipt is not None and entry.staged and entry not in doomed:
                await self._tidy(entry)
        # Last, and in every folder: temporary files of dead writers.
        swept = 0 if self._rules.dry_run else await self._storage.sweep("")
        kept = tuple(entry.snapshot for entry in entries if entry.receipt and entry.snapshot in self._existing)
        return Pruned(tuple(self._outcomes), kept, swept)

    async def _correct_latest(self, entries: Sequence[SnapshotEntry]) -> str | None:
        """The id of ``latest``. If a run died between its commit and the update of ``latest``, update it now."""
        newest = next((entry.receipt for entry in entries if entry.receipt), None)
        latest = await self._lake.latest()
        if newest is None:
            return latest.snapshot if latest else None
        # A run that died between its receipt and latest.json, or a user who removed a receipt by hand.
        if not self._rules.dry_run and (latest is None or latest.snapshot != newest.snapshot):
            if latest is not None and await self._lake.find_receipt(latest.snapshot) is None:
                await self._storage.put(layout.LATEST, newest.to_json())  # it named a snapshot that was removed by hand
            else:
                await update_latest(self._storage, newest)
            latest = await self._lake.latest()
        return latest.snapshot if latest else newest.snapshot

    async def _try_leftover(self, entry: SnapshotEntry) -> None:
        age_s = (self._now - dt.datetime.fromtimestamp(entry.modified_s, dt.UTC)).total_seconds()
        if entry.unfinished is not None:
            age_s = (self._now - entry.unfinished.started_at).total_seconds()
        match entry.state:
            case State.REMOVED:
                await self._try_to_remove(entry)
            case State.UNFINISHED | State.LEFTOVER if age_s > self._rules.resume_within_s:
                await self._try_to_remove(entry)
            case State.UNFINISHED:
                self._leave(entry, "it can still be resumed")
            case State.READY:
                reason = (
                    f"all of it is written: 'neows-async run --snapshot {entry.snapshot}' with its settings commits it"
                )
                self._leave(entry, reason)
            case State.DAMAGED:
                self._leave(entry, "its receipt or note cannot be read; restore it, or move it away")
            case State.WRITTEN:
                self._leave(entry, f"held by {entry.lock_owner}")
            case _:
                pass  # too young: its run may still be resumed

    async def _try_to_remove(self, entry: SnapshotEntry) -> None:
        """Remove ``entry``, unless a reader, a lock or the dry run forbids it."""
        if (reader := self._reader_of(entry.snapshot)) is not None:
            self._leave(entry, f"{reader} is made from its raw pages")
        elif entry.lock_owner is not None:
            self._leave(entry, f"held by {entry.lock_owner}")
        elif self._rules.dry_run:
            ours, foreign = await self._contents(entry.snapshot, entry.receipt)
            self._note_removed(entry, ours, foreign)
        else:
            try:
                # From here on no run can resume it. Nothing was changed before.
                lock = await lock_snapshot(self._storage, entry.snapshot)
            except SnapshotHeldError as exc:
                self._leave(entry, str(exc))
                return
            try:
                await self._remove(entry, lock)
            finally:
                await lock.release()

    async def _remove(self, entry: SnapshotEntry, lock: AsyncLock) -> None:
        hidden = layout.removal_key(entry.snapshot)
        shown = layout.receipt_key(entry.snapshot) if entry.receipt else layout.run_note_key(entry.snapshot)
        # With the lock, look again: the list of snapshots is older than the lock.
        if entry.receipt is None and await self._lake.find_receipt(entry.snapshot) is not None:
            self._leave(entry, "it was committed meanwhile")
            return
        if entry.state is State.LEFTOVER and await self._lake.run_note(entry.snapshot) is not None:
            self._leave(entry, "it was begun meanwhile")
            return
        # Before the receipt is hidden: it names the files.
        ours, foreign = await self._contents(entry.snapshot, entry.receipt)
        if entry.state is not State.REMOVED and not await self._hide(entry, shown, hidden):
            return
        # After the hiding, before the first deletion: a lost lock means that somebody else may write here.
        # Also renews the lease.
        await lock.check()
        last = {hidden, layout.lock_key(entry.snapshot)}
        keys = [key for key in ours if key not in last and key != shown]
        for start in range(0, len(keys), _BATCH):
            await self._storage.delete_all(keys[start : start + _BATCH])
            await lock.check()
        for folder in _folders(self._names, entry.snapshot, entry.receipt):
            await self._storage.sweep(folder)  # empty folders, and temporary files of killed writers
        # Last: until here the next prune knows from this object that the removal must go on.
        await self._storage.delete(hidden)
        self._note_removed(entry, ours, foreign)

    async def _hide(self, entry: SnapshotEntry, shown: str, hidden: str) -> bool:
        """Hide the snapshot from readers and runs; False if it must stay after all."""
        known = entry.receipt is not None or entry.unfinished is not None
        try:
            # A leftover of raw pages alone can be rebuilt from, too: removed.json stops that.
            await (self._storage.move(shown, hidden) if known else self._storage.put(hidden, b"{}\n"))
        except NotFoundError:
            self._leave(entry, "another process removed it")
            return False
        # Only now look for readers: a rebuild writes its note first and then looks for the parent's receipt. So at
        # least one of the two sees the other.
        if (reader := await self._new_reader_of(entry.snapshot)) is None:
            return True
        await (self._storage.move(hidden, shown) if known else self._storage.delete(hidden))
        self._leave(entry, f"{reader} is being made from its raw pages")
        return False

    async def _tidy(self, entry: SnapshotEntry) -> None:
        """Remove what a run staged that died between its commit and its cleanup."""
        if entry.lock_owner is not None:
            return
        staged = await self._storage.list(layout.STAGING)
        ours = {found.key: found.bytes for found in staged if self._names.owner_of(found.key) == entry.snapshot}
        if not self._rules.dry_run:
            try:
                lock = await lock_snapshot(self._storage, entry.snapshot)
            except SnapshotHeldError:
                return
            try:
                # With the lock: a staged file is only a leftover while the receipt exists.
                if await self._lake.find_receipt(entry.snapshot) is not None:
                    await self._storage.delete_all(ours.keys() - {layout.lock_key(entry.snapshot)})
            finally:
                await lock.release()  # removes the lock's object
        self._add(Removed(entry.snapshot, State.LEFTOVER, len(ours), sum(ours.values()), 0))

    async def _contents(self, snapshot: str, receipt: Receipt | None) -> tuple[dict[str, int], int]:
        """The objects that a run wrote as this snapshot, with their sizes, and the number of other objects.

        In datasets these are the files that the receipt names; without a receipt, objects with names that runs give.
        """
        # After a kill the receipt is in removed.json.
        receipt = receipt or await self._hidden_receipt(snapshot)
        named = {file.path for file in receipt.files} if receipt else set()
        by_name = (f"{layout.RAW}/", f"{layout.STAGING}/") if receipt else ("",)
        ours: dict[str, int] = {}
        foreign = 0
        for folder in _folders(self._names, snapshot, receipt):
            for found in await self._storage.list(folder):
                if found.key in named or (
                    found.key.startswith(by_name) and self._names.owner_of(found.key) == snapshot
                ):
                    ours[found.key] = found.bytes
                else:
                    foreign += 1
        return ours, foreign

    async def _hidden_receipt(self, snapshot: str) -> Receipt | None:
        try:
            return Receipt.model_validate_json(await self._storage.get(layout.removal_key(snapshot)))
        except (NotFoundError, ValueError):
            return None  # the note of an unfinished snapshot

    def _reader_of(self, snapshot: str) -> str | None:
        others = (entry for entry in self._existing.values() if entry.snapshot != snapshot)
        return next((entry.snapshot for entry in others if snapshot in entry.needs), None)

    async def _new_reader_of(self, snapshot: str) -> str | None:
        """A snapshot that began to read its raw pages since we listed the snapshots."""
        receipts = {entry.snapshot: entry.receipt for entry in self._existing.values() if entry.receipt}
        # Only what is new since the listing: the others were tested before the lock.
        ids = {*await self._lake.unfinished_ids(), *await self._lake.committed_ids()} - self._existing.keys()
        for one in sorted(ids):
            receipt = await self._lake.find_receipt(one)
            unfinished = None if receipt else await self._lake.run_note(one)
            if snapshot in needs_of(receipt, unfinished, receipts):
                return one
        return None

    def _note_removed(self, entry: SnapshotEntry, ours: dict[str, int], foreign: int) -> None:
        self._existing.pop(entry.snapshot)
        self._add(Removed(entry.snapshot, entry.state, len(ours), sum(ours.values()), foreign))

    def _leave(self, entry: SnapshotEntry, reason: str) -> None:
        self._add(Left(entry.snapshot, entry.state, reason))

    def _add(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        self._report(outcome)


def _folders(names: ObjectNames, snapshot: str, receipt: Receipt | None) -> list[str]:
    """The folders of a snapshot's files, without its receipt."""
    datasets = set(names.folders)
    datasets |= {file.dataset for file in receipt.files} if receipt else set()
    return [
        *(layout.dataset_folder(dataset, snapshot) for dataset in sorted(datasets)),
        layout.staging_folder(snapshot),
    ]


def _to_remove(entries: Sequence[SnapshotEntry], latest: str | None, keep: int) -> list[SnapshotEntry]:
    """The committed snapshots except the newest ``keep`` and ``latest``. A rebuild comes before its parent."""
    committed = [entry for entry in entries if entry.receipt is not None]
    doomed = [entry for entry in committed[keep:] if entry.snapshot != latest]
    return sorted(doomed, key=lambda entry: entry.receipt.committed_at if entry.receipt else entry.at, reverse=True)

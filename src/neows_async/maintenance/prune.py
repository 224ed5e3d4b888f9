"""Removes old snapshots and the leftovers of dead runs: whole, in an order in which a kill does no harm.

::

    _staging/<id>.lock                                the lock: no run writes it
    _runs/<id>.json → _staging/<id>/removed.json      hidden, in one step: it exists no more
    readers of its raw pages that began meanwhile?    then it gets its receipt back
    datasets, raw pages, the rest of the staging      removed, in any order
    _staging/<id>/removed.json                        removed last

What has neither receipt nor note is hidden by a ``removed.json`` of its own. Killed anywhere, the next ``prune``
finds ``removed.json`` and goes on.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from neows_async.errors import NotFoundError, SnapshotHeldError, most_relevant
from neows_async.lake import layout
from neows_async.lake.inventory import SnapshotEntry, State, list_snapshots, needs_of, owner_of
from neows_async.lake.lake import AsyncLake
from neows_async.lake.receipt import Receipt
from neows_async.lake.snapshot import lock_snapshot, update_latest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from neows_async.lake.async_storage import AsyncLock, AsyncStorage


# Between two looks at the lock; on S3 it must be renewed well before a minute has passed.
_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True)
class Rules:
    """What is to go.

    :param keep: so many of the newest committed snapshots stay, at least 1
    :param resume_within_s: what a dead run left is removed when it is older than this
    :param dry_run: only say what would be done
    """

    keep: int
    resume_within_s: float
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ValueError("at least one snapshot must stay")


@dataclass(frozen=True, slots=True)
class Removed:
    """A snapshot, or what was left of one, is gone; in a dry run it would be.

    :param foreign: so many objects in its folders have names that no run writes; they stay
    """

    snapshot: str
    state: State
    files: int
    bytes: int
    foreign: int


@dataclass(frozen=True, slots=True)
class Left:
    """It would have to go, but stays, and why."""

    snapshot: str
    state: State
    reason: str


Outcome: TypeAlias = Removed | Left


@dataclass(frozen=True, slots=True)
class Pruned:
    """All that was done.

    :param kept: the committed snapshots that are there now, newest first
    :param swept: half-written files of dead writers that were removed besides
    """

    outcomes: tuple[Outcome, ...]
    kept: tuple[str, ...]
    swept: int


async def prune(
    storage: AsyncStorage, rules: Rules, *, now: dt.datetime, tell: Callable[[Outcome], None] = lambda _: None
) -> Pruned:
    """Remove all but the newest committed snapshots, and what dead runs left.

    ``latest`` is never removed, nor is a snapshot from whose raw pages another one that stays is
    made, nor one that a live run holds. What no run wrote is left alone. Can be cancelled or
    killed at any time; the next call goes on.

    :param tell: called with each outcome as it comes
    :raises DataError: ``latest`` is damaged
    :raises StorageError: the lake failed
    """
    try:
        return await _Pruning(storage, rules, now, tell).execute()
    except BaseExceptionGroup as group:
        the_one = most_relevant(group)
        raise the_one from the_one.__cause__


class _Pruning:
    def __init__(self, storage: AsyncStorage, rules: Rules, now: dt.datetime, tell: Callable[[Outcome], None]) -> None:
        self._storage = storage
        self._lake = AsyncLake(storage)
        self._rules = rules
        self._now = now
        self._tell = tell
        self._there: dict[str, SnapshotEntry] = {}
        self._outcomes: list[Outcome] = []

    async def execute(self) -> Pruned:
        stock = await list_snapshots(self._storage)
        self._there = {entry.snapshot: entry for entry in stock}
        latest = await self._right_latest(stock)
        for entry in stock:
            if entry.receipt is None:
                await self._try_leftover(entry)
        victims = _victims(stock, latest, self._rules.keep)
        for entry in victims:
            await self._try(entry)
        for entry in stock:
            if entry.receipt is not None and entry.staged and entry not in victims:
                await self._tidy(entry)
        swept = 0 if self._rules.dry_run else await self._storage.sweep("")
        kept = tuple(entry.snapshot for entry in stock if entry.receipt and entry.snapshot in self._there)
        return Pruned(tuple(self._outcomes), kept, swept)

    async def _right_latest(self, stock: Sequence[SnapshotEntry]) -> str | None:
        """The id that ``latest`` has; where a run died before it could set it, it is set now."""
        newest = next((entry.receipt for entry in stock if entry.receipt), None)
        latest = await self._lake.latest()
        if newest is None:
            return latest.snapshot if latest else None
        if not self._rules.dry_run and (latest is None or latest.snapshot != newest.snapshot):
            if latest is not None and await self._lake.find_receipt(latest.snapshot) is None:
                await self._storage.put(layout.LATEST, newest.to_json())  # what it named was removed by hand
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
                await self._try(entry)
            case State.UNFINISHED | State.LEFTOVER if age_s > self._rules.resume_within_s:
                await self._try(entry)
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
                pass  # too young to be sure that nobody comes back for it

    async def _try(self, entry: SnapshotEntry) -> None:
        """Remove ``entry``, unless something speaks against it."""
        if (reader := self._reader_of(entry.snapshot)) is not None:
            self._leave(entry, f"its raw pages are what {reader} is made from")
        elif entry.lock_owner is not None:
            self._leave(entry, f"held by {entry.lock_owner}")
        elif self._rules.dry_run:
            ours, foreign = await self._contents(entry.snapshot, entry.receipt)
            self._gone(entry, ours, foreign)
        else:
            try:
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
        if entry.receipt is None and await self._lake.find_receipt(entry.snapshot) is not None:
            self._leave(entry, "it was committed meanwhile")
            return
        if entry.state is State.LEFTOVER and await self._lake.run_note(entry.snapshot) is not None:
            self._leave(entry, "it was begun meanwhile")
            return
        ours, foreign = await self._contents(entry.snapshot, entry.receipt)
        if entry.state is not State.REMOVED and not await self._hide(entry, shown, hidden):
            return
        await lock.check()
        last = {hidden, layout.lock_key(entry.snapshot)}
        doomed = [key for key in ours if key not in last and key != shown]
        for start in range(0, len(doomed), _AT_ONCE):
            await self._storage.delete_all(doomed[start : start + _AT_ONCE])
            await lock.check()
        for folder in _folders(entry.snapshot, entry.receipt):
            await self._storage.sweep(folder)  # what a run that was killed had not even begun to write: empty folders
        await self._storage.delete(hidden)
        self._gone(entry, ours, foreign)

    async def _hide(self, entry: SnapshotEntry, shown: str, hidden: str) -> bool:
        """Let nobody begin to read it, or go on with it; False if it must stay after all."""
        known = entry.receipt is not None or entry.unfinished is not None
        try:
            # Raw pages of which nothing else is left can be read as well.
            await (self._storage.move(shown, hidden) if known else self._storage.put(hidden, b"{}\n"))
        except NotFoundError:
            self._leave(entry, "somebody else was faster")
            return False
        if (reader := await self._new_reader_of(entry.snapshot)) is None:
            return True
        await (self._storage.move(hidden, shown) if known else self._storage.delete(hidden))
        self._leave(entry, f"its raw pages are what {reader} is being made from")
        return False

    async def _tidy(self, entry: SnapshotEntry) -> None:
        """A run died between its commit and the end: what it staged is of no use any more."""
        if entry.lock_owner is not None:
            return
        there = await self._storage.list("_staging")
        ours = {found.key: found.bytes for found in there if owner_of(found.key) == entry.snapshot}
        if not self._rules.dry_run:
            try:
                lock = await lock_snapshot(self._storage, entry.snapshot)
            except SnapshotHeldError:
                return
            try:
                if await self._lake.find_receipt(entry.snapshot) is not None:
                    await self._storage.delete_all(ours.keys() - {layout.lock_key(entry.snapshot)})
            finally:
                await lock.release()  # which removes it
        self._say(Removed(entry.snapshot, State.LEFTOVER, len(ours), sum(ours.values()), 0))

    async def _contents(self, snapshot: str, receipt: Receipt | None) -> tuple[dict[str, int], int]:
        """What a run wrote under this id, with its bytes, and how many other objects lie in the same folders.

        Of a dataset that is what the receipt names; where there is none, what has a name that only runs give.
        """
        receipt = receipt or await self._hidden_receipt(snapshot)
        named = {file.path for file in receipt.files} if receipt else set()
        by_name = ("raw/", "_staging/") if receipt else ("",)
        ours: dict[str, int] = {}
        foreign = 0
        for folder in _folders(snapshot, receipt):
            for found in await self._storage.list(folder):
                if found.key in named or (found.key.startswith(by_name) and owner_of(found.key) == snapshot):
                    ours[found.key] = found.bytes
                else:
                    foreign += 1
        return ours, foreign

    async def _hidden_receipt(self, snapshot: str) -> Receipt | None:
        try:
            return Receipt.model_validate_json(await self._storage.get(layout.removal_key(snapshot)))
        except (NotFoundError, ValueError):
            return None  # it was an unfinished one's note

    def _reader_of(self, snapshot: str) -> str | None:
        return _reader(snapshot, self._there.values())

    async def _new_reader_of(self, snapshot: str) -> str | None:
        """Who began to read its raw pages since we took stock."""
        receipts = {entry.snapshot: entry.receipt for entry in self._there.values() if entry.receipt}
        for one in sorted({*await self._lake.unfinished_ids(), *await self._lake.committed_ids()} - self._there.keys()):
            receipt = await self._lake.find_receipt(one)
            unfinished = None if receipt else await self._lake.run_note(one)
            if snapshot in needs_of(receipt, unfinished, receipts):
                return one
        return None

    def _gone(self, entry: SnapshotEntry, ours: dict[str, int], foreign: int) -> None:
        self._there.pop(entry.snapshot)
        self._say(Removed(entry.snapshot, entry.state, len(ours), sum(ours.values()), foreign))

    def _leave(self, entry: SnapshotEntry, reason: str) -> None:
        self._say(Left(entry.snapshot, entry.state, reason))

    def _say(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        self._tell(outcome)


def _folders(snapshot: str, receipt: Receipt | None) -> list[str]:
    """Where the files of a snapshot lie, all but its receipt."""
    datasets = set(layout.SNAPSHOT_FOLDERS)
    datasets |= {file.dataset for file in receipt.files} if receipt else set()
    return [
        *(layout.dataset_folder(dataset, snapshot) for dataset in sorted(datasets)),
        layout.staging_folder(snapshot),
    ]


def _victims(stock: Sequence[SnapshotEntry], latest: str | None, keep: int) -> list[SnapshotEntry]:
    """Committed snapshots beyond the newest ``keep``. A rebuild comes before what it was made from."""
    committed = [entry for entry in stock if entry.receipt is not None]
    victims = [entry for entry in committed[keep:] if entry.snapshot != latest]
    return sorted(victims, key=lambda entry: entry.receipt.committed_at if entry.receipt else entry.at, reverse=True)


def _reader(snapshot: str, entries: Iterable[SnapshotEntry]) -> str | None:
    return next((entry.snapshot for entry in entries if snapshot in entry.needs and entry.snapshot != snapshot), None)

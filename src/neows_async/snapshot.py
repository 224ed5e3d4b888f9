"""A snapshot's life: begun or resumed, held by one run, committed at one point.

::

    _staging/<id>/run.json      created, exclusively: the id is taken, the snapshot unfinished
    _staging/<id>/commit.json   the receipt-to-be: every file is whole and hashed; from here on the
                                snapshot is rolled forward, whoever comes next
    <final names>               the files get them one by one
    _runs/<id>.json             created, exclusively: THE commit; the snapshot exists
    _runs/latest.json           moved on
    _staging/<id>/              removed

A run that dies between two of these lines is finished by the next one.
"""

from __future__ import annotations

import datetime as dt
import functools
import itertools
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from pydantic import BaseModel, ValidationError

from neows_async import lake as layout
from neows_async.errors import (
    AlreadyExistsError,
    DataError,
    NotFoundError,
    SettingsError,
    SnapshotHeldError,
    StorageError,
)
from neows_async.events import Listener, SnapshotPassedOver
from neows_async.receipt import Receipt, Unfinished

if TYPE_CHECKING:
    from types import TracebackType

    from neows_async.lake import Lake, LakeLock

_MAX_JSON_BYTES: Final = 64 << 20
_Record = TypeVar("_Record", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a run wants to be, as far as finding its snapshot goes.

    :param identity: must equal an unfinished snapshot's to resume it
    :param derivation: must equal a committed snapshot's for it to be the answer
    :param archive: raw pages are kept; otherwise only the id of a dead try is taken over
    """

    identity: dict[str, Any]
    derivation: dict[str, Any]
    synthetic: bool
    archive: bool
    parent: str | None
    snapshot: str | None
    fresh: bool
    resume_within_s: float
    now: dt.datetime


class Snapshot:
    """An unfinished snapshot, held until the ``with`` block ends. ``committed`` is its receipt, if it
    turned out to exist already.
    """

    def __init__(self, lake: Lake, unfinished: Unfinished, lock: LakeLock, *, resumed: bool) -> None:
        self._lake = lake
        self._lock = lock
        self._unfinished = unfinished
        self.id = unfinished.snapshot
        self.started_at = unfinished.started_at
        self.resumed = resumed
        self.committed: Receipt | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.release()

    async def release(self) -> None:
        """Let others have it; never raises."""
        await self._lock.release()

    async def keep(self) -> None:
        """Renew the lock for as long as this runs.

        :raises SnapshotHeldError: it was lost to another run
        """
        await self._lock.keep()

    async def commit(self, receipt: Receipt) -> None:
        """Make it exist. Every file of ``receipt`` waits, whole and hashed, in the staging folder.

        :raises SnapshotHeldError: the lock was lost to another run
        :raises StorageError: the storage failed; the next run goes on from there
        """
        await self._lock.check()
        # To the end: were it abandoned and came late, the next run would find an intent without its files.
        await self._lake.put_to_the_end(commit_key(self.id), receipt.to_json())
        await self._roll_forward(receipt)

    async def _roll_forward(self, receipt: Receipt) -> None:
        for file in receipt.files:
            staged = layout.staged_key(self.id, file.path)
            try:
                # It may be abandoned: one that comes late finds nothing to move, for the next run did it.
                await self._lake.call(file.path, functools.partial(self._lake.storage.move, staged, file.path))
            except NotFoundError:
                # Moved before the last run died, or lost: the storage knows.
                if not await _lies(self._lake, file.path, file.bytes):
                    raise StorageError(
                        f"{self._lake.uri}: {file.path} was removed in the middle of the commit; run again"
                    ) from None
        await self._lock.check()
        try:
            await self._lake.create(layout.receipt_key(self.id), receipt.to_json())
        except AlreadyExistsError:
            existing = await read_receipt(self._lake, self.id)
            if existing != receipt:
                raise
        self.committed = receipt
        await self.tidy()

    async def can_commit(self, receipt: Receipt) -> bool:
        """Whether each of its files lies, with its size, where it waits or under its final name."""
        staged = {entry.key: entry.bytes for entry in await self._lake.list(layout.staging_folder(self.id))}
        for file in receipt.files:
            waiting = staged.get(layout.staged_key(self.id, file.path))
            if waiting != file.bytes and (waiting is not None or not await _lies(self._lake, file.path, file.bytes)):
                return False
        return True

    async def take_back(self, receipt: Receipt) -> None:
        """Begin the datasets anew where a commit cannot be finished: its intent reached the storage after its
        writer's death and the next run's clearing, or somebody removed a file. Nobody refers to what was moved.
        """
        await self._lake.delete_all(file.path for file in receipt.files)
        await self.clear_staged()

    async def note_pause(self, resume_at_s: float) -> None:
        """Write down from when it is worth going on (UTC, seconds since 1970)."""
        resume_at = dt.datetime.fromtimestamp(resume_at_s, dt.UTC)
        self._unfinished = self._unfinished.model_copy(update={"resume_at": resume_at})
        await self._lake.put(run_key(self.id), self._unfinished.to_json())

    async def tidy(self) -> None:
        """After the commit: let ``latest`` follow, and remove the staging folder."""
        if self.committed is None:
            raise RuntimeError("not committed")
        await follow_latest(self._lake, self.committed)
        await self._lake.delete_folder(layout.staging_folder(self.id))

    async def clear_staged(self) -> None:
        """Remove what an earlier try derived; the raw zone stays."""
        keep = frozenset({run_key(self.id)})
        await self._lake.delete_folder(layout.staging_folder(self.id), keep=keep)


async def open_snapshot(lake: Lake, wanted: Wanted, listener: Listener) -> Snapshot:
    """Find the snapshot that ``wanted`` began, or begin one; hold it.

    :raises SnapshotHeldError: another live run holds it
    :raises SettingsError: the named snapshot is of other settings, or real and synthetic data would mix
    :raises StorageError: the lake failed
    """
    await _refuse_mixing(lake, wanted)
    snapshot = await _open(lake, wanted, listener)
    if wanted.parent is not None and snapshot.committed is None:
        try:
            await _require_parent(lake, wanted.parent)
        except BaseException as exc:
            try:
                if isinstance(exc, SettingsError) and not snapshot.resumed:
                    await lake.delete_folder(layout.staging_folder(snapshot.id))
            finally:
                await snapshot.release()
            raise
    return snapshot


async def _open(lake: Lake, wanted: Wanted, listener: Listener) -> Snapshot:
    if wanted.snapshot is not None:
        return await _open_named(lake, wanted, wanted.snapshot)
    if not wanted.fresh:
        found = await _find_unfinished(lake, wanted, listener)
        if found is not None:
            return await _hold(lake, found, wanted, resumed=True)
    base = wanted.now.strftime("%Y%m%dT%H%M%SZ")
    for number in itertools.count(1):
        snapshot = base if number == 1 else f"{base}-{number}"
        try:
            return await _begin(lake, wanted, snapshot)
        except (AlreadyExistsError, SnapshotHeldError):  # of this very second, too
            continue
    raise AssertionError("unreachable")


async def _open_named(lake: Lake, wanted: Wanted, snapshot: str) -> Snapshot:
    receipt = await receipt_or_none(lake, snapshot)
    if receipt is not None:
        for kind, ours, theirs in (
            ("identity", wanted.identity, receipt.identity),
            ("derivation", wanted.derivation, receipt.derivation),
        ):
            if ours != theirs:
                raise SettingsError(
                    f"snapshot {snapshot} is committed with another {_difference(ours, theirs)} ({kind}); a committed "
                    f"snapshot never changes: choose another --snapshot, or rebuild with --source archive "
                    f"--from-snapshot {snapshot}"
                )
        if wanted.fresh:
            raise SettingsError(f"snapshot {snapshot} is committed; --fresh needs another --snapshot")
        return await _hold(lake, _unfinished(wanted, snapshot), wanted, resumed=True, receipt=receipt)
    unfinished = await unfinished_or_none(lake, snapshot)
    if unfinished is None:
        try:
            return await _begin(lake, wanted, snapshot)
        except AlreadyExistsError:  # somebody began it, or even committed it, while we looked
            return await _open_named(lake, wanted, snapshot)
    if unfinished.identity != wanted.identity:
        raise SettingsError(
            f"snapshot {snapshot} was begun with another {_difference(wanted.identity, unfinished.identity)}; "
            "give the same to finish it, or choose another --snapshot"
        )
    if wanted.fresh:
        raise SettingsError(f"snapshot {snapshot} is unfinished; finish it without --fresh, or choose another id")
    return await _hold(lake, unfinished, wanted, resumed=True)


async def _find_unfinished(lake: Lake, wanted: Wanted, listener: Listener) -> Unfinished | None:
    """The newest unfinished snapshot of the same identity; others that could be meant are named."""
    chosen: Unfinished | None = None
    for snapshot in sorted(await unfinished_ids(lake), reverse=True):
        unfinished = await unfinished_or_none(lake, snapshot)
        if unfinished is None or unfinished.parent != wanted.parent or unfinished.named:
            # Who gave a snapshot its name asks for it by that name.
            continue
        if unfinished.identity != wanted.identity:
            reason = f"it was begun with another {_difference(wanted.identity, unfinished.identity)}"
            listener(SnapshotPassedOver(snapshot, reason))
            continue
        if chosen is not None:
            listener(SnapshotPassedOver(snapshot, f"{chosen.snapshot} is newer"))
            continue
        age_s = (wanted.now - unfinished.started_at).total_seconds()
        if age_s > wanted.resume_within_s:
            reason = f"it was begun {_hours(age_s)} ago; --resume-within is {_hours(wanted.resume_within_s)}"
            listener(SnapshotPassedOver(snapshot, reason))
            continue
        chosen = unfinished
    return chosen


async def _begin(lake: Lake, wanted: Wanted, snapshot: str) -> Snapshot:
    """:raises AlreadyExistsError: somebody else began it, or committed it"""
    unfinished = _unfinished(wanted, snapshot)
    lock = await take_lock(lake, snapshot)
    try:
        # Only now, with the lock, nobody can commit it any more.
        if await receipt_or_none(lake, snapshot) is not None:
            raise AlreadyExistsError(f"{lake.uri}: snapshot {snapshot} is committed")
        if await _is_half_removed(lake, snapshot):
            raise SettingsError(
                f"snapshot {snapshot} is half removed; 'neows-async prune' finishes that, or choose another --snapshot"
            )
        # It may be abandoned: one that comes late finds another's, or is an empty snapshot to adopt.
        key = run_key(snapshot)
        await lake.call(key, lambda: lake.storage.create(key, unfinished.to_json()))
    except BaseException:
        await lock.release()
        raise
    return Snapshot(lake, unfinished, lock, resumed=False)


async def _hold(
    lake: Lake, unfinished: Unfinished, wanted: Wanted, *, resumed: bool, receipt: Receipt | None = None
) -> Snapshot:
    """Lock it, and finish a commit that was begun."""
    lock = await take_lock(lake, unfinished.snapshot)
    snapshot = Snapshot(lake, unfinished, lock, resumed=resumed)
    try:
        # Who was killed within a put left a part of it, where nobody else would look.
        await lake.sweep(layout.raw_snapshot_folder(snapshot.id))
        await lake.sweep(layout.RECEIPTS)
        # Read again: it may have been committed between finding and holding it.
        snapshot.committed = receipt or await receipt_or_none(lake, snapshot.id)
        intent = await _read(lake, commit_key(snapshot.id), Receipt)
        if snapshot.committed is not None:
            await snapshot.tidy()
        elif intent is not None and await snapshot.can_commit(intent):
            await snapshot._roll_forward(intent)  # noqa: SLF001 - the other half of this class
        elif intent is not None:
            await snapshot.take_back(intent)
        else:
            await snapshot.clear_staged()
        if snapshot.committed is not None and snapshot.committed.derivation != wanted.derivation:
            raise SettingsError(
                f"snapshot {snapshot.id} was ready with another "
                f"{_difference(wanted.derivation, snapshot.committed.derivation)} and is committed now; for the new "
                f"one run --source archive --from-snapshot {snapshot.id}"
            )
    except BaseException:
        await lock.release()
        raise
    return snapshot


async def unfinished_ids(lake: Lake) -> list[str]:
    """The ids of the snapshots that were begun and are still in the staging folder, ascending."""
    keys = [entry.key for entry in await lake.list("_staging")]
    parts = [key.split("/") for key in keys]
    return sorted({snapshot for _, snapshot, *rest in parts if rest == ["run.json"]})


async def read_receipt(lake: Lake, snapshot: str) -> Receipt:
    """The receipt of a committed snapshot; ``latest`` is the latest one's.

    :raises NotFoundError: there is no such snapshot
    :raises DataError: it is damaged
    """
    receipt = await receipt_or_none(lake, snapshot)
    if receipt is None:
        what = "no snapshot yet" if snapshot == "latest" else f"no committed snapshot {snapshot}"
        raise NotFoundError(f"{lake.uri} has {what}")
    return receipt


@dataclass(frozen=True, slots=True)
class RawOf:
    """Where the raw pages of a snapshot lie.

    :param named: the snapshot asked for, by its id
    :param snapshot: whose raw zone they are in: that one, or the one it was rebuilt from
    :param limit: what that snapshot was limited to
    """

    named: str
    snapshot: str
    synthetic: bool
    limit: int | None


async def find_raw(lake: Lake, snapshot: str) -> RawOf:
    """The raw pages behind ``snapshot``, committed or not; ``latest`` is the latest one's.

    :raises NotFoundError: there is no such snapshot, or it kept no raw pages
    """
    receipt = await receipt_or_none(lake, snapshot)
    if receipt is not None:
        if receipt.raw.snapshot is None:
            raise NotFoundError(f"snapshot {receipt.snapshot} was made without an archive; it has no raw pages")
        return RawOf(receipt.snapshot, receipt.raw.snapshot, receipt.source.synthetic, receipt.identity.get("limit"))
    unfinished = await unfinished_or_none(lake, snapshot)
    if unfinished is None:
        raise NotFoundError(f"{lake.uri} has no snapshot {snapshot}; see its _runs/ and raw/ folders")
    return RawOf(snapshot, snapshot, unfinished.synthetic, unfinished.identity.get("limit"))


async def receipt_or_none(lake: Lake, snapshot: str) -> Receipt | None:
    """The receipt of ``snapshot``; None if it is not committed.

    :raises DataError: it is damaged
    """
    return await _read(lake, layout.receipt_key(snapshot), Receipt)


async def unfinished_or_none(lake: Lake, snapshot: str) -> Unfinished | None:
    """What the run that began ``snapshot`` noted; None if nobody did, or it is committed and tidied up.

    :raises DataError: it is damaged
    """
    return await _read(lake, run_key(snapshot), Unfinished)


async def _read(lake: Lake, key: str, type_: type[_Record]) -> _Record | None:
    try:
        return type_.model_validate_json(await lake.get(key, max_bytes=_MAX_JSON_BYTES))
    except NotFoundError:
        return None
    except ValidationError as exc:
        where = ".".join(str(part) for part in exc.errors()[0]["loc"])
        raise DataError(f"{lake.uri}: {key} is damaged ({where or 'not JSON'}); restore it, or move it away") from exc


async def _refuse_mixing(lake: Lake, wanted: Wanted) -> None:
    latest = await receipt_or_none(lake, "latest")
    synthetic = latest.source.synthetic if latest else None
    if latest is None:
        for snapshot in await unfinished_ids(lake):
            unfinished = await unfinished_or_none(lake, snapshot)
            synthetic = unfinished.synthetic if unfinished else synthetic
    if synthetic is not None and synthetic != wanted.synthetic:
        kinds = ("synthetic", "real") if wanted.synthetic else ("real", "synthetic")
        raise SettingsError(f"{lake.uri} holds {kinds[1]} objects; {kinds[0]} ones need a --root of their own")


async def follow_latest(lake: Lake, receipt: Receipt) -> None:
    """Let ``latest`` be ``receipt``, unless it is of a later snapshot."""
    latest = await receipt_or_none(lake, "latest")
    if latest is None or (latest.logical_at, latest.committed_at) <= (receipt.logical_at, receipt.committed_at):
        await lake.put(layout.LATEST, receipt.to_json())


async def _require_parent(lake: Lake, parent: str) -> None:
    """That what we read from is still there, now that our ``run.json`` says that we do.

    Who removes a snapshot hides its receipt first and then looks for such readers: of the two at
    least one sees the other.
    """
    receipt = await receipt_or_none(lake, parent)
    home = receipt.raw.snapshot if receipt is not None and receipt.raw.snapshot is not None else parent
    if await receipt_or_none(lake, home) is None and await unfinished_or_none(lake, home) is None:
        raise SettingsError(f"snapshot {home}, whose raw pages were to be read, was just removed; choose another one")


async def _is_half_removed(lake: Lake, snapshot: str) -> bool:
    try:
        await lake.get(layout.removal_key(snapshot), max_bytes=_MAX_JSON_BYTES)
    except NotFoundError:
        return False
    return True


async def _lies(lake: Lake, path: str, size_bytes: int) -> bool:
    folder = path.rpartition("/")[0]
    return any(entry.key == path and entry.bytes == size_bytes for entry in await lake.list(folder))


async def take_lock(lake: Lake, snapshot: str) -> LakeLock:
    """Hold ``snapshot`` against every other run.

    :raises SnapshotHeldError: a live run holds it
    """
    return await lake.lock(layout.lock_key(snapshot), f"process {os.getpid()} on {socket.gethostname()}")


def _unfinished(wanted: Wanted, snapshot: str) -> Unfinished:
    return Unfinished(
        snapshot=snapshot,
        parent=wanted.parent,
        synthetic=wanted.synthetic,
        archive=wanted.archive,
        started_at=wanted.now,
        identity=wanted.identity,
        named=wanted.snapshot is not None,
    )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"  # noqa: PLR2004 - an hour


def _difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    return " and ".join(f"{name} ({theirs.get(name)!r}, not {ours.get(name)!r})" for name in names)


def run_key(snapshot: str) -> str:
    """What makes an id taken."""
    return f"{layout.staging_folder(snapshot)}/run.json"


def commit_key(snapshot: str) -> str:
    """The receipt-to-be."""
    return f"{layout.staging_folder(snapshot)}/commit.json"

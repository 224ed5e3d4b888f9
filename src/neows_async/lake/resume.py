"""Finding the snapshot that a run continues, or beginning one. A lock admits one run at a time."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neows_async.errors import AlreadyExistsError, SettingsError, SnapshotHeldError
from neows_async.lake import layout
from neows_async.lake.inventory import folder_in_use
from neows_async.lake.lake import AsyncLake
from neows_async.lake.receipt import Receipt, RunNote
from neows_async.lake.snapshot import SnapshotWriter, lock_snapshot
from neows_async.telemetry.events import Listener, SnapshotPassedOver

if TYPE_CHECKING:
    import datetime as dt

    from neows_async.lake.async_storage import AsyncStorage
    from neows_async.lake.inventory import ObjectNames


@dataclass(frozen=True, slots=True)
class SnapshotRequest:
    """The snapshot that a run is to write.

    :param identity: settings that must equal an unfinished snapshot's to resume it
    :param derivation: settings that must equal a committed snapshot's for its receipt to be the result
    :param archive: raw pages are stored; without them a resumed snapshot keeps only its id
    :param parent: the snapshot whose raw pages the run reads; None if it fetches
    :param snapshot: the id that the user gave; None chooses one
    :param fresh: begin a new snapshot, even if an unfinished one could be resumed
    :param now: UTC; the default id is made of it
    :param names: of the objects that a run writes
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
    names: ObjectNames


async def open_snapshot(storage: AsyncStorage, request: SnapshotRequest, listener: Listener) -> SnapshotWriter:
    """Find the snapshot of ``request`` or begin it, and lock it.

    :raises SnapshotHeldError: another live run has the lock
    :raises SettingsError: the named snapshot has other settings, or real and synthetic objects would mix
    :raises StorageError: the lake could not be read or written
    """
    # Before anything is written: a lake that mixes real and synthetic objects cannot be repaired.
    await _require_same_kind(storage, request)
    writer = await _open(storage, request, listener)
    if request.parent is not None and writer.committed is None:
        # Only now, with our own note written. See _require_parent for the order.
        try:
            await _require_parent(storage, request.parent, request.names)
        except BaseException as exc:
            try:
                # Nothing was fetched yet. Without this, the refused run would leave an empty unfinished snapshot.
                if isinstance(exc, SettingsError) and not writer.resumed:
                    await storage.delete_folder(layout.staging_folder(writer.id))
            finally:
                await writer.release()
            raise
    return writer


async def find_snapshot(
    storage: AsyncStorage, request: SnapshotRequest, listener: Listener
) -> Receipt | RunNote | None:
    """What :func:`open_snapshot` would find, without a lock and without writing.

    :returns: the note of the unfinished snapshot that a run would resume, the receipt of the committed snapshot
        with the given id, or None if a run would begin a new snapshot
    :raises SettingsError: as :func:`open_snapshot`, but ``derivation`` is not compared
    :raises StorageError: the lake could not be read
    """
    await _require_same_kind(storage, request)
    lake = AsyncLake(storage)
    if request.snapshot is None:
        return None if request.fresh else await _find_unfinished(lake, request, listener)
    receipt = await lake.find_receipt(request.snapshot)
    if receipt is not None:
        _require_same_settings(request, receipt, "identity")
        return receipt
    note = await lake.run_note(request.snapshot)
    if note is not None:
        _require_resumable(request, note)
    return note


async def _open(storage: AsyncStorage, request: SnapshotRequest, listener: Listener) -> SnapshotWriter:
    if request.snapshot is not None:
        return await _open_named(storage, request, request.snapshot)
    if not request.fresh:
        note = await _find_unfinished(AsyncLake(storage), request, listener)
        if note is not None and (writer := await _resume(storage, note, request)) is not None:
            return writer
    base = request.now.strftime("%Y%m%dT%H%M%SZ")
    # The create-only note decides which of two runs of the same second gets the id.
    for number in itertools.count(1):
        snapshot = base if number == 1 else f"{base}-{number}"
        try:
            return await _begin(storage, request, snapshot)
        except (AlreadyExistsError, SnapshotHeldError):  # another run began in the same second
            continue
    raise AssertionError("unreachable")


async def _open_named(storage: AsyncStorage, request: SnapshotRequest, snapshot: str) -> SnapshotWriter:
    # Between a look without the lock and the lock, another run may begin, commit or remove the snapshot. Each such
    # case starts over: the next look sees what changed.
    lake = AsyncLake(storage)
    receipt = await lake.find_receipt(snapshot)
    if receipt is not None:
        _require_same_settings(request, receipt, "identity", "derivation")
        writer = await _resume(storage, _new_note(request, snapshot), request)
        return writer or await _open_named(storage, request, snapshot)
    note = await lake.run_note(snapshot)
    if note is None:
        try:
            return await _begin(storage, request, snapshot)
        except AlreadyExistsError:
            return await _open_named(storage, request, snapshot)
    _require_resumable(request, note)
    return await _resume(storage, note, request) or await _open_named(storage, request, snapshot)


def _require_same_settings(request: SnapshotRequest, receipt: Receipt, *kinds: str) -> None:
    for kind in kinds:
        ours, theirs = getattr(request, kind), getattr(receipt, kind)
        if ours != theirs:
            raise SettingsError(
                f"snapshot {receipt.snapshot} is committed with another {_difference(ours, theirs)} ({kind}); a "
                f"committed snapshot never changes: choose another --snapshot, or rebuild with --source archive "
                f"--from-snapshot {receipt.snapshot}"
            )
    if request.fresh:
        raise SettingsError(f"snapshot {receipt.snapshot} is committed; --fresh needs another --snapshot")


def _require_resumable(request: SnapshotRequest, note: RunNote) -> None:
    if note.identity != request.identity:
        raise SettingsError(
            f"snapshot {note.snapshot} was begun with another {_difference(request.identity, note.identity)}; "
            "give the same to finish it, or choose another --snapshot"
        )
    if request.fresh:
        raise SettingsError(f"snapshot {note.snapshot} is unfinished; finish it without --fresh, or choose another id")


async def _find_unfinished(lake: AsyncLake, request: SnapshotRequest, listener: Listener) -> RunNote | None:
    """The newest unfinished snapshot with the same identity; an event names each other candidate."""
    chosen: RunNote | None = None
    for snapshot in sorted(await lake.unfinished_ids(), reverse=True):
        note = await lake.run_note(snapshot)
        if note is None or note.parent != request.parent or note.named:
            continue  # a user who named a snapshot resumes it by its name
        if note.identity != request.identity:
            reason = f"it was begun with another {_difference(request.identity, note.identity)}"
            listener(SnapshotPassedOver(snapshot, reason))
            continue
        if chosen is not None:
            listener(SnapshotPassedOver(snapshot, f"{chosen.snapshot} is newer"))
            continue
        age_s = (request.now - note.started_at).total_seconds()
        # An old half would mix two states of the catalogue in one snapshot.
        if age_s > request.resume_within_s:
            reason = f"it was begun {_hours(age_s)} ago; --resume-within is {_hours(request.resume_within_s)}"
            listener(SnapshotPassedOver(snapshot, reason))
            continue
        chosen = note
    return chosen


async def _begin(storage: AsyncStorage, request: SnapshotRequest, snapshot: str) -> SnapshotWriter:
    """:raises AlreadyExistsError: another run began or committed it, or the chosen id has files
    :raises SettingsError: the id was given, and it has files that no run's note or receipt describes
    """
    lake = AsyncLake(storage)
    note = _new_note(request, snapshot)
    # The lock first, then the looks: in the other order a run could commit between look and lock.
    lock = await lock_snapshot(storage, snapshot)
    try:
        # Read with the lock: from here on no other run can commit the snapshot.
        if await lake.find_receipt(snapshot) is not None:
            raise AlreadyExistsError(f"{storage.uri}: snapshot {snapshot} is committed")
        # prune removes by this id, and would remove our files as well.
        if await lake.is_half_removed(snapshot):
            raise SettingsError(
                f"snapshot {snapshot} is half removed; 'neows-async prune' finishes that, or choose another --snapshot"
            )
        if (folder := await folder_in_use(storage, snapshot, request.names)) is not None:
            # The settings of these files are unknown, so no run may add to them.
            in_use = f"{storage.uri}: {folder} holds files of a run of which nothing else is known"
            if request.snapshot is None:
                raise AlreadyExistsError(in_use)
            rebuild = f"rebuild from them (--source archive --from-snapshot {snapshot}), "
            raise SettingsError(
                f"{in_use}; choose another --snapshot, {rebuild if folder.startswith('raw/') else ''}or let "
                "'neows-async prune' remove them when they are old"
            )
        # May be abandoned: a late creation either fails, since another note exists, or leaves an empty unfinished
        # snapshot, which the next run resumes.
        await storage.create(layout.run_note_key(snapshot), note.to_json(), abandon=True)
    except BaseException:
        await lock.release()
        raise
    return SnapshotWriter(storage, note, lock, resumed=False)


async def _resume(storage: AsyncStorage, note: RunNote, request: SnapshotRequest) -> SnapshotWriter | None:
    """Lock the snapshot, and finish a commit that began; None if it was removed before we had the lock."""
    lake = AsyncLake(storage)
    lock = await lock_snapshot(storage, note.snapshot)
    writer = SnapshotWriter(storage, note, lock, resumed=True)
    try:
        # Read again, now with the lock: it may have been committed or removed in between.
        writer.committed = await lake.find_receipt(writer.id)
        if writer.committed is None and await lake.run_note(writer.id) is None:
            await lock.release()
            return None
        # A writer that was killed within a put left a temporary file that nothing else removes.
        # With the lock, so no live run of this snapshot has an unfinished write.
        await storage.sweep(layout.raw_snapshot_folder(writer.id))
        await storage.sweep(layout.RECEIPTS)
        # Order of the cases: a receipt ends everything; a whole intent is finished; a broken one is undone; else only
        # staged files of the dead run are in the way.
        intent = await lake.commit_intent(writer.id)
        if writer.committed is not None:
            await writer.clean_up()
        elif intent is not None and await writer.can_commit(intent):
            await writer.roll_forward(intent)
        elif intent is not None:
            await writer.undo_commit(intent)
        else:
            await writer.clear_staged()
        # The roll-forward had to finish first: the old run's result is durable, and the user loses nothing.
        if writer.committed is not None and writer.committed.derivation != request.derivation:
            raise SettingsError(
                f"snapshot {writer.id} was ready with another "
                f"{_difference(request.derivation, writer.committed.derivation)} and is committed now; for the new "
                f"one run --source archive --from-snapshot {writer.id}"
            )
    except BaseException:
        await lock.release()
        raise
    return writer


async def _require_same_kind(storage: AsyncStorage, request: SnapshotRequest) -> None:
    synthetic = await AsyncLake(storage).is_synthetic()
    if synthetic is not None and synthetic != request.synthetic:
        kinds = ("synthetic", "real") if request.synthetic else ("real", "synthetic")
        raise SettingsError(f"{storage.uri} holds {kinds[1]} objects; {kinds[0]} ones need a --root of their own")


async def _require_parent(storage: AsyncStorage, parent: str, names: ObjectNames) -> None:
    """Require that the raw pages we read still exist, now that our note says that we read them.

    A removal hides the parent's receipt first and then looks for notes that name it. We write our note first and
    then look for the receipt. So at least one of the two sees the other.
    """
    lake = AsyncLake(storage)
    receipt = await lake.find_receipt(parent)
    home = receipt.raw.snapshot if receipt is not None and receipt.raw.snapshot is not None else parent
    # A half removed parent counts as gone, even while its raw pages still exist.
    known = await lake.find_receipt(home) or await lake.run_note(home)
    if known is None and (await lake.is_half_removed(home) or await folder_in_use(storage, home, names) is None):
        raise SettingsError(f"snapshot {home}, whose raw pages were to be read, was just removed; choose another one")


def _new_note(request: SnapshotRequest, snapshot: str) -> RunNote:
    return RunNote(
        snapshot=snapshot,
        parent=request.parent,
        synthetic=request.synthetic,
        archive=request.archive,
        started_at=request.now,
        identity=request.identity,
        named=request.snapshot is not None,
    )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"  # noqa: PLR2004 - an hour


def _difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    return " and ".join(f"{name} ({theirs.get(name)!r}, not {ours.get(name)!r})" for name in names)

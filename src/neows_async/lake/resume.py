"""Finding the snapshot that a run goes on with, or beginning one: only one run at a time holds it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neows_async.errors import AlreadyExistsError, SettingsError, SnapshotHeldError
from neows_async.lake import layout
from neows_async.lake.inventory import folder_in_use
from neows_async.lake.lake import (
    are_synthetic,
    intent_or_none,
    is_half_removed,
    receipt_or_none,
    run_key,
    unfinished_ids,
    unfinished_or_none,
)
from neows_async.lake.receipt import Receipt, RunNote
from neows_async.lake.snapshot import Snapshot, take_lock
from neows_async.telemetry.events import Listener, SnapshotPassedOver

if TYPE_CHECKING:
    import datetime as dt

    from neows_async.lake.async_storage import AsyncStorage


@dataclass(frozen=True, slots=True)
class SnapshotRequest:
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


async def open_snapshot(lake: AsyncStorage, wanted: SnapshotRequest, listener: Listener) -> Snapshot:
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


async def find_snapshot(lake: AsyncStorage, wanted: SnapshotRequest, listener: Listener) -> Receipt | RunNote | None:
    """What :func:`open_snapshot` would find: the unfinished snapshot that it would go on with, or the committed one
    that is asked for by name; None if it would begin one. Nothing is begun, held or written.

    :raises SettingsError: as there, but that ``derivation`` is not looked at
    :raises StorageError: the lake failed
    """
    await _refuse_mixing(lake, wanted)
    if wanted.snapshot is None:
        return None if wanted.fresh else await _find_unfinished(lake, wanted, listener)
    receipt = await receipt_or_none(lake, wanted.snapshot)
    if receipt is not None:
        _refuse_other(wanted, receipt, "identity")
        return receipt
    unfinished = await unfinished_or_none(lake, wanted.snapshot)
    if unfinished is not None:
        _refuse_other_beginning(wanted, unfinished)
    return unfinished


async def _open(lake: AsyncStorage, wanted: SnapshotRequest, listener: Listener) -> Snapshot:
    if wanted.snapshot is not None:
        return await _open_named(lake, wanted, wanted.snapshot)
    if not wanted.fresh:
        found = await _find_unfinished(lake, wanted, listener)
        if found is not None and (held := await _adopt(lake, found, wanted)) is not None:
            return held
    base = wanted.now.strftime("%Y%m%dT%H%M%SZ")
    for number in itertools.count(1):
        snapshot = base if number == 1 else f"{base}-{number}"
        try:
            return await _begin(lake, wanted, snapshot)
        except (AlreadyExistsError, SnapshotHeldError):  # of this very second, too
            continue
    raise AssertionError("unreachable")


async def _open_named(lake: AsyncStorage, wanted: SnapshotRequest, snapshot: str) -> Snapshot:
    receipt = await receipt_or_none(lake, snapshot)
    if receipt is not None:
        _refuse_other(wanted, receipt, "identity", "derivation")
        held = await _adopt(lake, _unfinished(wanted, snapshot), wanted)
        return held or await _open_named(lake, wanted, snapshot)
    unfinished = await unfinished_or_none(lake, snapshot)
    if unfinished is None:
        try:
            return await _begin(lake, wanted, snapshot)
        except AlreadyExistsError:  # somebody began it, or even committed it, while we looked
            return await _open_named(lake, wanted, snapshot)
    _refuse_other_beginning(wanted, unfinished)
    return await _adopt(lake, unfinished, wanted) or await _open_named(lake, wanted, snapshot)


def _refuse_other(wanted: SnapshotRequest, receipt: Receipt, *kinds: str) -> None:
    for kind in kinds:
        ours, theirs = getattr(wanted, kind), getattr(receipt, kind)
        if ours != theirs:
            raise SettingsError(
                f"snapshot {receipt.snapshot} is committed with another {_difference(ours, theirs)} ({kind}); a "
                f"committed snapshot never changes: choose another --snapshot, or rebuild with --source archive "
                f"--from-snapshot {receipt.snapshot}"
            )
    if wanted.fresh:
        raise SettingsError(f"snapshot {receipt.snapshot} is committed; --fresh needs another --snapshot")


def _refuse_other_beginning(wanted: SnapshotRequest, unfinished: RunNote) -> None:
    snapshot = unfinished.snapshot
    if unfinished.identity != wanted.identity:
        raise SettingsError(
            f"snapshot {snapshot} was begun with another {_difference(wanted.identity, unfinished.identity)}; "
            "give the same to finish it, or choose another --snapshot"
        )
    if wanted.fresh:
        raise SettingsError(f"snapshot {snapshot} is unfinished; finish it without --fresh, or choose another id")


async def _find_unfinished(lake: AsyncStorage, wanted: SnapshotRequest, listener: Listener) -> RunNote | None:
    """The newest unfinished snapshot of the same identity; others that could be meant are named."""
    chosen: RunNote | None = None
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


async def _begin(lake: AsyncStorage, wanted: SnapshotRequest, snapshot: str) -> Snapshot:
    """:raises AlreadyExistsError: somebody else began it, or committed it
    :raises SettingsError: its id was asked for, and something lies under it that is neither's
    """
    unfinished = _unfinished(wanted, snapshot)
    lock = await take_lock(lake, snapshot)
    try:
        # Only now, with the lock, nobody can commit it any more.
        if await receipt_or_none(lake, snapshot) is not None:
            raise AlreadyExistsError(f"{lake.uri}: snapshot {snapshot} is committed")
        if await is_half_removed(lake, snapshot):
            raise SettingsError(
                f"snapshot {snapshot} is half removed; 'neows-async prune' finishes that, or choose another --snapshot"
            )
        if (folder := await folder_in_use(lake, snapshot)) is not None:
            # Nobody knows by which settings it came to be there, so that nothing can be added to it.
            lying = f"{lake.uri}: {folder} holds files of a run of which nothing else is known"
            if wanted.snapshot is None:
                raise AlreadyExistsError(lying)
            rebuild = f"rebuild from them (--source archive --from-snapshot {snapshot}), "
            raise SettingsError(
                f"{lying}; choose another --snapshot, {rebuild if folder.startswith('raw/') else ''}or let "
                "'neows-async prune' remove them when they are old"
            )
        # It may be abandoned: one that comes late finds another's, or is an empty snapshot to adopt.
        key = run_key(snapshot)
        await lake.call(key, lambda: lake.storage.create(key, unfinished.to_json()))
    except BaseException:
        await lock.release()
        raise
    return Snapshot(lake, unfinished, lock, resumed=False)


async def _adopt(lake: AsyncStorage, unfinished: RunNote, wanted: SnapshotRequest) -> Snapshot | None:
    """Lock it, and finish a commit that was begun; None if it was removed while we looked."""
    lock = await take_lock(lake, unfinished.snapshot)
    snapshot = Snapshot(lake, unfinished, lock, resumed=True)
    try:
        # Read again: it may have been committed, or removed, between finding and holding it.
        snapshot.committed = await receipt_or_none(lake, snapshot.id)
        if snapshot.committed is None and await unfinished_or_none(lake, snapshot.id) is None:
            await lock.release()
            return None
        # Who was killed within a put left a part of it, where nobody else would look.
        await lake.sweep(layout.raw_snapshot_folder(snapshot.id))
        await lake.sweep(layout.RECEIPTS)
        intent = await intent_or_none(lake, snapshot.id)
        if snapshot.committed is not None:
            await snapshot.tidy()
        elif intent is not None and await snapshot.can_commit(intent):
            await snapshot.roll_forward(intent)
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


async def _refuse_mixing(lake: AsyncStorage, wanted: SnapshotRequest) -> None:
    synthetic = await are_synthetic(lake)
    if synthetic is not None and synthetic != wanted.synthetic:
        kinds = ("synthetic", "real") if wanted.synthetic else ("real", "synthetic")
        raise SettingsError(f"{lake.uri} holds {kinds[1]} objects; {kinds[0]} ones need a --root of their own")


async def _require_parent(lake: AsyncStorage, parent: str) -> None:
    """That what we read from is still there, now that our ``run.json`` says that we do.

    Who removes a snapshot hides its receipt first and then looks for such readers: of the two at
    least one sees the other.
    """
    receipt = await receipt_or_none(lake, parent)
    home = receipt.raw.snapshot if receipt is not None and receipt.raw.snapshot is not None else parent
    known = await receipt_or_none(lake, home) or await unfinished_or_none(lake, home)
    if known is None and (await is_half_removed(lake, home) or await folder_in_use(lake, home) is None):
        raise SettingsError(f"snapshot {home}, whose raw pages were to be read, was just removed; choose another one")


def _unfinished(wanted: SnapshotRequest, snapshot: str) -> RunNote:
    return RunNote(
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

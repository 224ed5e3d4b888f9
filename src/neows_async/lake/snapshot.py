"""The life of a snapshot that a run writes: begun or resumed, locked, committed at one point.

::

    _staging/<id>/run.json      created, create-only: the id is reserved, the snapshot is unfinished
    _staging/<id>/commit.json   the commit intent: every file is whole, hashed and durable; from here
                                on every later run rolls this commit forward
    <final keys>                the staged files move here, one by one
    _runs/<id>.json             created, create-only: THE commit; the snapshot exists
    _runs/latest.json           replaced
    _staging/<id>/              removed

If a run dies between two of these lines, the next run continues at the next line.
"""

from __future__ import annotations

import datetime as dt
import os
import socket
from typing import TYPE_CHECKING, Self

from neows_async.errors import AlreadyExistsError, NotFoundError, SnapshotHeldError, StorageError
from neows_async.lake import layout
from neows_async.lake.lake import AsyncLake

if TYPE_CHECKING:
    from neows_async.lake.async_storage import AsyncLock, AsyncStorage
    from neows_async.lake.receipt import Receipt, RunNote


class SnapshotWriter:
    """The right to write one snapshot: its lock is ours until the ``async with`` block ends.

    ``committed`` is the snapshot's receipt once it exists, also if it existed from the start.
    """

    def __init__(self, storage: AsyncStorage, note: RunNote, lock: AsyncLock, *, resumed: bool) -> None:
        self._storage = storage
        self._lake = AsyncLake(storage)
        self._lock = lock
        self._note = note
        self.id: str = note.snapshot
        self.started_at: dt.datetime = note.started_at
        self.resumed = resumed
        self.committed: Receipt | None = None
        self.has_lock: bool = True
        """Whether the lock is ours; False once :meth:`keep_lock` found that it was lost."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.release()

    async def release(self) -> None:
        """Release the lock; never raises."""
        await self._lock.release()

    async def keep_lock(self) -> None:
        """Renew the lock until cancelled."""
        try:
            await self._lock.keep_renewed()
        except SnapshotHeldError:
            # Before the error cancels the run: the late stores that follow must see that the raw zone is not ours.
            self.has_lock = False
            raise

    async def commit(self, receipt: Receipt) -> None:
        """Make the snapshot exist. Every file of ``receipt`` is staged, whole, hashed and durable.

        :raises SnapshotHeldError: another run has the lock
        :raises StorageError: the storage failed; the next run finishes the commit
        """
        # Before the intent: a run that lost its lock must not write one that the new owner would roll forward.
        await self._lock.check()
        # Never abandoned: an intent that is written after the next run cleared the staging folder has no files.
        await self._storage.put(layout.commit_key(self.id), receipt.to_json(), abandon=False)
        await self.roll_forward(receipt)

    async def roll_forward(self, receipt: Receipt) -> None:
        """Continue a commit whose intent is durable, wherever it stopped.

        :raises SnapshotHeldError: another run has the lock
        :raises StorageError: the storage failed, or a file of the snapshot is missing
        """
        # Files first, receipt last: until the receipt exists no reader can know these files.
        for file in receipt.files:
            staged = layout.staged_key(self.id, file.path)
            try:
                # May be abandoned: a late move finds no staged file, since the next run has moved it.
                await self._storage.move(staged, file.path, abandon=True)
            except NotFoundError:
                # Either a run that died moved it before, or it is lost: the final key shows which.
                if not await self._has_file(file.path, file.bytes):
                    raise StorageError(
                        f"{self._storage.uri}: {file.path} was removed in the middle of the commit; run again"
                    ) from None
        # On an object store the lease may have expired during the moves. If another run owns it now, that run
        # commits the same intent; the create-only receipt decides a race that this check cannot see.
        await self._lock.check()
        # Create-only, never put: a second receipt would change a snapshot that readers have already seen.
        try:
            await self._storage.create(layout.receipt_key(self.id), receipt.to_json())
        except AlreadyExistsError:
            # Our own create whose response was lost, or another run that rolled the same intent forward: both are
            # this commit.
            existing = await self._lake.receipt(self.id)
            if existing != receipt:
                raise
        # From here on the snapshot exists. A failure of the cleanup below is repaired by the next run.
        self.committed = receipt
        await self.clean_up()

    async def can_commit(self, receipt: Receipt) -> bool:
        """Whether each file of ``receipt`` exists with its size, staged or under its final key."""
        staged = {entry.key: entry.bytes for entry in await self._storage.list(layout.staging_folder(self.id))}
        for file in receipt.files:
            size = staged.get(layout.staged_key(self.id, file.path))
            # A staged file of another size is half written. Without a staged file, an earlier roll-forward moved it.
            if size != file.bytes and (size is not None or not await self._has_file(file.path, file.bytes)):
                return False
        return True

    async def undo_commit(self, receipt: Receipt) -> None:
        """Remove all files of a commit that cannot be finished. No reader knows them: there is no receipt.

        Either the intent was written after its writer died and the next run cleared the staging folder, or somebody
        removed a file.
        """
        # Final keys first: while the intent exists, the next run finds it and starts over here.
        await self._storage.delete_all(file.path for file in receipt.files)
        await self.clear_staged()

    async def note_pause(self, resume_at_s: float) -> None:
        """Record the time at which the quota allows the next request (UTC, seconds since 1970)."""
        resume_at = dt.datetime.fromtimestamp(resume_at_s, dt.UTC)
        self._note = self._note.model_copy(update={"resume_at": resume_at})
        await self._storage.put(layout.run_note_key(self.id), self._note.to_json())

    async def clean_up(self) -> None:
        """After the commit: update ``latest``, then remove the staging folder."""
        if self.committed is None:
            raise RuntimeError("not committed")
        # Before the staging folder goes: as long as it exists, the next run repeats this step.
        await update_latest(self._storage, self.committed)
        await self._storage.delete_folder(layout.staging_folder(self.id))

    async def clear_staged(self) -> None:
        """Remove the staged files of an earlier run; the raw zone stays."""
        # The note stays: without it the id would be free, and the raw pages would belong to no run.
        keep = frozenset({layout.run_note_key(self.id)})
        await self._storage.delete_folder(layout.staging_folder(self.id), keep=keep)

    async def _has_file(self, path: str, size_bytes: int) -> bool:
        folder = path.rpartition("/")[0]
        return any(entry.key == path and entry.bytes == size_bytes for entry in await self._storage.list(folder))


async def lock_snapshot(storage: AsyncStorage, snapshot: str) -> AsyncLock:
    """Acquire the lock of ``snapshot``, so that no other run writes it."""
    return await storage.lock(layout.lock_key(snapshot), f"process {os.getpid()} on {socket.gethostname()}")


async def update_latest(storage: AsyncStorage, receipt: Receipt) -> None:
    """Make ``receipt`` the latest, unless the latest is of a later snapshot."""
    # Two runs that commit at once may both read before either writes: the earlier snapshot can win. The next
    # commit or `prune` corrects that.
    latest = await AsyncLake(storage).latest()
    if latest is None or (latest.logical_at, latest.committed_at) <= (receipt.logical_at, receipt.committed_at):
        await storage.put(layout.LATEST, receipt.to_json())

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
import os
import socket
from typing import TYPE_CHECKING, Self

from neows_async.errors import AlreadyExistsError, NotFoundError, SnapshotHeldError, StorageError
from neows_async.lake import layout
from neows_async.lake.lake import commit_key, read_receipt, receipt_or_none, run_key

if TYPE_CHECKING:
    from types import TracebackType

    from neows_async.lake.async_storage import AsyncLock, AsyncStorage
    from neows_async.lake.receipt import Receipt, RunNote


class Snapshot:
    """An unfinished snapshot, held until the ``with`` block ends. ``committed`` is its receipt, if it
    turned out to exist already.
    """

    def __init__(self, lake: AsyncStorage, unfinished: RunNote, lock: AsyncLock, *, resumed: bool) -> None:
        self._lake = lake
        self._lock = lock
        self._unfinished = unfinished
        self.id: str = unfinished.snapshot
        self.started_at: dt.datetime = unfinished.started_at
        self.resumed = resumed
        self.committed: Receipt | None = None
        self.is_held: bool = True
        """Until :meth:`keep` finds that it is not."""

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
        try:
            await self._lock.keep()
        except SnapshotHeldError:
            self.is_held = False
            raise

    async def commit(self, receipt: Receipt) -> None:
        """Make it exist. Every file of ``receipt`` waits, whole and hashed, in the staging folder.

        :raises SnapshotHeldError: the lock was lost to another run
        :raises StorageError: the storage failed; the next run goes on from there
        """
        await self._lock.check()
        # To the end: were it abandoned and came late, the next run would find an intent without its files.
        await self._lake.put_to_the_end(commit_key(self.id), receipt.to_json())
        await self.roll_forward(receipt)

    async def roll_forward(self, receipt: Receipt) -> None:
        """Go on with a commit whose intent is written down, from wherever it stopped.

        :raises SnapshotHeldError: the lock was lost to another run
        :raises StorageError: the storage failed, or one of its files is gone
        """
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


async def take_lock(lake: AsyncStorage, snapshot: str) -> AsyncLock:
    """Hold ``snapshot`` against every other run.

    :raises SnapshotHeldError: a live run holds it
    """
    return await lake.lock(layout.lock_key(snapshot), f"process {os.getpid()} on {socket.gethostname()}")


async def follow_latest(lake: AsyncStorage, receipt: Receipt) -> None:
    """Let ``latest`` be ``receipt``, unless it is of a later snapshot."""
    latest = await receipt_or_none(lake, "latest")
    if latest is None or (latest.logical_at, latest.committed_at) <= (receipt.logical_at, receipt.committed_at):
        await lake.put(layout.LATEST, receipt.to_json())


async def _lies(lake: AsyncStorage, path: str, size_bytes: int) -> bool:
    folder = path.rpartition("/")[0]
    return any(entry.key == path and entry.bytes == size_bytes for entry in await lake.list(folder))

"""A storage for coroutines: each call runs in a thread and has a time limit."""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, BinaryIO, Final, TypeVar

import anyio
from anyio import to_thread

from neows_async.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from neows_async.lake.storage.interface import Lock, ObjectInfo, OutputFile, Storage

_T = TypeVar("_T")
_STORAGE_THREADS: Final = 16
_DELETES_AT_ONCE: Final = 8
RELEASE_S: Final = 0.3
"""Time limit of one cleanup after a cancellation.

A cancelled run stores a late page and does two cleanups in a row. It must end within a second."""


class AsyncStorage:
    """The calls of :class:`~neows_async.lake.storage.interface.Storage`, for coroutines.

    Where a call takes ``abandon``, it says what happens when the caller is cancelled or ``timeout_s`` has passed:

    - ``abandon=True``: the caller goes on, and the call may still take effect later, in its thread. This is safe
      where a late effect does no harm: the same key gets the same bytes.
    - ``abandon=False``: the caller waits for the end, without a time limit, since its next step depends on the result.

    Calls without the parameter are abandoned.

    :raises StorageError: from each call: the storage failed, or took longer than ``timeout_s``
    """

    def __init__(self, storage: Storage, *, timeout_s: float = 120.0) -> None:
        self._storage = storage
        self._timeout_s = timeout_s
        # A limiter for this storage alone: if it hangs, it cannot use up the threads of the program around us.
        self._threads = anyio.CapacityLimiter(_STORAGE_THREADS)

    @property
    def uri(self) -> str:
        """The root as a user would write it."""
        return self._storage.uri

    async def put(self, key: str, data: bytes, *, abandon: bool = True) -> None:
        """See :meth:`Storage.put <neows_async.lake.storage.interface.Storage.put>`."""
        # A late put may be abandoned: it writes the same bytes under the same key.
        await self._run(key, lambda: self._storage.put(key, data), abandon=abandon)

    async def create(self, key: str, data: bytes, *, abandon: bool = False) -> None:
        """See :meth:`Storage.create <neows_async.lake.storage.interface.Storage.create>`."""
        # Waits for the end: whether we created the object decides the caller's next step.
        await self._run(key, lambda: self._storage.create(key, data), abandon=abandon)

    async def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """See :meth:`Storage.get <neows_async.lake.storage.interface.Storage.get>`."""
        return await self.call(key, lambda: self._storage.get(key, max_bytes=max_bytes))

    async def list(self, prefix: str) -> list[ObjectInfo]:
        """All objects below the folder ``prefix``, ascending by key."""
        return await self.call(prefix, lambda: list(self._storage.list(prefix)))

    async def move(self, key: str, target: str, *, abandon: bool = False) -> None:
        """See :meth:`Storage.move <neows_async.lake.storage.interface.Storage.move>`."""
        # Waits for the end: a late move could replace what the caller writes next.
        await self._run(key, lambda: self._storage.move(key, target), abandon=abandon)

    async def delete(self, key: str) -> None:
        """See :meth:`Storage.delete <neows_async.lake.storage.interface.Storage.delete>`."""
        await self.call(key, lambda: self._storage.delete(key))

    async def delete_all(self, keys: Iterable[str]) -> None:
        """Remove each of ``keys``, several at once, in any order."""
        await for_each(keys, self.delete, at_once=_DELETES_AT_ONCE)

    async def delete_folder(self, prefix: str, *, keep: frozenset[str] = frozenset()) -> None:
        """Remove every object below ``prefix`` except ``keep``, and the unfinished writes of dead writers.

        Ascending by key, one after the other: when cancelled, only the current object may still be removed.
        """
        # First, since a list does not show unfinished writes.
        await self.sweep(prefix)
        for entry in await self.list(prefix):
            if entry.key not in keep:
                await self.delete(entry.key)

    async def sweep(self, prefix: str) -> int:
        """See :meth:`Storage.sweep <neows_async.lake.storage.interface.Storage.sweep>`."""
        return await self.call(prefix, lambda: self._storage.sweep(prefix))

    async def open_output(self, key: str) -> OutputFile:
        """Begin a file. Its methods block: run them within :meth:`call`."""
        return await self.call(key, lambda: self._storage.open_output(key))

    @asynccontextmanager
    async def open_input(self, key: str) -> AsyncIterator[BinaryIO]:
        """A seekable reader, closed when the block ends. It blocks: read it within :meth:`call`."""
        opened = await self.call(key, lambda: self._storage.open_input(key))
        try:
            yield opened
        finally:
            # In a thread: an abandoned read may still hold the file's lock.
            # Shielded, since a descriptor that is not closed here stays open until the collector runs.
            with anyio.move_on_after(RELEASE_S, shield=True):
                await to_thread.run_sync(opened.close, abandon_on_cancel=True)

    async def lock(self, key: str, owner: str) -> AsyncLock:
        """See :meth:`Storage.lock <neows_async.lake.storage.interface.Storage.lock>`."""
        acquisition = _Acquisition(lambda: self._storage.lock(key, owner))
        try:
            return AsyncLock(self, key, await self.call(key, acquisition.run))
        except BaseException:
            # A cancelled caller gets no lock, but the thread may have one: release it here or there, exactly once.
            unused = acquisition.abandon()
            if unused is not None:
                await AsyncLock(self, key, unused).release()
            raise

    async def lock_owner(self, key: str) -> str | None:
        """See :meth:`Storage.lock_owner <neows_async.lake.storage.interface.Storage.lock_owner>`."""
        return await self.call(key, lambda: self._storage.lock_owner(key))

    async def use(self, key: str, work: Callable[[Storage], _T]) -> _T:
        """Run ``work`` with the blocking storage in one thread: several calls, or one call and work on its result.

        It may be abandoned, so it must be idempotent.

        :param key: the object or folder that an error names
        """
        return await self.call(key, lambda: work(self._storage))

    async def call(self, key: str, function: Callable[[], _T]) -> _T:
        """Run ``function`` in a thread. It may be abandoned, so it must be idempotent.

        :param key: the object or folder that an error names
        """
        try:
            with anyio.fail_after(self._timeout_s):
                # Not a shield: a hanging call costs the caller its time limit, and a cancelled caller nothing.
                return await to_thread.run_sync(function, limiter=self._threads, abandon_on_cancel=True)
        except TimeoutError as exc:
            raise StorageError(
                f"{self.uri}: no response within {self._timeout_s:g} s for {key}; run the same command again later"
            ) from exc

    async def _run(self, key: str, function: Callable[[], _T], *, abandon: bool) -> _T:
        if abandon:
            return await self.call(key, function)
        # Not abandoned, so anyio shields this wait from cancellation until the thread returns.
        return await to_thread.run_sync(function, limiter=self._threads)


async def for_each(items: Iterable[_T], work: Callable[[_T], Awaitable[object]], *, at_once: int) -> None:
    """Do ``work`` for each of ``items``, at most ``at_once`` at a time, in any order."""
    # One iterator, shared by the tasks: no await between two steps of it, so each item is taken once.
    to_do = iter(items)

    async def take() -> None:
        for item in to_do:
            await work(item)

    async with anyio.create_task_group() as tasks:
        for _ in range(at_once):
            tasks.start_soon(take)


class _Acquisition:
    """One attempt to acquire a lock, in a thread that may succeed after its caller was cancelled.

    Without this, an abandoned attempt would leave a lock that no one releases while the process lives.
    """

    def __init__(self, acquire: Callable[[], Lock]) -> None:
        self._acquire = acquire
        # Guards the two fields: exactly one of the thread and the caller releases an unused lock.
        self._handover = threading.Lock()
        self._abandoned = False
        self._acquired: Lock | None = None

    def run(self) -> Lock:
        """Acquire the lock; called in the thread."""
        lock = self._acquire()
        # Set and read under one lock: if abandon() came first it saw no lock, so this thread releases it.
        with self._handover:
            self._acquired = lock
            abandoned = self._abandoned
        if abandoned:
            lock.release()
        return lock

    def abandon(self) -> Lock | None:
        """The lock, if it was acquired and not returned. A lock that is acquired later is released in the thread."""
        with self._handover:
            self._abandoned = True
            return self._acquired


class AsyncLock:
    """A :class:`~neows_async.lake.storage.interface.Lock` for coroutines."""

    def __init__(self, storage: AsyncStorage, key: str, lock: Lock) -> None:
        self._storage = storage
        self._key = key
        self._lock = lock

    async def check(self) -> None:
        """Check that the lock is still ours, and renew it where that is needed."""
        await self._storage.call(self._key, self._lock.check)

    async def keep_renewed(self) -> None:
        """Check again and again, as often as the lock requires, until cancelled."""
        while True:
            # Sleep first: the lock was acquired, and so checked, a moment ago.
            await anyio.sleep(self._lock.check_every_s)
            await self.check()

    async def release(self) -> None:
        """Release the lock, also when cancelled. If the storage hangs, the release goes on in its thread."""
        # Never raises: the caller is often handling another error, and an unreleased lease expires anyway.
        with anyio.move_on_after(RELEASE_S, shield=True):
            await to_thread.run_sync(self._lock.release, abandon_on_cancel=True)

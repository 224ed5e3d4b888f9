"""The lake's layout, and its storage as seen from the event loop: every call in a thread, with a time limit."""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, BinaryIO, Final, TypeVar

import anyio
from anyio import to_thread

from neows_async.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from neows_async.lake.storage.interface import Lock, ObjectInfo, Storage

_T = TypeVar("_T")
_STORAGE_THREADS: Final = 16
_GRACE_S: Final = 0.4  # a run that is cancelled has two things to let go, and a second


class AsyncStorage:
    """A :class:`~neows_async.protocols.Storage` for coroutines.

    A call that is cancelled, or takes longer than ``timeout_s``, is abandoned in its thread, which
    is safe because the verb is idempotent: the same name, the same bytes. ``create``, ``move`` and
    ``put_to_the_end`` are waited for to the end: whoever goes on must know what they did. Who knows
    that a late one does no harm gives it to :meth:`call`.
    """

    def __init__(self, storage: Storage, *, timeout_s: float = 120.0) -> None:
        self.storage = storage
        self._timeout_s = timeout_s
        # Of our own, so that a storage that hangs cannot use up the threads of the program around us.
        self._threads = anyio.CapacityLimiter(_STORAGE_THREADS)

    @property
    def uri(self) -> str:
        """The root as a user would write it."""
        return self.storage.uri

    async def put(self, key: str, data: bytes) -> None:
        """See :meth:`Storage.put <neows_async.protocols.Storage.put>`."""
        await self.call(key, lambda: self.storage.put(key, data))

    async def put_to_the_end(self, key: str, data: bytes) -> None:
        """As ``put``, but never abandoned: when this returns or raises, nothing comes later."""
        await to_thread.run_sync(self.storage.put, key, data, limiter=self._threads)

    async def create(self, key: str, data: bytes) -> None:
        """See :meth:`Storage.create <neows_async.protocols.Storage.create>`."""
        await to_thread.run_sync(self.storage.create, key, data, limiter=self._threads)

    async def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """See :meth:`Storage.get <neows_async.protocols.Storage.get>`."""
        return await self.call(key, lambda: self.storage.get(key, max_bytes=max_bytes))

    async def list(self, prefix: str) -> list[ObjectInfo]:
        """All objects beneath the folder ``prefix``, ascending by key."""
        return await self.call(prefix, lambda: list(self.storage.list(prefix)))

    async def move(self, key: str, target: str) -> None:
        """See :meth:`Storage.move <neows_async.protocols.Storage.move>`."""
        await to_thread.run_sync(self.storage.move, key, target, limiter=self._threads)

    async def delete(self, key: str) -> None:
        """See :meth:`Storage.delete <neows_async.protocols.Storage.delete>`."""
        await self.call(key, lambda: self.storage.delete(key))

    async def delete_all(self, keys: Iterable[str], *, at_once: int = 8) -> None:
        """Remove each of ``keys``, several at once, in any order."""
        to_do = iter(keys)

        async def work() -> None:
            for key in to_do:
                await self.delete(key)

        async with anyio.create_task_group() as workers:
            for _ in range(at_once):
                workers.start_soon(work)

    async def delete_folder(self, prefix: str, *, keep: frozenset[str] = frozenset()) -> None:
        """Remove every object beneath ``prefix`` but those of ``keep``, and what dead writers left there.

        Ascending by key. One that is cancelled removes no more than the object it was at.
        """
        await self.sweep(prefix)
        for entry in await self.list(prefix):
            if entry.key not in keep:
                await self.delete(entry.key)

    async def sweep(self, prefix: str) -> None:
        """See :meth:`Storage.sweep <neows_async.protocols.Storage.sweep>`."""
        await self.call(prefix, lambda: self.storage.sweep(prefix))

    @asynccontextmanager
    async def open_input(self, key: str) -> AsyncIterator[BinaryIO]:
        """A seekable reader, to be read within :meth:`call`; closed when the block ends.

        :raises NotFoundError: there is none
        """
        opened = await self.call(key, lambda: self.storage.open_input(key))
        try:
            yield opened
        finally:
            # In a thread: a read that was given up may still hold it.
            with anyio.move_on_after(_GRACE_S, shield=True):
                await to_thread.run_sync(opened.close, abandon_on_cancel=True)

    async def lock(self, key: str, holder: str) -> AsyncLock:
        """See :meth:`Storage.lock <neows_async.protocols.Storage.lock>`."""
        taking = _Taking(lambda: self.storage.lock(key, holder))
        try:
            return AsyncLock(self, key, await self.call(key, taking.take))
        except BaseException:
            late = taking.give_up()
            if late is not None:
                await AsyncLock(self, key, late).release()
            raise

    async def holder(self, key: str) -> str | None:
        """See :meth:`Storage.holder <neows_async.protocols.Storage.holder>`."""
        return await self.call(key, lambda: self.storage.holder(key))

    async def call(self, key: str, verb: Callable[[], _T]) -> _T:
        """Run ``verb`` in a thread; it must be idempotent, for it may be abandoned.

        :raises StorageError: it failed, or took too long
        """
        try:
            with anyio.fail_after(self._timeout_s):
                return await to_thread.run_sync(verb, limiter=self._threads, abandon_on_cancel=True)
        except TimeoutError as exc:
            raise StorageError(
                f"{self.uri}: no answer within {self._timeout_s:g} s for {key}; run again when the storage answers"
            ) from exc


class _Taking:
    """The taking of a lock, by a thread that may come too late for whoever wanted it."""

    def __init__(self, take: Callable[[], Lock]) -> None:
        self._take = take
        self._handing_over = threading.Lock()
        self._given_up = False
        self._taken: Lock | None = None

    def take(self) -> Lock:
        """In the thread."""
        lock = self._take()
        with self._handing_over:
            self._taken = lock
            too_late = self._given_up
        if too_late:
            lock.release()
        return lock

    def give_up(self) -> Lock | None:
        """The lock, if it was taken and nobody heard of it; from now on a late one is let go at once."""
        with self._handing_over:
            self._given_up = True
            return self._taken


class AsyncLock:
    """A :class:`~neows_async.protocols.Lock` for coroutines."""

    def __init__(self, lake: AsyncStorage, key: str, lock: Lock) -> None:
        self._lake = lake
        self._key = key
        self._lock = lock

    async def check(self) -> None:
        """That it is still ours.

        :raises SnapshotHeldError: it was lost to somebody else
        """
        await self._lake.call(self._key, self._lock.check)

    async def keep(self) -> None:
        """Check it again and again, as often as it must be, until cancelled.

        :raises SnapshotHeldError: it was lost to somebody else
        """
        while True:
            await anyio.sleep(self._lock.check_every_s)
            await self.check()

    async def release(self) -> None:
        """Let go, also when cancelled; a storage that hangs is left to find out by itself."""
        with anyio.move_on_after(_GRACE_S, shield=True):
            await to_thread.run_sync(self._lock.release, abandon_on_cancel=True)

"""A storage that counts its steps, so that a test can make any step fail, or kill the process there."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from neows_async.errors import NeowsError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from neows_async.lake.storage.interface import Lock, ObjectInfo, OutputFile, Storage

_T = TypeVar("_T")


class CountingStorage:
    """Wraps ``inner`` and calls ``on_step(step, verb, key)`` before and after every input or output.

    ``step`` counts the calls from 0. ``verb`` is one of

    - ``put``, ``create``, ``get``, ``list``, ``move``, ``delete``, ``open_output``, ``open_input``, ``sweep``,
      ``lock``, ``lock_owner``;
    - ``write``, ``close``, ``abort`` of an output file;
    - ``check``, ``release`` of a lock.

    After the step it is the same verb with `` done``. An error raised there is a step that succeeded although the
    caller saw an error. ``on_step`` may raise StorageError, or OSError, which becomes one, or end the process. It is
    called in the thread that calls the storage.
    """

    def __init__(self, inner: Storage, on_step: Callable[[int, str, str], None]) -> None:
        self._inner = inner
        self._on_step = on_step
        self._counting = threading.Lock()
        self._steps = 0

    @property
    def uri(self) -> str:
        """The root of ``inner``."""
        return self._inner.uri

    @property
    def steps(self) -> int:
        """Number of calls of ``on_step``."""
        return self._steps

    def put(self, key: str, data: bytes) -> None:
        """Two steps around ``inner``'s."""
        with self.step("put", key):
            self._inner.put(key, data)

    def create(self, key: str, data: bytes) -> None:
        """Two steps around ``inner``'s."""
        with self.step("create", key):
            self._inner.create(key, data)

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """Two steps around ``inner``'s."""
        with self.step("get", key):
            return self._inner.get(key, max_bytes=max_bytes)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Two steps around ``inner``'s complete listing."""
        with self.step("list", prefix):
            return iter(list(self._inner.list(prefix)))

    def move(self, key: str, target: str) -> None:
        """Two steps around ``inner``'s; their key is the old name."""
        with self.step("move", key):
            self._inner.move(key, target)

    def delete(self, key: str) -> None:
        """Two steps around ``inner``'s."""
        with self.step("delete", key):
            self._inner.delete(key)

    def open_output(self, key: str) -> OutputFile:
        """Two steps around ``inner``'s, and two around each call of the file."""
        output = self._opened("open_output", key, lambda: self._inner.open_output(key), lambda made: made.abort())
        return _CountingOutput(self, output, key)

    def open_input(self, key: str) -> BinaryIO:
        """Two steps around ``inner``'s; the reads are not counted."""
        return self._opened("open_input", key, lambda: self._inner.open_input(key), lambda made: made.close())

    def sweep(self, prefix: str) -> int:
        """Two steps around ``inner``'s."""
        with self.step("sweep", prefix):
            return self._inner.sweep(prefix)

    def lock(self, key: str, owner: str) -> Lock:
        """Two steps around ``inner``'s, and two around each call of the lock."""
        lock = self._opened("lock", key, lambda: self._inner.lock(key, owner), lambda made: made.release())
        return _CountingLock(self, lock, key)

    def lock_owner(self, key: str) -> str | None:
        """Two steps around ``inner``'s."""
        with self.step("lock_owner", key):
            return self._inner.lock_owner(key)

    def _opened(self, verb: str, key: str, make: Callable[[], _T], discard: Callable[[_T], object]) -> _T:
        made: _T | None = None
        try:
            with self.step(verb, key):
                made = make()
        except BaseException:
            # The step after it failed: the caller gets nothing, so nobody else discards it.
            if made is not None:
                discard(made)
            raise
        return made

    @contextmanager
    def step(self, verb: str, key: str) -> Iterator[None]:
        """The two steps of ``verb`` around the block; none follows a block that fails."""
        self._call(verb, key)
        yield
        self._call(f"{verb} done", key)

    def _call(self, verb: str, key: str) -> None:
        with self._counting:
            # The number is taken under the lock: two threads never get the same step.
            step = self._steps
            self._steps += 1
        try:
            self._on_step(step, verb, key)
        except OSError as exc:
            raise StorageError(f"cannot {verb} {self.uri} {key}: {exc.strerror or exc}") from exc


class _CountingOutput:
    def __init__(self, storage: CountingStorage, inner: OutputFile, key: str) -> None:
        self._storage = storage
        self._inner = inner
        self._key = key

    def write(self, data: bytes) -> None:
        with self._storage.step("write", self._key):
            self._inner.write(data)

    def close(self) -> None:
        with self._storage.step("close", self._key):
            self._inner.close()

    def abort(self) -> None:
        # abort() must not raise, even where a test lets it fail.
        with suppress(NeowsError), self._storage.step("abort", self._key):
            self._inner.abort()


class _CountingLock:
    def __init__(self, storage: CountingStorage, inner: Lock, key: str) -> None:
        self._storage = storage
        self._inner = inner
        self._key = key

    @property
    def check_every_s(self) -> float:
        return self._inner.check_every_s

    def check(self) -> None:
        with self._storage.step("check", self._key):
            self._inner.check()

    def release(self) -> None:
        with suppress(NeowsError), self._storage.step("release", self._key):
            self._inner.release()

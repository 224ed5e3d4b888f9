"""A storage in a folder of this machine."""

from __future__ import annotations

import io
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from neows_async.errors import NotFoundError, StorageError
from neows_async.lake.storage.disk_errors import refuse_files, storage_error
from neows_async.lake.storage.file_lock import FileLock, file_lock_owner
from neows_async.lake.storage.folders import Folders
from neows_async.lake.storage.interface import ObjectInfo
from neows_async.lake.storage.keys import TEMPORARY, folder_parts, key_parts
from neows_async.lake.storage.local_files import LocalInput, LocalOutput

if TYPE_CHECKING:
    from collections.abc import Iterator


class LocalStorage:
    """The objects below the folder ``root``. Blocking; any thread may call it.

    A write has four steps: write a hidden file beside the target, sync it, rename it, sync the folder. So a reader
    sees the old file or the new one, and the new one survives a power cut. A power cut may only undo a deletion. The
    file system must support ``flock`` and hard links.

    :param root: created at the first write. Once it existed, its absence is an error
    :param durable: False skips the syncs: files are still whole, but may be lost in a power cut
    :raises StorageError: ``root`` is not a folder and cannot become one
    """

    def __init__(self, root: Path, *, durable: bool = True) -> None:
        self._uri = str(root)
        self._root = Path(os.path.abspath(root))  # links stay: errors name what the user wrote
        self._folders = Folders(self._root, durable=durable)
        # Fails at once, not after an hour of requests.
        if not self._folders.root_seen:
            with self._translated("open", self._root):
                refuse_files(self._root)

    @property
    def uri(self) -> str:
        """The root as the user wrote it."""
        return self._uri

    def put(self, key: str, data: bytes) -> None:
        """Write an object, durable and whole. After an error nothing changed, or a power cut may lose the object."""
        self._write("write", key, data, only_if_new=False)

    def create(self, key: str, data: bytes) -> None:
        """As :meth:`put`, but only if the object does not exist. Of several creators exactly one succeeds."""
        self._write("create", key, data, only_if_new=True)

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """The object's bytes."""
        path = self._path(key)
        with self._translated("read", path, reading=True), path.open("rb", buffering=0) as file:
            # Of the open file: a stat by name could be of the file's successor.
            size = os.fstat(file.fileno()).st_size
            if max_bytes is not None and size > max_bytes:
                raise StorageError(f"cannot read {path}: {size} bytes, where at most {max_bytes} are expected")
            return file.read()

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects below the folder ``prefix``, ascending by key; folders are read during the iteration."""
        parts = folder_parts(prefix)
        return self._walk(self._root.joinpath(*parts), "".join(f"{part}/" for part in parts))

    def move(self, key: str, target: str) -> None:
        """Rename an object in one step, and replace ``target``. After an error it has either name, and a power cut may
        undo it.
        """
        old, new = self._path(key), self._path(target)
        with self._translated("read", old, reading=True):
            if not stat.S_ISREG(old.stat().st_mode):
                raise NotFoundError(f"{old}: no such object")
        if old == new:
            return
        with self._translated(f"move {old} to", new):
            try:
                self._folders.move(old, new)
            except FileNotFoundError:
                with self._translated("read", old, reading=True):
                    old.stat()  # NotFoundError if another process moved it since the first stat
                raise

    def delete(self, key: str) -> None:
        """Remove an object, and the folders that are then empty; no effect if it does not exist."""
        path = self._path(key)
        with suppress(NotFoundError), self._translated("delete", path, reading=True):
            # A folder is not an object, so it stays.
            if not path.is_dir():
                path.unlink(missing_ok=True)
        # Not synced: a power cut may bring a deleted object back, and deleting again is harmless.
        self._folders.remove_empty(path.parent)

    def open_output(self, key: str) -> LocalOutput:
        """Begin a file of unknown size. It exists under its name, durable, after ``close`` and not before."""
        path = self._path(key)
        with self._translated("write", path):
            return LocalOutput(self._folders, path, self._translated, only_if_new=False)

    def open_input(self, key: str) -> BinaryIO:
        """A seekable reader of the object as it was when opened. Its reads raise StorageError."""
        path = self._path(key)
        with self._translated("read", path, reading=True):
            return io.BufferedReader(LocalInput(path, self._translated))

    def sweep(self, prefix: str) -> int:
        """Remove the unfinished files of dead writers below ``prefix``, and empty folders.

        A sweep of the whole root removes only folders in which it removed a file, since others may not be ours.
        """
        top = self._root.joinpath(*folder_parts(prefix))
        removed = 0
        with suppress(NotFoundError), self._translated("sweep", top, reading=True):
            # A folder that was removed meanwhile is skipped; any other error is raised.
            for folder, _, names in os.walk(top, topdown=False, onerror=_unless_gone, followlinks=True):
                found = [Path(folder, name) for name in names if TEMPORARY.fullmatch(name)]
                for path in found:
                    with suppress(FileNotFoundError):
                        removed += self._folders.remove_abandoned(path)
                if found or prefix:
                    self._folders.remove_empty(Path(folder))
        return removed

    def lock(self, key: str, owner: str) -> FileLock:
        """Acquire the lock ``key`` by ``flock``. The kernel releases it when the process ends, for any reason.

        Only processes that see the same kernel's locks exclude each other: on a network mount, if it forwards
        ``flock``.
        """
        path = self._path(key)
        with self._translated("lock", path):
            return FileLock(self._folders, path, owner, self._translated)

    def lock_owner(self, key: str) -> str | None:
        """The live owner of the lock ``key``; None if there is none. Writes nothing."""
        path = self._path(key)
        with suppress(NotFoundError), self._translated("look at", path, reading=True):
            return file_lock_owner(path)
        return None

    def _path(self, key: str) -> Path:
        return self._root.joinpath(*key_parts(key))

    def _write(self, doing: str, key: str, data: bytes, *, only_if_new: bool) -> None:
        path = self._path(key)
        # Only the creation: write and close translate by themselves.
        with self._translated(doing, path):
            output = LocalOutput(self._folders, path, self._translated, only_if_new=only_if_new)
        try:
            output.write(data)
            output.close()
        except BaseException:
            output.abort()
            raise

    def _walk(self, folder: Path, prefix: str) -> Iterator[ObjectInfo]:
        names: list[str] = []  # a DirEntry takes ten times its name's memory
        with suppress(NotFoundError), self._translated("list", folder, reading=True), os.scandir(folder) as scan:
            # A folder sorts with its "/", as its objects' keys do: "a.b" before "a/b".
            names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in scan)
        for name in names:
            path = folder / name
            if name.endswith("/"):
                yield from self._walk(path, prefix + name)
            elif not TEMPORARY.fullmatch(name):
                with suppress(NotFoundError), self._translated("list", path, reading=True):
                    status = path.stat()
                    yield ObjectInfo(key=prefix + name, bytes=status.st_size, modified_s=status.st_mtime)

    @contextmanager
    def _translated(self, doing: str, path: Path, *, reading: bool = False) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            seen = self._folders.root_seen
            raise storage_error(exc, doing=doing, root=self._root, path=path, reading=reading, root_seen=seen) from exc


def _unless_gone(exc: OSError) -> None:
    if not isinstance(exc, FileNotFoundError):
        raise exc

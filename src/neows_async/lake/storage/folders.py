"""The folders below a local root, and the steps that make a file survive a power cut."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import sys
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

_ATTEMPTS: Final = 32  # another process may remove a folder between its creation and its use


class Translate(Protocol):
    """Turns an OSError into a StorageError that names the action and the file."""

    def __call__(self, doing: str, path: Path) -> AbstractContextManager[None]:
        """The context of one action, such as "write", on ``path``."""


class Folders:
    """Creates a folder when a file needs it, and removes it with its last file.

    Because another writer may remove an empty folder at any time, creating is a loop. Every folder on the way is
    synced once by each process, no matter who created it: the creator may have died before its own sync.

    :param durable: False skips all syncs: files are still whole, but may be lost in a power cut
    """

    def __init__(self, root: Path, *, durable: bool) -> None:
        self.root = root
        self.root_seen: bool = os.path.isdir(root)  # never raises; the first write reports what is wrong
        self._durable = durable
        self._synced: set[Path] = set()

    def open_temporary(self, folder: Path) -> tuple[int, Path]:
        """A new, empty, hidden file in ``folder``, open for writing. ``flock`` marks it as a live writer's."""
        for _ in range(_ATTEMPTS):
            try:
                self._ensure(folder)
                path = folder / f".neows-{secrets.token_hex(8)}.tmp"
                # O_EXCL: never another writer's file. O_CLOEXEC: a child would keep the flock alive.
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            except FileNotFoundError:
                self._forget(folder)
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if os.fstat(fd).st_nlink > 0:  # 0: a sweep removed it between open and flock
                    return fd, path
            except OSError:
                path.unlink()
                os.close(fd)
                raise
            os.close(fd)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))

    def open_lock_file(self, path: Path) -> int:
        """The file ``path``, created if it does not exist, open for reading and writing."""
        for _ in range(_ATTEMPTS):
            try:
                self._ensure(path.parent)
                # Not O_EXCL: the file of a killed owner is used again. O_CLOEXEC, or a child would keep the lock.
                return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except FileNotFoundError:
                self._forget(path.parent)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))

    def remove_abandoned(self, temporary: Path) -> bool:
        """Remove ``temporary`` unless a live writer has it; whether it was removed."""
        fd = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            # Removed while locked: a writer that opened it and now waits for the lock then sees that it has no link.
            temporary.unlink()
            return True
        finally:
            os.close(fd)

    def move(self, old: Path, new: Path) -> None:
        """Rename the file ``old`` to ``new``, durably, and replace ``new``."""
        for _ in range(_ATTEMPTS):
            try:
                self._ensure(new.parent)
                old.rename(new)
            except FileNotFoundError:
                # The source is gone: only the caller can know whether that is an error.
                if not old.exists():
                    raise
                self._forget(new.parent)
                continue
            # Sync the new name first: after a power cut between the two syncs both names exist, never neither.
            self.sync_folder(new.parent)
            if old.parent != new.parent:
                self.sync_folder(old.parent)
                self.remove_empty(old.parent)
            return
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(new))

    def sync_file(self, fd: int) -> None:
        """Flush the contents of ``fd`` to the medium."""
        if not self._durable:
            return
        if sys.platform == "darwin":
            try:
                fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # on macOS fsync stops at the drive's own cache
            except OSError:
                pass  # network mounts do not support it
            else:
                return
        os.fsync(fd)

    def sync_folder(self, folder: Path) -> None:
        """Flush the names in ``folder`` to the medium."""
        if not self._durable:
            return
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as exc:
            if exc.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network mounts sync only files
                raise
        finally:
            os.close(fd)

    def remove_empty(self, folder: Path) -> None:
        """Remove ``folder`` and its parents below the root while they are empty; never raises."""
        while folder != self.root and self.root in folder.parents:
            try:
                # rmdir fails on a folder with entries, so no check before it is needed, and none could be raced.
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                return
            # If it is created again, its new entry has to be synced again.
            self._synced.discard(folder)
            folder = folder.parent

    def _ensure(self, folder: Path) -> None:
        if folder in self._synced:
            return
        if not self.root_seen:
            self._make_root()
        below = folder.relative_to(self.root)
        path = self.root
        for part in below.parts:
            parent, path = path, path / part
            if path in self._synced:
                continue
            _make(path)
            self.sync_folder(parent)  # a folder is durable when its parent is synced
            # After the sync: if that failed, the next write tries again.
            self._synced.add(path)

    def _forget(self, folder: Path) -> None:
        self._synced.difference_update((folder, *folder.parents))

    def _make_root(self) -> None:
        missing = [path for path in (self.root, *self.root.parents) if not path.is_dir()]
        for path in reversed(missing):
            _make(path)
            self.sync_folder(path.parent)
        # From now on a missing root is an error: an unmounted disk must not get a new, empty lake in its place.
        self.root_seen = True


def _make(folder: Path) -> None:
    try:
        folder.mkdir()
    except FileExistsError:
        try:
            # One call: between two calls it may be removed and created again.
            is_folder = stat.S_ISDIR(folder.stat().st_mode)
        except FileNotFoundError:
            # It was removed after mkdir saw it: the caller tries again. A dangling link stays in the way.
            if not folder.is_symlink():
                raise
            is_folder = False
        if not is_folder:
            raise

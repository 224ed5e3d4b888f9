"""A local lock: ``flock`` on a file that names its owner. The kernel releases it when the process ends."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from neows_async.errors import SnapshotHeldError, StorageError

if TYPE_CHECKING:
    from pathlib import Path

    from neows_async.lake.storage.folders import Folders, Translate

_ATTEMPTS: Final = 32  # another owner may remove the file between our open and our flock
_OWNER_BYTES: Final = 500


class FileLock:
    """An ``flock`` on ``path`` that this process has.

    The file is removed at release. If its owner was killed, the file remains and the next owner uses it.

    :param owner: one line that names this process in other processes' errors
    :raises SnapshotHeldError: a live owner has the lock; the text names the owner
    :raises OSError: the file cannot be created or locked
    """

    check_every_s: float = 15.0  # flock needs no renewal: a check only finds a removed file
    _fd: int | None = None

    def __init__(self, folders: Folders, path: Path, owner: str, translate: Translate) -> None:
        self._folders = folders
        self._path = path
        self._translate = translate
        self._pid = os.getpid()
        self._fd = self._acquire()
        try:
            # The owner's name is for messages only; the flock is the lock.
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, " ".join(owner.split()).encode()[:_OWNER_BYTES], 0)
        except OSError:
            self.release()
            raise

    def check(self) -> None:
        """Check that the file still exists."""
        with self._translate("lock", self._path):
            is_ours = self._fd is not None and _is_at(self._fd, self._path)
            if not is_ours:
                self._folders.root.stat()  # raises if the whole root is gone: then no process has the lock
        if not is_ours:
            raise SnapshotHeldError(f"{self._path}: the lock was lost: its file was removed under the run; run again")

    def release(self) -> None:
        """Remove the file and release the lock; never raises."""
        fd, self._fd = self._fd, None
        if fd is None:
            return
        with suppress(OSError):
            # Unlink before close, while the lock is ours. A process that has opened this file sees that it has no
            # name any more, and creates a new one.
            if _is_at(fd, self._path):
                self._path.unlink()
        with suppress(OSError):
            os.close(fd)
        self._folders.remove_empty(self._path.parent)

    def __del__(self) -> None:
        # An abandoned call returns its lock to no caller. A forked child has a copy of this object, and must not
        # release the parent's lock.
        if self._fd is not None and self._pid == os.getpid():
            self.release()

    def _acquire(self) -> int:
        for _ in range(_ATTEMPTS):
            fd = self._folders.open_lock_file(self._path)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(fd, self._path):
                    return fd
            except BlockingIOError:
                owner = _owner(fd)
                os.close(fd)
                raise SnapshotHeldError(f"{self._path}: held by {owner}; wait for it or stop it") from None
            except BaseException:
                os.close(fd)
                raise
            # Its owner removed the file between our open and our flock: a lock on it would exclude nobody.
            os.close(fd)
        raise StorageError(f"cannot lock {self._path}: its file was removed {_ATTEMPTS} times; run again")


def file_lock_owner(path: Path) -> str | None:
    """The live owner of the lock ``path``; None if there is none. OSError if the file does not exist."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Shared, and released at once: several such calls do not exclude each other.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _owner(fd)
    else:
        return None
    finally:
        os.close(fd)


def _owner(fd: int) -> str:
    return os.pread(fd, _OWNER_BYTES, 0).decode(errors="replace") or "another process"


def _is_at(fd: int, path: Path) -> bool:
    try:
        at_path = path.stat()
    except OSError as exc:
        if exc.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise
    return os.path.samestat(os.fstat(fd), at_path)

"""A lock that the death of its holder releases: ``flock`` on a file that names the holder."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from neows_async.errors import SnapshotHeldError, StorageError

if TYPE_CHECKING:
    from pathlib import Path

    from neows_async.lake.storage.folders import Folders
    from neows_async.lake.storage.local_files import Translate

_RACES: Final = 32
_HOLDER_BYTES: Final = 500


class FileLock:
    """A held ``flock`` on ``path``.

    The file goes at release. One that a killed holder left is taken over as it lies.

    :raises SnapshotHeldError: somebody alive has it; the text says who
    :raises OSError: it cannot be taken
    """

    check_every_s: float = 15.0  # nothing needs to be renewed: so soon it is seen that the file was removed
    _fd: int | None = None

    def __init__(self, folders: Folders, path: Path, holder: str, translate: Translate) -> None:
        self._folders = folders
        self._path = path
        self._translate = translate
        self._pid = os.getpid()
        self._fd = self._acquire()
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, " ".join(holder.split()).encode()[:_HOLDER_BYTES], 0)
        except OSError:
            self.release()
            raise

    def check(self) -> None:
        """See that the file is still ours; nothing needs to be renewed.

        :raises SnapshotHeldError: somebody removed the file, and somebody else may have locked another
        :raises StorageError: it cannot be told
        """
        with self._translate("lock", self._path):
            held = self._fd is not None and _is_at(self._fd, self._path)
            if not held:
                self._folders.root.stat()  # without the whole root, nobody took the lock over
        if not held:
            raise SnapshotHeldError(f"{self._path}: the lock was lost: its file was removed under the run; run again")

    def release(self) -> None:
        """Remove the file and let go; never raises."""
        fd, self._fd = self._fd, None
        if fd is None:
            return
        with suppress(OSError):
            # While it is still ours. Who waits for this very file then sees that it has no name any more.
            if _is_at(fd, self._path):
                self._path.unlink()
        with suppress(OSError):
            os.close(fd)
        self._folders.remove_empty(self._path.parent)

    def __del__(self) -> None:
        # A call that its caller gave up waiting for hands its lock to nobody. A forked child has
        # a copy of this object, and no say.
        if self._fd is not None and self._pid == os.getpid():
            self.release()

    def _acquire(self) -> int:
        for _ in range(_RACES):
            fd = self._folders.open_lock_file(self._path)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(fd, self._path):
                    return fd
            except BlockingIOError:
                holder = os.pread(fd, _HOLDER_BYTES, 0).decode(errors="replace") or "another process"
                os.close(fd)
                raise SnapshotHeldError(f"{self._path}: held by {holder}; wait for it or stop it") from None
            except BaseException:
                os.close(fd)
                raise
            # Its holder removed it between our two calls: a lock on it would exclude nobody.
            os.close(fd)
        raise StorageError(f"cannot lock {self._path}: its file was removed {_RACES} times; run again")


def file_lock_holder(path: Path) -> str | None:
    """What the live holder of the lock ``path`` calls itself; None if it has none.

    :raises OSError: the file cannot be opened, for example because there is none
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Shared, and let go at once: whoever looks at the same time is not in the way.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(fd, _HOLDER_BYTES, 0).decode(errors="replace") or "another process"
    else:
        return None
    finally:
        os.close(fd)


def _is_at(fd: int, path: Path) -> bool:
    try:
        at_path = path.stat()
    except OSError as exc:
        if exc.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise
    return os.path.samestat(os.fstat(fd), at_path)

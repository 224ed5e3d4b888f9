"""What an error number of the operating system means for a lake, and what the user can do."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from neows_async.errors import NotFoundError, StorageError

if TYPE_CHECKING:
    from pathlib import Path

_AGAIN: Final = "then run the same command again"

_ABSENT: Final = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
)  # a folder is not an object, and an object has no others below it

_MEANINGS: Final[dict[int, str]] = {
    errno.ENOSPC: f"the disk is full; free some space, {_AGAIN}",
    errno.EDQUOT: f"the disk quota is exceeded; free some space or raise the quota, {_AGAIN}",
    errno.EFBIG: "the file is larger than the file system or a limit of the process (ulimit -f) allows",
    errno.EROFS: "the file system is read-only; remount it for writing or choose another root",
    errno.EISDIR: "a folder has this name; move it away or choose another root",
    errno.ENOTEMPTY: "a folder has this name; move it away or choose another root",
    errno.ENAMETOOLONG: "the name is too long for this file system; choose a shorter root",
    errno.ELOOP: "its symbolic links form a circle; repair them",
    errno.EXDEV: "part of the root is on another file system; a root must be on one",
    errno.EMLINK: "the file system refuses one more link; choose a root on another one",
    errno.EMFILE: "this process has too many open files; raise the limit (ulimit -n) or lower the concurrency",
    errno.ENFILE: "the machine has too many open files; close some programs",
    errno.EIO: "the device reports an input/output error; check the disk and the system's log",
    errno.ESTALE: f"the network file system lost the file; check the mount, {_AGAIN}",
    errno.ENOLCK: "the file system has no locks; choose a root on one that has (not every network mount does)",
    errno.EOPNOTSUPP: "the file system lacks hard links or locks; choose a root on one that has both",
    errno.ENOTSUP: "the file system lacks hard links or locks; choose a root on one that has both",
    errno.ENOMEM: f"the memory is full; close some programs, {_AGAIN}",
}


def storage_error(exc: OSError, *, doing: str, root: Path, path: Path, reading: bool, root_seen: bool) -> StorageError:
    """``exc`` as one line that names the object, the cause and the remedy.

    :param doing: the verb, as in "cannot *write* …"
    :param reading: a missing file is a :class:`NotFoundError`
    :param root_seen: the root existed before, so its absence is an error
    """
    cannot = f"cannot {doing} {path}: "
    # First: if the whole root is gone, every other reason is only a consequence.
    if root_seen and _is_gone(root):
        return StorageError(
            f"{cannot}the folder {root} was removed while in use; restore it, or run the same command again"
        )
    # A file where a folder should be gives ENOTDIR on a read, which would otherwise look like an absent object.
    blocker = _file_in_the_way(root, path)
    if reading and exc.errno in _ABSENT and (blocker is None or root in blocker.parents):
        return NotFoundError(f"{path}: no such object")
    if exc.errno in (errno.ENOTDIR, errno.EEXIST) and blocker is not None:
        return StorageError(f"{cannot}{blocker} is not a folder; move it away or choose another root")
    if exc.errno == errno.ENOENT:
        return StorageError(f"{cannot}its folder was removed meanwhile; run the same command again")
    if exc.errno in (errno.EACCES, errno.EPERM):
        return StorageError(f"{cannot}permission denied for uid {os.geteuid()}; change the owner or mode, or the root")
    meaning = _MEANINGS.get(exc.errno or 0) or f"{exc.strerror or type(exc).__name__}; see the system's log"
    return StorageError(cannot + meaning)


def refuse_files(root: Path) -> None:
    """Raise NotADirectoryError for a ``root`` that is not a folder and cannot become one."""
    if _file_in_the_way(root, root) is not None:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(root))


def _file_in_the_way(root: Path, path: Path) -> Path | None:
    """The topmost of ``root`` and the parents of ``path`` that exists and is not a folder; a broken link counts."""
    for folder in (*reversed(path.parents), root):
        # Not Path.is_dir, which raises if a folder on the way cannot be entered.
        if os.path.lexists(folder) and not os.path.isdir(folder):
            return folder
    return None


def _is_gone(root: Path) -> bool:
    try:
        root.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False

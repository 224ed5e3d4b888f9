"""Files of a local lake while they are written and read."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from typing_extensions import override

from neows_async.errors import AlreadyExistsError, StorageError

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Buffer

    from neows_async.lake.storage.folders import Folders, Translate


class LocalOutput:
    """A file that is being written under a hidden name; nothing exists under its own name before ``close``.

    :param only_if_new: ``close`` does not replace an existing file
    :raises OSError: the file cannot be created
    """

    _fd: int | None = None

    def __init__(self, folders: Folders, target: Path, translate: Translate, *, only_if_new: bool) -> None:
        self._folders = folders
        self._target = target
        self._translate = translate
        self._only_if_new = only_if_new
        self._pid = os.getpid()
        self._fd, self._temporary = folders.open_temporary(target.parent)

    def write(self, data: bytes) -> None:
        """Append."""
        rest = memoryview(data)
        with self._translate("write", self._target):
            # os.write may write less than it got, as on a full disk.
            while rest:
                rest = rest[os.write(self._open_fd(), rest) :]

    def close(self) -> None:
        """Make the file durable under its name. On failure it is discarded."""
        fd = self._open_fd()
        try:
            with self._translate("write", self._target):
                # In this order: no name ever shows contents that are not durable.
                # 1. Contents.
                self._folders.sync_file(fd)
                # 2. Name: a crash before this line leaves a hidden file, which a sweep removes.
                self._publish()
                # 3. Folder: until this returns, a power cut may undo the name.
                self._folders.sync_folder(self._target.parent)
        finally:
            self.abort()  # closes, and removes the hidden name after a failure

    def abort(self) -> None:
        """Discard the file; never raises. No effect after ``close``."""
        fd, self._fd = self._fd, None
        if fd is None:
            return
        with suppress(OSError):
            # Unlink before close: the flock keeps a sweep away until the name is gone.
            self._temporary.unlink(missing_ok=True)
        with suppress(OSError):
            os.close(fd)
        self._folders.remove_empty(self._target.parent)

    def __del__(self) -> None:
        # An abandoned call returns its file to no caller. A forked child has a copy of this object, and must not
        # remove the parent's file.
        if self._fd is not None and self._pid == os.getpid():
            self.abort()

    def _open_fd(self) -> int:
        if self._fd is None:
            raise StorageError(f"cannot write {self._target}: it was closed or aborted before")
        return self._fd

    def _publish(self) -> None:
        if not self._only_if_new:
            self._temporary.rename(self._target)
            return
        try:
            # A hard link, since rename would replace: of several creators exactly one succeeds.
            self._target.hardlink_to(self._temporary)
        except FileExistsError as exc:
            raise AlreadyExistsError(f"cannot create {self._target}: it exists already") from exc
        # Here and not in abort(): the folder is synced once, after the second name is gone.
        self._temporary.unlink(missing_ok=True)


class LocalInput(io.FileIO):
    """A file that is being read. Its reads raise StorageError.

    :raises OSError: the file cannot be opened
    """

    def __init__(self, path: Path, translate: Translate) -> None:
        super().__init__(path)
        self._path = path
        self._translate = translate

    @override
    def readinto(self, buffer: Buffer, /) -> int:
        with self._translate("read", self._path):
            return super().readinto(buffer)

    @override
    def readall(self) -> bytes:
        with self._translate("read", self._path):
            return super().readall()

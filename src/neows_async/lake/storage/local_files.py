"""Files of a local lake while they are written and read."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from typing_extensions import override

from neows_async.errors import AlreadyExistsError, StorageError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from typing_extensions import Buffer

    from neows_async.lake.storage.folders import Folders


class Translate(Protocol):
    """Makes an OSError within it a StorageError that says what was being done to which file."""

    def __call__(self, doing: str, path: Path) -> AbstractContextManager[None]:
        """The context in which ``doing`` is done to ``path``."""


class LocalOutput:
    """A file being written; nothing exists under its name before ``close``.

    :param only_if_new: ``close`` refuses to replace what has the name by then
    :raises OSError: it cannot be begun
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
        """Append.

        :raises StorageError: it could not be written
        """
        rest = memoryview(data)
        with self._translate("write", self._target):
            while rest:
                rest = rest[os.write(self._open_fd(), rest) :]

    def close(self) -> None:
        """Make it durable under its name; a failure forgets it.

        :raises AlreadyExistsError: it was to be new, and somebody was first
        :raises StorageError: it could not be made durable
        """
        fd = self._open_fd()
        try:
            with self._translate("write", self._target):
                self._folders.sync_file(fd)
                self._publish()
                self._folders.sync_folder(self._target.parent)
        finally:
            self.abort()  # by now nothing has the temporary name, or nothing should

    def abort(self) -> None:
        """Forget it, unless it was closed; never raises."""
        fd, self._fd = self._fd, None
        if fd is None:
            return
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)
        with suppress(OSError):
            os.close(fd)
        self._folders.remove_empty(self._target.parent)

    def __del__(self) -> None:
        # A call that its caller gave up waiting for hands its file to nobody. A forked child has
        # a copy of this object, and no say.
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
            self._target.hardlink_to(self._temporary)
        except FileExistsError as exc:
            raise AlreadyExistsError(f"cannot create {self._target}: it exists already") from exc
        # Not left to abort(): the folder is synced once, and then without the second name.
        self._temporary.unlink(missing_ok=True)


class LocalInput(io.FileIO):
    """A file being read, whose failures are told as everything else's.

    :raises OSError: it cannot be opened
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

"""Files of an object store while they are written and read."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Final

import obstore
from obstore.exceptions import PreconditionError
from typing_extensions import override

from neows_async.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from obstore import GetOptions, WritableFile
    from obstore.store import ObjectStore
    from typing_extensions import Buffer

_PART_BYTES: Final = 8 << 20  # what stays smaller is one put; the 10,000 parts of S3 make 80 GB
_PARTS_AT_ONCE: Final = 2
_READ_BYTES: Final = 1 << 20  # a request costs as much as reading this much


class ObjectOutput:
    """An object being written; nothing exists under its key before ``close``.

    Holds at most three parts of 8 MiB in memory.

    :param translated: the context in which the store's errors become StorageError
    """

    def __init__(self, store: ObjectStore, key: str, translated: Callable[[], AbstractContextManager[None]]) -> None:
        self._key = key
        self._translated = translated
        self._file: WritableFile | None = obstore.open_writer(
            store, key, buffer_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE
        )

    def write(self, data: bytes) -> None:
        """Append.

        :raises StorageError: it could not be written
        """
        file = self._open_file()
        with self._translated():
            file.write(data)

    def close(self) -> None:
        """Complete the upload.

        :raises StorageError: it could not be completed; when the store went away, it may be there, whole
        """
        file = self._open_file()
        self._file = None
        with self._translated():
            file.close()

    def abort(self) -> None:
        """Forget it, unless it was closed; never raises. Parts already sent stay hidden in the store."""
        self._file = None  # only close() completes an upload; dropping the writer does not

    def _open_file(self) -> WritableFile:
        if self._file is None:
            raise StorageError(f"cannot write {self._key}: it was closed or aborted before")
        return self._file


class ObjectInput(io.RawIOBase):
    """An object being read by ranges, all of the version it had when opened."""

    def __init__(
        self,
        store: ObjectStore,
        key: str,
        translated: Callable[[], AbstractContextManager[None]],
    ) -> None:
        super().__init__()
        self._store = store
        self._key = key
        self._translated = translated
        meta = obstore.head(store, key)
        self._size = meta["size"]
        self._e_tag = meta["e_tag"]
        self._position = 0

    @classmethod
    def open(
        cls, store: ObjectStore, key: str, translated: Callable[[], AbstractContextManager[None]]
    ) -> io.BufferedReader:
        """A buffered reader of it."""
        return io.BufferedReader(cls(store, key, translated), _READ_BYTES)

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def tell(self) -> int:
        return self._position

    @override
    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"cannot seek to {start + offset}: before the beginning")
        self._position = start + offset
        return self._position

    @override
    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer).cast("B")
        end = min(self._position + len(view), self._size)
        if end <= self._position:
            return 0
        options: GetOptions = {"range": (self._position, end)}
        if self._e_tag is not None:
            options["if_match"] = self._e_tag
        with self._translated():
            try:
                data = obstore.get(self._store, self._key, options=options).bytes()
            except PreconditionError:
                raise StorageError(f"cannot read {self._key}: it was replaced while it was read") from None
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

"""A storage in an object store: S3 and compatible stores, Google Cloud Storage, Azure."""

from __future__ import annotations

import io
import os
import secrets
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, Final

import obstore
from obstore.exceptions import AlreadyExistsError as ObstoreAlreadyExistsError
from obstore.exceptions import BaseError, PreconditionError
from typing_extensions import override

from neows_async.errors import AlreadyExistsError, NotFoundError, StorageError
from neows_async.lake.storage.interface import ObjectInfo
from neows_async.lake.storage.keys import folder_parts, key_parts
from neows_async.lake.storage.lease import LeaseLock, lease_owner
from neows_async.lake.storage.object_errors import object_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from obstore import GetOptions, PutMode, UpdateVersion, WritableFile
    from obstore.store import ObjectStore
    from typing_extensions import Buffer

_LIST_OBJECTS: Final = 1000  # S3 returns at most this many for each request
_CREATOR: Final = "neows-creator"  # metadata: a creator recognizes its own object by it
_PART_BYTES: Final = 8 << 20  # a smaller object is one put; the 10,000 parts of S3 make 80 GB
_PARTS_AT_ONCE: Final = 2
_READ_BYTES: Final = 1 << 20  # a request costs as much time as reading this much


class ObjectStorage:
    """The objects of ``store``. Blocking, without an event loop; any thread may call it.

    The store must support conditional puts: ``If-None-Match`` to create, ``If-Match`` to renew a lock. A read after
    a write must see the write, as S3, Google and Azure promise.

    :param store: an obstore store, with its prefix, credentials, time limits and retries
    :param uri: the root's name in messages; without secrets
    :param now_s: the clock of the locks: UTC, seconds since 1970
    """

    def __init__(self, store: ObjectStore, uri: str, *, now_s: Callable[[], float] = time.time) -> None:
        self._store = store
        self._uri = uri
        self._root = uri.partition("?")[0].rstrip("/")
        self._now_s = now_s

    @property
    def uri(self) -> str:
        """The root as a user would write it."""
        return self._uri

    def put(self, key: str, data: bytes) -> None:
        """Write an object, whole. After an error it may be written: the response may be lost."""
        with self._translated("write", self._checked(key)):
            # One request: an object store shows the old object or the new one, never a part.
            obstore.put(self._store, key, data, use_multipart=False)

    def create(self, key: str, data: bytes) -> None:
        """As :meth:`put`, but only if the object does not exist; also if responses are lost, exactly one creator
        succeeds.
        """
        uri = self._checked(key)
        creator = secrets.token_hex(16)
        try:
            # If-None-Match: the store admits one creator.
            obstore.put(self._store, key, data, attributes={_CREATOR: creator}, mode="create", use_multipart=False)
        except (BaseError, OSError) as exc:
            # If a response is lost, the client repeats the put, and its own object refuses the second one.
            if self._creator(key) == creator:
                return
            if isinstance(exc, ObstoreAlreadyExistsError):
                raise AlreadyExistsError(f"cannot create {uri}: it exists already") from None
            raise object_error(exc, doing="create", uri=uri, reading=False)  # noqa: B904 - it has a redacted cause

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """The object's bytes."""
        uri = self._checked(key)
        with self._translated("read", uri, reading=True):
            # The size is in the headers: a body that is too large is never read.
            response = obstore.get(self._store, key)
            size = response.meta["size"]
            if max_bytes is not None and size > max_bytes:
                raise StorageError(f"cannot read {uri}: {size} bytes, where at most {max_bytes} are expected")
            return bytes(response.bytes())

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects below the folder ``prefix``, ascending by key; all are listed before the first is returned."""
        folder = "/".join(folder_parts(prefix))
        with self._translated("list", f"{self._root}/{folder}"):
            found = [
                ObjectInfo(key=entry["path"], bytes=entry["size"], modified_s=entry["last_modified"].timestamp())
                for response in obstore.list(self._store, folder or None, chunk_size=_LIST_OBJECTS)
                for entry in response
            ]
        # S3 sorts its listings, but not every store does.
        return iter(sorted(found, key=lambda info: info.key))

    def move(self, key: str, target: str) -> None:
        """Copy an object to ``target`` within the store, then delete it. After an error both may exist."""
        old, new = self._checked(key), self._checked(target)
        if key == target:
            with self._translated("read", old, reading=True):
                obstore.head(self._store, key)
            return
        with self._translated("move", old, reading=True):
            # Copy, then delete: after a crash between them both exist, and the same move repeats both.
            obstore.copy(self._store, key, target)
        with self._translated(f"move to {new}", old):
            obstore.delete(self._store, key)

    def delete(self, key: str) -> None:
        """Remove an object; no effect if it does not exist."""
        # S3 succeeds if there is no such object; Google and Azure return an error.
        with suppress(NotFoundError), self._translated("delete", self._checked(key), reading=True):
            obstore.delete(self._store, key)

    def open_output(self, key: str) -> ObjectOutput:
        """Begin a file of unknown size: one put if it is small, else a multipart upload."""
        uri = self._checked(key)
        with self._translated("write", uri):
            return ObjectOutput(self._store, key, lambda: self._translated("write", uri))

    def open_input(self, key: str) -> BinaryIO:
        """A seekable reader. Its reads raise StorageError, also if the object was replaced since it was opened."""
        uri = self._checked(key)
        with self._translated("read", uri, reading=True):
            source = ObjectInput(self._store, key, lambda: self._translated("read", uri, reading=True))
            return io.BufferedReader(source, _READ_BYTES)

    def sweep(self, prefix: str) -> int:
        """Return 0: an unfinished put leaves no object.

        An unfinished multipart upload leaves parts, which the store hides, the client cannot list, and the user pays
        for. Give the bucket a lifecycle rule that aborts incomplete multipart uploads after a day.
        """
        folder_parts(prefix)
        return 0

    def lock(self, key: str, owner: str) -> LeaseLock:
        """Acquire the lock ``key``: see :class:`~neows_async.lake.storage.lease.LeaseLock`."""
        return LeaseLock(self, key, owner, now_s=self._now_s)

    def lock_owner(self, key: str) -> str | None:
        """The live owner of the lock ``key``; None if there is none. Writes nothing."""
        return lease_owner(self, key, now_s=self._now_s)

    def read_versioned(self, key: str) -> tuple[bytes, UpdateVersion, float]:
        """The object's bytes, its version for :meth:`replace`, and when it was written (UTC, seconds since 1970)."""
        with self._translated("read", self._checked(key), reading=True):
            response = obstore.get(self._store, key)
            meta = response.meta
            version: UpdateVersion = {}
            if meta["e_tag"] is not None:
                version["e_tag"] = meta["e_tag"]
            if meta["version"] is not None:
                version["version"] = meta["version"]
            # Bytes, version and time are of one response, so they belong together.
            return bytes(response.bytes()), version, meta["last_modified"].timestamp()

    def replace(self, key: str, data: bytes, version: UpdateVersion) -> bool:
        """Write ``data`` if the object still has ``version``; whether it had. False also if the response was lost."""
        mode: PutMode = version
        with self._translated("write", self._checked(key)):
            try:
                obstore.put(self._store, key, data, mode=mode, use_multipart=False)
            except (PreconditionError, FileNotFoundError):
                # Also after a lost response: the client's own retry then finds the version that its first attempt
                # wrote.
                return False
        return True

    def _checked(self, key: str) -> str:
        key_parts(key)
        return f"{self._root}/{key}"

    def _creator(self, key: str) -> str | None:
        try:
            return obstore.get(self._store, key, options={"head": True}).attributes.get(_CREATOR)
        except (BaseError, OSError):
            return None

    @contextmanager
    def _translated(self, doing: str, uri: str, *, reading: bool = False) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError, ValueError) as exc:
            raise object_error(exc, doing=doing, uri=uri, reading=reading)  # noqa: B904 - it has a redacted cause


class ObjectOutput:
    """An object that is being written; nothing exists under its key before ``close``.

    At most three parts of 8 MiB are in memory.

    :param translated: a context in which the store's errors become StorageError
    """

    def __init__(self, store: ObjectStore, key: str, translated: Callable[[], AbstractContextManager[None]]) -> None:
        self._key = key
        self._translated = translated
        self._file: WritableFile | None = obstore.open_writer(
            store, key, buffer_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE
        )

    def write(self, data: bytes) -> None:
        """Append."""
        file = self._open_file()
        with self._translated():
            file.write(data)

    def close(self) -> None:
        """Complete the upload. After an error the object may exist, whole."""
        file = self._open_file()
        self._file = None
        with self._translated():
            file.close()

    def abort(self) -> None:
        """Discard the object; never raises. No effect after ``close``. Sent parts stay hidden in the store."""
        self._file = None  # only close() completes an upload

    def _open_file(self) -> WritableFile:
        if self._file is None:
            raise StorageError(f"cannot write {self._key}: it was closed or aborted before")
        return self._file


class ObjectInput(io.RawIOBase):
    """An object that is read by ranges, all of the version that it had when it was opened."""

    def __init__(self, store: ObjectStore, key: str, translated: Callable[[], AbstractContextManager[None]]) -> None:
        super().__init__()
        self._store = store
        self._key = key
        self._translated = translated
        meta = obstore.head(store, key)
        self._size = meta["size"]
        self._e_tag = meta["e_tag"]
        self._position = 0

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
            # A reader never mixes ranges of two versions.
            options["if_match"] = self._e_tag
        with self._translated():
            try:
                data = obstore.get(self._store, self._key, options=options).bytes()
            except PreconditionError:
                raise StorageError(f"cannot read {self._key}: it was replaced while it was read") from None
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

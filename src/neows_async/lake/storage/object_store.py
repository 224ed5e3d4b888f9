"""A lake in an object store: S3 and what speaks its language, Google Cloud Storage, Azure."""

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
from neows_async.lake.storage.lease import LeaseLock, lease_holder
from neows_async.lake.storage.object_errors import object_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from obstore import GetOptions, PutMode, UpdateVersion, WritableFile
    from obstore.store import ObjectStore
    from typing_extensions import Buffer

_LIST_OBJECTS: Final = 1000  # what one answer of S3 holds
_CREATOR: Final = "neows-creator"  # the metadata by which a creator knows its own object


class ObjectStorage:
    """The objects of ``store``. Blocking, without an event loop; any thread may call it.

    The store must have conditional puts: ``If-None-Match`` to create, ``If-Match`` to renew a lock.
    A read after a write must see it, as S3, Google and Azure promise.

    :param store: an obstore store, with the prefix, credentials, time limits and retries it is to have
    :param uri: how messages call the root; must hold no secret
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
        """Write whole, replacing what is there.

        :raises StorageError: it could not be written, or the answer was lost and it may be there
        """
        with self._translated("write", self._checked(key)):
            obstore.put(self._store, key, data, use_multipart=False)

    def create(self, key: str, data: bytes) -> None:
        """As :meth:`put`, but of several creators exactly one wins, also when answers are lost.

        Each creator signs its object, and an error is held against the signature found: a create
        that succeeded although the client saw an error is a success.

        :raises AlreadyExistsError: there is one, and it is another's
        :raises StorageError: it could not be written; when the store went away, it may be there
        """
        uri = self._checked(key)
        creator = secrets.token_hex(16)
        try:
            obstore.put(self._store, key, data, attributes={_CREATOR: creator}, mode="create", use_multipart=False)
        except (BaseError, OSError) as exc:
            # The client repeats a put whose answer was lost, and is then refused by its own object.
            if self._creator(key) == creator:
                return
            if isinstance(exc, ObstoreAlreadyExistsError):
                raise AlreadyExistsError(f"cannot create {uri}: it exists already") from None
            raise object_error(exc, doing="create", uri=uri, reading=False)  # noqa: B904 - it has a cause, scrubbed

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """The object's bytes.

        :raises NotFoundError: there is none
        :raises StorageError: it is larger than ``max_bytes``, or cannot be read
        """
        uri = self._checked(key)
        with self._translated("read", uri, reading=True):
            answer = obstore.get(self._store, key)
            size = answer.meta["size"]
            if max_bytes is not None and size > max_bytes:
                raise StorageError(f"cannot read {uri}: {size} bytes, where at most {max_bytes} are expected")
            return bytes(answer.bytes())

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects below the folder ``prefix``, ascending by key; all are asked for before the first is given.

        :raises StorageError: they cannot be listed
        """
        folder = "/".join(folder_parts(prefix))
        with self._translated("list", f"{self._root}/{folder}"):
            found = [
                ObjectInfo(key=entry["path"], bytes=entry["size"], modified_s=entry["last_modified"].timestamp())
                for answer in obstore.list(self._store, folder or None, chunk_size=_LIST_OBJECTS)
                for entry in answer
            ]
        # S3 sorts, other stores do not all.
        return iter(sorted(found, key=lambda info: info.key))

    def move(self, key: str, target: str) -> None:
        """Copy the object to another name within the store, replacing what is there, then delete it.

        Killed between the two, both names have it, and the same move finishes it.

        :raises NotFoundError: there is none
        :raises StorageError: it still has its name, and may have the new one too
        """
        old, new = self._checked(key), self._checked(target)
        if key == target:
            with self._translated("read", old, reading=True):
                obstore.head(self._store, key)
            return
        with self._translated("move", old, reading=True):
            obstore.copy(self._store, key, target)
        with self._translated(f"move to {new}", old):
            obstore.delete(self._store, key)

    def delete(self, key: str) -> None:
        """Remove the object, if there is one.

        :raises StorageError: it may still be there
        """
        # S3 is content when there is none; Google and Azure say so.
        with suppress(NotFoundError), self._translated("delete", self._checked(key), reading=True):
            obstore.delete(self._store, key)

    def open_output(self, key: str) -> ObjectOutput:
        """Begin a file of unknown size: one put if it stays small, else a multipart upload as it grows.

        It exists after ``close``, whole, and never before.

        :raises StorageError: it cannot be begun
        """
        uri = self._checked(key)
        with self._translated("write", uri):
            return ObjectOutput(self._store, key, lambda: self._translated("write", uri))

    def open_input(self, key: str) -> BinaryIO:
        """A seekable reader of ranges; a read raises StorageError, also when the object was replaced meanwhile.

        :raises NotFoundError: there is none
        """
        uri = self._checked(key)
        with self._translated("read", uri, reading=True):
            return ObjectInput.open(self._store, key, lambda: self._translated("read", uri, reading=True))

    def sweep(self, prefix: str) -> int:
        """Nothing, and 0: a put leaves no trace before it is whole.

        The parts of large uploads that died are hidden by the store, cannot be listed through its
        client, and cost until they go: give the bucket a lifecycle rule that aborts incomplete
        multipart uploads after a day.
        """
        folder_parts(prefix)
        return 0

    def lock(self, key: str, owner: str) -> LeaseLock:
        """Take the lock ``key``: an object that says who holds it and until when.

        It must be renewed by calling ``check`` at least every 15 s; see :class:`LeaseLock`.

        :param holder: one line that others are told
        :raises SnapshotHeldError: somebody alive has it; the text says who
        :raises StorageError: it cannot be taken
        """
        return LeaseLock(self, key, owner, now_s=self._now_s)

    def lock_owner(self, key: str) -> str | None:
        """Who has the lock ``key`` now; None if nobody alive has. Nothing is written.

        :raises StorageError: it cannot be told
        """
        return lease_holder(self, key, now_s=self._now_s)

    def read_versioned(self, key: str) -> tuple[bytes, UpdateVersion, float]:
        """The object's bytes, its version for :meth:`replace`, and when it was written (UTC, seconds since 1970).

        :raises NotFoundError: there is none
        """
        with self._translated("read", self._checked(key), reading=True):
            answer = obstore.get(self._store, key)
            meta = answer.meta
            version: UpdateVersion = {}
            if meta["e_tag"] is not None:
                version["e_tag"] = meta["e_tag"]
            if meta["version"] is not None:
                version["version"] = meta["version"]
            return bytes(answer.bytes()), version, meta["last_modified"].timestamp()

    def replace(self, key: str, data: bytes, version: UpdateVersion) -> bool:
        """Put ``data`` if the object still has ``version``; whether it had.

        False also when it had, and only the answer was lost: then look.

        :raises StorageError: it could not be written; when the store went away, it may be there
        """
        mode: PutMode = version
        with self._translated("write", self._checked(key)):
            try:
                obstore.put(self._store, key, data, mode=mode, use_multipart=False)
            except (PreconditionError, FileNotFoundError):
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
            raise object_error(exc, doing=doing, uri=uri, reading=reading)  # noqa: B904 - it has a cause, scrubbed


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

"""What a storage must do. Local folders and object stores do the same; so can a storage of your own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object of a listing.

    :param key: relative to the root
    :param bytes: its size
    :param modified_s: UTC, seconds since 1970
    """

    key: str
    bytes: int
    modified_s: float


class OutputFile(Protocol):
    """A file that is being written. Nothing exists under its key before ``close``.

    :raises StorageError: from ``write`` and ``close``
    """

    def write(self, data: bytes) -> None:
        """Append."""

    def close(self) -> None:
        """Make the file durable under its key."""

    def abort(self) -> None:
        """Discard the file; never raises. No effect after ``close``."""


class Lock(Protocol):
    """A lock on one key, owned by this process."""

    @property
    def check_every_s(self) -> float:
        """The longest time between two calls of :meth:`check`. A lock that is renewed too late is lost."""

    def check(self) -> None:
        """Check that the lock is still ours, and renew it where that is needed.

        Called in any thread, possibly while another call runs.

        :raises SnapshotHeldError: another owner has it, or its object was removed
        """

    def release(self) -> None:
        """Release the lock; never raises. The death of the process releases it, too, at once or within a minute."""


class Storage(Protocol):
    """The objects below one root. **Blocking**, callable from any thread.

    Keys are relative and ``/``-separated. Every call raises :class:`~neows_async.StorageError`, which names the
    object, when the storage fails after its own retries of transient faults. All calls but ``create`` and ``move``
    are idempotent.
    """

    @property
    def uri(self) -> str:
        """The root as a user would write it, without secrets."""

    def put(self, key: str, data: bytes) -> None:
        """Write an object, durable and whole: a reader sees the old object or the new one, never a part."""

    def create(self, key: str, data: bytes) -> None:
        """As ``put``, but only if the object does not exist. Of several creators exactly one succeeds.

        :raises AlreadyExistsError: the object exists. Our own first attempt may have created it if its response was
            lost: compare the contents
        """

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """The object's bytes.

        :raises NotFoundError: there is no such object
        :raises StorageError: also if it is larger than ``max_bytes``
        """

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects below the folder ``prefix`` (``""``: below the root), at any depth, ascending by key.

        A folder that does not exist has no objects. Unfinished writes are not listed.
        """

    def move(self, key: str, target: str) -> None:
        """Rename an object and replace ``target``. On S3 this is a copy on the server, then a delete.

        :raises NotFoundError: there is no such object
        """

    def delete(self, key: str) -> None:
        """Remove an object; no effect if it does not exist."""

    def open_output(self, key: str) -> OutputFile:
        """Begin a file of unknown size, which is written in order."""

    def open_input(self, key: str) -> BinaryIO:
        """A seekable reader.

        :raises NotFoundError: there is no such object
        """

    def sweep(self, prefix: str) -> int:
        """Remove the unfinished writes of dead writers below ``prefix``, which ``list`` does not show.

        :returns: how many were removed
        """

    def lock(self, key: str, owner: str) -> Lock:
        """Acquire the lock ``key``.

        :param owner: one line that names the owner in other processes' errors
        :raises SnapshotHeldError: a live owner has it; the text names the owner
        """

    def lock_owner(self, key: str) -> str | None:
        """The live owner of the lock ``key``; None if there is none. The answer may be outdated at once."""


class ConditionalStore(Protocol):
    """What a lease needs of an object store: writes that the store refuses if another client was faster.

    A version is a value of the store's own; only :meth:`replace` of the same store reads it.
    """

    @property
    def uri(self) -> str:
        """The root as a user would write it, without secrets."""

    def create(self, key: str, data: bytes) -> None:
        """Write a new object, as :meth:`Storage.create`."""

    def read_versioned(self, key: str) -> tuple[bytes, Any, float]:
        """The object's bytes, its version, and when it was written (UTC, seconds since 1970).

        :raises NotFoundError: there is no such object
        """

    def replace(self, key: str, data: bytes, version: Any) -> bool:
        """Write ``data`` if the object still has ``version``; whether it had.

        False may also mean that the write succeeded and its response was lost: then read the object again.

        :raises StorageError: the write failed; if the connection broke, it may have succeeded
        """

    def delete(self, key: str) -> None:
        """Remove an object; no effect if it does not exist."""

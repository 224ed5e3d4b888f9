"""The storage protocol: the same calls for a folder and for an object store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object of the storage.

    :param key: its name, relative to the root
    :param bytes: its size
    :param modified_s: UTC, seconds since 1970
    """

    key: str
    bytes: int
    modified_s: float


class OutputFile(Protocol):
    """A file of the storage being written; nothing exists under its key before ``close``."""

    def write(self, data: bytes) -> None:
        """Append.

        :raises StorageError: it could not be written
        """

    def close(self) -> None:
        """Make it durable under its key.

        :raises StorageError: it could not be made durable
        """

    def abort(self) -> None:
        """Forget it; never raises."""


class Lock(Protocol):
    """A held lock on one key."""

    @property
    def check_every_s(self) -> float:
        """How often at least its holder calls :meth:`check`; a lock that is renewed too late is lost."""

    def check(self) -> None:
        """Renew where that is needed. Called in one thread or another, also while another call is under way.

        :raises SnapshotHeldError: it was lost to somebody else
        """

    def release(self) -> None:
        """Let go; never raises. The death of the process does the same, at once or after a while."""


class Storage(Protocol):
    """The objects below one root. **Blocking**: ``AsyncStorage`` calls it in threads.

    Keys are relative, ``/``-separated. Every verb raises :class:`StorageError` (naming the
    object) when the storage fails, after its own retries of transient faults. All but
    ``create`` and ``move`` are idempotent.
    """

    @property
    def uri(self) -> str:
        """The root as a user would write it; holds no secret."""

    def put(self, key: str, data: bytes) -> None:
        """Write durably and whole: a reader sees the old object or the new one, never a part."""

    def create(self, key: str, data: bytes) -> None:
        """As ``put``, but only if there is none.

        :raises AlreadyExistsError: there is one (also when our own first try did create it and
            only the answer was lost: then compare)
        """

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """The object's bytes.

        :raises NotFoundError: there is none
        :raises StorageError: also when it is larger than ``max_bytes``
        """

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key starts with the folder ``prefix`` (``""``: all), at any depth, ascending by key.

        A folder that does not exist has no objects. Unfinished writes are not listed.
        """

    def move(self, key: str, target: str) -> None:
        """Give the object another name, replacing what is there; on S3 a server-side copy and a delete.

        :raises NotFoundError: there is none
        """

    def delete(self, key: str) -> None:
        """Remove it; nothing happens if there is none."""

    def open_output(self, key: str) -> OutputFile:
        """Begin a file of unknown size, written in order."""

    def open_input(self, key: str) -> BinaryIO:
        """A seekable reader.

        :raises NotFoundError: there is none
        """

    def sweep(self, prefix: str) -> int:
        """Remove what writers that died left below ``prefix`` and ``list`` does not show; how many."""

    def lock(self, key: str, owner: str) -> Lock:
        """Take the lock named ``key``; ``holder`` is what others are told.

        :raises SnapshotHeldError: somebody alive has it; the text says who
        """

    def lock_owner(self, key: str) -> str | None:
        """Who has the lock named ``key`` now; None if nobody alive has. Only a look: it may change at once."""


class ConditionalStore(Protocol):
    """What a lease needs of an object store: writes that the store refuses when another client was faster.

    A version is a value of the store's own; only :meth:`replace` of the same store reads it.
    """

    @property
    def uri(self) -> str:
        """The root as a user would write it; holds no secret."""

    def create(self, key: str, data: bytes) -> None:
        """Write a new object, as :meth:`Storage.create`.

        :raises AlreadyExistsError: the object exists
        """

    def read_versioned(self, key: str) -> tuple[bytes, Any, float]:
        """The object's bytes, its version, and when it was written (UTC, seconds since 1970).

        :raises NotFoundError: there is none
        """

    def replace(self, key: str, data: bytes, version: Any) -> bool:
        """Put ``data`` if the object still has ``version``; whether it had.

        False also when it had, and only the response was lost: then read it again.

        :raises StorageError: it could not be written; it may be there if the connection broke
        """

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens if there is none."""

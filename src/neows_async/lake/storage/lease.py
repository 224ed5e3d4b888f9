"""A lock in an object store: an object that names its owner and expires.

All changes are conditional writes, so of two processes that try at once one succeeds. The machines' clocks must
agree within half a minute.
"""

from __future__ import annotations

import json
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from neows_async._process import ProcessId, is_dead, this_process
from neows_async.errors import AlreadyExistsError, NotFoundError, SnapshotHeldError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from neows_async.lake.storage.interface import ConditionalStore

LOCK_S: Final = 60.0
"""A lease expires this long after its last renewal."""
RENEW_S: Final = 15.0
"""A lease is renewed once it has this age."""
_ATTEMPTS: Final = 8  # other processes may change the object between our read and our write


@dataclass(frozen=True, slots=True)
class Lease:
    """The contents of a lock's object.

    :param owner: one line that names the owner in other processes' errors
    :param nonce: identifies one acquisition of the lock
    :param process: the owner's; shows other processes of the same machine that it died
    :param expires_s: UTC, seconds since 1970
    """

    owner: str
    nonce: str
    process: ProcessId
    expires_s: float

    def as_json(self) -> bytes:
        """The object's bytes. The key "holder" is part of the lake's layout."""
        fields = asdict(self)
        return json.dumps({"holder": fields.pop("owner"), **fields}, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes, *, modified_s: float) -> Lease:
        """Read the object's bytes. An unreadable object is a lease of an unknown owner, acquired at ``modified_s``."""
        try:
            value = json.loads(data)
            return cls(
                owner=str(value["holder"]),
                nonce=str(value["nonce"]),
                process=ProcessId(**value["process"]),
                expires_s=float(value["expires_s"]),
            )
        except (ValueError, TypeError, KeyError):
            return cls("somebody unknown", "", ProcessId("", "", "", 0, 0), modified_s + LOCK_S)

    def is_free(self, us: ProcessId, now_s: float) -> bool:
        """Whether another process may take it over: it expired, or its owner surely died."""
        # A dead process of the same machine and boot cannot renew; on another machine only the expiry shows it.
        return self.expires_s <= now_s or is_dead(self.process, seen_from=us)


class LeaseLock:
    """A lock that this process owns while it renews its lease.

    Only :meth:`check` renews. After 60 s without renewal any process may take the lock over; a process of the same
    machine and boot may do so as soon as the owner's process is gone. An owner that was suspended for longer learns
    at its next ``check`` that it lost the lock, not before. So the commit needs a create-only write besides.

    :param owner: one line that names this process in other processes' errors
    :param now_s: UTC, seconds since 1970
    :raises SnapshotHeldError: a live owner has the lock; the text names the owner
    :raises StorageError: the store failed
    """

    def __init__(self, store: ConditionalStore, key: str, owner: str, *, now_s: Callable[[], float]) -> None:
        self._store = store
        self._key = key
        self._name = f"{store.uri.partition('?')[0].rstrip('/')}/{key}"
        self._now_s = now_s
        self._lease = Lease(" ".join(owner.split()), secrets.token_hex(16), this_process(), expires_s=0.0)
        self._version: Any | None = self._acquire()

    @property
    def check_every_s(self) -> float:
        """Less than the age at which a lease is renewed, so that a check is never a moment too early to renew."""
        return RENEW_S / 2

    def check(self) -> None:
        """Renew the lease if it is 15 s old. If the store cannot be reached, the lock stays ours until it expires."""
        if self._version is None:
            raise SnapshotHeldError(f"{self._name}: the lock was released or lost before")
        # Young leases need no request: checks are cheap, and every durable step may do one.
        if self._now_s() < self._lease.expires_s - LOCK_S + RENEW_S:
            return
        try:
            self._renew(self._version)
        except StorageError:
            # Until it expires nobody else may take it, so an unreachable store is no loss yet.
            if self._now_s() >= self._lease.expires_s:
                raise

    def release(self) -> None:
        """Remove the object; never raises. If that fails, the lease expires."""
        # First: a check in another thread must not renew what is being released.
        version, self._version = self._version, None
        if version is None:
            return
        with suppress(StorageError, SnapshotHeldError):
            # A delete is not conditional: it would remove another owner's lease, too. So an old lease is renewed
            # first, and while it is fresh no other process may take the lock over.
            if self._now_s() > self._lease.expires_s - LOCK_S / 2:
                self._renew(version)
            self._store.delete(self._key)

    def _acquire(self) -> Any:
        for _ in range(_ATTEMPTS):
            # A new expiry for each attempt: attempts take time.
            self._lease = replace(self._lease, expires_s=self._now_s() + LOCK_S)
            with suppress(AlreadyExistsError):
                self._store.create(self._key, self._lease.as_json())
            try:
                # Read after every create, also after one that succeeded: the next renewal needs the version.
                found, version = self._read()
            except NotFoundError:
                continue  # its owner released it between the two calls
            if found.nonce == self._lease.nonce:
                self._lease = found
                return version
            # A live owner. Taking over its lease would let two runs write one snapshot.
            if not found.is_free(self._lease.process, self._now_s()):
                left_s = max(0.0, found.expires_s - self._now_s())
                raise SnapshotHeldError(
                    f"{self._name}: held by {found.owner}; wait for it or stop it"
                    f" (unless it renews, the lock runs out in {left_s:.0f} s)"
                )
            # The result does not matter. If another process was faster, the next read finds its lease. If our write
            # succeeded and the response was lost, it finds ours.
            self._store.replace(self._key, self._lease.as_json(), version)
        raise SnapshotHeldError(f"{self._name}: other processes acquire and release it all the time; run again")

    def _renew(self, version: Any) -> None:
        lease = replace(self._lease, expires_s=self._now_s() + LOCK_S)
        # Conditional: if another process took the lock over, this write changes nothing.
        self._store.replace(self._key, lease.as_json(), version)
        # Read the object whatever the response was: the response may be lost although the renewal succeeded.
        try:
            found, self._version = self._read()
        except NotFoundError:
            self._version = None
            raise SnapshotHeldError(f"{self._name}: the lock was lost: its object was removed; run again") from None
        if found.nonce != self._lease.nonce:
            self._version = None
            raise SnapshotHeldError(f"{self._name}: the lock was lost to {found.owner}; run again")
        self._lease = found

    def _read(self) -> tuple[Lease, Any]:
        data, version, modified_s = self._store.read_versioned(self._key)
        return Lease.from_json(data, modified_s=modified_s), version


def lease_owner(store: ConditionalStore, key: str, *, now_s: Callable[[], float]) -> str | None:
    """The live owner of the lock ``key``; None if there is none. Writes nothing."""
    try:
        data, _, modified_s = store.read_versioned(key)
    except NotFoundError:
        return None
    found = Lease.from_json(data, modified_s=modified_s)
    return None if found.is_free(this_process(), now_s()) else found.owner

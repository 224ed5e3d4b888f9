"""A lock in an object store: an object that says who holds it, and until when."""

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

LOCK_S: Final = 60.0  # how long a lock outlives its holder's last renewal
RENEW_S: Final = 15.0
_ROUNDS: Final = 8  # how often others may change the object between our reading and writing it


@dataclass(frozen=True, slots=True)
class Lease:
    """What a lock object says.

    :param holder: one line for those who are refused
    :param nonce: tells one taking of the lock from every other
    :param expires_s: UTC, seconds since 1970
    """

    holder: str
    nonce: str
    process: ProcessId
    expires_s: float

    def as_json(self) -> bytes:
        """The object's bytes."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes, *, modified_s: float) -> Lease:
        """Read an object; what cannot be read is a claim of nobody's, from when it was written."""
        try:
            value = json.loads(data)
            return cls(
                holder=str(value["holder"]),
                nonce=str(value["nonce"]),
                process=ProcessId(**value["process"]),
                expires_s=float(value["expires_s"]),
            )
        except (ValueError, TypeError, KeyError):
            return cls("somebody unknown", "", ProcessId("", "", "", 0, 0), modified_s + LOCK_S)


class LeaseLock:
    """A held claim. The machines' clocks must agree within half a minute.

    Nothing renews it but :meth:`check`, which the holder calls at least every 15 s. After 60 s
    without renewal anybody takes it over; a process of the same machine and boot takes it over at
    once when the holder's process is gone. Every change is a conditional put, so of two takers
    one wins. Who was stopped for longer than that finds out at the next ``check``, not at once:
    what commits must be create-only besides.

    :param now_s: UTC, seconds since 1970
    :raises SnapshotHeldError: somebody alive has it; the text says who
    :raises StorageError: it cannot be taken
    """

    def __init__(self, storage: ConditionalStore, key: str, holder: str, *, now_s: Callable[[], float]) -> None:
        self._storage = storage
        self._key = key
        self._name = f"{storage.uri.partition('?')[0].rstrip('/')}/{key}"
        self._now_s = now_s
        self._claim = Lease(" ".join(holder.split()), secrets.token_hex(16), this_process(), expires_s=0.0)
        self._version: Any | None = self._acquire()

    @property
    def check_every_s(self) -> float:
        """Less than the age at which a claim is renewed, so that none is found a moment too young."""
        return RENEW_S / 2

    def check(self) -> None:
        """Renew, if the last renewal is 15 s old. A store that is away is tried again until the lock has run out.

        :raises SnapshotHeldError: somebody took it over, or removed it
        :raises StorageError: it has run out, and the store cannot be asked
        """
        if self._version is None:
            raise SnapshotHeldError(f"{self._name}: the lock was released or lost before")
        if self._now_s() < self._claim.expires_s - LOCK_S + RENEW_S:
            return
        try:
            self._renew(self._version)
        except StorageError:
            if self._now_s() >= self._claim.expires_s:
                raise

    def release(self) -> None:
        """Remove the object and let go; never raises. If it cannot be removed, it runs out."""
        version, self._version = self._version, None
        if version is None:
            return
        with suppress(StorageError, SnapshotHeldError):
            # Deleting is not conditional. It is safe while nobody may take the lock over, so that
            # an old claim is renewed first.
            if self._now_s() > self._claim.expires_s - LOCK_S / 2:
                self._renew(version)
            self._storage.delete(self._key)

    def _acquire(self) -> Any:
        for _ in range(_ROUNDS):
            self._claim = replace(self._claim, expires_s=self._now_s() + LOCK_S)
            with suppress(AlreadyExistsError):
                self._storage.create(self._key, self._claim.as_json())
            try:
                found, version = self._read()
            except NotFoundError:
                continue  # its holder released it between our two calls
            if found.nonce == self._claim.nonce:
                self._claim = found
                return version
            if not _may_be_taken(found, self._claim.process, self._now_s()):
                left_s = max(0.0, found.expires_s - self._now_s())
                raise SnapshotHeldError(
                    f"{self._name}: held by {found.holder}; wait for it or stop it"
                    f" (unless it renews, the lock runs out in {left_s:.0f} s)"
                )
            # If this is refused, the next round finds who was faster; if its answer was lost, itself.
            self._storage.replace(self._key, self._claim.as_json(), version)
        raise SnapshotHeldError(f"{self._name}: others take and release it all the time; run again")

    def _renew(self, version: Any) -> None:
        claim = replace(self._claim, expires_s=self._now_s() + LOCK_S)
        self._storage.replace(self._key, claim.as_json(), version)
        # Read whatever the answer was: it may be lost while the renewal is there.
        try:
            found, self._version = self._read()
        except NotFoundError:
            self._version = None
            raise SnapshotHeldError(f"{self._name}: the lock was lost: its object was removed; run again") from None
        if found.nonce != self._claim.nonce:
            self._version = None
            raise SnapshotHeldError(f"{self._name}: the lock was lost to {found.holder}; run again")
        self._claim = found

    def _read(self) -> tuple[Lease, Any]:
        data, version, modified_s = self._storage.read_versioned(self._key)
        return Lease.from_json(data, modified_s=modified_s), version


def lease_holder(storage: ConditionalStore, key: str, *, now_s: Callable[[], float]) -> str | None:
    """What the live holder of the lock ``key`` calls itself; None if it has none.

    :raises StorageError: the store cannot be asked
    """
    try:
        data, _, modified_s = storage.read_versioned(key)
    except NotFoundError:
        return None
    found = Lease.from_json(data, modified_s=modified_s)
    return None if _may_be_taken(found, this_process(), now_s()) else found.holder


def _may_be_taken(found: Lease, us: ProcessId, now_s: float) -> bool:
    return found.expires_s <= now_s or is_dead(found.process, seen_from=us)

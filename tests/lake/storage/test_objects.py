"""An object storage: lost responses, an unreachable store, and leases."""

from __future__ import annotations

import dataclasses
import json
import os
import traceback
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from obstore.store import MemoryStore

from neows_async._process import ProcessId, is_dead, this_process
from neows_async.errors import AlreadyExistsError, NotFoundError, SnapshotHeldError, StorageError
from neows_async.lake.storage import open_storage
from neows_async.lake.storage.lease import LOCK_S, RENEW_S, Lease
from neows_async.lake.storage.object_errors import object_error
from neows_async.lake.storage.object_store import ObjectStorage
from tests.lake.storage import seaweedfs
from tests.lake.storage.broken_line import BrokenLine
from tests.lake.storage.children import waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from neows_async.lake.storage.interface import OutputFile
    from tests.lake.storage.seaweedfs import SeaweedFS

ROOT = f"s3://{seaweedfs.BUCKET}/line"


@pytest.fixture
def line(s3: SeaweedFS) -> Iterator[BrokenLine]:
    found = BrokenLine(s3.port)
    yield found
    found.close()


@pytest.fixture
def over_line(line: BrokenLine, s3_storage: ObjectStorage) -> ObjectStorage:
    """The prefix of ``s3_storage``, through a proxy that loses data."""
    prefix = s3_storage.uri.removeprefix(f"s3://{seaweedfs.BUCKET}/")
    return ObjectStorage(seaweedfs.store(line.port, prefix, timeout=timedelta(seconds=2)), s3_storage.uri)


# Lost responses


@pytest.mark.parametrize("cuts", [1, 100], ids=["once", "for good"])
def test_create_succeeds_if_its_response_is_lost(
    over_line: ObjectStorage, line: BrokenLine, s3_storage: ObjectStorage, cuts: int
) -> None:
    line.cuts = cuts
    over_line.create("_runs/a.json", b"mine")
    assert line.cuts < cuts
    line.cuts = 0
    assert s3_storage.get("_runs/a.json") == b"mine"
    with pytest.raises(AlreadyExistsError):
        over_line.create("_runs/a.json", b"mine")


def test_create_is_refused_if_a_response_is_lost_and_the_object_is_another_creators(
    over_line: ObjectStorage, line: BrokenLine, s3_storage: ObjectStorage
) -> None:
    s3_storage.create("_runs/a.json", b"the same bytes")
    line.cuts = 1
    with pytest.raises(AlreadyExistsError):
        over_line.create("_runs/a.json", b"the same bytes")


def test_calls_are_retried_if_a_response_is_lost(over_line: ObjectStorage, line: BrokenLine) -> None:
    over_line.put("a", b"1")
    line.cuts = 1
    over_line.put("a", b"2")
    line.cuts, line.method = 1, b"GET "
    assert over_line.get("a") == b"2"
    line.cuts, line.method = 1, b"PUT "
    over_line.move("a", "b")
    line.cuts, line.method = 1, b"DELETE "
    over_line.delete("b")
    assert line.cuts == 0
    assert list(over_line.list("")) == []


def test_a_lock_is_renewed_although_responses_are_lost(over_line: ObjectStorage, line: BrokenLine) -> None:
    now_s = [1000.0]
    storage = ObjectStorage(over_line._store, over_line.uri, now_s=lambda: now_s[0])
    line.cuts = 1
    lock = storage.lock("lock", "me")
    for _ in range(4):
        now_s[0] += RENEW_S
        line.cuts = 1
        lock.check()
    now_s[0] += RENEW_S
    with pytest.raises(SnapshotHeldError, match="held by me"):
        storage.lock("lock", "you")
    lock.release()
    assert list(storage.list("")) == []


# A store that is unreachable, slow or refuses


def verbs_of(storage: ObjectStorage) -> list[Callable[[], object]]:
    return [
        lambda: storage.put("a", b""),
        lambda: storage.create("a", b""),
        lambda: storage.get("a"),
        lambda: storage.move("a", "b"),
        lambda: storage.delete("a"),
        lambda: storage.open_input("a"),
        lambda: list(storage.list("a")),
        lambda: storage.lock("a", "me"),
        lambda: _write_whole(storage),
    ]


def _write_whole(storage: ObjectStorage) -> None:
    output = storage.open_output("a")
    output.write(b"x")
    output.close()


def test_an_unreachable_store_is_an_error(line: BrokenLine) -> None:
    line.close()
    for verb in verbs_of(ObjectStorage(seaweedfs.store(line.port, "line"), ROOT)):
        with pytest.raises(
            StorageError, match=r"s3://lake/line/a: (it cannot be reached|no response); check the network"
        ):
            verb()


def test_a_store_that_never_responds_is_an_error(line: BrokenLine) -> None:
    line.mode = "silence"
    impatient = seaweedfs.store(
        line.port, "line", timeout=timedelta(milliseconds=60), retry={**seaweedfs.FEW_RETRIES, "max_retries": 1}
    )
    for verb in verbs_of(ObjectStorage(impatient, ROOT)):
        with pytest.raises(StorageError, match=r"s3://lake/line/a: (no response in time|no response);"):
            verb()


def test_an_output_leaves_no_object_if_the_store_becomes_unreachable(
    over_line: ObjectStorage, line: BrokenLine, s3_storage: ObjectStorage
) -> None:
    output = over_line.open_output("neos/a")
    output.write(b"x" * (9 << 20))
    line.close()
    with pytest.raises(StorageError, match=r"cannot write .*neos/a: no response"):
        _write_rest(output)
    output.abort()
    assert list(s3_storage.list("")) == []


def _write_rest(output: OutputFile) -> None:
    output.write(b"x" * (9 << 20))
    output.close()


def test_wrong_credentials_are_an_error_that_does_not_show_them(s3: SeaweedFS) -> None:
    secret = "a-wrong-secret-that-nobody-may-see"  # noqa: S105 - wrong on purpose
    storage = ObjectStorage(seaweedfs.store(s3.port, "line", secret_key=secret), ROOT)
    for verb in verbs_of(storage):
        with pytest.raises(StorageError, match=r"s3://lake/line/a: (the secret key|access denied)") as caught:
            verb()
        shown = "".join(traceback.format_exception(caught.value))
        assert secret not in shown
        assert "<Error>" not in shown
    assert secret not in repr(storage)


def test_missing_rights_are_an_error(s3: SeaweedFS, s3_storage: ObjectStorage) -> None:
    s3_storage.put("a", b"kept")
    prefix = s3_storage.uri.removeprefix(f"s3://{seaweedfs.BUCKET}/")
    reader = ObjectStorage(
        seaweedfs.store(
            s3.port, prefix, access_key=seaweedfs.READER_ACCESS_KEY, secret_key=seaweedfs.READER_SECRET_KEY
        ),
        s3_storage.uri,
    )
    assert reader.get("a") == b"kept"
    verbs: list[Callable[[], object]] = [
        lambda: reader.put("a", b"new"),
        lambda: reader.create("a", b"new"),
        lambda: reader.create("b", b"new"),
        lambda: reader.delete("a"),
        lambda: reader.move("a", "b"),
        lambda: reader.lock("a", "me"),
    ]
    for verb in verbs:
        with pytest.raises(StorageError, match=r"access denied; the key needs the rights"):
            verb()
    assert s3_storage.get("a") == b"kept"


def test_a_missing_bucket_is_an_error(s3: SeaweedFS) -> None:
    storage = ObjectStorage(seaweedfs.store(s3.port, bucket="no-such-bucket"), "s3://no-such-bucket")
    verbs: list[Callable[[], object]] = [lambda: storage.get("a"), lambda: list(storage.list(""))]
    for verb in verbs:
        with pytest.raises(StorageError, match="there is no such bucket") as caught:
            verb()
        assert not isinstance(caught.value, NotFoundError)


def test_an_unknown_response_is_an_error_without_its_body() -> None:
    text = "Error performing PUT http://h/b/k - Server returned non-2xx status code: 418 Teapot: <Error>TOKEN</Error>"
    error = object_error(ValueError(f"{text}\n\nDebug source:\nTOKEN"), doing="write", uri="s3://b/k", reading=False)
    assert str(error) == "cannot write s3://b/k: the store returned status 418; run the same command again"
    assert "TOKEN" not in repr(error.__cause__)


def test_an_input_raises_if_its_object_was_replaced(s3_storage: ObjectStorage) -> None:
    s3_storage.put("a", b"1" * (2 << 20))
    with s3_storage.open_input("a") as file:
        assert file.read(1) == b"1"
        s3_storage.put("a", b"2" * (2 << 20))
        file.seek(3 << 19)
        with pytest.raises(StorageError, match="replaced while it was read"):
            file.read(1)


# Leases


class Machines:
    """Two storages on one store, with one clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0
        self.storage = ObjectStorage(MemoryStore(), "memory://lake", now_s=lambda: self.now_s)

    def write_lease(self, process: ProcessId) -> None:
        """Write a lease as ``process`` would."""
        lease = Lease("another", "its-nonce", process, self.now_s + LOCK_S)
        self.storage.put("lock", lease.as_json())


@pytest.fixture
def machines() -> Machines:
    return Machines()


def test_a_lease_expires_after_a_minute_without_renewal(machines: Machines) -> None:
    lock = machines.storage.lock("lock", "the first")
    machines.now_s += LOCK_S - 1
    with pytest.raises(SnapshotHeldError, match=r"held by the first.* runs out in 1 s"):
        machines.storage.lock("lock", "the second")
    machines.now_s += 1
    next_owner = machines.storage.lock("lock", "the second")
    with pytest.raises(SnapshotHeldError, match="lost to the second"):
        lock.check()
    with pytest.raises(SnapshotHeldError, match="lost before"):
        lock.check()
    lock.release()
    next_owner.check()
    with pytest.raises(SnapshotHeldError, match="held by the second"):
        machines.storage.lock("lock", "the third")


def test_a_lease_is_renewed_every_15_seconds(machines: Machines) -> None:
    lock = machines.storage.lock("lock", "me")
    written = [json.loads(machines.storage.get("lock"))["expires_s"]]
    for _ in range(300):
        machines.now_s += 1
        lock.check()
        expires_s = json.loads(machines.storage.get("lock"))["expires_s"]
        assert expires_s > machines.now_s + LOCK_S - RENEW_S
        if expires_s != written[-1]:
            written.append(expires_s)
    assert len(written) == 1 + 300 // RENEW_S
    lock.release()
    assert list(machines.storage.list("")) == []


def test_an_expired_lease_is_renewed_if_no_process_took_it_over(machines: Machines) -> None:
    lock = machines.storage.lock("lock", "me")
    machines.now_s += 10 * LOCK_S
    lock.check()
    with pytest.raises(SnapshotHeldError):
        machines.storage.lock("lock", "you")


def test_a_late_release_keeps_the_lease_of_the_next_owner(machines: Machines) -> None:
    lock = machines.storage.lock("lock", "the first")
    machines.now_s += LOCK_S
    next_owner = machines.storage.lock("lock", "the second")
    lock.release()
    next_owner.check()
    assert json.loads(machines.storage.get("lock"))["holder"] == "the second"


def test_the_lease_of_a_dead_process_of_this_machine_is_free_at_once(machines: Machines) -> None:
    alive = this_process()
    for gone in (dataclasses.replace(alive, pid=2**22 + 1), dataclasses.replace(alive, started=alive.started + 1)):
        machines.write_lease(gone)
        machines.storage.lock("lock", "me").release()


@pytest.mark.parametrize(
    "elsewhere",
    [
        dataclasses.replace(this_process(), pid=2**22 + 1, host="another"),
        dataclasses.replace(this_process(), pid=2**22 + 1, boot="another"),
        dataclasses.replace(this_process(), pid=2**22 + 1, pid_space="another"),
    ],
    ids=["host", "boot", "container"],
)
def test_the_lease_of_a_process_elsewhere_is_free_only_when_it_expires(
    machines: Machines, elsewhere: ProcessId
) -> None:
    machines.write_lease(elsewhere)
    with pytest.raises(SnapshotHeldError, match="held by another"):
        machines.storage.lock("lock", "me")
    machines.now_s += LOCK_S
    machines.storage.lock("lock", "me").release()


def test_an_unreadable_lease_expires() -> None:
    now_s = [0.0]
    storage = ObjectStorage(MemoryStore(), "memory://lake", now_s=lambda: now_s[0])
    storage.put("lock", b"{not json")
    now_s[0] = next(iter(storage.list(""))).modified_s
    with pytest.raises(SnapshotHeldError, match="somebody unknown"):
        storage.lock("lock", "me")
    now_s[0] += LOCK_S + 1
    storage.lock("lock", "me").release()


def test_a_lease_survives_a_short_outage_of_the_store(line: BrokenLine) -> None:
    now_s = [1000.0]
    store = seaweedfs.store(line.port, "line/away", retry={**seaweedfs.FEW_RETRIES, "max_retries": 0})
    storage = ObjectStorage(store, ROOT, now_s=lambda: now_s[0])
    lock = storage.lock("lock", "me")
    line.close()
    now_s[0] += RENEW_S
    lock.check()
    now_s[0] += LOCK_S
    with pytest.raises(StorageError, match="cannot be reached"):
        lock.check()
    lock.release()


def test_this_process_is_not_dead() -> None:
    us = this_process()
    assert us.pid == os.getpid()
    assert not is_dead(us, seen_from=us)
    nowhere = ProcessId(us.host, "", "", us.pid, 0)
    assert not is_dead(dataclasses.replace(nowhere, pid=2**22 + 1), seen_from=nowhere)


def test_the_lease_of_a_killed_process_is_free_at_once(s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = s3.uri("killed")
    take = (
        "import sys; from neows_async.lake.storage import open_storage\n"
        "lock = open_storage(sys.argv[1]).lock('lock', 'the other process')"
    )
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    storage = open_storage(uri)
    with waiting(take, uri) as process:
        with pytest.raises(SnapshotHeldError, match="held by the other process"):
            storage.lock("lock", "me")
        process.kill()
        process.wait()
        lock = storage.lock("lock", "me")
    lock.check()
    lock.release()
    assert list(storage.list("")) == []

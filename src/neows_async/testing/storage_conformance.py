"""Tests of what every storage promises, for pytest."""

from __future__ import annotations

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neows_async.errors import AlreadyExistsError, NotFoundError, SnapshotHeldError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from neows_async.lake.storage.interface import Storage


def _keys(storage: Storage, prefix: str = "") -> list[str]:
    return [info.key for info in storage.list(prefix)]


class StorageConformance:
    """Tests that a storage keeps the promises of :class:`neows_async.Storage`.

    In a test file, with pytest::

        class TestMyStorage(StorageConformance):
            make = staticmethod(lambda folder: MyStorage(folder))

    A storage that needs fixtures gets a fixture ``storage`` instead of ``make``.
    """

    make: Callable[..., Any]
    """Makes an empty storage. Its argument is an empty folder, which it need not use."""

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        """The storage under test: a new, empty one for each test."""
        made: Storage = self.make(tmp_path)
        return made

    @pytest.mark.parametrize("data", [b"", b"{}", bytes(range(256)) * 5000], ids=["empty", "short", "1.3MB"])
    def test_get_returns_the_bytes_of_put(self, storage: Storage, data: bytes) -> None:
        storage.put("raw/snapshot=a/gen=0/page=00000.json.zst", data)
        assert storage.get("raw/snapshot=a/gen=0/page=00000.json.zst") == data

    def test_put_replaces_and_can_be_repeated(self, storage: Storage) -> None:
        for data in (b"old and longer", b"new", b"new"):
            storage.put("_runs/latest.json", data)
        assert storage.get("_runs/latest.json") == b"new"
        assert _keys(storage) == ["_runs/latest.json"]

    def test_create_is_refused_if_the_object_exists(self, storage: Storage) -> None:
        storage.create("_runs/a.json", b"first")
        for late in (b"second", b"first"):  # also with the same bytes
            with pytest.raises(AlreadyExistsError, match=r"_runs/a\.json"):
                storage.create("_runs/a.json", late)
        assert storage.get("_runs/a.json") == b"first"
        assert _keys(storage) == ["_runs/a.json"]

    def test_exactly_one_of_concurrent_creators_succeeds(self, storage: Storage) -> None:
        at_once = threading.Barrier(4)

        def create(number: int) -> int | None:
            # All creators begin in the same moment.
            at_once.wait(10)
            try:
                storage.create("_runs/a.json", str(number).encode() * 1000)
            except AlreadyExistsError:
                return None
            return number

        with ThreadPoolExecutor(4) as threads:
            winners = [number for number in threads.map(create, range(4)) if number is not None]
        assert len(winners) == 1
        assert storage.get("_runs/a.json") == str(winners[0]).encode() * 1000
        assert _keys(storage) == ["_runs/a.json"]

    def test_a_reader_never_sees_a_part_of_an_object(self, storage: Storage) -> None:
        length = 300_000
        storage.put("x/y", b"0" * length)
        done = threading.Event()

        def read() -> int:
            reads = 0
            while not done.is_set() or reads == 0:
                data = storage.get("x/y")
                assert len(data) == length
                assert len(set(data)) == 1
                assert _keys(storage) == ["x/y"]
                reads += 1
            return reads

        with ThreadPoolExecutor(2) as threads:
            readers = [threads.submit(read) for _ in range(2)]
            try:
                for number in range(40):
                    storage.put("x/y", str(number % 10).encode() * length)
            finally:
                done.set()
            assert all(reader.result() > 0 for reader in readers)

    @pytest.mark.parametrize(
        "verb",
        [
            lambda storage: storage.get("raw/none"),
            lambda storage: storage.get("raw"),  # a folder is not an object
            lambda storage: storage.get("raw/there/below"),  # an object has no others below it
            lambda storage: storage.open_input("raw/none"),
            lambda storage: storage.move("raw/none", "raw/other"),
            lambda storage: storage.move("raw/none", "raw/none"),
        ],
        ids=["get", "get folder", "get below", "open_input", "move", "move to itself"],
    )
    def test_a_missing_object_raises_not_found(self, storage: Storage, verb: Callable[[Storage], object]) -> None:
        storage.put("raw/there", b"")
        with pytest.raises(NotFoundError, match="raw"):
            verb(storage)
        assert _keys(storage) == ["raw/there"]

    def test_get_refuses_an_object_larger_than_max_bytes(self, storage: Storage) -> None:
        storage.put("big", b"x" * 1000)
        assert storage.get("big", max_bytes=1000) == b"x" * 1000
        with pytest.raises(StorageError, match="big"):
            storage.get("big", max_bytes=999)

    def test_list_ascends_by_key_at_any_depth(self, storage: Storage) -> None:
        names = ["a/b/c", "a.b", "a-b", "a/b.c", "B", "_staging/x/y", "é", "a b=c%20d", "a/0", "a0"]
        for name in names:
            storage.put(name, name.encode())
        assert _keys(storage) == sorted(names)
        assert [storage.get(name) for name in names] == [name.encode() for name in names]

    def test_list_returns_the_objects_of_a_folder(self, storage: Storage) -> None:
        for name in ("raw/1", "raw/2/3", "raw2/1", "rawer"):
            storage.put(name, b"")
        assert _keys(storage, "raw") == _keys(storage, "raw/") == ["raw/1", "raw/2/3"]
        assert _keys(storage, "ra") == []
        assert _keys(storage, "raw/1") == []
        assert _keys(storage, "none/such") == []

    def test_list_returns_sizes_and_times(self, storage: Storage) -> None:
        storage.put("a", b"12345")
        (info,) = storage.list("")
        assert info.bytes == 5
        assert abs(info.modified_s - time.time()) < 60

    def test_a_long_list_is_complete(self, storage: Storage) -> None:
        names = [f"raw/page={number:05}" for number in range(1_100)]
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(lambda name: storage.put(name, b""), names))
        assert _keys(storage, "raw") == names

    def test_move_replaces_its_target(self, storage: Storage) -> None:
        storage.put("_staging/a/files/neos/part-00000.parquet", b"new")
        storage.put("neos/part-00000.parquet", b"old")
        storage.move("_staging/a/files/neos/part-00000.parquet", "neos/part-00000.parquet")
        assert storage.get("neos/part-00000.parquet") == b"new"
        assert _keys(storage) == ["neos/part-00000.parquet"]

    def test_move_to_the_same_key_keeps_the_object(self, storage: Storage) -> None:
        storage.put("a", b"kept")
        storage.move("a", "a")
        assert storage.get("a") == b"kept"

    def test_delete_can_be_repeated(self, storage: Storage) -> None:
        storage.put("a/b/c", b"")
        storage.put("a/d", b"")
        for _ in range(2):
            storage.delete("a/b/c")
        storage.delete("a")  # not an object
        assert _keys(storage) == ["a/d"]

    @pytest.mark.parametrize(
        "chunks", [[], [b"abc", b"", b"de"], [b"x" * (7 << 20)] * 3], ids=["empty", "short", "21MB"]
    )
    def test_an_output_exists_after_close(self, storage: Storage, chunks: list[bytes]) -> None:
        output = storage.open_output("neos/part-00000.parquet")
        for chunk in chunks:
            output.write(chunk)
        assert _keys(storage) == []
        output.close()
        output.abort()  # no effect
        assert storage.get("neos/part-00000.parquet") == b"".join(chunks)
        with pytest.raises(StorageError, match=r"part-00000\.parquet"):
            output.write(b"more")

    @pytest.mark.parametrize("size", [3, 20 << 20], ids=["short", "20MB"])
    def test_an_aborted_output_leaves_no_object(self, storage: Storage, size: int) -> None:
        output = storage.open_output("neos/part-00000.parquet")
        output.write(b"x" * size)
        output.abort()
        output.abort()
        assert _keys(storage) == []
        with pytest.raises(StorageError, match=r"part-00000\.parquet"):
            output.close()
        assert _keys(storage) == []

    def test_an_output_replaces_only_at_close(self, storage: Storage) -> None:
        storage.put("a", b"old")
        output = storage.open_output("a")
        output.write(b"new")
        assert storage.get("a") == b"old"
        output.close()
        assert storage.get("a") == b"new"

    def test_an_input_is_seekable(self, storage: Storage) -> None:
        data = bytes(range(256)) * 10_000
        storage.put("a", data)
        with storage.open_input("a") as file:
            assert file.seekable()
            assert file.read(10) == data[:10]
            file.seek(-1000, io.SEEK_END)
            assert file.read() == data[-1000:]
            file.seek(1_500_000)
            assert file.read(1_060_000) == data[1_500_000:2_560_000]
            assert file.read(1) == b""
            assert file.seek(5) == 5
            assert file.tell() == 5

    def test_pyarrow_reads_parquet_through_an_input(self, storage: Storage) -> None:
        table = pa.table({"id": [str(number) for number in range(1000)]})
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        storage.put("neos/part-00000.parquet", buffer.getvalue())
        with storage.open_input("neos/part-00000.parquet") as file:
            assert pq.read_table(file).equals(table)

    @pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "./a", "a/.", "a\0b"])
    def test_no_key_leaves_the_root(self, storage: Storage, key: str) -> None:
        verbs: list[Callable[[], object]] = [
            lambda: storage.put(key, b""),
            lambda: storage.create(key, b""),
            lambda: storage.get(key),
            lambda: storage.move(key, "ok"),
            lambda: storage.move("ok", key),
            lambda: storage.delete(key),
            lambda: storage.open_output(key),
            lambda: storage.open_input(key),
            lambda: storage.lock(key, "me"),
        ]
        for verb in verbs:
            with pytest.raises(StorageError):
                verb()

    def test_a_lock_excludes_others_and_names_its_owner(self, storage: Storage) -> None:
        lock = storage.lock("_staging/a/lock", "pid 17 on\nalpha")
        lock.check()
        with pytest.raises(SnapshotHeldError, match="pid 17 on"):
            storage.lock("_staging/a/lock", "pid 18 on beta")
        other = storage.lock("_staging/b/lock", "pid 18 on beta")
        lock.check()
        lock.release()
        lock.release()
        with pytest.raises(SnapshotHeldError):
            lock.check()
        again = storage.lock("_staging/a/lock", "pid 18 on beta")
        again.check()
        again.release()
        other.release()
        assert _keys(storage) == []

    def test_concurrent_callers_never_own_a_lock_together(self, storage: Storage) -> None:
        inside: list[int] = []

        def lock_often(number: int) -> int:
            acquired = 0
            for _ in range(8):
                try:
                    lock = storage.lock("a/lock", str(number))
                except SnapshotHeldError:
                    continue
                inside.append(number)
                assert inside == [number]
                lock.check()
                inside.remove(number)
                lock.release()
                acquired += 1
            return acquired

        with ThreadPoolExecutor(4) as threads:
            assert sum(threads.map(lock_often, range(4))) > 0
        assert _keys(storage) == []

    def test_check_fails_if_the_object_of_the_lock_was_removed(self, storage: Storage) -> None:
        lock = storage.lock("a/lock", "me")
        storage.delete("a/lock")
        other = storage.lock("a/lock", "other")
        lock.release()
        with pytest.raises(SnapshotHeldError):
            lock.check()
        other.release()

    def test_sweep_keeps_finished_objects(self, storage: Storage) -> None:
        storage.put("a/b", b"")
        assert storage.sweep("a") == storage.sweep("") == storage.sweep("none") == 0
        assert _keys(storage) == ["a/b"]

    def test_lock_owner_names_the_owner_until_release(self, storage: Storage) -> None:
        assert storage.lock_owner("_staging/a.lock") is None
        lock = storage.lock("_staging/a.lock", "the first")
        assert storage.lock_owner("_staging/a.lock") == "the first"
        lock.check()
        lock.release()
        assert storage.lock_owner("_staging/a.lock") is None
        assert _keys(storage) == []

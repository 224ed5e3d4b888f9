"""A local storage: killed writers, folders, and errors of the disk."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from neows_async.errors import NotFoundError, SnapshotHeldError, StorageError
from neows_async.lake.storage.disk_errors import storage_error
from neows_async.lake.storage.local import LocalStorage
from tests.lake.storage.children import run_killed_at, waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "lake"


@pytest.fixture
def local(root: Path) -> LocalStorage:
    return LocalStorage(root)


def files(root: Path) -> list[str]:
    """All names below ``root``, with folders and temporary files."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, check=False
    )
    if not mounted or mounted.returncode != 0:
        pytest.skip("this user may not mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


# Killed writers


@pytest.mark.parametrize(
    ("code", "key", "whole"),
    [
        ("storage.put('new/deep/a', b'new' * 1000)", "new/deep/a", [None, b"new" * 1000]),
        ("storage.put('there/a', b'new' * 1000)", "there/a", [b"old", b"new" * 1000]),
        ("storage.create('new/deep/a', b'new' * 1000)", "new/deep/a", [None, b"new" * 1000]),
        ("storage.move('there/a', 'new/deep/a')", "new/deep/a", [None, b"old"]),
        ("storage.delete('there/a')", "there/a", [b"old", None]),
    ],
    ids=["put", "put again", "create", "move", "delete"],
)
def test_an_object_is_whole_or_absent_after_a_kill_at_any_step(
    tmp_path: Path, code: str, key: str, whole: list[bytes | None]
) -> None:
    seen: list[bytes | None] = []
    step = 0
    while True:
        root = tmp_path / str(step)
        LocalStorage(root).put("there/a", b"old")
        killed = run_killed_at(step, code, root)
        storage = LocalStorage(root)
        try:
            seen.append(storage.get(key))
        except NotFoundError:
            seen.append(None)
        listed = [info.key for info in storage.list("")]
        assert listed in (["there/a"], ["new/deep/a"], ["new/deep/a", "there/a"], [])
        storage.sweep("new")
        storage.sweep("there")
        folders = {str(path) for name in listed for path in (root / name).relative_to(root).parents} - {"."}
        assert files(root) == sorted({*listed, *folders}), "something was left over"
        if not killed:
            break
        step += 1
    assert step > 1
    assert set(seen) == set(whole)
    assert [whole.index(state) for state in seen] == sorted(whole.index(state) for state in seen)


def test_unfinished_files_of_killed_writers_are_hidden_and_swept(root: Path, local: LocalStorage) -> None:
    write = (
        "import sys; from pathlib import Path; from neows_async.lake.storage import LocalStorage\n"
        "output = LocalStorage(Path(sys.argv[1])).open_output('neos/part-00000.parquet')\n"
        "output.write(b'x' * 1_000_000)"
    )
    with waiting(write, root) as process:
        assert len(files(root)) == 2
        assert list(local.list("")) == []
        assert local.sweep("") == 0, "the writer lives"
        process.kill()
        process.wait()
        assert local.sweep("other") == 0
        assert local.sweep("neos") == 1
    assert files(root) == []


def test_sweep_keeps_the_files_of_live_writers(root: Path, local: LocalStorage) -> None:
    local.put("a/b", b"")
    (root / "theirs").mkdir()
    (root / "a" / ".b.tmp").write_bytes(b"")
    (root / "a" / ".neows-0123456789abcdef.tmp").write_bytes(b"")
    assert local.sweep("") == 1
    assert files(root) == ["a", "a/.b.tmp", "a/b", "theirs"]


def test_a_lock_names_its_owner_and_ends_with_its_process(root: Path, local: LocalStorage) -> None:
    take = (
        "import sys; from pathlib import Path; from neows_async.lake.storage import LocalStorage\n"
        "lock = LocalStorage(Path(sys.argv[1])).lock('_staging/a/lock', 'the other process')"
    )
    with waiting(take, root) as process:
        with pytest.raises(SnapshotHeldError, match="held by the other process"):
            local.lock("_staging/a/lock", "me")
        process.kill()
        process.wait()
        assert files(root) == ["_staging", "_staging/a", "_staging/a/lock"]
        lock = local.lock("_staging/a/lock", "me")
    lock.check()
    with pytest.raises(SnapshotHeldError, match="held by me;"):
        local.lock("_staging/a/lock", "a third")
    lock.release()
    assert files(root) == []


def test_a_lock_excludes_while_its_file_is_created_and_removed(local: LocalStorage) -> None:
    inside: list[int] = []

    def take(number: int) -> int:
        acquired = 0
        for _ in range(200):
            try:
                lock = local.lock("a/lock", str(number))
            except SnapshotHeldError:
                continue
            inside.append(number)
            assert inside == [number]
            inside.remove(number)
            lock.release()
            acquired += 1
        return acquired

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(take, range(8))) > 0
    assert list(local.list("")) == []


def test_an_unreferenced_file_or_lock_is_released(root: Path, local: LocalStorage) -> None:
    output = local.open_output("a/b")
    lock = local.lock("a/lock", "me")
    assert len(files(root)) == 3
    del output, lock
    assert files(root) == []


# Folders


def test_empty_folders_are_removed_with_the_last_object(root: Path, local: LocalStorage) -> None:
    local.put("a/b/c/d", b"")
    local.put("a/e", b"")
    local.delete("a/b/c/d")
    assert files(root) == ["a", "a/e"]
    local.move("a/e", "f/g")
    assert files(root) == ["f", "f/g"]
    local.open_output("h/i").abort()
    local.delete("f/g")
    assert files(root) == []
    assert root.is_dir()


def test_the_root_is_created_at_the_first_write(tmp_path: Path) -> None:
    root = tmp_path / "not" / "yet" / "there"
    storage = LocalStorage(root)
    assert list(storage.list("")) == []
    with pytest.raises(NotFoundError):
        storage.get("a")
    assert not root.parent.exists()
    storage.put("a", b"1")
    assert storage.get("a") == b"1"


def test_the_root_stays_the_same_after_chdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = LocalStorage(type(tmp_path)("data"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    storage.put("a", b"")
    assert files(tmp_path) == ["data", "data/a", "elsewhere"]
    assert storage.uri == "data"


def test_linked_folders_are_followed(tmp_path: Path, root: Path, local: LocalStorage) -> None:
    (tmp_path / "other").mkdir()
    root.mkdir()
    (root / "raw").symlink_to(tmp_path / "other")
    local.put("raw/a", b"1")
    assert [info.key for info in local.list("")] == ["raw/a"]
    assert files(tmp_path / "other") == ["a"]


def test_without_durable_the_objects_are_the_same(root: Path) -> None:
    storage = LocalStorage(root, durable=False)
    storage.put("a/b", b"1")
    storage.create("a/c", b"2")
    storage.move("a/b", "a/d")
    assert files(root) == ["a", "a/c", "a/d"]


def test_one_of_concurrent_moves_succeeds_and_the_others_raise_not_found(local: LocalStorage) -> None:
    def move(_: int) -> str:
        try:
            local.move("a/b", "c/d")
        except NotFoundError:
            return "nothing"
        return "moved"

    for _ in range(50):
        local.put("a/b", b"1")
        with ThreadPoolExecutor(4) as threads:
            assert sorted(threads.map(move, range(4))) == ["moved", "nothing", "nothing", "nothing"]
        assert local.get("c/d") == b"1"


# Errors of the disk


@pytest.mark.parametrize("below", ["", "/deeper/still"])
def test_a_root_that_is_a_file_is_refused_at_once(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"file is not a folder; move it away"):
        LocalStorage(tmp_path / f"file{below}")


def test_a_root_that_becomes_a_file_is_named(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "lake")
    (tmp_path / "lake").write_bytes(b"")
    verbs: list[Callable[[], object]] = [
        lambda: storage.put("a/b", b""),
        lambda: storage.get("a/b"),
        lambda: list(storage.list("")),
        lambda: storage.lock("a/b", "me"),
    ]
    for verb in verbs:
        with pytest.raises(StorageError, match="lake is not a folder") as caught:
            verb()
        assert not isinstance(caught.value, NotFoundError)


def test_a_root_that_is_removed_during_use_is_named(root: Path, local: LocalStorage) -> None:
    local.put("a/b", b"1")
    output = local.open_output("a/c")
    output.write(b"2")
    lock = local.lock("lock", "me")
    shutil.rmtree(root)
    verbs: list[Callable[[], object]] = [
        output.close,
        lambda: local.put("a/b", b""),
        lambda: local.create("new/b", b""),
        lambda: local.get("a/b"),
        lambda: local.move("a/b", "c"),
        lambda: list(local.list("")),
        lambda: local.open_output("a/b"),
        lambda: local.lock("a/b", "me"),
        lock.check,
    ]
    for verb in verbs:
        with pytest.raises(StorageError, match="was removed while in use") as caught:
            verb()
        assert not isinstance(caught.value, NotFoundError)
    lock.release()
    local.delete("a/b")
    assert not root.exists()


def test_a_removed_folder_below_the_root_is_created_again(root: Path, local: LocalStorage) -> None:
    local.put("raw/snapshot=a/1", b"")
    output = local.open_output("raw/snapshot=a/2")
    shutil.rmtree(root / "raw")
    with pytest.raises(StorageError, match="snapshot=a/2: its folder was removed"):
        output.close()
    local.put("raw/snapshot=a/3", b"")
    assert files(root) == ["raw", "raw/snapshot=a", "raw/snapshot=a/3"]


def test_an_object_in_place_of_a_folder_is_named(root: Path, local: LocalStorage) -> None:
    local.put("raw", b"")
    with pytest.raises(StorageError, match="lake/raw is not a folder"):
        local.put("raw/a", b"")
    local.put("neos/a", b"")
    with pytest.raises(StorageError, match="a folder has this name"):
        local.put("neos", b"")
    assert files(root) == ["neos", "neos/a", "raw"]


def test_a_full_disk_is_an_error_and_leaves_no_part(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "256k") as disk:
        storage = LocalStorage(disk / "lake")
        storage.put("a", b"kept")
        verbs: list[Callable[[], object]] = [
            lambda: storage.put("b/c", b"x" * 1_000_000),
            lambda: storage.put("a", b"x" * 1_000_000),
            lambda: storage.create("b/d", b"x" * 1_000_000),
        ]
        for verb in verbs:
            with pytest.raises(StorageError, match="the disk is full; free some space") as caught:
                verb()
            assert isinstance(caught.value.__cause__, OSError)
        output = storage.open_output("b/e")
        output.write(b"x" * 10_000)
        with pytest.raises(StorageError, match=r"write .*b/e: the disk is full"):
            output.write(b"x" * 1_000_000)
        output.abort()
        assert files(disk) == ["lake", "lake/a"]
        storage.put("a", b"and goes on")


def test_a_read_only_disk_is_an_error(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "256k") as disk:
        storage = LocalStorage(disk / "lake")
        storage.put("a", b"kept")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        verbs: list[Callable[[], object]] = [
            lambda: storage.put("a", b"new"),
            lambda: storage.create("b/c", b""),
            lambda: storage.move("a", "b"),
            lambda: storage.delete("a"),
            lambda: storage.open_output("c"),
            lambda: storage.lock("lock", "me"),
        ]
        for verb in verbs:
            with pytest.raises(StorageError, match="read-only; remount it"):
                verb()
        assert storage.get("a") == b"kept"
        assert storage.sweep("") == 0


def test_a_refused_permission_names_the_user_id(root: Path, local: LocalStorage) -> None:
    local.put("a", b"kept")
    put = (
        "import os, sys; from pathlib import Path; from neows_async.lake.storage import LocalStorage\n"
        "storage = LocalStorage(Path(sys.argv[1]))\n"
        "os.geteuid() or os.setuid(65534)\n"
        "try: storage.put('b', b'')\n"
        "except Exception as exc: print(type(exc).__name__, exc)"
    )
    for folder in (root, *root.parents[:3]):
        folder.chmod(0o555 if folder == root else 0o755)  # only the root refuses
    done = subprocess.run([sys.executable, "-c", put, root], capture_output=True, text=True, check=True)
    root.chmod(0o755)
    assert done.stdout.startswith(f"StorageError cannot write {root}/b: permission denied for uid ")


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EDQUOT, "quota"),
        (errno.EIO, "input/output error"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENAMETOOLONG, "shorter"),
        (errno.ENOLCK, "no locks"),
        (errno.EOPNOTSUPP, "hard links"),
        (errno.ESTALE, "network"),
        (errno.ENOTTY, os.strerror(errno.ENOTTY)),
    ],
)
def test_each_disk_error_is_one_line_with_a_remedy(tmp_path: Path, number: int, says: str) -> None:
    fault = OSError(number, os.strerror(number))
    error = storage_error(fault, doing="write", root=tmp_path, path=tmp_path / "a", reading=False, root_seen=True)
    assert str(error).startswith(f"cannot write {tmp_path}/a: ")
    assert says in str(error)
    assert ";" in str(error)
    assert "\n" not in str(error)


def test_a_name_that_is_too_long_is_an_error(local: LocalStorage) -> None:
    with pytest.raises(StorageError, match="too long"):
        local.put("x" * 300, b"")

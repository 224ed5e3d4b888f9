"""CountingStorage, which fails on purpose."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from neows_async.errors import StorageError
from neows_async.lake.storage.local import LocalStorage
from neows_async.testing.faulty_storage import CountingStorage

if TYPE_CHECKING:
    from pathlib import Path


def use(storage: CountingStorage) -> None:
    """Call every verb once."""
    lock = storage.lock("lock", "me")
    try:
        storage.put("a", b"1")
        storage.create("b", b"2")
        storage.get("a")
        output = storage.open_output("c")
        try:
            output.write(b"3")
            output.close()
        except BaseException:
            output.abort()
            raise
        storage.open_input("c").close()
        storage.move("c", "d")
        storage.list("")
        lock.check()
        storage.sweep("")
        storage.delete("d")
    finally:
        lock.release()


VERBS = [
    "lock", "put", "create", "get", "open_output", "write", "close", "open_input", "move", "list", "check", "sweep",
    "delete", "release",
]  # fmt: skip


def test_on_step_is_called_before_and_after_each_step(tmp_path: Path) -> None:
    steps: list[tuple[int, str, str]] = []
    storage = CountingStorage(LocalStorage(tmp_path), lambda *step: steps.append(step))
    use(storage)
    assert [step for step, _, _ in steps] == list(range(storage.steps))
    assert [verb for _, verb, _ in steps] == [name for verb in VERBS for name in (verb, f"{verb} done")]
    assert steps[2:4] == [(2, "put", "a"), (3, "put done", "a")]
    assert storage.uri == str(tmp_path)


@pytest.mark.parametrize("failing", range(2 * len(VERBS) - 2))
def test_an_error_of_on_step_becomes_a_storage_error(tmp_path: Path, failing: int) -> None:
    def fail(step: int, verb: str, key: str) -> None:
        if step == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"{verb} {key}")

    with pytest.raises(StorageError, match="No space left"):
        use(CountingStorage(LocalStorage(tmp_path), fail))
    left = {path.name for path in tmp_path.rglob("*")}
    assert left <= {"a", "b", "c", "d"}, "a lock or an unfinished file was left"


def test_release_and_abort_never_raise(tmp_path: Path) -> None:
    def fail(_step: int, verb: str, _key: str) -> None:
        if verb.startswith(("release", "abort")):
            raise StorageError(verb)

    storage = CountingStorage(LocalStorage(tmp_path), fail)
    storage.lock("lock", "me").release()
    storage.open_output("a").abort()

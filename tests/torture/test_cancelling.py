"""A run that is cancelled while a storage call hangs ends within a second, and the next run finishes."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import anyio
import pytest
from anyio import from_thread
from anyio.lowlevel import checkpoint
from obstore.store import MemoryStore

from neows_async.errors import SnapshotHeldError, StorageError
from neows_async.lake.storage.local import LocalStorage
from neows_async.lake.storage.object_store import ObjectStorage
from neows_async.settings import Settings
from neows_async.testing import ListSource
from neows_async.testing.faulty_storage import CountingStorage
from tests import lakes, virtual_time
from tests.neos import catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from neows_async.lake.receipt import Receipt
    from neows_async.lake.storage.interface import Storage

LIMIT_S: Final = 60.0


class Hanging:
    """From the first call of a verb and object on, every call hangs until released."""

    def __init__(self, inner: Storage, verb: str, name: str) -> None:
        self.storage = CountingStorage(inner, self._on_step)
        self.hangs = anyio.Event()
        self._at = f"{verb} {name}"
        self._hanging = False
        self._released = threading.Event()

    def _on_step(self, _: int, verb: str, key: str) -> None:
        if self._released.is_set():
            return
        if not self._hanging and f"{verb} {key.rpartition('/')[2]}" == self._at:
            self._hanging = True
            from_thread.run_sync(self.hangs.set)
        if self._hanging:
            assert self._released.wait(LIMIT_S)

    @contextmanager
    def until_released(self) -> Iterator[Hanging]:
        try:
            yield self
        finally:
            self._released.set()

    def release(self) -> None:
        self._released.set()

    @property
    def is_hanging(self) -> bool:
        return self._hanging and not self._released.is_set()


async def run_again(storage: Storage, settings: Settings) -> Receipt:
    """The next run. An abandoned call may have the lock until its thread ends."""
    while True:
        try:
            return await lakes.write(storage, ListSource(catalogue(40)), settings)
        except SnapshotHeldError:
            await checkpoint()


async def cancel_when_it_hangs(hanging: Hanging, settings: Settings) -> float:
    """Cancel the run once a call hangs.

    :returns: the seconds for which the run waits at most until it ends
    """

    async def run() -> None:
        await lakes.write(hanging.storage, ListSource(catalogue(40)), settings)

    return await virtual_time.wait_after_cancel_s(run, hanging.hangs.wait)


async def leave_unfinished(storage: Storage, settings: Settings) -> None:
    """An unfinished snapshot that has all its pages."""

    def on_step(_: int, verb: str, key: str) -> None:
        if verb == "close" and key.endswith("part-00000.parquet"):
            raise StorageError("full")

    with pytest.raises(StorageError, match="full"):
        await lakes.write(CountingStorage(storage, on_step), ListSource(catalogue(40)), settings)


@pytest.mark.held_time
@pytest.mark.parametrize(
    ("verb", "name"),
    [
        ("get", "latest.json"),
        ("lock", "a.lock"),
        ("lock done", "a.lock"),
        ("create", "run.json"),
        ("list", "gen=0"),
        ("put", "page=00001.json.zst"),
        ("get", "page=00001.json.zst"),
        ("open_output", "part-00000.parquet"),
        ("write", "part-00000.parquet"),
        ("close", "close_approaches_within.json"),
        ("check", "a.lock"),
        ("move", "part-00000.parquet"),
        ("put", "latest.json"),
        ("delete", "run.json"),
    ],
)
async def test_a_cancelled_run_ends_within_a_second(tmp_path: Path, verb: str, name: str) -> None:
    settings = Settings(snapshot="a", limit=None)
    expected = await lakes.make(LocalStorage(tmp_path / "undisturbed"), catalogue(40), "a")
    if (verb, name) == ("get", "page=00001.json.zst"):  # only a resumed run reads stored pages
        await leave_unfinished(LocalStorage(tmp_path / "lake"), settings)
    with Hanging(LocalStorage(tmp_path / "lake"), verb, name).until_released() as hanging:
        assert await cancel_when_it_hangs(hanging, settings) < 1.0
    receipt = await run_again(LocalStorage(tmp_path / "lake"), settings)
    assert receipt.files == expected.files
    assert lakes.keys(LocalStorage(tmp_path / "lake")) == lakes.keys(LocalStorage(tmp_path / "undisturbed"))


@pytest.mark.uvloop
@pytest.mark.parametrize(
    ("verb", "name"), [("lock", "a.lock"), ("put", "page=00001.json.zst"), ("move", "part-00000.parquet")]
)
async def test_a_run_that_is_cancelled_in_real_time_ends_while_a_call_hangs(
    tmp_path: Path, verb: str, name: str
) -> None:
    settings = Settings(snapshot="a", limit=None)
    with Hanging(LocalStorage(tmp_path), verb, name).until_released() as hanging:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lakes.write, hanging.storage, ListSource(catalogue(40)), settings)
            await hanging.hangs.wait()
            tasks.cancel_scope.cancel()
        assert hanging.is_hanging
    receipt = await run_again(LocalStorage(tmp_path), settings)
    assert receipt.records.written == 40


@pytest.mark.held_time
@pytest.mark.parametrize(("verb", "name"), [("put", "commit.json"), ("create", "a.json"), ("create done", "a.json")])
async def test_calls_that_must_not_be_abandoned_are_awaited(tmp_path: Path, verb: str, name: str) -> None:
    settings = Settings(snapshot="a", limit=None)
    with Hanging(LocalStorage(tmp_path), verb, name).until_released() as hanging:
        async with anyio.create_task_group() as tasks:
            ended = anyio.Event()

            async def run() -> None:
                try:
                    await lakes.write(hanging.storage, ListSource(catalogue(40)), settings)
                finally:
                    ended.set()

            tasks.start_soon(run)
            await hanging.hangs.wait()
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                with virtual_time.jumping(), anyio.move_on_after(30.0):  # less than the time limit of a storage call
                    await ended.wait()
                assert not ended.is_set()
                hanging.release()
                await ended.wait()
    source = ListSource([])
    receipt = await lakes.write(LocalStorage(tmp_path), source, settings)
    assert source.asked == []
    assert receipt.records.written == 40
    assert not [key for key in lakes.keys(LocalStorage(tmp_path)) if key.startswith("_staging")]


@pytest.mark.held_time
async def test_a_lock_that_is_acquired_after_cancellation_is_released() -> None:
    """The cancelled caller cannot release it, and in an object store it would exclude others for a minute."""
    store = ObjectStorage(MemoryStore(), "memory://lake")
    with Hanging(store, "lock done", "a.lock").until_released() as hanging:
        settings = Settings(snapshot="a", limit=None)
        assert await cancel_when_it_hangs(hanging, settings) < 1.0
        assert store.lock_owner("_staging/a.lock") is not None
    receipt = await run_again(store, settings)
    assert receipt.records.written == 40
    assert not [key for key in lakes.keys(store) if key.startswith("_staging")]

"""Races: other processes change a snapshot between two reads, or a run dies between two steps."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from neows_async.errors import PausedError, SettingsError, StorageError
from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.lake import AsyncLake
from neows_async.lake.storage.local import LocalStorage
from neows_async.outputs.aggregate_files import JsonAggregates
from neows_async.outputs.parquet import ParquetSink
from neows_async.pipeline.run import Parts, ingest
from neows_async.settings import Settings
from neows_async.testing import ListSource, browse_page
from neows_async.testing.faulty_storage import CountingStorage
from tests import lakes
from tests.neos import catalogue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from neows_async.lake.receipt import Receipt
    from neows_async.lake.storage.interface import Storage
    from neows_async.pages.values import RawPage


PARTITIONED = "neos:is_potentially_hazardous_asteroid"


async def run(storage: Storage, source: ListSource, **settings: Any) -> Receipt:
    chosen = Settings(**{"retry_budget_s": 0.2, "limit": None} | settings)
    parts = Parts(storage, source, "test", [ParquetSink("neos", chosen.partitions.get("neos"))], [], JsonAggregates())
    return await ingest(chosen, parts)


def at(verb: str, key: str, do: Callable[[], object]) -> Callable[[int, str, str], None]:
    """Call ``do`` once, just before the first call of ``verb`` for ``key``."""
    done = False

    def on_step(_: int, called: str, of: str) -> None:
        nonlocal done
        if not done and (called, of) == (verb, key):
            done = True
            do()

    return on_step


async def test_a_snapshot_that_another_run_commits_first_is_returned_unchanged(tmp_path: Path) -> None:
    theirs = await run(LocalStorage(tmp_path / "theirs"), ListSource(catalogue(50)), snapshot="a")
    ours = tmp_path / "ours"
    appear = at("lock", "_staging/a.lock", lambda: shutil.copytree(tmp_path / "theirs", ours, dirs_exist_ok=True))
    source = ListSource(catalogue(50))
    receipt = await run(CountingStorage(LocalStorage(ours), appear), source, snapshot="a")
    assert receipt == theirs
    assert source.asked == []
    assert not (ours / "_staging").exists()


async def test_a_run_that_died_after_its_commit_is_not_resumed_with_other_settings(tmp_path: Path) -> None:
    class Died(BaseException):
        pass

    def die() -> None:
        raise Died

    storage = CountingStorage(LocalStorage(tmp_path), at("put", "_runs/latest.json", die))
    with pytest.raises(Died):
        await run(storage, ListSource(catalogue(50)))
    with pytest.raises(SettingsError, match=r"within_au \(0.2, not 0.1\) and is committed now"):
        await run(LocalStorage(tmp_path), ListSource(catalogue(50)), within_au=0.1)
    receipt = await run(LocalStorage(tmp_path), ListSource(catalogue(50)), within_au=0.1)
    assert receipt.derivation["within_au"] == 0.1


async def test_two_runs_that_begin_in_one_second_get_two_ids(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    seen: list[str] = []

    class Second(ListSource):
        async def fetch(self, number: int, size: int) -> RawPage:
            if not seen:
                seen.append("")  # so that the inner run does not start another one
                receipt = await run(storage, ListSource(catalogue(30)), fresh=True)
                seen.append(receipt.snapshot)
            return await super().fetch(number, size)

    # The retry budget of the outer run covers the whole inner run.
    seen.append((await run(storage, Second(catalogue(30)), fresh=True, retry_budget_s=30)).snapshot)
    assert len(set(seen[1:])) == 2


async def test_the_later_commit_of_one_second_is_the_latest(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    for _ in range(20):  # two starts may be in different seconds, but not 20 times in a row
        await run(storage, ListSource(catalogue(1)), snapshot=f"named-{time.monotonic_ns()}")
        named = await AsyncLake(AsyncStorage(storage)).receipt("latest")
        timed = await run(storage, ListSource(catalogue(1)), fresh=True)
        assert (await AsyncLake(AsyncStorage(storage)).receipt("latest")) == timed
        if timed.started_at.replace(microsecond=0) == named.started_at.replace(microsecond=0):
            return
    pytest.fail("no two runs began in one second")


@pytest.mark.parametrize("archive", [True, False])
async def test_a_commit_that_began_is_rolled_forward_unchanged(tmp_path: Path, archive: bool) -> None:
    def die() -> None:
        raise OSError("full")

    storage = CountingStorage(LocalStorage(tmp_path), at("create", "_runs/a.json", die))
    with pytest.raises(StorageError):
        await run(storage, ListSource(catalogue(50)), snapshot="a", archive=archive)
    intent = (tmp_path / "_staging/a/commit.json").read_bytes()
    source = ListSource(catalogue(50))
    with pytest.raises(SettingsError, match=r"was ready with another within_au \(0.2, not 0.1\) and is committed now"):
        await run(LocalStorage(tmp_path), source, snapshot="a", archive=archive, within_au=0.1)
    assert source.asked == []
    assert (tmp_path / "_runs/a.json").read_bytes() == intent


async def test_staged_files_of_an_earlier_run_are_removed_before_new_ones_are_written(tmp_path: Path) -> None:
    # Otherwise a later commit could move an old file that only has the same size.
    def die() -> None:
        raise OSError("full")

    storage = CountingStorage(LocalStorage(tmp_path), at("put", "_staging/a/commit.json", die))
    with pytest.raises(StorageError):
        await run(storage, ListSource(catalogue(50)), snapshot="a")
    file = "_staging/a/files/neos/snapshot=a/part-00000.parquet"
    assert (tmp_path / file).exists()
    seen: list[bool] = []
    look = at("open_output", file, lambda: seen.append((tmp_path / file).exists()))
    await run(CountingStorage(LocalStorage(tmp_path), look), ListSource(catalogue(50)), snapshot="a")
    assert seen == [False]


async def test_stored_pages_of_another_page_size_are_not_mixed_with_a_new_first_page(tmp_path: Path) -> None:
    class Sized(ListSource):
        size = 20

        async def fetch(self, number: int, _: int) -> RawPage:
            return await super().fetch(number, self.size)

    def stop(number: int, _: int) -> None:
        if number == 2:
            raise PausedError("full", resume_at_s=0)

    source = Sized(catalogue(60), fail=stop)
    with pytest.raises(PausedError):
        await run(LocalStorage(tmp_path), source, snapshot="a", concurrency=1)
    raw = tmp_path / "raw/snapshot=a/gen=0"
    assert len(list(raw.iterdir())) == 2
    (raw / "page=00000.json.zst").write_bytes(b"damaged")
    source = Sized(catalogue(60))
    source.size = 15
    receipt = await run(LocalStorage(tmp_path), source, snapshot="a")
    assert (receipt.page_size, receipt.pages.planned, receipt.pages.kept) == (15, 4, 0)
    assert (receipt.records.written, receipt.records.duplicates) == (60, 0)


async def test_a_disk_that_returns_other_bytes_ends_the_run(tmp_path: Path) -> None:
    class Rotten(LocalStorage):
        def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
            data = super().get(key, max_bytes=max_bytes)
            return zstandard.compress(browse_page([], 7, 20)) if "page=00001" in key else data

    def fail() -> None:
        raise StorageError("full")

    staged = "_staging/a/files/neos/snapshot=a/part-00000.parquet"
    with pytest.raises(StorageError, match="full"):
        await run(
            CountingStorage(LocalStorage(tmp_path), at("close", staged, fail)), ListSource(catalogue(60)), snapshot="a"
        )
    source = ListSource(catalogue(60))
    with pytest.raises(StorageError, match="raw page 1 was written 3 times and cannot be read"):
        await run(Rotten(tmp_path), source, snapshot="a")
    assert source.asked == [1, 1]


@pytest.mark.parametrize("partition_by", [(), (PARTITIONED,)])
@pytest.mark.parametrize("moved", [True, False])
async def test_a_commit_that_cannot_be_finished_is_undone(
    tmp_path: Path, moved: bool, partition_by: tuple[str, ...]
) -> None:
    expected = await run(LocalStorage(tmp_path / "undisturbed"), ListSource(catalogue(50)), partition_by=partition_by)

    def fail() -> None:
        raise OSError("full")

    lake = tmp_path / "lake"
    storage = CountingStorage(LocalStorage(lake), at("create", "_runs/a.json", fail))
    with pytest.raises(StorageError):
        await run(storage, ListSource(catalogue(50)), snapshot="a")
    file = lake / "neos/snapshot=a/part-00000.parquet"
    if moved:
        file.unlink()
    else:
        # As a late intent: the next run has begun to write other files with the same names.
        staged = lake / "_staging/a/files/neos/snapshot=a/part-00000.parquet"
        staged.parent.mkdir(parents=True)
        staged.write_bytes(b"another's")
    source = ListSource(catalogue(50))
    receipt = await run(LocalStorage(lake), source, snapshot="a", partition_by=partition_by)
    assert source.asked == []
    assert [file.sha256 for file in receipt.files] == [file.sha256 for file in expected.files]
    found = [str(path.relative_to(lake)) for path in (lake / "neos").rglob("*.parquet")]
    assert sorted(found) == [file.path for file in receipt.files if file.dataset == "neos"]
    assert not (lake / "_staging").exists()


@pytest.mark.parametrize("left", ["raw", "neos"])
async def test_no_run_adds_to_files_without_a_receipt(tmp_path: Path, left: str) -> None:
    # A user removed the receipt by hand. The remaining files may be of another source or partitioning.
    storage = LocalStorage(tmp_path)
    old = await run(storage, ListSource(catalogue(50)), snapshot="a", partition_by=(PARTITIONED,))
    shutil.rmtree(tmp_path / "_runs")
    for folder in {"raw", "neos"} - {left}:
        shutil.rmtree(tmp_path / folder)
    before = lakes.keys(storage)
    source = ListSource(catalogue(70))
    with pytest.raises(SettingsError, match=f"{left}/snapshot=a holds files of a run of which nothing else is known"):
        await run(storage, source, snapshot="a")
    assert source.asked == []
    assert lakes.keys(storage) == before
    shutil.rmtree(tmp_path / left)
    new = await run(storage, source, snapshot="a")
    assert (old.records.written, new.records.written) == (50, 70)


async def test_a_run_does_not_choose_an_id_that_has_files(tmp_path: Path) -> None:
    for _ in range(20):  # two starts may be in different seconds, but not 20 times in a row
        first = await run(LocalStorage(tmp_path), ListSource(catalogue(50)))
        shutil.rmtree(tmp_path / "_runs")
        second = await run(LocalStorage(tmp_path), ListSource(catalogue(70)))
        assert (second.pages.kept, second.records.written) == (0, 70)
        if second.snapshot == f"{first.snapshot}-2":
            return
    pytest.fail("no two runs began in one second")


@pytest.mark.parametrize("named", [True, False])
async def test_a_snapshot_that_is_removed_before_the_lock_is_begun_again(tmp_path: Path, named: bool) -> None:
    def stop(number: int, _: int) -> None:
        if number == 2:
            raise PausedError("full", resume_at_s=0)

    settings = {"snapshot": "a"} if named else {}
    with pytest.raises(PausedError):
        await run(LocalStorage(tmp_path), ListSource(catalogue(60), fail=stop), concurrency=1, **settings)
    [begun] = [path.name for path in (tmp_path / "_staging").iterdir()]
    noted: list[str] = []

    def remove() -> None:
        for folder in ("_staging", "raw"):
            shutil.rmtree(tmp_path / folder)

    def look(step: int, verb: str, key: str) -> None:
        removing(step, verb, key)
        if verb == "put done" and "page=00000" in key:
            noted.extend(lakes.keys(LocalStorage(tmp_path), "_staging"))

    removing = at("lock", f"_staging/{begun}.lock", remove)
    source = ListSource(catalogue(60))
    receipt = await run(CountingStorage(LocalStorage(tmp_path), look), source, **settings)
    assert (receipt.pages.kept, sorted(source.asked)) == (0, [0, 1, 2])
    # The note exists before the first page: a run that is killed here can be resumed.
    assert noted == [f"_staging/{receipt.snapshot}.lock", f"_staging/{receipt.snapshot}/run.json"]


async def test_pages_that_are_removed_before_the_commit_are_fetched_again(tmp_path: Path) -> None:
    pages = [tmp_path / f"raw/snapshot=a/gen=0/page={number:05}.json.zst" for number in (1, 2)]

    def remove() -> None:
        for page in pages:
            page.unlink()

    staged = "_staging/a/files/neos/snapshot=a/part-00000.parquet"
    storage = CountingStorage(LocalStorage(tmp_path), at("close", staged, remove))
    with pytest.raises(StorageError, match=r"page=00001.json.zst was removed during the run, one of 2 raw pages"):
        await run(storage, ListSource(catalogue(60)), snapshot="a")
    assert not lakes.keys(storage, "_runs")
    source = ListSource(catalogue(60))
    await run(LocalStorage(tmp_path), source, snapshot="a")
    assert sorted(source.asked) == [1, 2]
    assert lakes.keys(storage, "raw") == [f"raw/snapshot=a/gen=0/page={number:05}.json.zst" for number in range(3)]

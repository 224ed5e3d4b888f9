"""The public `Lake`: what a reader learns of committed snapshots, in a folder and on a real S3 server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from neows_async import DataError, Lake, NotFoundError, SettingsError, open_lake, open_storage
from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.lake import AsyncLake
from neows_async.lake.storage.local import LocalStorage
from tests import lakes
from tests.lake.storage.conftest import s3_storage, storage
from tests.neos import catalogue

if TYPE_CHECKING:
    from pathlib import Path

    from neows_async.lake.storage.interface import Storage
    from tests.lake.storage.seaweedfs import SeaweedFS

__all__ = ["s3_storage", "storage"]


def test_an_empty_lake_has_no_latest_snapshot(storage: Storage) -> None:
    lake = Lake(storage)
    assert lake.latest() is None
    assert lake.snapshots() == []
    with pytest.raises(NotFoundError, match="has no snapshot yet"):
        lake.receipt()


async def test_receipts_are_read_by_id_and_as_latest(storage: Storage) -> None:
    later = await lakes.make(storage, catalogue(3), "2026-11-02")
    earlier = await lakes.make(storage, catalogue(2), "2026-11-01")
    lake = Lake(storage)
    assert lake.latest() == lake.receipt() == lake.receipt("latest") == later
    assert lake.receipt("2026-11-01") == earlier
    assert lake.snapshots() == ["2026-11-01", "2026-11-02"]
    for missing in ("2026-11-03", "../secret", ""):
        with pytest.raises(NotFoundError, match="has no committed snapshot"):
            lake.receipt(missing)


async def test_readers_and_runs_see_the_same_receipts(storage: Storage) -> None:
    await lakes.make(storage, catalogue(3), "a")
    ours, theirs = Lake(storage), AsyncLake(AsyncStorage(storage))
    assert ours.latest() == await theirs.latest()
    assert ours.receipt("a") == await theirs.receipt("a")
    assert ours.snapshots() == await theirs.committed_ids()


async def test_an_unfinished_snapshot_is_invisible_to_readers(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    receipt = await lakes.make(storage, catalogue(3), "a")
    storage.move("_runs/a.json", "_staging/a/commit.json")
    storage.delete("_runs/latest.json")
    lake = Lake(storage)
    assert (lake.latest(), lake.snapshots()) == (None, [])
    with pytest.raises(NotFoundError, match="no committed snapshot a"):
        lake.path("neos", "a")
    assert await AsyncLake(AsyncStorage(storage)).commit_intent("a") == receipt


async def test_the_path_of_a_dataset_can_be_read_by_other_programs(tmp_path: Path) -> None:
    await lakes.make(LocalStorage(tmp_path), catalogue(45), "a")
    lake = open_lake(f"{tmp_path}/")
    assert lake.path("neos") == f"{tmp_path}/neos/snapshot=a"
    assert pq.read_table(lake.path("neos", "a")).num_rows == 45
    with pytest.raises(
        NotFoundError, match="snapshot a has no dataset quarantine; it has aggregates, close_approaches"
    ):
        lake.path("quarantine")


async def test_a_lake_on_s3_is_opened_by_its_uri(s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    lake, storage = open_lake(s3.uri("by/lake")), open_storage(s3.uri("by/lake"))
    await lakes.make(storage, catalogue(3), "a")
    receipt = lake.latest()
    assert receipt is not None
    assert receipt.records.written == 3
    # The URI's options are for us: other programs take the endpoint from their own settings.
    assert lake.path("neos") == s3.uri("by/lake").partition("?")[0] + "/neos/snapshot=a"
    for key in lakes.keys(storage):
        storage.delete(key)
    assert lake.latest() is None


def test_a_damaged_receipt_is_named(tmp_path: Path) -> None:
    LocalStorage(tmp_path).put("_runs/latest.json", json.dumps({"snapshot": "a"}).encode())
    with pytest.raises(DataError, match=r"_runs/latest.json is damaged \(parent\); restore it, or move it away"):
        open_lake(str(tmp_path)).latest()


def test_a_root_that_is_not_understood_is_refused() -> None:
    with pytest.raises(SettingsError, match="ftp:// is no known storage"):
        open_lake("ftp://host/lake")

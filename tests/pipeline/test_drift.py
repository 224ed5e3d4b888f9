"""A catalogue that changes while it is read: nothing doubled, and no more claimed than is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.raw_zone import RawZone
from neows_async.lake.storage.local import LocalStorage
from neows_async.pipeline.run import ingest
from neows_async.settings import Settings
from neows_async.sources.archive import ArchiveSource
from neows_async.testing import ListSink, ListSource
from tests.neos import catalogue, neo
from tests.pipeline.test_run import derived, parts, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from neows_async.pages.values import RawPage


class Drifting(ListSource):
    """Changes before the answer to request ``at`` (from 1), once."""

    def __init__(self, count: int, changes: dict[int, Callable[[list[Any]], None]]) -> None:
        super().__init__(catalogue(count))
        self._changes = changes

    async def fetch(self, number: int, size: int) -> RawPage:
        change = self._changes.get(len(self.asked) + 1)
        if change is not None:
            change(self.objects)
        return await super().fetch(number, size)


def add_in_front(objects: list[Any]) -> None:
    objects.insert(0, neo(1_000 + len(objects)))


def remove_the_third(objects: list[Any]) -> None:
    del objects[2]


def both(objects: list[Any]) -> None:
    add_in_front(objects)
    del objects[-1]


def turn_round(objects: list[Any]) -> None:
    objects.reverse()


async def read(root: Path, source: Drifting, **settings: Any) -> tuple[Any, list[str]]:
    sink = ListSink()
    receipt = await run(root, source, sink, limit=settings.pop("limit", None), concurrency=1, **settings)
    ids = [row["id"] for row in sink.rows]
    assert len(ids) == len(set(ids)), "nothing twice"
    assert receipt.records.seen == receipt.records.written + receipt.records.duplicates + receipt.records.rejected
    return receipt, ids


async def test_a_growing_catalogue_is_read_once_more_and_is_complete(tmp_path: Path) -> None:
    source = Drifting(100, {3: add_in_front})
    receipt, ids = await read(tmp_path, source)
    assert source.asked == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5]
    assert set(ids) == {entry["id"] for entry in source.objects}
    assert (receipt.complete, receipt.total_elements, receipt.raw.generations) == (True, 101, 2)
    assert receipt.records.duplicates > 0
    assert len(list((tmp_path / "raw").rglob("*.zst"))) == 11


async def test_a_shrinking_catalogue_hides_nothing(tmp_path: Path) -> None:
    source = Drifting(100, {3: remove_the_third})
    receipt, ids = await read(tmp_path, source)
    assert {entry["id"] for entry in source.objects} <= set(ids), "what the shift hid is found"
    assert (receipt.complete, receipt.total_elements) == (True, 99)


async def test_changes_that_cancel_out_are_told_by_the_ids(tmp_path: Path) -> None:
    source = Drifting(100, {3: both})
    receipt, ids = await read(tmp_path, source)
    assert receipt.raw.generations == 1, "the size did not change"
    assert len(ids) == 99
    assert receipt.complete is False


async def test_another_order_is_told_by_the_ids(tmp_path: Path) -> None:
    receipt, ids = await read(tmp_path, Drifting(100, {3: turn_round}))
    assert len(ids) < 100
    assert (receipt.complete, receipt.raw.generations) == (False, 1)


async def test_a_catalogue_that_never_rests_is_not_called_complete(tmp_path: Path) -> None:
    source = Drifting(100, dict.fromkeys(range(2, 30), add_in_front))
    receipt, _ = await read(tmp_path, source)
    assert receipt.raw.generations == 2
    assert receipt.complete in (False, "unknown")


@pytest.mark.parametrize(("settings", "asked"), [({"limit": 40}, 2), ({"max_generations": 1}, 5)])
async def test_no_more_is_asked_for_than_is_wanted(tmp_path: Path, settings: dict[str, Any], asked: int) -> None:
    source = Drifting(100, {2: add_in_front})
    receipt, _ = await read(tmp_path, source, **settings)
    assert len(source.asked) == asked
    assert receipt.complete is not True


async def test_it_is_rebuilt_and_resumed_generation_by_generation(tmp_path: Path) -> None:
    one = tmp_path / "one"
    await run(one, Drifting(100, {3: add_in_front}), limit=None, concurrency=1, snapshot="a")
    zone = RawZone(AsyncStorage(LocalStorage(one)), "a", max_body_bytes=1 << 20)
    rebuilt = Settings(snapshot="again", limit=None)
    archive = ArchiveSource(zone, snapshot="a", synthetic=True)
    receipt = await ingest(rebuilt, parts(one, archive, settings=rebuilt, parent="a"))
    assert derived(one, "again") == derived(one, "a")
    assert (receipt.complete, receipt.raw.generations) == (True, 2)


async def test_a_rejected_object_is_not_quarantined_twice(tmp_path: Path) -> None:
    source = Drifting(60, {2: add_in_front})
    source.objects[5] = neo(5, absolute_magnitude_h="bright")
    receipt, _ = await read(tmp_path, source)
    assert receipt.raw.generations == 2
    assert receipt.records.rejected == 1
    assert receipt.complete is False

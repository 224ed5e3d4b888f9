"""Rejected objects are listed, shown, and parsed again after a fix, without a request."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
import zstandard

from neows_async.errors import DataError, NotFoundError, SettingsError
from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.lake import AsyncLake
from neows_async.lake.storage.local import LocalStorage
from neows_async.maintenance.replay import plan_replay, read_rejected, rebuild_request
from neows_async.maintenance.verify import verify
from neows_async.pages.stored import compress
from tests import lakes, loopback, program
from tests.neos import catalogue, neo

if TYPE_CHECKING:
    from pathlib import Path

    from neows_async.pages.values import Rejected

BAD = neo(25, absolute_magnitude_h="20.5 mag", links={})
WORSE = neo(41, name=7, links={})
OBJECTS = [*catalogue(25), BAD, *catalogue(41)[26:], WORSE, *catalogue(60)[42:]]
GOOD = [*catalogue(25), neo(25, absolute_magnitude_h="20.5", links={}), *catalogue(41)[26:], WORSE, *catalogue(60)[42:]]


def make_readable(root: Path, snapshot: str) -> None:
    """Make a rejected object readable, in its raw page and in the quarantine, as a fix of the program would."""

    def mend(text: bytes) -> bytes:
        return text.replace(b'20.5 mag"', b'20.5"')

    page = root / f"raw/snapshot={snapshot}/gen=0/page=00001.json.zst"
    if page.exists():
        page.write_bytes(compress(mend(zstandard.decompress(page.read_bytes()))))
    lines = root / f"quarantine/snapshot={snapshot}/rejected.jsonl"
    entries = [json.loads(line) for line in lines.read_bytes().splitlines()]
    mended = [json.dumps(entry | {"raw": mend(entry["raw"].encode()).decode()}) + "\n" for entry in entries]
    lines.write_text("".join(mended))


async def test_rejected_objects_are_read_in_order_and_parsed_again(tmp_path: Path) -> None:
    lake = AsyncStorage(LocalStorage(tmp_path))
    receipt = await lakes.make(LocalStorage(tmp_path), OBJECTS, "a")
    seen: list[Rejected] = []
    await read_rejected(lake, receipt, seen.append)
    assert [(entry.page, entry.position, entry.id, entry.reason) for entry in seen] == [
        (1, 25, "9000025", "not a number: '20.5 mag'"),
        (2, 41, "9000041", "not a string: 7"),
    ]
    assert json.loads(seen[0].raw) == BAD
    planned = await plan_replay(lake, "a")
    assert (planned.rejected, planned.readable) == (2, ())
    make_readable(tmp_path, "a")
    planned = await plan_replay(lake, "latest")
    assert (planned.receipt, planned.rejected, planned.readable) == (receipt, 2, (25,))


async def test_snapshot_without_rejected_objects(tmp_path: Path) -> None:
    lake = AsyncStorage(LocalStorage(tmp_path))
    await lakes.make(LocalStorage(tmp_path), catalogue(3), "a")
    planned = await plan_replay(lake, "a")
    assert (planned.rejected, planned.readable) == (0, ())
    with pytest.raises(NotFoundError, match="no committed snapshot b"):
        await plan_replay(lake, "b")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (b"{}\n", "line 1 is damaged"),
        (b"[]\n", "line 1 is damaged"),
        (b'{"page": \n', "line 1 is damaged"),
        (None, "is missing; 'neows-async verify' lists what else is"),
    ],
)
async def test_damaged_quarantine_raises_with_its_path(tmp_path: Path, damage: bytes | None, message: str) -> None:
    lake = AsyncStorage(LocalStorage(tmp_path))
    await lakes.make(LocalStorage(tmp_path), OBJECTS, "a")
    lines = tmp_path / "quarantine/snapshot=a/rejected.jsonl"
    lines.unlink() if damage is None else lines.write_bytes(damage)
    with pytest.raises(DataError, match=f"quarantine/snapshot=a/rejected.jsonl.*{message}"):
        await plan_replay(lake, "a")


async def test_rebuild_request_has_the_settings_and_parts_of_the_parent(tmp_path: Path) -> None:
    given = {
        "limit": 50,
        "page_size": 10,
        "within_au": 0.05,
        "orbiting_body": "Venus",
        "partition_by": ("neos:designation",),
        "max_rejects": None,
    }
    receipt = await lakes.make(LocalStorage(tmp_path), OBJECTS, "a", **given)
    request = rebuild_request(receipt)
    assert {name: getattr(request.settings, name) for name in given} == given
    assert request.sinks == ("parquet",)
    assert request.aggregators == ("close_approaches_within", "close_approaches_by_year")
    assert request.aggregate_writer == "json"


@pytest.mark.parametrize(
    "changes", [{"sinks": ["parquet:neos", "Mine"]}, {"aggregators": ["Mine"]}, {"aggregate_writer": "Mine"}]
)
async def test_a_snapshot_made_with_a_part_of_yours_is_not_rebuilt(tmp_path: Path, changes: dict[str, Any]) -> None:
    receipt = await lakes.make(LocalStorage(tmp_path), OBJECTS, "a")
    changed = receipt.model_copy(update={"derivation": receipt.derivation | changes})
    with pytest.raises(SettingsError, match="made with Mine, which is not one of ours"):
        rebuild_request(changed)


async def test_a_receipt_with_impossible_settings_is_damaged(tmp_path: Path) -> None:
    receipt = await lakes.make(LocalStorage(tmp_path), OBJECTS, "a")
    changed = receipt.model_copy(update={"derivation": receipt.derivation | {"within_au": "near"}})
    with pytest.raises(DataError, match=r"_runs/a.json: within_au: Input should be a valid number"):
        rebuild_request(changed)


def rows(root: Path, snapshot: str) -> dict[str, list[Any]]:
    """Path below the lake, without the snapshot's id → rows."""
    found = [*(root / "neos").rglob("*.parquet"), *(root / "close_approaches").rglob("*.parquet")]
    return {
        str(file.relative_to(root)).replace(snapshot, ""): pq.ParquetFile(file).read().to_pylist()
        for file in found
        if f"snapshot={snapshot}" in file.parts
    }


def quarantine(root: Path, command: str, *arguments: str) -> program.Ended:
    return program.run(root, "quarantine", command, "--root", "lake", *arguments)


@pytest.mark.asyncio_only
async def test_replay_command_makes_a_new_snapshot_without_a_request(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    with loopback.serving(loopback.browse(OBJECTS)) as server:
        run = ("run", "--base-url", server.url, "--root", "lake", "--all", "--within-au", "0.15", "--quiet")
        layout = ("--partition-by", "close_approaches:orbiting_body", "--aggregate-writer", "csv")
        assert program.run(tmp_path, *run, *layout, "--snapshot", "2020-01-01", NASA_API_KEY="x" * 20).code == 0
        asked = len(server.asked)
        unchanged = quarantine(tmp_path, "replay")
        assert (unchanged.code, unchanged.out) == (0, "")
        assert unchanged.err == (
            "0 of the 2 rejected objects of snapshot 2020-01-01 can be read now; nothing was written\n"
        )
        assert len(list((root / "_runs").iterdir())) == 2
        make_readable(root, "2020-01-01")
        ended = quarantine(tmp_path, "replay", "--log-format", "json")
        assert ended.code == 0, ended.err
        assert "1 of the 2 rejected objects of snapshot 2020-01-01 can be read now" in ended.err
        assert len(server.asked) == asked
    receipt = json.loads(ended.out)
    assert (receipt["parent"], receipt["raw"]["snapshot"]) == ("2020-01-01", "2020-01-01")
    assert (receipt["records"]["written"], receipt["records"]["rejected"]) == (59, 1)
    assert (receipt["derivation"]["within_au"], receipt["derivation"]["aggregate_writer"]) == (0.15, "CsvAggregates")
    lake = AsyncStorage(LocalStorage(root))
    assert (await verify(lake)).differences == ()
    assert (await AsyncLake(lake).receipt("latest")).snapshot == receipt["snapshot"]
    # A run over the mended objects gives the same rows.
    settings = {"within_au": 0.15, "partition_by": ("close_approaches:orbiting_body",)}
    await lakes.make(LocalStorage(tmp_path / "mended"), GOOD, "m", **settings)
    assert rows(root, receipt["snapshot"]) == rows(tmp_path / "mended", "m")
    # The next replay writes nothing.
    again = quarantine(tmp_path, "replay")
    assert again.err.startswith(f"0 of the 1 rejected objects of snapshot {receipt['snapshot']} can be read now")


@pytest.mark.asyncio_only
async def test_replay_without_an_archive_fails_with_the_reason(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "lake")
    await lakes.make(storage, OBJECTS, "a", archive=False)
    make_readable(tmp_path / "lake", "a")
    before = lakes.keys(storage)
    ended = quarantine(tmp_path, "replay")
    assert ended.code == 2
    first, last = ended.err.splitlines()
    assert first == "1 of the 2 rejected objects of snapshot a can be read now"
    assert last.startswith("neows-async: snapshot a was made with --no-archive: its raw pages were not stored")
    assert lakes.keys(storage) == before


@pytest.mark.asyncio_only
async def test_list_and_show_commands(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "lake")
    await lakes.make(storage, catalogue(2), "2020-01-01")
    assert quarantine(tmp_path, "list").out == "Snapshot 2020-01-01 has no rejected objects\n"
    assert json.loads(quarantine(tmp_path, "list", "--log-format", "json").out) == []
    await lakes.make(storage, OBJECTS, "2020-01-02")
    assert quarantine(tmp_path, "list").out.splitlines() == [
        "25  9000025  not a number: '20.5 mag'  at /near_earth_objects/5/absolute_magnitude_h of page 1",
        "41  9000041  not a string: 7  at /near_earth_objects/1/name of page 2",
    ]
    listed = json.loads(quarantine(tmp_path, "list", "--log-format", "json").out)
    assert [(entry["position"], "raw" in entry) for entry in listed] == [(25, False), (41, False)]
    shown = quarantine(tmp_path, "show", "--position", "25").out.splitlines()
    assert shown[:3] == [
        "Position 25 (page 1), id 9000025",
        "  reason:  not a number: '20.5 mag'",
        "  pointer: /near_earth_objects/5/absolute_magnitude_h",
    ]
    assert [json.loads(line) for line in shown[3:]] == [BAD]
    shown_json = json.loads(quarantine(tmp_path, "show", "--log-format", "json").out)
    assert [json.loads(entry["raw"]) for entry in shown_json] == [BAD, WORSE]
    absent = quarantine(tmp_path, "show", "--position", "7")
    assert (absent.code, absent.out) == (2, "")
    assert "lists the 2 that were" in absent.err
    assert quarantine(tmp_path, "show", "nope").code == 2
    assert quarantine(tmp_path, "show", "../nope").code == 2

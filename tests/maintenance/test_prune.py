"""`snapshots` lists every snapshot; `prune` removes snapshots whole, whenever the process dies."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from neows_async.errors import DataError, SettingsError, StorageError
from neows_async.lake import layout
from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.inventory import ObjectNames, State, list_snapshots
from neows_async.lake.lake import AsyncLake
from neows_async.lake.raw_zone import find_raw
from neows_async.lake.storage.local import LocalStorage
from neows_async.maintenance.prune import Left, Pruned, Removed, Rules, prune
from neows_async.maintenance.verify import verify
from neows_async.outputs import registry
from neows_async.testing.faulty_storage import CountingStorage
from tests import lakes, program
from tests.lake.storage.conftest import s3_storage, storage
from tests.neos import catalogue, neo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from neows_async.lake.storage.interface import Storage
    from tests.lake.storage.seaweedfs import SeaweedFS

__all__ = ["s3_storage", "storage"]

DAY_S = 86_400.0
NAMES = ObjectNames(registry.file_patterns())
OBJECTS = [*catalogue(45), neo(45, name=7)]
# Two datasets, and each aggregate.
FILES = 2 + len(registry.AGGREGATORS)
DAYS = [f"2026-11-0{day}" for day in range(1, 6)]


async def pruned(storage: Storage, keep: int = 1, *, dry_run: bool = False, later_s: float = 0.0) -> Pruned:
    now = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=later_s)
    return await prune(AsyncStorage(storage), Rules(keep, resume_within_s=DAY_S, dry_run=dry_run), now=now)


def removed(outcome: Pruned) -> list[tuple[str, State]]:
    return [(one.snapshot, one.state) for one in outcome.outcomes if isinstance(one, Removed)]


def left(outcome: Pruned) -> dict[str, str]:
    return {one.snapshot: one.reason for one in outcome.outcomes if isinstance(one, Left)}


async def states(storage: Storage) -> dict[str, State]:
    return {entry.snapshot: entry.state for entry in await list_snapshots(AsyncStorage(storage), NAMES)}


def note_of(snapshot: str, parent: str) -> bytes:
    """The note of a rebuild that has just begun."""
    started_at = dt.datetime.now(dt.UTC).isoformat()
    rest = {"synthetic": True, "archive": True, "identity": {}, "started_at": started_at}
    return json.dumps({"snapshot": snapshot, "parent": parent, **rest}).encode()


async def die_at(
    storage: Storage, objects: list[dict[str, Any]], snapshot: str, fatal: Callable[[str, str], bool]
) -> None:
    """A run whose storage fails from the first step for which ``fatal`` is true."""
    dead = False

    def on_step(_: int, verb: str, key: str) -> None:
        nonlocal dead
        dead = dead or fatal(verb, key)
        if dead and not verb.startswith("release"):
            raise StorageError("gone")

    with pytest.raises(StorageError):
        await lakes.make(CountingStorage(storage, on_step), objects, snapshot)


async def test_the_newest_snapshots_stay_and_the_others_are_removed_whole(storage: Storage) -> None:
    for day in DAYS:
        await lakes.make(storage, OBJECTS, day, partition_by=("close_approaches:orbiting_body",))
    outcome = await pruned(storage, 2)
    assert removed(outcome) == [(day, State.COMMITTED) for day in reversed(DAYS[:3])]
    assert outcome.kept == ("2026-11-05", "2026-11-04")
    assert {NAMES.owner_of(key) for key in lakes.keys(storage)} == {"2026-11-05", "2026-11-04", None}
    assert [key for key in lakes.keys(storage) if NAMES.owner_of(key) is None] == [
        "_runs/2026-11-04.json",
        "_runs/2026-11-05.json",
        "_runs/latest.json",
    ]
    for day in DAYS[3:]:
        assert (await verify(AsyncStorage(storage), day)).differences == ()
    assert await pruned(storage, 2) == Pruned((), outcome.kept, 0)


async def test_a_dry_run_reports_the_same_and_writes_nothing(tmp_path: Path) -> None:
    verbs: set[str] = set()
    storage = CountingStorage(LocalStorage(tmp_path), lambda _step, verb, _key: verbs.add(verb.partition(" ")[0]))
    for day in DAYS[:3]:
        await lakes.make(storage, OBJECTS, day)
    before = lakes.keys(storage)
    verbs.clear()
    dry = await pruned(storage, dry_run=True)
    assert verbs <= {"list", "get", "lock_owner"}
    assert lakes.keys(storage) == before
    wet = await pruned(storage)
    assert dry == wet
    assert sum(one.bytes for one in wet.outcomes if isinstance(one, Removed)) > 0


async def test_the_latest_stays_whatever_the_order_of_commits(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    for day in ("2026-11-03", "2026-11-01", "2026-11-02"):
        await lakes.make(storage, OBJECTS, day)
    assert (await pruned(storage)).kept == ("2026-11-03",)
    assert (await AsyncLake(AsyncStorage(storage)).receipt("latest")).snapshot == "2026-11-03"


@pytest.mark.parametrize("damage", ["missing", "behind", "dangling"])
async def test_latest_is_corrected(tmp_path: Path, damage: str) -> None:
    storage = LocalStorage(tmp_path)
    for day in DAYS[:2]:
        await lakes.make(storage, OBJECTS, day)
    latest = tmp_path / "_runs/latest.json"
    if damage == "missing":
        latest.unlink()
    else:
        other = "2026-11-01" if damage == "behind" else "2026-12-31"
        receipt = json.loads((tmp_path / "_runs/2026-11-01.json").read_bytes())
        latest.write_text(json.dumps(receipt | {"snapshot": other}))
    assert (await pruned(storage)).kept == ("2026-11-02",)
    assert (await AsyncLake(AsyncStorage(storage)).receipt("latest")).snapshot == "2026-11-02"


async def test_raw_pages_of_a_remaining_rebuild_stay(storage: Storage) -> None:
    await lakes.make(storage, OBJECTS, "2026-11-01")
    await lakes.make(storage, OBJECTS, "2026-11-02")
    await lakes.rebuild(storage, "2026-11-01", "2026-11-03")
    await lakes.rebuild(storage, "2026-11-03", "2026-11-04")
    outcome = await pruned(storage)
    assert left(outcome) == {"2026-11-01": "2026-11-04 is made from its raw pages"}
    assert outcome.kept == ("2026-11-04", "2026-11-01")
    assert (await verify(AsyncStorage(storage))).differences == ()
    # Without a remaining rebuild it is removed.
    await lakes.make(storage, OBJECTS, "2026-11-05")
    assert removed(await pruned(storage)) == [("2026-11-04", State.COMMITTED), ("2026-11-01", State.COMMITTED)]
    assert (await states(storage)) == {"2026-11-05": State.COMMITTED}


async def test_the_parent_of_an_unfinished_rebuild_stays_until_the_rebuild_is_old(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    await lakes.make(storage, OBJECTS, "2026-11-01")
    await lakes.make(storage, OBJECTS, "2026-11-02")

    dead = CountingStorage(storage, lambda _step, verb, _key: _fail() if verb == "open_output" else None)
    with pytest.raises(StorageError):
        await lakes.rebuild(dead, "2026-11-01", "b")
    assert left(await pruned(storage)) == {
        "b": "it can still be resumed",
        "2026-11-01": "b is made from its raw pages",
    }
    assert removed(await pruned(storage, later_s=2 * DAY_S)) == [
        ("b", State.UNFINISHED),
        ("2026-11-01", State.COMMITTED),
    ]


def _fail() -> None:
    raise StorageError("gone")


async def test_objects_that_no_run_wrote_stay(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    for day in DAYS[:2]:
        await lakes.make(storage, OBJECTS, day)
    foreign = [
        "notes.txt",
        "mine/snapshot=2026-11-01/part-00000.parquet",
        "neos/README",
        "neos/snapshot=2026-11-01/mine.csv",
        "neos/snapshot=2026-11-01.bak/x",
        "neos/part-00000.parquet",
        "quarantine/snapshot=2026-11-01/mine.jsonl",
        "aggregates/snapshot=2026-11-01/mine.json",
        "aggregates/snapshot=2026-11-01/mine.csv",
        "raw/snapshot=2026-11-01/gen=0/page=1.json.zst",
        "raw/snapshot=2026-11-01/gen=0/notes",
        "_runs/notes.txt",
        "_runs/.hidden.json",
        "_staging/2026-11-01/mine",
        "_staging/mine.txt",
        ".neows-short.tmp",
    ]
    for key in foreign:
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    (tmp_path / "mine/empty").mkdir()
    outcome = await pruned(storage, later_s=90 * DAY_S)
    [one] = [one for one in outcome.outcomes if isinstance(one, Removed)]
    assert (one.snapshot, one.foreign) == ("2026-11-01", 7)
    assert (await pruned(storage, later_s=180 * DAY_S)).outcomes == ()
    assert all((tmp_path / key).read_text() == "mine" for key in foreign)
    assert (tmp_path / "mine/empty").is_dir()
    remaining = {key for key in lakes.keys(storage) if NAMES.owner_of(key) != "2026-11-02"}
    assert remaining == {*foreign, "_runs/2026-11-02.json", "_runs/latest.json"}


async def test_only_files_that_the_receipt_names_are_removed_from_a_dataset(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    for day in DAYS[:2]:
        await lakes.make(storage, OBJECTS, day)
    names = [
        "aggregates/snapshot=2026-11-01/close_approaches_within.csv",
        "neos/snapshot=2026-11-01/id=1/part-00000.parquet",
        "neos/snapshot=2026-11-01/part-00007.parquet",
    ]
    for key in names:
        storage.put(key, b"mine")  # foreign files with names like ours
    assert [one.foreign for one in (await pruned(storage)).outcomes if isinstance(one, Removed)] == [3]
    assert [key for key in lakes.keys(storage) if "2026-11-01" in key] == names


async def test_an_edited_receipt_does_not_remove_another_snapshot(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    for day in DAYS[:2]:
        await lakes.make(storage, OBJECTS, day)

    def change(receipt: dict[str, Any]) -> None:
        receipt["files"][0]["path"] = "neos/snapshot=2026-11-02/part-00000.parquet"

    lakes.rewrite_receipt(tmp_path, "2026-11-01", change)
    await pruned(storage)
    assert (await verify(AsyncStorage(storage))).differences == ()


STEPS: list[tuple[str, Callable[[str, str], bool], State]] = [
    ("begun", lambda verb, key: verb == "create done" and key.endswith("run.json"), State.UNFINISHED),
    ("fetching", lambda verb, key: verb == "put done" and "page=00001" in key, State.UNFINISHED),
    ("writing", lambda verb, key: verb == "close done" and "neos/" in key, State.UNFINISHED),
    ("ready", lambda verb, key: verb == "put done" and key.endswith("commit.json"), State.READY),
    ("moving", lambda verb, _key: verb == "move done", State.READY),
    ("committed", lambda verb, key: verb == "create done" and key == "_runs/b.json", State.COMMITTED),
    ("latest", lambda verb, key: verb == "put done" and key == layout.LATEST, State.COMMITTED),
]


@pytest.mark.parametrize(("fatal", "state"), [case[1:] for case in STEPS], ids=[case[0] for case in STEPS])
async def test_leftovers_of_dead_runs_are_reported_and_removed_when_old(
    tmp_path: Path, fatal: Callable[[str, str], bool], state: State
) -> None:
    storage = LocalStorage(tmp_path)
    await lakes.make(storage, OBJECTS, "a")
    await die_at(storage, OBJECTS, "b", fatal)
    assert (await states(storage))["b"] is state
    young = await pruned(storage, 2)
    if state is State.COMMITTED:
        assert removed(young) == [("b", State.LEFTOVER)]
        assert (await verify(AsyncStorage(storage))).snapshot == "b"
    else:
        assert not removed(young)
        assert list(left(young)) == ["b"]
        old = await pruned(storage, 2, later_s=2 * DAY_S)
        assert removed(old) == ([] if state is State.READY else [("b", state)])
    if state is State.READY:
        # Only the commit is missing, and the same command does it.
        assert (await lakes.make(storage, OBJECTS, "b")).snapshot == "b"
    assert not [key for key in lakes.keys(storage) if key.startswith("_staging")]
    for snapshot in {"a", "b"} & set(await states(storage)):
        assert (await verify(AsyncStorage(storage), snapshot)).differences == ()


async def test_files_without_a_receipt_or_a_note_are_removed_when_old(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    for day in DAYS[:2]:
        await lakes.make(storage, OBJECTS, day)
    (tmp_path / "_runs/2026-11-01.json").unlink()  # a user removed the snapshot by hand
    (tmp_path / "_staging").mkdir()
    (tmp_path / "_staging/z.lock").touch()
    (tmp_path / "neos/.neows-0123456789abcdef.tmp").touch()
    assert await states(storage) == {
        "2026-11-02": State.COMMITTED,
        "2026-11-01": State.LEFTOVER,
        "z": State.LEFTOVER,
    }
    young = await pruned(storage)
    assert (young.outcomes, young.swept) == ((), 1)
    old = await pruned(storage, later_s=2 * DAY_S)
    assert sorted(removed(old)) == [("2026-11-01", State.LEFTOVER), ("z", State.LEFTOVER)]
    assert await states(storage) == {"2026-11-02": State.COMMITTED}
    assert not (tmp_path / "_staging").exists()


async def test_the_lock_file_of_a_run_that_died_after_its_cleanup_is_removed(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    await lakes.make(storage, OBJECTS, "a")
    (tmp_path / "_staging").mkdir()
    (tmp_path / "_staging/a.lock").write_text("process 1 on a machine")
    dry = await pruned(storage, dry_run=True)
    assert [one.files for one in dry.outcomes if isinstance(one, Removed)] == [1]
    assert await pruned(storage) == dry
    assert not (tmp_path / "_staging").exists()
    assert (await verify(AsyncStorage(storage), "a")).differences == ()


async def test_empty_folders_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    await lakes.make(storage, OBJECTS, "a")
    await die_at(storage, OBJECTS, "b", lambda verb, key: verb == "put done" and "page=00001" in key)
    for folder in ("_staging/b/files/quarantine/snapshot=b", "raw/snapshot=b/gen=1", "neos/snapshot=b"):
        (tmp_path / folder).mkdir(parents=True)
    assert removed(await pruned(storage, later_s=2 * DAY_S)) == [("b", State.UNFINISHED)]
    assert [(tmp_path / name).exists() for name in ("_staging", "raw/snapshot=b", "neos/snapshot=b")] == [False] * 3


async def test_a_snapshot_with_a_damaged_receipt_is_reported_and_stays(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    for day in DAYS[:2]:
        await lakes.make(storage, OBJECTS, day)
    (tmp_path / "_runs/2026-11-01.json").write_text("{")
    before = lakes.keys(storage)
    outcome = await pruned(storage, later_s=90 * DAY_S)
    assert list(left(outcome)) == ["2026-11-01"]
    assert lakes.keys(storage) == before


async def test_a_snapshot_that_a_live_run_has_locked_stays(storage: Storage) -> None:
    for day in DAYS[:3]:
        await lakes.make(storage, OBJECTS, day)
    locks = [storage.lock(layout.lock_key(snapshot), "the test") for snapshot in ("2026-11-01", "new")]
    assert (await states(storage))["new"] is State.WRITTEN
    outcome = await pruned(storage, later_s=90 * DAY_S)
    assert left(outcome) == {"2026-11-01": "held by the test", "new": "held by the test"}
    assert removed(outcome) == [("2026-11-02", State.COMMITTED)]
    for lock in locks:
        lock.release()
    assert (await verify(AsyncStorage(storage), "2026-11-01")).differences == ()


async def test_a_rebuild_that_begins_before_the_receipt_is_hidden_keeps_its_parent(tmp_path: Path) -> None:
    # The rebuild found the receipt before it was hidden, and wrote its note before prune looked for readers.
    inner = LocalStorage(tmp_path)
    for day in DAYS[:2]:
        await lakes.make(inner, OBJECTS, day)

    def on_step(_: int, verb: str, key: str) -> None:
        if verb == "move done" and key == "_runs/2026-11-01.json":
            inner.create("_staging/b/run.json", note_of("b", "2026-11-01"))

    outcome = await pruned(CountingStorage(inner, on_step))
    assert left(outcome) == {"2026-11-01": "b is being made from its raw pages"}
    assert (await verify(AsyncStorage(inner), "2026-11-01")).differences == ()


async def test_a_rebuild_that_begins_after_the_receipt_is_hidden_is_refused(tmp_path: Path) -> None:
    inner = LocalStorage(tmp_path)
    for day in DAYS[:2]:
        await lakes.make(inner, OBJECTS, day)

    def on_step(_: int, verb: str, key: str) -> None:
        if verb == "create" and key == "_staging/b/run.json":
            inner.move("_runs/2026-11-01.json", layout.removal_key("2026-11-01"))

    with pytest.raises(SettingsError, match="2026-11-01, whose raw pages were to be read, was just removed"):
        await lakes.rebuild(CountingStorage(inner, on_step), "2026-11-01", "b")
    assert "b" not in await states(inner)


async def test_raw_pages_without_a_receipt_can_be_rebuilt_from(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    before = await lakes.make(storage, OBJECTS, "a")
    for key in lakes.keys(storage):
        if not key.startswith("raw/"):
            storage.delete(key)
    (tmp_path / "raw/snapshot=a/gen=0/page=00002.json.zst").rename(tmp_path / "page")
    short = await lakes.rebuild(storage, "a", "short", max_missing_pages=None)
    assert (short.parent, short.pages.missing, short.records.seen) == ("a", (2,), 40)
    (tmp_path / "page").rename(tmp_path / "raw/snapshot=a/gen=0/page=00002.json.zst")
    whole = await lakes.rebuild(storage, "a", "whole")
    assert [file.sha256 for file in whole.files] == [file.sha256 for file in before.files]
    assert (await verify(AsyncStorage(storage), "whole")).differences == ()
    outcome = await pruned(storage, later_s=90 * DAY_S)
    assert left(outcome) == {"a": "whole is made from its raw pages"}


@pytest.mark.parametrize("hidden", [True, False])
async def test_a_rebuild_from_leftover_pages_and_their_removal_exclude_each_other(tmp_path: Path, hidden: bool) -> None:
    inner = LocalStorage(tmp_path)
    for day in DAYS[:2]:
        await lakes.make(inner, OBJECTS, day)
    (tmp_path / "_runs/2026-11-01.json").unlink()

    def on_step(_: int, verb: str, key: str) -> None:
        if verb == "put done" and key == layout.removal_key("2026-11-01"):
            inner.create("_staging/b/run.json", note_of("b", "2026-11-01"))
        if verb == "create" and key == "_staging/b/run.json":
            inner.put(layout.removal_key("2026-11-01"), b"{}")

    storage = CountingStorage(inner, on_step)
    if hidden:
        with pytest.raises(SettingsError, match="2026-11-01, whose raw pages were to be read, was just removed"):
            await lakes.rebuild(storage, "2026-11-01", "b")
        assert removed(await pruned(inner)) == [("2026-11-01", State.REMOVED)]
    else:
        outcome = await pruned(storage, later_s=2 * DAY_S)
        assert left(outcome)["2026-11-01"] == "b is being made from its raw pages"
        assert (await states(inner))["2026-11-01"] is State.LEFTOVER


@pytest.mark.parametrize("made_up", [True, False])
async def test_raw_pages_without_a_receipt_show_whether_they_are_synthetic(tmp_path: Path, made_up: bool) -> None:
    storage = LocalStorage(tmp_path)
    await lakes.make(storage, [neo(1, name="(SANDBOX 000001)" if made_up else "(2004 AB)")], "a")
    shutil.rmtree(tmp_path / "_runs")
    raw = await find_raw(AsyncStorage(storage), "a")
    assert (raw.named, raw.snapshot, raw.synthetic, raw.limit) == ("a", "a", made_up, None)
    (tmp_path / "raw/snapshot=a/gen=0/page=00000.json.zst").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"page=00000.json.zst is damaged .* restore it, or fetch the snapshot again"):
        await find_raw(AsyncStorage(storage), "a")
    await lakes.make(storage, OBJECTS, "b")
    assert (await find_raw(AsyncStorage(storage), "a")).synthetic is True  # like b


async def test_a_half_removed_id_cannot_be_begun_again(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    for day in DAYS[:2]:
        await lakes.make(storage, OBJECTS, day)
    storage.move("_runs/2026-11-01.json", layout.removal_key("2026-11-01"))
    assert (await states(storage))["2026-11-01"] is State.REMOVED
    with pytest.raises(SettingsError, match="2026-11-01 is half removed; 'neows-async prune' finishes that"):
        await lakes.make(storage, OBJECTS, "2026-11-01")
    assert removed(await pruned(storage)) == [("2026-11-01", State.REMOVED)]
    await lakes.make(storage, OBJECTS, "2026-11-01")


async def test_list_snapshots_returns_every_snapshot(storage: Storage) -> None:
    assert await list_snapshots(AsyncStorage(storage), NAMES) == []
    receipt = await lakes.make(storage, OBJECTS, "2026-11-02")
    await lakes.rebuild(storage, "2026-11-02", "2026-11-03")
    rebuilt, entry = await list_snapshots(AsyncStorage(storage), NAMES)
    assert (entry.snapshot, entry.state, entry.pages, entry.receipt) == ("2026-11-02", State.COMMITTED, 3, receipt)
    assert entry.bytes == sum(one.bytes for one in storage.list("") if NAMES.owner_of(one.key) == "2026-11-02")
    assert entry.at == dt.datetime(2026, 11, 2, tzinfo=dt.UTC)
    assert (rebuilt.pages, rebuilt.needs) == (0, {"2026-11-02"})


@pytest.mark.asyncio_only
async def test_the_commands_print_lines_and_json(tmp_path: Path) -> None:
    def command(*arguments: str) -> program.Ended:
        return program.run(tmp_path, arguments[0], "--root", "lake", *arguments[1:])

    empty = command("snapshots")
    assert (empty.code, empty.out) == (0, "lake holds no snapshot; 'neows-async run' makes one\n")
    storage = LocalStorage(tmp_path / "lake")
    for day in DAYS[:3]:
        await lakes.make(storage, OBJECTS, day)
    lock = storage.lock(layout.lock_key("now"), f"process {os.getpid()}")
    lines = command("snapshots").out.splitlines()
    assert [line.split()[0] for line in lines] == ["snapshot", "now", "2026-11-03", "2026-11-02", "2026-11-01"]
    assert lines[1].endswith(f"held by process {os.getpid()}")
    assert "committed" in lines[2]
    assert lines[2].endswith("latest, synthetic")
    printed = json.loads(command("snapshots", "--log-format", "json").out)
    assert [(one["snapshot"], one["state"], one["latest"], one["neos"]) for one in printed][:2] == [
        ("now", "being written", False, None),
        ("2026-11-03", "committed", True, 45),
    ]
    lock.release()

    assert command("prune").code == 2
    assert command("prune", "--keep", "0").code == 2
    dry = command("prune", "--keep", "1", "--dry-run")
    assert [line.partition(" (")[0] for line in dry.out.splitlines()[:2]] == [
        "would remove 2026-11-02",
        "would remove 2026-11-01",
    ]
    assert dry.out.splitlines()[-1].startswith("Would remove snapshots: 2, leftovers: 0, ")
    assert len(await states(storage)) == 3
    printed = json.loads(command("prune", "--keep", "2", "--log-format", "json").out)
    assert ([one["snapshot"] for one in printed["removed"]], printed["kept"]) == (
        ["2026-11-01"],
        ["2026-11-03", "2026-11-02"],
    )
    (tmp_path / ".env").write_text("NEOWS_KEEP=1\nNEOWS_ROOT=lake\n")
    assert program.run(tmp_path, "prune", "--quiet").out == ""
    assert await states(storage) == {"2026-11-03": State.COMMITTED}


def test_the_commands_work_on_s3(tmp_path: Path, s3: SeaweedFS) -> None:
    root = s3.uri(f"t/{uuid.uuid4().hex}")

    def command(*arguments: str) -> program.Ended:
        return program.run(tmp_path, arguments[0], "--root", root, *arguments[1:], **s3.environment)

    for day in DAYS[:2]:
        assert command("run", "--source", "sandbox", "--limit", "30", "--snapshot", day, "--quiet").code == 0
    assert command("verify").out.startswith(f"Snapshot 2026-11-02 matches its receipt: {FILES} files, ")
    assert command("prune", "--keep", "1").out.startswith(f"removed 2026-11-01 (committed): {FILES + 2} files, ")
    [_, line] = command("snapshots").out.splitlines()
    assert line.split()[:2] == ["2026-11-02", "committed"]

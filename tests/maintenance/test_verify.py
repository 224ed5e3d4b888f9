"""`verify` finds every change of a snapshot, and names its place in one line."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import zstandard

from neows_async.errors import AttemptError, DataError, NotFoundError
from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.storage.local import LocalStorage
from neows_async.maintenance.verify import verify
from neows_async.pages.stored import compress, seal
from neows_async.pipeline import run
from neows_async.settings import Settings
from neows_async.telemetry import events
from neows_async.testing import ListSink, ListSource
from neows_async.testing.faulty_storage import CountingStorage
from tests import lakes, program
from tests.lake.storage.conftest import s3_storage, storage
from tests.neos import catalogue, neo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from neows_async.lake.storage.interface import Storage

__all__ = ["s3_storage", "storage"]

OBJECTS = [*catalogue(70), neo(70, absolute_magnitude_h="bright"), *catalogue(2)]
NEOS = "neos/snapshot=a/part-00000.parquet"
APPROACHES = "close_approaches/snapshot=a/part-00000.parquet"
WITHIN = "aggregates/snapshot=a/close_approaches_within.json"
PAGE = "raw/snapshot=a/gen=0/page=00002.json.zst"
RECEIPT = "_runs/a.json"


async def differences(root: Path, snapshot: str = "a") -> list[str]:
    return [str(found) for found in (await verify(AsyncStorage(LocalStorage(root)), snapshot)).differences]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"limit": 1},
        {"partition_by": ("close_approaches:orbiting_body", "neos:is_potentially_hazardous_asteroid")},
        {"partition_by": ("neos:name_limited",)},
        {"within_au": 0.01, "orbiting_body": "Venus"},
        {"archive": False},
    ],
)
async def test_a_sound_snapshot_has_no_differences(storage: Storage, settings: dict[str, Any]) -> None:
    receipt = await lakes.make(storage, OBJECTS, "a", **settings)
    found = await verify(AsyncStorage(storage))
    assert found.differences == ()
    assert (found.snapshot, found.files) == ("a", len(receipt.files))
    assert found.pages == (0 if settings.get("archive") is False else receipt.pages.planned)
    assert bool(found.skipped) is (settings.get("archive") is False)


async def test_rebuild_of_a_rebuild_is_checked_against_the_first_raw_pages(storage: Storage) -> None:
    await lakes.make(storage, OBJECTS, "a")
    await lakes.rebuild(storage, "a", "b")
    receipt = await lakes.rebuild(storage, "b", "c", within_au=0.05)
    assert (receipt.parent, receipt.raw.snapshot) == ("b", "a")
    found = await verify(AsyncStorage(storage), "c")
    assert (found.differences, found.pages) == ((), 4)


async def test_pages_of_all_generations_are_checked(tmp_path: Path) -> None:
    def fail(number: int, times: int) -> None:
        if (number, times) == (2, 1):
            source.objects.insert(0, neo(1_000))
        if number == 1 and times >= 2:
            raise AttemptError("gone for good")

    storage = LocalStorage(tmp_path)
    source = ListSource(OBJECTS[:70], fail=fail)
    settings = {"limit": None, "concurrency": 1, "max_missing_pages": 1, "retry_budget_s": 0.1}
    receipt = await lakes.write(storage, source, Settings(snapshot="a", **settings))
    assert (receipt.raw.generations, receipt.raw.pages, receipt.pages.missing) == (2, 7, (1,))
    found = await verify(AsyncStorage(storage))
    assert (found.differences, found.pages) == ((), 7)
    (tmp_path / "raw/snapshot=a/gen=1/page=00002.json.zst").unlink()
    [line] = await differences(tmp_path)
    assert line == "raw/snapshot=a/gen=1/page=00002.json.zst: raw page: expected one, found none"


async def test_missing_pages_of_the_receipt_are_no_difference(tmp_path: Path) -> None:
    def fail(number: int, _: int) -> None:
        if number == 1:
            raise AttemptError("gone for good")

    settings = Settings(snapshot="a", limit=None, max_missing_pages=1, retry_budget_s=0.1)
    await lakes.write(LocalStorage(tmp_path), ListSource(OBJECTS, fail=fail), settings)
    assert await differences(tmp_path) == []


async def test_parts_that_are_not_ours_are_skipped_with_the_reason(tmp_path: Path) -> None:
    class Mine:
        name = "mine"

        def update(self, batches: Any) -> None:
            pass

        def merge(self, other: Any) -> None:
            pass

        def result(self) -> dict[str, Any]:
            return {"answer": 42}

    class Writer:
        async def write(self, stage: Any, results: Any) -> list[Any]:
            file = await stage.open("aggregates", "all.txt")
            await file.write(json.dumps(results).encode())
            return [await file.finish(None)]

    parts = run.Parts(
        storage=LocalStorage(tmp_path),
        source=ListSource(OBJECTS),
        source_name="test",
        sinks=[ListSink()],
        aggregators=[Mine()],
        aggregate_writer=Writer(),
    )
    await run.ingest(Settings(snapshot="a"), parts, events.ignore)
    found = await verify(AsyncStorage(LocalStorage(tmp_path)))
    assert found.differences == ()
    assert [line.partition(":")[0] for line in found.skipped] == ["aggregate mine", "the files of the aggregates"]


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    (NEOS, lambda path: path.unlink(), f"{NEOS}: file: expected one of"),
    (NEOS, _shorten, f"{NEOS}: size in bytes: expected"),
    (NEOS, _flip, f"{NEOS}: SHA-256: expected"),
    (APPROACHES, _flip, f"{APPROACHES}: SHA-256: expected"),
    (WITHIN, _flip, f"{WITHIN}: SHA-256: expected"),
    ("quarantine/snapshot=a/rejected.jsonl", _shorten, "quarantine/snapshot=a/rejected.jsonl: size in bytes"),
    ("neos/snapshot=a/part-00001.parquet", lambda path: path.write_bytes(b"x"), "neos/snapshot=a/part-00001.parquet"),
    (PAGE, lambda path: path.unlink(), f"{PAGE}: raw page: expected one, found none"),
    (PAGE, _flip, f"{PAGE}: raw page: expected a whole and right one, found damaged"),
    (PAGE, lambda path: path.write_bytes(compress(b"{}")), f"{PAGE}: raw page: expected a whole and right one, found"),
    (
        PAGE,
        lambda path: shutil.copy(path.with_name("page=00001.json.zst"), path),
        "expected page 2, but this is page 1",
    ),
    ("_runs/latest.json", lambda path: path.unlink(), ""),
    (RECEIPT, lambda path: path.unlink(), f"{RECEIPT}: file: expected the receipt, found none"),
]


@pytest.mark.parametrize(("key", "damage", "message"), DAMAGES)
@pytest.mark.asyncio_only
async def test_each_damage_is_one_difference_with_its_key(
    tmp_path: Path, key: str, damage: Callable[[Path], object], message: str
) -> None:
    await lakes.make(LocalStorage(tmp_path), OBJECTS, "a")
    damage(tmp_path / key)
    if message:
        [line] = await differences(tmp_path, "latest")
        assert message in line
    else:
        with pytest.raises(NotFoundError):
            await differences(tmp_path, "latest")
        assert await differences(tmp_path) == []


@pytest.mark.asyncio_only
async def test_seal_with_another_digest_is_a_difference_also_of_a_rebuild(tmp_path: Path) -> None:
    await lakes.make(LocalStorage(tmp_path), OBJECTS, "a")
    body = zstandard.decompress((tmp_path / PAGE).read_bytes())
    (tmp_path / PAGE).write_bytes(seal(compress(body), bytes(32)))
    [line] = await differences(tmp_path)
    assert f"{PAGE}: raw page: expected a whole and right one, found its seal has another SHA-256" in line
    await lakes.rebuild(LocalStorage(tmp_path), "a", "b")
    assert f"{PAGE}: raw page" in "\n".join(await differences(tmp_path, "b"))


async def test_another_sound_page_is_found_by_the_digest_over_the_pages(tmp_path: Path) -> None:
    await lakes.make(LocalStorage(tmp_path), OBJECTS, "a")
    await lakes.make(LocalStorage(tmp_path), [*OBJECTS[:50], neo(999), *OBJECTS[51:]], "b")
    shutil.copy(tmp_path / PAGE.replace("=a", "=b"), tmp_path / PAGE)
    lines = await differences(tmp_path)
    assert [line.partition(": expected")[0] for line in lines] == [
        "raw/snapshot=a: SHA-256 over the pages",
        "raw/snapshot=a: bytes of JSON",
    ]


def _without_a_row(table: pa.Table) -> pa.Table:
    return table.slice(1)


def _twice(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table.slice(0, 1)])


def _doubled(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table.slice(0, 1), table.slice(0, 1), table.slice(2)])


def _text(table: pa.Table) -> pa.Table:
    return table.set_column(
        6, "absolute_magnitude_h", pc.cast(table["absolute_magnitude_h"], pa.string())
    ).replace_schema_metadata(table.schema.metadata)


def _renamed(table: pa.Table) -> pa.Table:
    return table.rename_columns(["ident", *table.column_names[1:]])


def _far(table: pa.Table) -> pa.Table:
    at = table.schema.get_field_index("miss_distance_au")
    return table.set_column(at, table.schema.field(at), pa.array([9.0] * table.num_rows))


def _undated(table: pa.Table) -> pa.Table:
    at = table.schema.get_field_index("close_approach_date")
    return table.set_column(at, table.schema.field(at), pa.nulls(table.num_rows, pa.date32()))


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        (NEOS, _without_a_row, [f"{NEOS}: rows: expected 70, found 69", "distinct ids in neos", "within.neos"]),
        (NEOS, _twice, [f"{NEOS}: rows: expected 70, found 71", "within.neos: expected 70, found 71"]),
        (NEOS, _doubled, ["distinct ids in neos: expected 70, found 69", "not in neos: expected 0, found 1"]),
        (NEOS, _text, [f"{NEOS}: type of absolute_magnitude_h: expected double, found string"]),
        (NEOS, _renamed, [f"{NEOS}: columns: expected id,", f"{NEOS}: content: expected a Parquet file"]),
        (APPROACHES, _far, ["close_approaches_within.count: expected 46, found 0"]),
        (
            APPROACHES,
            _undated,
            ["close_approaches_by_year.count_by_year.2026: expected", "nulls in close_approaches.close_approach_date"],
        ),
    ],
)
@pytest.mark.asyncio_only
async def test_wrong_content_is_found_though_the_receipt_has_its_digest(
    tmp_path: Path, key: str, change: Callable[[pa.Table], pa.Table], message: list[str]
) -> None:
    # As if a run had written it wrongly: the digest is right.
    await lakes.make(LocalStorage(tmp_path), OBJECTS, "a")
    parquet = pq.ParquetFile(tmp_path / key)
    with pq.ParquetWriter(tmp_path / key, (table := change(parquet.read())).schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(parquet.metadata.metadata)
    lakes.own_up(tmp_path, "a", key)
    text = "\n".join(await differences(tmp_path))
    for part in message:
        assert part in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda receipt: receipt["records"].update(seen=9), "records seen (written + duplicates + rejected)"),
        (lambda receipt: receipt["records"].update(rejected=2), "rows in quarantine: expected 2, found 1"),
        (lambda receipt: receipt["records"].update(written=71), "rows of neos: expected 71, found 70"),
        (lambda receipt: receipt.update(close_approaches=0), "rows of close_approaches: expected 0"),
        (lambda receipt: receipt["raw"].update(pages=3), "raw pages: expected 3, found 4"),
        (lambda receipt: receipt["raw"].update(sha256="0"), "SHA-256 over the pages: expected 0"),
        (lambda receipt: receipt["pages"].update(fetched=3), "pages planned (fetched + missing): expected 4, found 3"),
        (
            lambda receipt: receipt["records"].update(seen=74, duplicates=3),
            "records seen (objects on the raw pages): expected 74, found 73",
        ),
        (
            lambda receipt: receipt.update(total_elements=81),
            "total_elements (of the last raw page): expected 81, found",
        ),
        (lambda receipt: receipt.update(complete=True), "complete: expected True, found False"),
        (lambda receipt: receipt["nulls"].clear(), "nulls in neos.name_limited: expected 0, found 70"),
        (
            lambda receipt: receipt["aggregates"]["close_approaches_within"].update(count=7),
            "close_approaches_within.count: expected 7, found 46",
        ),
        (lambda receipt: receipt.update(snapshot="z"), "_runs/a.json: snapshot: expected a, found z"),
        (lambda receipt: receipt["files"][0].update(path="/etc/passwd"), "path of a file: expected one in"),
        (lambda receipt: receipt["files"].append(receipt["files"][0]), "files: expected each once"),
        (lambda receipt: receipt["files"].clear(), "the receipt does not name it"),
    ],
)
@pytest.mark.asyncio_only
async def test_each_wrong_figure_of_a_receipt_is_found(
    tmp_path: Path, change: Callable[[Any], object], message: str
) -> None:
    await lakes.make(LocalStorage(tmp_path), OBJECTS, "a")
    lakes.rewrite_receipt(tmp_path, "a", change)
    assert message in "\n".join(await differences(tmp_path))


async def test_unreadable_receipt_raises(tmp_path: Path) -> None:
    await lakes.make(LocalStorage(tmp_path), OBJECTS, "a")
    (tmp_path / RECEIPT).write_text("{}")
    with pytest.raises(DataError, match=r"_runs/a\.json is damaged"):
        await differences(tmp_path)


async def test_verify_only_reads(tmp_path: Path) -> None:
    await lakes.make(LocalStorage(tmp_path), OBJECTS, "a")
    verbs: set[str] = set()
    storage = CountingStorage(LocalStorage(tmp_path), lambda _step, verb, _key: verbs.add(verb))
    assert (await verify(AsyncStorage(storage))).differences == ()
    assert {verb.partition(" ")[0] for verb in verbs} == {"get", "list", "open_input"}


@pytest.mark.asyncio_only
async def test_verify_command_prints_the_differences(tmp_path: Path) -> None:
    def verify_it(*arguments: str) -> program.Ended:
        return program.run(tmp_path, "verify", "--root", str(tmp_path), *arguments)

    await lakes.make(LocalStorage(tmp_path), [*OBJECTS, *catalogue(600)], "a")
    good = verify_it()
    assert good.code == 0
    assert good.out.startswith("Snapshot a matches its receipt: 5 files, ")
    assert "34 raw pages" in good.out
    assert (verify_it("--quiet").out, verify_it("nope").code) == ("", 2)
    assert verify_it("../a").code == 2
    assert verify_it("../a").err.startswith(f"neows-async: {tmp_path} has no committed snapshot ../a; ")
    shown = json.loads(verify_it("a", "--log-format", "json").out)
    assert (shown["snapshot"], shown["pages"], shown["differences"]) == ("a", 34, [])

    for page in (tmp_path / "raw").rglob("*.zst"):
        page.write_bytes(b"")
    bad = verify_it("--quiet")
    assert (bad.code, bad.out) == (65, "")
    lines = bad.err.splitlines()
    assert len(lines) == 20 + 2
    assert lines[0].startswith("raw/snapshot=a/gen=0/page=00000.json.zst: raw page: expected a whole and right one")
    assert lines[-2:] == ["… and 14 more", "neows-async: snapshot a does not match its receipt: 34 differences"]
    shown = json.loads(verify_it("--log-format", "json").out)
    assert shown["difference_count"] == len(shown["differences"]) == 34

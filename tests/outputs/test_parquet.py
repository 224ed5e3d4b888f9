from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from neows_async.endpoints.browse.schema import CLOSE_APPROACHES, DATASETS, NEOS
from neows_async.errors import SettingsError
from neows_async.outputs.parquet import ParquetSink
from tests.decoded_pages import MemoryStage, pages
from tests.neos import approach, catalogue, neo

if TYPE_CHECKING:
    from pathlib import Path

    from neows_async.pages.values import DatasetFile, Page

# Values that need care in a path → the path segment.
SEGMENTS = {
    "Earth": "Earth",
    "a/b": "a%2Fb",
    "50%": "50%25",
    "%2F": "%252F",
    "x=y": "x%3Dy",
    " ": "%20",
    "two words": "two%20words",
    ".": ".",
    "..": "..",
    "": "",
    "\u00e9\U0001f642": "%C3%A9%F0%9F%99%82",
    "A&B?#": "A%26B%3F%23",
    "\\": "%5C",
    "a:b": "a%3Ab",
    '"q"': "%22q%22",
    "\t\n": "%09%0A",
    None: "__HIVE_DEFAULT_PARTITION__",
}


async def written(
    decoded: list[Page], dataset: str = "neos", partition_by: str | None = None, **cuts: int
) -> tuple[dict[str, bytes], list[DatasetFile]]:
    """The files that the sink wrote, by path, and its list of them."""
    stage, sink = MemoryStage(), ParquetSink(dataset, partition_by, **cuts)
    await sink.open(stage)
    for page in decoded:
        await sink.write(page)
    files = list(await sink.finish())
    await sink.commit()
    assert sorted(stage.begun) == sorted(stage.files) == [file.path for file in files]
    for file in files:
        data = stage.files[file.path]
        assert (file.dataset, file.bytes, file.sha256) == (dataset, len(data), hashlib.sha256(data).hexdigest())
        assert file.rows == pq.ParquetFile(io.BytesIO(data)).metadata.num_rows
    return stage.files, files


def groups(data: bytes) -> list[int]:
    metadata = pq.ParquetFile(io.BytesIO(data)).metadata
    return [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]


def table(data: bytes) -> pa.Table:
    return pq.ParquetFile(io.BytesIO(data)).read()


def write_files(files: dict[str, bytes], root: Path) -> None:
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)


@pytest.mark.parametrize("dataset", ["neos", "close_approaches"])
async def test_one_file_has_the_rows_of_all_pages_in_order(dataset: str) -> None:
    decoded = pages(catalogue(45))
    files, _ = await written(decoded, dataset)
    (data,) = files.values()
    found = table(data)
    assert list(files) == [f"{dataset}/part-00000.parquet"]
    assert found.schema.remove_metadata() == DATASETS[dataset]
    assert found.equals(pa.Table.from_batches([page.batches[dataset] for page in decoded]))


@pytest.mark.parametrize("dataset", ["neos", "close_approaches"])
async def test_files_are_zstd_with_statistics_and_the_digest_of_the_raw_pages(dataset: str) -> None:
    decoded = pages(catalogue(45))
    (data,) = (await written(decoded, dataset))[0].values()
    metadata = pq.ParquetFile(io.BytesIO(data)).metadata
    digest = hashlib.sha256(b"".join(page.sha256 for page in decoded)).hexdigest()
    assert metadata.metadata[b"neows_async.raw_pages_sha256"] == digest.encode()
    assert metadata.metadata[b"neows_async.schema_version"] == b"1"
    for index in range(metadata.num_columns):
        column = metadata.row_group(0).column(index)
        assert column.compression == "ZSTD"
        assert column.is_stats_set
        assert column.has_column_index
        assert column.has_offset_index


@pytest.mark.parametrize("size", [1, 3, 20, 100])
async def test_row_groups_and_files_do_not_depend_on_page_size(size: int) -> None:
    files, listed = await written(pages(catalogue(100), size), row_group_rows=7, file_rows=21)
    assert list(files) == [f"neos/part-{number:05}.parquet" for number in range(5)]
    assert [groups(data) for data in files.values()] == [[7, 7, 7]] * 4 + [[7, 7, 2]]
    assert [file.rows for file in listed] == [21] * 4 + [16]
    names = [name for data in files.values() for name in table(data)["name"].to_pylist()]
    assert names == [f"({number} TEST)" for number in range(100)]


async def test_last_row_may_fill_its_row_group_and_its_file() -> None:
    decoded = pages(catalogue(42))
    assert [groups(data) for data in (await written(decoded, row_group_rows=21))[0].values()] == [[21, 21]]
    files, _ = await written(decoded, row_group_rows=7, file_rows=21)
    assert [groups(data) for data in files.values()] == [[7, 7, 7], [7, 7, 7]]


async def test_default_row_group_sizes() -> None:
    (page,) = pages([neo(1, [approach()] * 473)])
    batch = pa.Table.from_batches([page.batches["close_approaches"]] * 300).combine_chunks().to_batches()[0]
    many = replace(page, batches={**page.batches, "close_approaches": batch}, approach_counts=(batch.num_rows,))
    (data,) = (await written([many], "close_approaches"))[0].values()
    assert groups(data) == [65_536, 65_536, 473 * 300 - 2 * 65_536]
    batch = pa.Table.from_batches([page.batches["neos"]] * 20_000).combine_chunks().to_batches()[0]
    (data,) = (await written([replace(page, batches={**page.batches, "neos": batch})], "neos"))[0].values()
    assert groups(data) == [8_192, 8_192, 20_000 - 2 * 8_192]


@given(st.integers(1, 25), st.integers(1, 25), st.integers(1, 9), st.integers(1, 30), st.booleans())
@settings(max_examples=25)
def test_bytes_do_not_depend_on_page_size(
    one: int, other: int, row_group_rows: int, file_rows: int, partitioned: bool
) -> None:
    objects = catalogue(24)
    partition_by = "orbiting_body" if partitioned else None

    async def made(size: int) -> dict[str, bytes]:
        # Without the raw pages' digests, which differ with the page size: the files have a digest over them.
        decoded = [replace(page, sha256=b"") for page in pages(objects, size)]
        cuts = {"row_group_rows": row_group_rows, "file_rows": file_rows}
        return (await written(decoded, "close_approaches", partition_by, **cuts))[0]

    assert anyio.run(made, one) == anyio.run(made, other)


async def test_equal_pages_give_equal_bytes_and_different_pages_different_bytes() -> None:
    objects = catalogue(30)
    first, _ = await written(pages(objects))
    again, _ = await written(pages(objects))
    other, _ = await written(pages([*objects[:-1], objects[-1] | {"is_sentry_object": True}]))
    assert first == again
    assert first != other


async def test_without_rows_an_empty_file_has_the_columns() -> None:
    for decoded in ([], pages([neo(1, name=None)])):
        for dataset in ("neos", "close_approaches"):
            files, (listed,) = await written(decoded, dataset)
            found = table(files[f"{dataset}/part-00000.parquet"])
            assert found.schema.remove_metadata() == DATASETS[dataset]
            assert found.num_rows == listed.rows == 0
    assert await written([], "neos", "name") == ({}, [])
    assert await written(pages([neo(1)]), "close_approaches", "orbiting_body") == ({}, [])


async def test_partition_column_is_in_the_path_and_not_in_the_file() -> None:
    entries = [approach(orbiting_body=body, km=str(index)) for index, body in enumerate([*SEGMENTS] * 2)]
    files, _ = await written(pages([neo(1, entries)]), "close_approaches", "orbiting_body")
    assert set(files) == {f"close_approaches/orbiting_body={text}/part-00000.parquet" for text in SEGMENTS.values()}
    for path, data in files.items():
        assert table(data).column_names == [name for name in CLOSE_APPROACHES.names if name != "orbiting_body"]
        assert table(data).num_rows == 2
        assert path.count("/") == 2


@given(
    st.lists(st.lists(st.sampled_from(["Earth", "Mars", None, ""]), max_size=4), max_size=9),
    st.integers(1, 4),
    st.integers(1, 5),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@example([["Earth", None, "Earth"], [], [None]], 1, 2)
def test_rows_of_each_partition_keep_their_order(bodies: list[list[str | None]], size: int, rows: int) -> None:
    objects = [
        neo(number, [approach(orbiting_body=body, km=f"{number}.{index}") for index, body in enumerate(of)])
        for number, of in enumerate(bodies)
    ]
    decoded = pages(objects, size)
    files, _ = anyio.run(lambda: written(decoded, "close_approaches", "orbiting_body", row_group_rows=rows))
    found = {}
    for path, data in files.items():
        found[path.split("=")[1].split("/")[0]] = table(data)["miss_distance_km"].to_pylist()
        count = sum(groups(data))
        assert groups(data) == [rows] * (count // rows) + [count % rows] * (count % rows > 0)
    expected: dict[str, list[float]] = {}
    for number, of in enumerate(bodies):
        for index, body in enumerate(of):
            segment = "__HIVE_DEFAULT_PARTITION__" if body is None else body
            expected.setdefault(segment, []).append(float(f"{number}.{index}"))
    assert found == expected


@pytest.mark.parametrize(
    ("column", "segments"),
    [
        ("is_potentially_hazardous_asteroid", ["__HIVE_DEFAULT_PARTITION__", "false", "true"]),
        ("observations_used", ["0", "9223372036854775807", "__HIVE_DEFAULT_PARTITION__"]),
        ("name", ["(0%20TEST)", "(1%20TEST)", "(2%20TEST)"]),
    ],
)
async def test_booleans_integers_and_nulls_in_the_path(column: str, segments: list[str]) -> None:
    objects = [
        neo(number, is_potentially_hazardous_asteroid=flag, orbital_data={"observations_used": count})
        for number, (flag, count) in enumerate([(True, 0), (False, 2**63 - 1), (None, None)])
    ]
    files, _ = await written(pages(objects), "neos", column)
    expected = [f"neos/{column}={segment}/part-00000.parquet" for segment in segments]
    assert set(files) == {path.replace("(", "%28").replace(")", "%29") for path in expected}


async def test_more_than_64_partitions_are_refused_with_the_count() -> None:
    bodies = [f"body {number}" for number in range(63)] + [None]
    entries = [approach(orbiting_body=body) for body in bodies]
    files, _ = await written(pages([neo(1, entries)]), "close_approaches", "orbiting_body")
    assert len(files) == 64
    entries.append(approach(orbiting_body="one more"))
    with pytest.raises(SettingsError, match="close_approaches:orbiting_body has 65 different values") as caught:
        await written(pages([neo(1, entries)]), "close_approaches", "orbiting_body")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("dataset", "column", "message"),
    [
        ("neo", None, "there is no dataset 'neo'; there are neos, close_approaches"),
        ("neos", "orbiting_body", "neos has no column 'orbiting_body'; it can be partitioned by id, "),
        ("neos", "absolute_magnitude_h", "is of type double; only string, bool and integer columns"),
        ("close_approaches", "close_approach_date", "is of type date32"),
        ("close_approaches", "close_approach_at", "is of type timestamp"),
    ],
)
def test_column_that_cannot_be_a_partition_is_refused(dataset: str, column: str | None, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        ParquetSink(dataset, column)


async def test_finish_before_open_raises() -> None:
    with pytest.raises(RuntimeError, match="before open"):
        await ParquetSink("neos").finish()


# How other programs read the files. The expected rows come from the objects.

TYPED = [
    neo(
        0,
        [approach(), approach(orbiting_body="Venus", km=None, epoch_date_close_approach=-1)],
        is_potentially_hazardous_asteroid=True,
    ),
    neo(1, [approach(orbiting_body=None, close_approach_date="1900-01-01")], is_potentially_hazardous_asteroid=False),
    neo(2, [], is_potentially_hazardous_asteroid=None, absolute_magnitude_h=None, designation="\u00e9\0"),
]


async def test_polars_and_duckdb_read_the_right_types(tmp_path: Path) -> None:
    for dataset in ("neos", "close_approaches"):
        write_files((await written(pages(TYPED), dataset))[0], tmp_path)
    check_types(tmp_path)


def check_types(root: Path) -> None:
    neos, passes = str(root / "neos/*.parquet"), str(root / "close_approaches/*.parquet")
    frame = pl.read_parquet(neos)
    assert dict(frame.schema) == {field.name: KINDS[str(field.type)][1] for field in NEOS}
    assert frame.to_dicts() == pq.read_table(root / "neos/part-00000.parquet").to_pylist()
    assert pl.read_parquet(passes).schema["close_approach_at"] == pl.Datetime("ms", "UTC")
    with duckdb.connect() as connection:
        described = connection.execute(f"describe from '{neos}'").fetchall()
        assert {name: kind for name, kind, *_ in described} == {field.name: KINDS[str(field.type)][0] for field in NEOS}
        rows = connection.execute(
            "select neo_id, close_approach_date, epoch_ms(close_approach_at), orbiting_body, miss_distance_km "
            "from read_parquet(?)",
            [passes],
        ).fetchall()
    assert rows == [
        ("9000000", dt.date(2026, 11, 22), 1_795_387_500_000, "Earth", 14959787.07),
        ("9000000", dt.date(2026, 11, 22), -1, "Venus", None),
        ("9000001", dt.date(1900, 1, 1), 1_795_387_500_000, None, 14959787.07),
    ]


HIVE: list[tuple[str, str, list[Any]]] = [
    ("close_approaches", "orbiting_body", ["Earth", "Venus", None]),
    ("neos", "is_potentially_hazardous_asteroid", [True, False, None]),
    ("neos", "observations_used", [100, 101, 102]),
]
KINDS: dict[str, tuple[str, Any]] = {
    "string": ("VARCHAR", pl.String),
    "bool": ("BOOLEAN", pl.Boolean),
    "int64": ("BIGINT", pl.Int64),
    "double": ("DOUBLE", pl.Float64),
    "date32[day]": ("DATE", pl.Date),
}


@pytest.mark.parametrize(("dataset", "column", "expected"), HIVE)
async def test_arrow_polars_and_duckdb_read_partitions(
    tmp_path: Path, dataset: str, column: str, expected: list[Any]
) -> None:
    write_files((await written(pages(TYPED), dataset, column))[0], tmp_path)
    check_hive(tmp_path / dataset, DATASETS[dataset].field(column), expected)


async def test_arrow_polars_and_duckdb_read_special_characters_in_partitions(tmp_path: Path) -> None:
    entries = [approach(orbiting_body=body) for body in SEGMENTS]
    write_files((await written(pages([neo(1, entries)]), "close_approaches", "orbiting_body"))[0], tmp_path)
    check_hive(tmp_path / "close_approaches", CLOSE_APPROACHES.field("orbiting_body"), list(SEGMENTS))


def check_hive(folder: Path, field: pa.Field, expected: list[Any]) -> None:
    column, (duck, polar) = field.name, KINDS[str(field.type)]
    pattern = str(folder / "*/*.parquet")

    def ordered(values: list[Any]) -> list[str]:
        return sorted(map(repr, values))

    by_arrow = ds.dataset(folder, partitioning=ds.partitioning(pa.schema([field]), flavor="hive")).to_table()
    assert by_arrow.schema.field(column).type == field.type
    assert ordered(by_arrow[column].to_pylist()) == ordered(expected)
    by_polars = pl.read_parquet(pattern, hive_partitioning=True, hive_schema={column: polar})
    assert by_polars.schema[column] == polar
    assert ordered(by_polars[column].to_list()) == ordered(expected)
    with duckdb.connect() as connection:
        read = f"read_parquet('{pattern}', hive_partitioning = true, hive_types = {{'{column}': {duck}}})"
        rows = connection.execute(f"select {column}, typeof({column}) from {read}").fetchall()  # noqa: S608 - of our own
    assert ordered([value for value, _ in rows]) == ordered(expected)
    assert {kind for _, kind in rows} == {duck}


def test_rows_bytes_and_digest_of_a_file_are_json() -> None:
    _, (file,) = anyio.run(written, pages(catalogue(3)))
    assert json.dumps([file.rows, file.bytes, file.sha256])

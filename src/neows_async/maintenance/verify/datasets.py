"""The Parquet files as they lie: their columns, their rows, and our figures computed from them again."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from neows_async.endpoints.browse import schema
from neows_async.lake.layout import dataset_folder
from neows_async.maintenance.made_with import settings_of
from neows_async.outputs import registry
from neows_async.outputs.parquet import FILE_ROWS, NULL_PARTITION

if TYPE_CHECKING:
    from neows_async.lake.async_storage import AsyncStorage
    from neows_async.lake.receipt import Receipt
    from neows_async.maintenance.verify.findings import Findings
    from neows_async.pages.values import DatasetFile
    from neows_async.protocols import Aggregator

# What the figures are computed from; the rest is vouched for by the files' digests.
_NEEDED: Final = {
    "neos": ["id"],
    "close_approaches": ["neo_id", "close_approach_date", "orbiting_body", "miss_distance_au"],
}


def _no_rows(of: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in of], schema=of)


class Datasets:
    """What is gathered from the Parquet files of one snapshot."""

    def __init__(self, receipt: Receipt) -> None:
        settings = settings_of(receipt)
        self.rows: Counter[str] = Counter()
        self.nulls: Counter[str] = Counter()
        self.ids: set[str] = set()
        self.neo_ids: set[str] = set()
        self.partitions: dict[str, str] = dict(
            entry.split(":", 1) for entry in receipt.derivation.get("partition_by", ())
        )
        self.aggregators: dict[str, Aggregator] = {
            part.name: part.make(settings) for part in registry.AGGREGATORS if part.name in receipt.aggregates
        }

    def take(self, dataset: str, rows: pa.RecordBatch) -> None:
        """Fold some rows; of both datasets, in any order."""
        if dataset == "neos":
            self.ids.update(rows["id"].to_pylist())
        else:
            self.neo_ids.update(pc.unique(rows["neo_id"]).to_pylist())
        for aggregator in self.aggregators.values():
            aggregator.update({name: _no_rows(of) for name, of in schema.DATASETS.items()} | {dataset: rows})


def dataset_files(receipt: Receipt) -> tuple[DatasetFile, ...]:
    """The files that our Parquet sinks wrote."""
    ours = {f"parquet:{dataset}": dataset for dataset in schema.DATASETS}
    written = {ours[name] for name in receipt.derivation.get("sinks", ()) if name in ours}
    return tuple(file for file in receipt.files if file.dataset in written and file.path.endswith(".parquet"))


async def read_parquet(
    lake: AsyncStorage,
    receipt: Receipt,
    file: DatasetFile,
    datasets: Datasets,
    prefixes: frozenset[str] | None,
    findings: Findings,
) -> None:
    """Check the columns, the metadata and the number of rows of one file, and gather its rows.

    :param prefixes: the digests of raw pages that a file closed early may carry; None is unknown
    """
    async with lake.open_input(file.path) as opened:
        try:
            parquet = await lake.call(file.path, lambda: pq.ParquetFile(opened, pre_buffer=False))
            _check_columns(receipt, file, parquet, datasets, findings)
            _check_metadata(receipt, file, parquet.metadata.metadata or {}, prefixes, findings)
            findings.compare(file.path, "rows", file.rows, parquet.metadata.num_rows)
            _count_nulls(file, parquet, datasets, receipt)
            for group in range(parquet.num_row_groups):
                await lake.call(file.path, partial(_take_group, parquet, group, file, receipt, datasets))
        except (pa.ArrowException, KeyError) as exc:
            # Its bytes are those of the receipt, and yet it is no such file: it was written so.
            findings.differ(file.path, "content", "a Parquet file that can be read", " ".join(str(exc).split()))


def _take_group(parquet: Any, group: int, file: DatasetFile, receipt: Receipt, datasets: Datasets) -> None:
    name, value = partition_of(file, receipt)
    columns = [column for column in _NEEDED[file.dataset] if column != name]
    table = parquet.read_row_group(group, columns=columns, use_threads=False)
    for rows in table.to_batches():
        if name in _NEEDED[file.dataset]:
            whole = rows.append_column(name, pa.array([value] * rows.num_rows, pa.string()))
            datasets.take(file.dataset, whole)
        else:
            datasets.take(file.dataset, rows)
    datasets.rows[file.dataset] += table.num_rows


def partition_of(file: DatasetFile, receipt: Receipt) -> tuple[str | None, str | None]:
    """The column that is in the path of ``file``, and its value; null is None."""
    below = file.path.removeprefix(f"{dataset_folder(file.dataset, receipt.snapshot)}/")
    segment, slash, _ = below.partition("/")
    if not slash:
        return None, None
    name, _, value = segment.partition("=")
    return name, None if value == NULL_PARTITION else unquote(value)


def _check_columns(receipt: Receipt, file: DatasetFile, parquet: Any, datasets: Datasets, findings: Findings) -> None:
    partition = datasets.partitions.get(file.dataset)
    findings.compare(file.path, "column in the path", partition, partition_of(file, receipt)[0])
    if receipt.schema_version != schema.VERSION:
        return  # said once, by the caller
    expected = {field.name: _told(field) for field in schema.DATASETS[file.dataset] if field.name != partition}
    found = {field.name: _told(field) for field in parquet.schema_arrow}
    findings.compare(file.path, "columns", ", ".join(expected), ", ".join(found))
    for name in expected.keys() & found.keys():
        findings.compare(file.path, f"type of {name}", expected[name], found[name])


def _told(field: pa.Field) -> str:
    return f"{field.type}{'' if field.nullable else ', never null'}"


def _check_metadata(
    receipt: Receipt,
    file: DatasetFile,
    metadata: dict[bytes, bytes],
    prefixes: frozenset[str] | None,
    findings: Findings,
) -> None:
    version = metadata.get(b"neows_async.schema_version", b"none").decode()
    findings.compare(file.path, "schema version", receipt.schema_version, version)
    found = metadata.get(b"neows_async.raw_pages_sha256", b"none").decode()
    if file.rows is not None and file.rows >= FILE_ROWS and (prefixes is None or found in prefixes):
        return  # it was full before the last page came
    findings.compare(file.path, "digest of the raw pages", receipt.raw.sha256, found)


def _count_nulls(file: DatasetFile, parquet: Any, datasets: Datasets, receipt: Receipt) -> None:
    name, value = partition_of(file, receipt)
    if name is not None and value is None:
        datasets.nulls[f"{file.dataset}.{name}"] += parquet.metadata.num_rows
    for group in range(parquet.num_row_groups):
        chunks = parquet.metadata.row_group(group)
        for index in range(chunks.num_columns):
            column = chunks.column(index)
            if column.statistics is not None and column.statistics.null_count:
                datasets.nulls[f"{file.dataset}.{column.path_in_schema}"] += column.statistics.null_count

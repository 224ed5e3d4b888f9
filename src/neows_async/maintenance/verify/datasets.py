"""Reads the Parquet files of a snapshot: checks columns and metadata, counts rows, computes the aggregates again."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any
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


class DatasetTotals:
    """Counts over all Parquet files of one snapshot, and its aggregates computed again."""

    def __init__(self, receipt: Receipt) -> None:
        settings = settings_of(receipt)
        self.rows: Counter[str] = Counter()
        self.nulls: Counter[str] = Counter()
        self.ids: set[str] = set()
        self.neo_ids: set[str] = set()
        self.partitions: dict[str, str] = settings.partitions
        made = {part.name: part.make(settings) for part in registry.AGGREGATORS if part.name in receipt.aggregates}
        # One that needs the JSON cannot be computed from Parquet files.
        self.aggregators: dict[str, Aggregator] = {
            name: aggregator for name, aggregator in made.items() if not getattr(aggregator, "needs_json", False)
        }
        self._empty = {name: pa.RecordBatch.from_pylist([], schema=of) for name, of in schema.DATASETS.items()}

    def add(self, dataset: str, rows: pa.RecordBatch) -> None:
        """Add rows of one dataset. The order of calls does not matter."""
        self.rows[dataset] += rows.num_rows
        if dataset == "neos":
            self.ids.update(rows["id"].to_pylist())
        else:
            self.neo_ids.update(pc.unique(rows["neo_id"]).to_pylist())
        for aggregator in self.aggregators.values():
            aggregator.update(self._empty | {dataset: rows})


def dataset_files(receipt: Receipt) -> tuple[DatasetFile, ...]:
    """The files that our Parquet sinks wrote."""
    ours = {f"parquet:{dataset}": dataset for dataset in schema.DATASETS}
    written = {ours[name] for name in receipt.derivation.get("sinks", ()) if name in ours}
    return tuple(file for file in receipt.files if file.dataset in written and file.path.endswith(".parquet"))


async def read_parquet(
    storage: AsyncStorage,
    receipt: Receipt,
    file: DatasetFile,
    totals: DatasetTotals,
    prefixes: frozenset[str] | None,
    findings: Findings,
) -> None:
    """Check the columns, the metadata and the number of rows of one file, and add its rows to ``totals``.

    One row group is in memory at a time.

    :param prefixes: the digests of raw pages that a file may have if it was full early; None is unknown
    """
    async with storage.open_input(file.path) as opened:
        try:
            # Without pre_buffer, Arrow reads one row group at a time and not the whole file.
            parquet = await storage.call(file.path, lambda: pq.ParquetFile(opened, pre_buffer=False))
            _check_columns(receipt, file, parquet, totals, findings)
            _check_metadata(receipt, file, parquet.metadata.metadata or {}, prefixes, findings)
            findings.compare(file.path, "rows", file.rows, parquet.metadata.num_rows)
            _count_nulls(file, parquet, totals, receipt)
            for group in range(parquet.num_row_groups):
                await storage.call(file.path, partial(_add_group, parquet, group, file, receipt, totals))
        except (pa.ArrowException, KeyError) as exc:
            # The digest is right, so the file was written like this: a fault of the program, not of the disk.
            findings.differ(file.path, "content", "a Parquet file that can be read", " ".join(str(exc).split()))


def _add_group(parquet: Any, group: int, file: DatasetFile, receipt: Receipt, totals: DatasetTotals) -> None:
    table = parquet.read_row_group(group, use_threads=False)
    name, value = partition_of(file, receipt)
    if name is not None:
        # Aggregators get the columns that a run gives them, so the one in the path must come back.
        column = schema.DATASETS[file.dataset].field(name)
        table = table.append_column(column, pa.array([value] * table.num_rows, pa.string()).cast(column.type))
        table = table.select(schema.DATASETS[file.dataset].names)
    for rows in table.to_batches():
        totals.add(file.dataset, rows)


def partition_of(file: DatasetFile, receipt: Receipt) -> tuple[str | None, str | None]:
    """The column that is in the path of ``file``, and its value; a null value is None."""
    below = file.path.removeprefix(f"{dataset_folder(file.dataset, receipt.snapshot)}/")
    segment, slash, _ = below.partition("/")
    if not slash:
        return None, None
    name, _, value = segment.partition("=")
    return name, None if value == NULL_PARTITION else unquote(value)


def _check_columns(
    receipt: Receipt, file: DatasetFile, parquet: Any, totals: DatasetTotals, findings: Findings
) -> None:
    partition = totals.partitions.get(file.dataset)
    findings.compare(file.path, "column in the path", partition, partition_of(file, receipt)[0])
    if receipt.schema_version != schema.VERSION:
        return  # check_counts reports it, once for all files
    expected = {field.name: _type_of(field) for field in schema.DATASETS[file.dataset] if field.name != partition}
    found = {field.name: _type_of(field) for field in parquet.schema_arrow}
    findings.compare(file.path, "columns", ", ".join(expected), ", ".join(found))
    for name in expected.keys() & found.keys():
        findings.compare(file.path, f"type of {name}", expected[name], found[name])


def _type_of(field: pa.Field) -> str:
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
        return  # it was full, and closed, before the last page was read
    findings.compare(file.path, "digest of the raw pages", receipt.raw.sha256, found)


def _count_nulls(file: DatasetFile, parquet: Any, totals: DatasetTotals, receipt: Receipt) -> None:
    name, value = partition_of(file, receipt)
    if name is not None and value is None:
        totals.nulls[f"{file.dataset}.{name}"] += parquet.metadata.num_rows
    for group in range(parquet.num_row_groups):
        chunks = parquet.metadata.row_group(group)
        for index in range(chunks.num_columns):
            column = chunks.column(index)
            if column.statistics is not None and column.statistics.null_count:
                totals.nulls[f"{file.dataset}.{column.path_in_schema}"] += column.statistics.null_count

"""Writes one dataset as Parquet files, zstd with statistics. Equal pages give equal bytes."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from anyio import to_thread

from neows_async.endpoints.browse.schema import DATASETS, VERSION
from neows_async.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from neows_async.pages.values import DatasetFile, Page
    from neows_async.protocols import Stage, StagedFile
    from neows_async.settings import Settings

# A row group is buffered in memory until it is full: a few megabytes in both datasets.
ROW_GROUP_ROWS: Final = {"neos": 8_192, "close_approaches": 65_536}
FILE_ROWS: Final = 16 * 65_536
MAX_PARTITIONS: Final = 64
_SMALL_BATCHES: Final = 32
# Columns with repeated values. In the others a dictionary would cost memory and save no room.
_DICTIONARY_COLUMNS: Final = ("neo_id", "orbiting_body", "first_observation_date", "last_observation_date")
NULL_PARTITION: Final = "__HIVE_DEFAULT_PARTITION__"


class ParquetSink:
    """Writes ``neos`` or ``close_approaches`` as ``part-00000.parquet``, ``part-00001.parquet``, and so on.

    Rows are in Browse order. The borders of the pages do not matter: a row group has ``row_group_rows`` rows, and a
    file ends after ``file_rows``. At most one row group of each partition is in memory.

    :param partition_by: a string, bool or integer column with at most 64 values. The value is in the path, Hive-style
        (``orbiting_body=Earth/part-00000.parquet``), and not in the file
    :param row_group_rows: None is 8,192 NEOs or 65,536 close approaches
    :raises SettingsError: there is no such dataset or column, or its type cannot be a partition
    """

    def __init__(
        self,
        dataset: str,
        partition_by: str | None = None,
        *,
        row_group_rows: int | None = None,
        file_rows: int = FILE_ROWS,
    ) -> None:
        check_partition(dataset, partition_by)
        self.name: str = f"parquet:{dataset}"
        self._dataset = dataset
        self._partition_by = partition_by
        self._row_group_rows = row_group_rows or ROW_GROUP_ROWS[dataset]
        self._file_rows = file_rows
        schema = DATASETS[dataset]
        if partition_by is not None:
            schema = schema.remove(schema.get_field_index(partition_by))
        self._schema = schema.with_metadata({"neows_async.schema_version": VERSION})
        self._partitions: dict[str, _Partition] = {}
        self._raw_pages = hashlib.sha256()  # over the digests of the raw pages so far
        self._stage: Stage | None = None
        self._files: list[DatasetFile] = []

    async def open(self, stage: Stage) -> None:
        """Called once, before the first page."""
        self._stage = stage

    async def write(self, page: Page) -> None:
        """Take the page's rows. A full row group is encoded in a thread."""
        # Before the rows: a file that ends within this page names all pages that it has rows of.
        self._raw_pages.update(page.sha256)
        for folder, rows in self._split(page):
            partition = self._partition(folder)
            partition.add(rows)
            # Cut by rows, never by pages: the bytes must not depend on the page size.
            while partition.buffered_rows >= self._row_group_rows:
                await self._write_group(partition)
                # Only at the end of a row group, so the cut is at the same row in every run.
                if partition.written_rows >= self._file_rows:
                    await self._close(partition)

    async def finish(self) -> Sequence[DatasetFile]:
        """Make everything durable, and nothing visible. If there was no row, an empty file has the columns."""
        # No rows at all: an empty file keeps the columns readable. Partitioned, there is no path for it.
        if not self._partitions and self._partition_by is None:
            self._partition("")
        for partition in self._partitions.values():
            if partition.buffered_rows:
                await self._write_group(partition)
            if partition.is_open or not partition.closed_files:
                await self._close(partition)
        return tuple(sorted(self._files, key=lambda file: file.path))

    async def commit(self) -> None:
        """Do nothing: the snapshot's commit renames the files."""

    def _split(self, page: Page) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Partition folder → the page's rows in it, in the page's order."""
        batch: pa.RecordBatch = page.batches[self._dataset]
        if self._partition_by is None:
            yield "", batch
            return
        column = batch[self._partition_by]
        rest = batch.select(self._schema.names)
        # In order of appearance, which equal pages share.
        for value in pc.unique(column):
            selected = pc.equal(column, value) if value.is_valid else pc.is_null(column)
            yield f"{self._partition_by}={_segment(value.as_py())}/", rest.filter(selected)

    def _partition(self, folder: str) -> _Partition:
        if folder not in self._partitions:
            if len(self._partitions) == MAX_PARTITIONS:
                raise SettingsError(
                    f"--partition-by {self._dataset}:{self._partition_by} has {MAX_PARTITIONS + 1} different values "
                    f"or more; at most {MAX_PARTITIONS} are allowed. Choose a column with fewer values"
                )
            self._partitions[folder] = _Partition(folder, self._schema)
        return self._partitions[folder]

    async def _write_group(self, partition: _Partition) -> None:
        data = await to_thread.run_sync(partition.encode_group, self._row_group_rows)
        await (await self._staged(partition)).write(data)

    async def _close(self, partition: _Partition) -> None:
        staged = await self._staged(partition)
        rows = partition.written_rows
        # The footer last: without it no reader takes the file for Parquet.
        await staged.write(await to_thread.run_sync(partition.encode_end, self._raw_pages.hexdigest()))
        self._files.append(await staged.finish(rows))

    async def _staged(self, partition: _Partition) -> StagedFile:
        if partition.staged is None:
            if self._stage is None:
                raise RuntimeError("write or finish before open")
            # Opened with the first bytes: a partition without rows has no file.
            partition.staged = await self._stage.open(self._dataset, partition.next_path)
        return partition.staged


class _Partition:
    """The rows of one folder, and the encoder of its current file. Pure: it returns bytes and writes nothing."""

    def __init__(self, folder: str, schema: pa.Schema) -> None:
        self._folder = folder
        self._schema = schema
        self._buffered: list[pa.RecordBatch] = []
        self._small: list[pa.RecordBatch] = []
        self._pending = io.BytesIO()
        self._writer: pq.ParquetWriter | None = None
        self.buffered_rows = 0
        self.written_rows = 0
        self.closed_files = 0
        self.staged: StagedFile | None = None

    @property
    def is_open(self) -> bool:
        return self._writer is not None

    @property
    def next_path(self) -> str:
        return f"{self._folder}part-{self.closed_files:05}.parquet"

    def add(self, rows: pa.RecordBatch) -> None:
        if rows.num_rows:
            self._small.append(rows)
            self.buffered_rows += rows.num_rows
            if len(self._small) == _SMALL_BATCHES:
                # Arrow needs more memory for a small batch than for its values.
                self._buffered.append(pa.concat_batches(self._small))
                self._small.clear()

    def encode_group(self, rows: int) -> bytes:
        """The bytes of one row group: the first ``rows`` rows, or all if there are fewer."""
        table = pa.Table.from_batches([*self._buffered, *self._small], self._schema)
        # The rest is a view, without a copy.
        self._buffered, self._small = table.slice(rows).to_batches(), []
        # One chunk for each column: the bytes must not depend on how the rows were batched.
        group = table.slice(0, rows).combine_chunks()
        del table  # free it before the encoder needs memory
        self._open().write_table(group, row_group_size=rows)
        self.buffered_rows -= group.num_rows
        self.written_rows += group.num_rows
        return self._drain()

    def encode_end(self, raw_pages_sha256: str) -> bytes:
        """The bytes of the footer. The next rows begin the next file.

        :param raw_pages_sha256: over the digests of the raw pages read so far, in order
        """
        writer = self._open()
        writer.add_key_value_metadata({"neows_async.raw_pages_sha256": raw_pages_sha256})
        writer.close()
        data = self._drain()
        self._writer, self.staged, self.written_rows = None, None, 0
        self.closed_files += 1
        return data

    def _open(self) -> pq.ParquetWriter:
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                pa.PythonFile(_KeptOpen(self._pending), mode="w"),
                self._schema,
                compression="zstd",
                use_dictionary=[name for name in _DICTIONARY_COLUMNS if name in self._schema.names],
                write_statistics=True,
                write_page_index=True,
            )
        return self._writer

    def _drain(self) -> bytes:
        data = self._pending.getvalue()
        self._pending.seek(0)
        self._pending.truncate()
        return data


class _KeptOpen(io.RawIOBase):
    """Arrow's view of the buffer. The buffer is emptied between writes, and stays open when Arrow closes the view."""

    def __init__(self, into: io.BytesIO) -> None:
        super().__init__()
        self._into = into

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return self._into.write(data)  # type: ignore[arg-type]  # any buffer


def parquet_sinks(settings: Settings) -> list[ParquetSink]:
    """One sink for each dataset, partitioned as ``settings`` say."""
    for dataset, column in settings.partitions.items():
        check_partition(dataset, column)
    return [ParquetSink(dataset, settings.partitions.get(dataset)) for dataset in DATASETS]


def check_partition(dataset: str, column: str | None) -> None:
    """Check that ``dataset`` exists and can be partitioned by ``column``; a SettingsError lists what is possible."""
    if dataset not in DATASETS:
        raise SettingsError(f"there is no dataset {dataset!r}; there are {', '.join(DATASETS)}")
    if column is None:
        return
    possible = [field.name for field in DATASETS[dataset] if _can_partition(field.type)]
    if column not in DATASETS[dataset].names:
        raise SettingsError(f"{dataset} has no column {column!r}; it can be partitioned by {', '.join(possible)}")
    if column not in possible:
        kind = DATASETS[dataset].field(column).type
        raise SettingsError(
            f"{dataset}:{column} is of type {kind}; only string, bool and integer columns can be partitions: "
            f"{', '.join(possible)}"
        )


def _can_partition(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_boolean(type_) or pa.types.is_integer(type_))


def _segment(value: str | int | None) -> str:
    if value is None:
        return NULL_PARTITION
    return quote(str(value).lower() if isinstance(value, bool) else str(value), safe="")

"""SQL queries on one committed snapshot. They block: call them in threads, several at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

import duckdb
import pyarrow as pa
from pyarrow import parquet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neo_site.query import NeoQuery
    from neows_async import Receipt, Storage

_NEO: Final = """
    id, name, designation, nasa_jpl_url,
    absolute_magnitude_h, is_potentially_hazardous_asteroid,
    estimated_diameter_min_m, estimated_diameter_max_m,
    CAST(closest_approach_date AS VARCHAR) AS closest_approach_date,
    closest_approach_miss_distance_km, closest_approach_relative_velocity_km_s
"""
_NEO_DETAIL: Final = f"""
    {_NEO},
    CAST(first_observation_date AS VARCHAR) AS first_observation_date,
    CAST(last_observation_date AS VARCHAR) AS last_observation_date,
    observations_used, orbital_period_d
"""
_APPROACH: Final = """
    CAST(close_approach_date AS VARCHAR) AS close_approach_date,
    strftime(close_approach_at, '%Y-%m-%dT%H:%MZ') AS close_approach_at,
    orbiting_body, miss_distance_au, miss_distance_km, relative_velocity_km_s
"""


class Catalogue:
    """The tables of one snapshot, in memory. The snapshot's files may be removed during queries.

    :param receipt: the receipt of the snapshot
    """

    def __init__(self, receipt: Receipt, database: duckdb.DuckDBPyConnection) -> None:
        self.receipt = receipt
        self._database = database

    @classmethod
    def load(cls, storage: Storage, receipt: Receipt) -> Self:
        """Read the files in the receipt, from any kind of storage.

        :raises StorageError: a file cannot be read
        """
        database = duckdb.connect(":memory:", config={"threads": 1, "preserve_insertion_order": True})
        for dataset in ("neos", "close_approaches"):
            database.register("arriving", _rows(storage, receipt, dataset))
            database.execute(f"CREATE TABLE {dataset} AS SELECT row_number() OVER () AS position, * FROM arriving")  # noqa: S608 - one of two names of ours
            database.unregister("arriving")
        database.execute("SET enable_external_access = false")
        database.execute("SET lock_configuration = true")
        return cls(receipt, database)

    def neos(self, query: NeoQuery) -> tuple[int, list[dict[str, Any]]]:
        """The number of matching objects, and the rows of the requested page."""
        where, values = query.where()
        cursor = self._database.cursor()
        counted = cursor.execute(f"SELECT count(*) FROM neos WHERE {where}", values).fetchone()  # noqa: S608 - conditions of ours; values are bound
        sql = f"SELECT {_NEO} FROM neos WHERE {where} ORDER BY {query.order()} LIMIT ? OFFSET ?"  # noqa: S608 - as above
        return counted[0] if counted else 0, _dicts(cursor.execute(sql, [*values, query.limit, query.offset]))

    def neo(self, neo_id: str) -> dict[str, Any] | None:
        """An object with all its close approaches, in the source's order; None if there is no such id."""
        cursor = self._database.cursor()
        found = _dicts(cursor.execute(f"SELECT {_NEO_DETAIL} FROM neos WHERE id = ?", [neo_id]))  # noqa: S608 - columns of ours
        if not found:
            return None
        approaches = f"SELECT {_APPROACH} FROM close_approaches WHERE neo_id = ? ORDER BY position"  # noqa: S608 - as above
        return {**found[0], "close_approaches": _dicts(cursor.execute(approaches, [neo_id]))}


def _rows(storage: Storage, receipt: Receipt, dataset: str) -> pa.Table:
    tables = []
    for file in receipt.files:
        if file.dataset == dataset:
            with storage.open_input(file.path) as opened:
                # One thread: the others serve requests.
                tables.append(parquet.read_table(opened, use_threads=False))
    return pa.concat_tables([_without_zones(table) for table in tables])


def _without_zones(table: pa.Table) -> pa.Table:
    """The table with timestamps without a zone. All are UTC, and DuckDB needs an extension for zones."""
    fields = [
        field.with_type(pa.timestamp(field.type.unit)) if pa.types.is_timestamp(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def _dicts(result: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    columns: Sequence[str] = [column[0] for column in result.description or ()]
    return [dict(zip(columns, row, strict=True)) for row in result.fetchall()]

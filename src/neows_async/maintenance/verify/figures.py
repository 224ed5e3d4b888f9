"""Compares the receipt's own sums, and its figures, with the files."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from neows_async.endpoints.browse import schema
from neows_async.lake import layout
from neows_async.maintenance.made_with import settings_of
from neows_async.maintenance.verify.files import count_lines
from neows_async.outputs import registry
from neows_async.pages.values import DatasetFile

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from neows_async.lake.async_storage import AsyncStorage
    from neows_async.lake.receipt import Receipt
    from neows_async.maintenance.verify.datasets import DatasetTotals
    from neows_async.maintenance.verify.findings import Findings
    from neows_async.protocols import AggregateWriter


async def check_counts(storage: AsyncStorage, receipt: Receipt, sound: AbstractSet[str], findings: Findings) -> None:
    """Check that seen = written + duplicates + rejected, and that the files have that many records.

    :param sound: the paths of the files with the right digest
    """
    where, records, pages = layout.receipt_key(receipt.snapshot), receipt.records, receipt.pages
    accounted = records.written + records.duplicates + records.rejected
    findings.compare(where, "records seen (written + duplicates + rejected)", records.seen, accounted)
    findings.compare(where, "rejected, by reason", records.rejected, sum(receipt.rejected_because.values()))
    findings.compare(where, "pages planned (fetched + missing)", pages.planned, pages.fetched + len(pages.missing))
    quarantine = [file for file in receipt.files if file.dataset == "quarantine"]
    findings.compare(where, "rows in quarantine", records.rejected, sum(file.rows or 0 for file in quarantine))
    for file in quarantine:
        if file.path in sound:
            findings.compare(file.path, "lines", file.rows, await count_lines(storage, file.path))
    for dataset, expected in (("neos", records.written), ("close_approaches", receipt.close_approaches)):
        files = [file for file in receipt.files if file.dataset == dataset and file.path.endswith(".parquet")]
        if files:
            findings.compare(where, f"rows of {dataset}", expected, sum(file.rows or 0 for file in files))
    if receipt.schema_version != schema.VERSION:
        findings.skip(f"columns: the files are of schema version {receipt.schema_version}, not {schema.VERSION}")


def check_nulls(receipt: Receipt, totals: DatasetTotals, findings: Findings) -> None:
    """Check the counts of nulls and of distinct ids, and that each close approach has its object."""
    where = layout.receipt_key(receipt.snapshot)
    expected = {name: count for name, count in receipt.nulls.items() if name.partition(".")[0] in totals.rows}
    for name in sorted(expected.keys() | totals.nulls.keys()):
        findings.compare(where, f"nulls in {name}", expected.get(name, 0), totals.nulls[name])
    if totals.rows["neos"]:
        findings.compare(where, "distinct ids in neos", receipt.records.written, len(totals.ids))
        orphans = totals.neo_ids - totals.ids
        findings.compare(where, "ids of close_approaches that are not in neos", 0, len(orphans))


def check_aggregates(receipt: Receipt, totals: DatasetTotals, findings: Findings, *, has_files: bool) -> None:
    """Compare our aggregates with those computed again from the Parquet files; skip the others."""
    where = layout.receipt_key(receipt.snapshot)
    for name, recorded in receipt.aggregates.items():
        if name not in totals.aggregators:
            ours = registry.find(registry.AGGREGATORS, name) is not None
            why = "it needs the objects' JSON" if ours else "it is not one of ours"
            findings.skip(f"aggregate {name}: {why}, and only its file was checked")
        elif not has_files:
            findings.skip(f"aggregate {name}: there are no Parquet files of both datasets to compute it from")
        else:
            found = dict(totals.aggregators[name].result())
            for figure in sorted(recorded.keys() | found.keys()):
                _compare_figure(where, f"{name}.{figure}", recorded.get(figure), found.get(figure), findings)


def _compare_figure(where: str, name: str, recorded: Any, found: Any, findings: Findings) -> None:
    if isinstance(recorded, dict) and isinstance(found, dict):
        for key in sorted(recorded.keys() | found.keys()):
            findings.compare(where, f"{name}.{key}", recorded.get(key), found.get(key))
    else:
        findings.compare(where, name, recorded, found)


async def check_aggregate_files(receipt: Receipt, findings: Findings) -> None:
    """Check that the files of the aggregates hold the receipt's figures: write them again, and compare digests."""
    part = registry.find(registry.AGGREGATE_WRITERS, receipt.derivation.get("aggregate_writer", ""))
    if part is None:
        findings.skip("the files of the aggregates: their writer is not one of ours; only their bytes were checked")
        return
    writer: AggregateWriter = part.make(settings_of(receipt))
    written = await writer.write(_HashingStage(receipt.snapshot), receipt.aggregates)
    expected = {file.path: file.sha256 for file in written}
    for file in receipt.files:
        if file.dataset == "aggregates" and expected.get(file.path) != file.sha256:
            findings.differ(file.path, "content", "the figures of the receipt", "others")


class _HashingStage:
    """A stage that stores no files, only their digests."""

    def __init__(self, snapshot: str) -> None:
        self.snapshot = snapshot

    async def open(self, dataset: str, path: str) -> _HashingFile:
        return _HashingFile(dataset, f"{layout.dataset_folder(dataset, self.snapshot)}/{path}")


class _HashingFile:
    def __init__(self, dataset: str, path: str) -> None:
        self._dataset = dataset
        self._path = path
        self._sha256 = hashlib.sha256()
        self._bytes = 0

    async def write(self, data: bytes) -> None:
        self._sha256.update(data)
        self._bytes += len(data)

    async def finish(self, rows: int | None) -> DatasetFile:
        return DatasetFile(self._dataset, self._path, rows, self._bytes, self._sha256.hexdigest())

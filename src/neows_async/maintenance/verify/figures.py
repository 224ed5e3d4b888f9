"""The receipt's own sums, and the figures: each against what the files give."""

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
    from neows_async.maintenance.verify.datasets import Datasets
    from neows_async.maintenance.verify.findings import Findings
    from neows_async.protocols import AggregateWriter


async def check_counts(lake: AsyncStorage, receipt: Receipt, whole: AbstractSet[str], findings: Findings) -> None:
    """That seen = written + duplicates + rejected, and that each of them is what lies in the files."""
    where, records, pages = layout.receipt_key(receipt.snapshot), receipt.records, receipt.pages
    accounted = records.written + records.duplicates + records.rejected
    findings.compare(where, "records seen (written + duplicates + rejected)", records.seen, accounted)
    findings.compare(where, "rejected, by reason", records.rejected, sum(receipt.rejected_because.values()))
    findings.compare(where, "pages planned (fetched + missing)", pages.planned, pages.fetched + len(pages.missing))
    quarantine = [file for file in receipt.files if file.dataset == "quarantine"]
    findings.compare(where, "rows in quarantine", records.rejected, sum(file.rows or 0 for file in quarantine))
    for file in quarantine:
        if file.path in whole:
            findings.compare(file.path, "lines", file.rows, await count_lines(lake, file.path))
    for dataset, expected in (("neos", records.written), ("close_approaches", receipt.close_approaches)):
        files = [file for file in receipt.files if file.dataset == dataset and file.path.endswith(".parquet")]
        if files:
            findings.compare(where, f"rows of {dataset}", expected, sum(file.rows or 0 for file in files))
    if receipt.schema_version != schema.VERSION:
        findings.skip(f"columns: the files are of schema version {receipt.schema_version}, not {schema.VERSION}")


def check_nulls(receipt: Receipt, datasets: Datasets, findings: Findings) -> None:
    """That nulls, distinct ids and the approaches' ids are as they were counted."""
    where = layout.receipt_key(receipt.snapshot)
    expected = {name: count for name, count in receipt.nulls.items() if name.partition(".")[0] in datasets.rows}
    for name in sorted(expected.keys() | datasets.nulls.keys()):
        findings.compare(where, f"nulls in {name}", expected.get(name, 0), datasets.nulls[name])
    if datasets.rows["neos"]:
        findings.compare(where, "distinct ids in neos", receipt.records.written, len(datasets.ids))
        strangers = datasets.neo_ids - datasets.ids
        findings.compare(where, "ids of close_approaches that are not in neos", 0, len(strangers))


def check_aggregates(receipt: Receipt, datasets: Datasets, findings: Findings, *, has_files: bool) -> None:
    """Ours, computed again from the Parquet files with the receipt's settings; others are said to be skipped."""
    where = layout.receipt_key(receipt.snapshot)
    for name, told in receipt.aggregates.items():
        if name not in datasets.aggregators:
            findings.skip(f"aggregate {name}: it is not one of ours, and only its file was checked")
        elif not has_files:
            findings.skip(f"aggregate {name}: there are no Parquet files of both datasets to compute it from")
        else:
            found = dict(datasets.aggregators[name].result())
            for figure in sorted(told.keys() | found.keys()):
                _compare_figures(where, f"{name}.{figure}", told.get(figure), found.get(figure), findings)


def _compare_figures(where: str, name: str, told: Any, found: Any, findings: Findings) -> None:
    if isinstance(told, dict) and isinstance(found, dict):
        for key in sorted(told.keys() | found.keys()):
            findings.compare(where, f"{name}.{key}", told.get(key), found.get(key))
    else:
        findings.compare(where, name, told, found)


async def check_aggregate_files(receipt: Receipt, findings: Findings) -> None:
    """That the files of the figures say what the receipt says."""
    part = registry.find(registry.AGGREGATE_WRITERS, receipt.derivation.get("aggregate_writer", ""))
    if part is None:
        findings.skip("the files of the aggregates: their writer is not one of ours; only their bytes were checked")
        return
    stage = _Sums(receipt.snapshot)
    writer: AggregateWriter = part.make(settings_of(receipt))
    expected = {file.path: file.sha256 for file in await writer.write(stage, receipt.aggregates)}
    for file in receipt.files:
        if file.dataset == "aggregates" and expected.get(file.path) != file.sha256:
            findings.differ(file.path, "content", "the figures of the receipt", "others")


class _Sums:
    """A stage that keeps nothing of its files but their digests."""

    def __init__(self, snapshot: str) -> None:
        self.snapshot = snapshot

    async def open(self, dataset: str, path: str) -> _Sum:
        return _Sum(dataset, f"{layout.dataset_folder(dataset, self.snapshot)}/{path}")


class _Sum:
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

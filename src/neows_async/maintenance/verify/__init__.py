"""Checks a snapshot against its receipt: files, rows, figures, raw pages. It only reads.

::

    files.py      the files exist, have their sizes and digests, and there are no others
    datasets.py   reads the Parquet files: columns, metadata, rows; computes the aggregates again
    figures.py    the receipt's sums and figures, against what datasets.py found
    raw_pages.py  each raw page is whole; all of them are those that the snapshot was made from
    findings.py   the values: Difference, Findings (collects them), VerifyReport

A damaged file is a difference in the report, not an exception. The order matters: content is compared only for files
with the right digest. Otherwise one damaged file would show as a dozen differences.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from neows_async.errors import NotFoundError, most_relevant
from neows_async.lake import layout
from neows_async.lake.async_storage import for_each
from neows_async.lake.lake import AsyncLake
from neows_async.maintenance.verify.datasets import DatasetTotals, dataset_files, read_parquet
from neows_async.maintenance.verify.figures import check_aggregate_files, check_aggregates, check_counts, check_nulls
from neows_async.maintenance.verify.files import check_digest, check_names
from neows_async.maintenance.verify.findings import Difference, Findings, VerifyReport
from neows_async.maintenance.verify.raw_pages import check_raw_pages

if TYPE_CHECKING:
    from neows_async.lake.async_storage import AsyncStorage
    from neows_async.lake.receipt import Receipt
    from neows_async.pages.values import DatasetFile

__all__ = ["Difference", "VerifyReport", "verify"]

_FILES_AT_ONCE: Final = 4
_PAGES_AT_ONCE: Final = 8
_MAX_BODY_BYTES: Final = 64 << 20


async def verify(
    storage: AsyncStorage, snapshot: str = "latest", *, max_body_bytes: int = _MAX_BODY_BYTES
) -> VerifyReport:
    """Check every byte of ``snapshot`` against its receipt.

    :param max_body_bytes: a raw page with more bytes of JSON counts as damaged
    :returns: what was checked, and every difference
    :raises NotFoundError: there is no such snapshot
    :raises DataError: the receipt itself cannot be read
    :raises StorageError: the lake could not be read
    """
    started_s = anyio.current_time()
    receipt = await AsyncLake(storage).receipt(snapshot)
    findings = Findings()
    try:
        pages = await _check(storage, snapshot, receipt, findings, max_body_bytes)
    except BaseExceptionGroup as group:
        the_one = most_relevant(group)
        raise the_one from the_one.__cause__
    return VerifyReport(
        snapshot=receipt.snapshot,
        files=len(receipt.files),
        rows=sum(file.rows or 0 for file in receipt.files),
        bytes=sum(file.bytes for file in receipt.files),
        pages=pages,
        seconds=anyio.current_time() - started_s,
        differences=findings.sorted_differences(),
        skipped=tuple(findings.skipped),
    )


async def _check(
    storage: AsyncStorage, snapshot: str, receipt: Receipt, findings: Findings, max_body_bytes: int
) -> int:
    """Run all checks; returns the number of sound raw pages."""
    # Order: receipt, files, raw pages, contents. Each step is trusted by the next one.
    await _check_receipt(storage, snapshot, receipt, findings)
    sound = await _check_files(storage, receipt, findings)
    pages = await check_raw_pages(
        storage, receipt, findings, pages_at_once=_PAGES_AT_ONCE, max_body_bytes=max_body_bytes
    )
    await _check_contents(storage, receipt, sound, pages.prefixes, findings)
    return pages.sound


async def _check_receipt(storage: AsyncStorage, snapshot: str, receipt: Receipt, findings: Findings) -> None:
    """The receipt names its own snapshot, and ``latest`` is a copy of that snapshot's receipt."""
    if snapshot != "latest":
        findings.compare(layout.receipt_key(snapshot), "snapshot", snapshot, receipt.snapshot)
        return
    try:
        own = await AsyncLake(storage).receipt(receipt.snapshot)
    except NotFoundError:
        findings.differ(layout.receipt_key(receipt.snapshot), "file", "the receipt", "none")
        return
    if own != receipt:
        findings.differ(layout.LATEST, "content", f"that of {layout.receipt_key(receipt.snapshot)}", "another")


async def _check_files(storage: AsyncStorage, receipt: Receipt, findings: Findings) -> frozenset[str]:
    """Names, sizes and digests; returns the paths of the files with the right digest."""
    present = await check_names(storage, receipt, findings)
    sound: set[str] = set()

    async def check(file: DatasetFile) -> None:
        if await check_digest(storage, file, findings):
            sound.add(file.path)

    # Several at once: on an object store the waits dominate, in a folder the hashing.
    await for_each(present, check, at_once=_FILES_AT_ONCE)
    return frozenset(sound)


async def _check_contents(
    storage: AsyncStorage, receipt: Receipt, sound: frozenset[str], prefixes: frozenset[str] | None, findings: Findings
) -> None:
    """The contents of the files with the right digest."""
    files = dataset_files(receipt)
    totals = DatasetTotals(receipt)
    for file in files:
        if file.path in sound:
            await read_parquet(storage, receipt, file, totals, prefixes, findings)
    await check_counts(storage, receipt, sound, findings)
    # Sums over some of the files would all differ, and say nothing new.
    if any(file.path not in sound for file in files):
        findings.skip("rows and aggregates were not recomputed, since a file they come from differs")
        return
    if files:
        check_nulls(receipt, totals, findings)
    check_aggregates(receipt, totals, findings, has_files=_has_both(files))
    await check_aggregate_files(receipt, findings)


def _has_both(files: tuple[DatasetFile, ...]) -> bool:
    return {file.dataset for file in files} == {"neos", "close_approaches"}

"""A snapshot held against its receipt: files, rows, figures, raw pages. Reads, and writes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from neows_async.errors import NotFoundError, most_relevant
from neows_async.lake import layout
from neows_async.lake.lake import AsyncLake
from neows_async.maintenance.verify.datasets import Datasets, dataset_files, read_parquet
from neows_async.maintenance.verify.figures import check_aggregate_files, check_aggregates, check_counts, check_nulls
from neows_async.maintenance.verify.files import check_digest, check_names
from neows_async.maintenance.verify.findings import Difference, Findings, Verified
from neows_async.maintenance.verify.raw_pages import check_raw_pages

if TYPE_CHECKING:
    from neows_async.lake.async_storage import AsyncStorage
    from neows_async.lake.receipt import Receipt
    from neows_async.pages.values import DatasetFile

__all__ = ["Difference", "Verified", "verify"]

_FILES_AT_ONCE: Final = 4
_PAGES_AT_ONCE: Final = 8
_MAX_BODY_BYTES: Final = 64 << 20


async def verify(lake: AsyncStorage, snapshot: str = "latest", *, max_body_bytes: int = _MAX_BODY_BYTES) -> Verified:
    """Hold ``snapshot`` against its receipt, byte by byte.

    :param max_body_bytes: a larger raw page, expanded, counts as damaged
    :returns: what was looked at, and every difference; a damaged file is a difference, no exception
    :raises NotFoundError: there is no such snapshot
    :raises DataError: its receipt itself cannot be read
    :raises StorageError: the lake could not be read
    """
    started_s = anyio.current_time()
    receipt = await AsyncLake(lake).receipt(snapshot)
    findings = Findings()
    try:
        pages = await _check(lake, snapshot, receipt, findings, max_body_bytes)
    except BaseExceptionGroup as group:
        the_one = most_relevant(group)
        raise the_one from the_one.__cause__
    return Verified(
        snapshot=receipt.snapshot,
        files=len(receipt.files),
        rows=sum(file.rows or 0 for file in receipt.files),
        bytes=sum(file.bytes for file in receipt.files),
        pages=pages,
        seconds=anyio.current_time() - started_s,
        differences=findings.sorted_differences(),
        skipped=tuple(findings.skipped),
    )


async def _check(lake: AsyncStorage, snapshot: str, receipt: Receipt, findings: Findings, max_body_bytes: int) -> int:
    """All of it; returns how many raw pages are right."""
    await _check_receipt(lake, snapshot, receipt, findings)
    whole = await _check_files(lake, receipt, findings)
    pages = await check_raw_pages(lake, receipt, findings, pages_at_once=_PAGES_AT_ONCE, max_body_bytes=max_body_bytes)
    await _check_contents(lake, receipt, whole, pages.prefixes, findings)
    return pages.read


async def _check_receipt(lake: AsyncStorage, snapshot: str, receipt: Receipt, findings: Findings) -> None:
    """That the receipt has its own name, and that ``latest`` is a copy of one."""
    if snapshot != "latest":
        findings.compare(layout.receipt_key(snapshot), "snapshot", snapshot, receipt.snapshot)
        return
    try:
        own = await AsyncLake(lake).receipt(receipt.snapshot)
    except NotFoundError:
        findings.differ(layout.receipt_key(receipt.snapshot), "file", "the receipt", "none")
        return
    if own != receipt:
        findings.differ(layout.LATEST, "content", f"that of {layout.receipt_key(receipt.snapshot)}", "another")


async def _check_files(lake: AsyncStorage, receipt: Receipt, findings: Findings) -> frozenset[str]:
    """Names, sizes and digests; returns the paths of the files that are as they were written."""
    present = await check_names(lake, receipt, findings)
    whole: set[str] = set()
    to_do = iter(present)

    async def work() -> None:
        for file in to_do:
            if await check_digest(lake, file, findings):
                whole.add(file.path)

    async with anyio.create_task_group() as workers:
        for _ in range(_FILES_AT_ONCE):
            workers.start_soon(work)
    return frozenset(whole)


async def _check_contents(
    lake: AsyncStorage, receipt: Receipt, whole: frozenset[str], prefixes: frozenset[str] | None, findings: Findings
) -> None:
    """What the files say, as far as they are what was written: of others nothing more can be told."""
    files = dataset_files(receipt)
    datasets = Datasets(receipt)
    for file in files:
        if file.path in whole:
            await read_parquet(lake, receipt, file, datasets, prefixes, findings)
    await check_counts(lake, receipt, whole, findings)
    if any(file.path not in whole for file in files):
        findings.skip("rows and aggregates were not recomputed, since a file they come from differs")
        return
    if files:
        check_nulls(receipt, datasets, findings)
    check_aggregates(receipt, datasets, findings, has_files=_has_both(files))
    await check_aggregate_files(receipt, findings)


def _has_both(files: tuple[DatasetFile, ...]) -> bool:
    return {file.dataset for file in files} == {"neos", "close_approaches"}

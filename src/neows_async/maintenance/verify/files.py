"""Names, sizes and digests: whether the files are those that were written."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, BinaryIO, Final

from neows_async.errors import NotFoundError
from neows_async.lake.layout import DATASETS, dataset_folder, receipt_key

if TYPE_CHECKING:
    from neows_async.lake.async_storage import AsyncStorage
    from neows_async.lake.receipt import Receipt
    from neows_async.maintenance.verify.findings import Findings
    from neows_async.pages.values import DatasetFile

_CHUNK_BYTES: Final = 4 << 20


async def check_names(lake: AsyncStorage, receipt: Receipt, findings: Findings) -> list[DatasetFile]:
    """That the dataset folders hold what the receipt names, in these sizes, and nothing else.

    :returns: the files that are there and have their size
    """
    folders = {dataset: dataset_folder(dataset, receipt.snapshot) for dataset in DATASETS}
    named: dict[str, DatasetFile] = {}
    for file in receipt.files:
        folder = folders.setdefault(file.dataset, dataset_folder(file.dataset, receipt.snapshot))
        if not file.path.startswith(f"{folder}/"):
            findings.differ(receipt_key(receipt.snapshot), "path of a file", f"one in {folder}/", file.path)
        elif file.path in named:
            findings.differ(receipt_key(receipt.snapshot), "files", "each once", f"{file.path} twice")
        else:
            named[file.path] = file
    sizes = {entry.key: entry.bytes for folder in folders.values() for entry in await lake.list(folder)}
    for path in sizes.keys() - named.keys():
        findings.differ(path, "file", "none, for the receipt does not name it", f"one of {sizes[path]:,} bytes")
    present = []
    for path, file in named.items():
        if path not in sizes:
            findings.differ(path, "file", f"one of {file.bytes:,} bytes", "none")
        elif findings.compare(path, "size in bytes", file.bytes, sizes[path]):
            present.append(file)
    return present


async def check_digest(lake: AsyncStorage, file: DatasetFile, findings: Findings) -> bool:
    """That the file has its SHA-256. It is read in pieces, each in a thread."""
    digest = hashlib.sha256()

    def take(opened: BinaryIO) -> bool:
        data = opened.read(_CHUNK_BYTES)
        digest.update(data)
        return bool(data)

    try:
        async with lake.open_input(file.path) as opened:
            while await lake.call(file.path, lambda: take(opened)):
                pass
    except NotFoundError:
        findings.differ(file.path, "file", f"one of {file.bytes:,} bytes", "none")
        return False
    return findings.compare(file.path, "SHA-256", file.sha256, digest.hexdigest())


async def count_lines(lake: AsyncStorage, path: str) -> int:
    """How many lines the file has."""

    def count(opened: BinaryIO) -> int:
        return len(opened.readlines(_CHUNK_BYTES))

    lines = 0
    async with lake.open_input(path) as opened:
        while more := await lake.call(path, lambda: count(opened)):
            lines += more
    return lines

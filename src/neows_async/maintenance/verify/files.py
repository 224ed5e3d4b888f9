"""Checks the names, sizes and digests of a snapshot's files."""

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


async def check_names(storage: AsyncStorage, receipt: Receipt, findings: Findings) -> list[DatasetFile]:
    """Check that the dataset folders hold the files of the receipt, with their sizes, and no others.

    :returns: the files that exist and have their size
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
    sizes = {entry.key: entry.bytes for folder in folders.values() for entry in await storage.list(folder)}
    # A file too many is a difference, too: readers scan the folder and would read it.
    for path in sizes.keys() - named.keys():
        findings.differ(path, "file", "none, for the receipt does not name it", f"one of {sizes[path]:,} bytes")
    present = []
    for path, file in named.items():
        if path not in sizes:
            findings.differ(path, "file", f"one of {file.bytes:,} bytes", "none")
        elif findings.compare(path, "size in bytes", file.bytes, sizes[path]):
            present.append(file)
    return present


async def check_digest(storage: AsyncStorage, file: DatasetFile, findings: Findings) -> bool:
    """Check the file's SHA-256. It is read in pieces, each in a thread."""
    digest = hashlib.sha256()

    def read_some(opened: BinaryIO) -> bool:
        data = opened.read(_CHUNK_BYTES)
        digest.update(data)
        return bool(data)

    try:
        async with storage.open_input(file.path) as opened:
            while await storage.call(file.path, lambda: read_some(opened)):
                pass
    except NotFoundError:
        findings.differ(file.path, "file", f"one of {file.bytes:,} bytes", "none")
        return False
    return findings.compare(file.path, "SHA-256", file.sha256, digest.hexdigest())


async def count_lines(storage: AsyncStorage, path: str) -> int:
    """The number of lines of a file."""

    def count(opened: BinaryIO) -> int:
        return len(opened.readlines(_CHUNK_BYTES))

    lines = 0
    async with storage.open_input(path) as opened:
        while more := await storage.call(path, lambda: count(opened)):
            lines += more
    return lines

"""The raw pages: whether each is whole and right, and all of them those that the snapshot was made from."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from neows_async import browse
from neows_async import lake as layout
from neows_async.errors import BadPageError, NotFoundError
from neows_async.raw import RawZone, expand

if TYPE_CHECKING:
    from neows_async.lake import Lake
    from neows_async.receipt import Receipt
    from neows_async.verify.findings import Findings


@dataclass(frozen=True, slots=True)
class RawPages:
    """What was learnt from them.

    :param read: how many are right
    :param prefixes: the digests over the first page, the first two, and so on, which Parquet files
        carry; None if that cannot be told
    """

    read: int
    prefixes: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class _Read:
    sha256: bytes
    bytes: int


async def check_raw_pages(
    lake: Lake, receipt: Receipt, findings: Findings, *, pages_at_once: int, max_body_bytes: int
) -> RawPages:
    """Each page: there, its checksum, the whole page it should be; then count, bytes and digest over all.

    They lie with the snapshot, or with the one that it was rebuilt from. Holes are known.
    """
    if receipt.raw.snapshot is None:
        findings.skip("raw pages: the snapshot was made without an archive")
        return RawPages(0, None)
    zone = RawZone(lake, receipt.raw.snapshot, max_body_bytes=max_body_bytes)
    holes = set(receipt.pages.missing)
    wanted = [number for number in range(receipt.pages.planned) if number not in holes]
    read: dict[int, _Read] = {}
    to_do = iter(wanted)
    # Checking holds the interpreter: one at a time leaves it to others in between.
    checking = threading.Lock()

    async def work() -> None:
        for number in to_do:
            page = await _read_page(lake, zone, number, receipt.page_size, checking, findings)
            if page is not None:
                read[number] = page

    async with anyio.create_task_group() as workers:
        for _ in range(pages_at_once):
            workers.start_soon(work)
    where = layout.receipt_key(receipt.snapshot)
    findings.compare(where, "raw pages", receipt.raw.pages, len(wanted))
    if len(read) < len(wanted):
        return RawPages(len(read), None)
    digest = hashlib.sha256()
    prefixes = {digest.hexdigest()}
    for number in wanted:
        digest.update(read[number].sha256)
        prefixes.add(digest.hexdigest())
    folder = layout.raw_folder(receipt.raw.snapshot)
    findings.compare(folder, "bytes of JSON", receipt.raw.bytes, sum(page.bytes for page in read.values()))
    findings.compare(folder, "SHA-256 over the pages", receipt.raw.sha256, digest.hexdigest())
    return RawPages(len(read), frozenset(prefixes))


async def _read_page(
    lake: Lake, zone: RawZone, number: int, size: int, checking: threading.Lock, findings: Findings
) -> _Read | None:
    key = zone.key(number)

    def read() -> _Read:
        body = expand(lake.storage.get(key, max_bytes=zone.max_body_bytes), zone.max_body_bytes)
        with checking:
            browse.check(body, number, size)
        return _Read(hashlib.sha256(body).digest(), len(body))

    try:
        return await lake.call(key, read)
    except NotFoundError:
        findings.differ(key, "raw page", "one", "none")
    except BadPageError as exc:
        findings.differ(key, "raw page", "a whole and right one", exc)
    return None

"""The raw pages: whether each is whole and right, and all of them those that the snapshot was made from."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import anyio

from neows_async.endpoints.browse import envelope
from neows_async.endpoints.browse.page_plan import plan_pages
from neows_async.errors import BadPageError, NotFoundError
from neows_async.lake import layout
from neows_async.lake.raw_zone import RawZone
from neows_async.pages.stored import expand, sealed_sha256

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neows_async.lake.async_storage import AsyncStorage
    from neows_async.lake.receipt import Receipt
    from neows_async.lake.storage.interface import Storage
    from neows_async.maintenance.verify.findings import Findings
    from neows_async.pages import values

_Place: TypeAlias = tuple[int, int]  # generation, number


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
    info: values.PageInfo
    sha256: bytes
    bytes: int


@dataclass(frozen=True, slots=True)
class _Checking:
    lake: AsyncStorage
    snapshot: str
    max_body_bytes: int
    one: threading.Lock = field(default_factory=threading.Lock)

    def zone(self, generation: int) -> RawZone:
        return RawZone(self.lake, self.snapshot, max_body_bytes=self.max_body_bytes, generation=generation)


async def check_raw_pages(
    lake: AsyncStorage, receipt: Receipt, findings: Findings, *, pages_at_once: int, max_body_bytes: int
) -> RawPages:
    """Each page: there, its checksum, the whole page it should be; then count, bytes and digest over all.

    They lie with the snapshot, or with the one that it was rebuilt from. Holes are known.
    """
    if receipt.raw.snapshot is None:
        findings.skip("raw pages: the snapshot was made without an archive")
        return RawPages(0, None)
    checking = _Checking(lake, receipt.raw.snapshot, max_body_bytes)
    wanted = await _wanted(checking, receipt, findings)
    read: dict[_Place, _Read] = {}
    to_do = iter(wanted)

    async def work() -> None:
        for place in to_do:
            page = await _read_page(checking, place, receipt.page_size, findings)
            if page is not None:
                read[place] = page

    async with anyio.create_task_group() as workers:
        for _ in range(pages_at_once):
            workers.start_soon(work)
    where = layout.receipt_key(receipt.snapshot)
    findings.compare(where, "raw pages", receipt.raw.pages, len(wanted))
    if len(read) < len(wanted):
        return RawPages(len(read), None)
    digest = hashlib.sha256()
    prefixes = {digest.hexdigest()}
    for place in wanted:
        digest.update(read[place].sha256)
        prefixes.add(digest.hexdigest())
    folder = f"raw/snapshot={receipt.raw.snapshot}"
    findings.compare(folder, "bytes of JSON", receipt.raw.bytes, sum(page.bytes for page in read.values()))
    findings.compare(folder, "SHA-256 over the pages", receipt.raw.sha256, digest.hexdigest())
    _check_objects(receipt, [read[place].info for place in wanted], findings)
    return RawPages(len(read), frozenset(prefixes))


def _check_objects(receipt: Receipt, pages: Sequence[values.PageInfo], findings: Findings) -> None:
    """That as many objects were seen as stand on the pages, and that the catalogue is as large, and as whole, as told.

    :param pages: what the envelope of each says, in the order of reading
    """
    where, limit = layout.receipt_key(receipt.snapshot), receipt.identity.get("limit")
    within = [
        page.announced_objects if limit is None else max(0, min(page.announced_objects, limit - page.first_position))
        for page in pages
    ]
    findings.compare(where, "records seen (objects on the raw pages)", receipt.records.seen, sum(within))
    totals = [page.total_elements for page in pages]
    findings.compare(where, "total_elements (of the last raw page)", receipt.total_elements, totals[-1])
    if receipt.raw.generations == 1:  # of several it takes the ids on the pages of the last
        all_in = not receipt.pages.missing and receipt.records.written == totals[-1]
        complete: bool | str = ("unknown" if len(set(totals)) > 1 else True) if all_in else False
        findings.compare(where, "complete", receipt.complete, complete)


async def _wanted(checking: _Checking, receipt: Receipt, findings: Findings) -> list[_Place]:
    """Every page that was read, in the order of reading."""
    if receipt.raw.generations == 1:
        holes = set(receipt.pages.missing)
        return [(0, number) for number in range(receipt.pages.planned) if number not in holes]
    # The receipt has the sums of all generations; the plan of each follows from its first page.
    wanted: list[_Place] = []
    holes_left = Counter(receipt.pages.missing)
    planned = 0
    for generation in range(receipt.raw.generations):
        first = await _read_page(checking, (generation, 0), receipt.page_size, findings)
        if first is None:
            continue
        pages = plan_pages(first.info, receipt.identity.get("limit")).pages
        planned += pages
        present = await checking.zone(generation).page_numbers()
        for number in range(pages):
            if number not in present and holes_left[number]:
                holes_left[number] -= 1
            else:
                wanted.append((generation, number))
    findings.compare(layout.receipt_key(receipt.snapshot), "pages planned", receipt.pages.planned, planned)
    return wanted


async def _read_page(checking: _Checking, place: _Place, size: int, findings: Findings) -> _Read | None:
    generation, number = place
    zone = checking.zone(generation)
    key = zone.key(number)

    def read(storage: Storage) -> _Read:
        data = storage.get(key, max_bytes=zone.max_body_bytes)
        body = expand(data, zone.max_body_bytes)
        # It holds the interpreter: one at a time leaves it to others in between.
        with checking.one:
            info = envelope.check(body, number, size)
        sha256 = hashlib.sha256(body).digest()
        if sealed_sha256(data) not in {None, sha256}:
            raise BadPageError("its seal tells another SHA-256")
        return _Read(info, sha256, len(body))

    try:
        return await checking.lake.use(key, read)
    except NotFoundError:
        findings.differ(key, "raw page", "one", "none")
    except BadPageError as exc:
        findings.differ(key, "raw page", "a whole and right one", exc)
    return None

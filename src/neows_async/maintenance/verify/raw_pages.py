"""Checks the raw pages: each is the whole page it should be, and all are those that the snapshot was made from."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from neows_async.endpoints.browse import envelope
from neows_async.endpoints.browse.page_plan import plan_pages
from neows_async.errors import BadPageError, NotFoundError
from neows_async.lake import layout
from neows_async.lake.async_storage import for_each
from neows_async.lake.raw_zone import RawZone
from neows_async.pages.stored import expand, sealed_sha256

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neows_async.lake.async_storage import AsyncStorage
    from neows_async.lake.receipt import Receipt
    from neows_async.lake.storage.interface import Storage
    from neows_async.maintenance.verify.findings import Findings
    from neows_async.pages import values


class _Position(NamedTuple):
    """Where a page was in the run's order of reading."""

    generation: int
    number: int


@dataclass(frozen=True, slots=True)
class RawPageTotals:
    """The raw pages of a snapshot.

    :param sound: how many are right
    :param prefixes: the digests over the first page, the first two, and so on, which Parquet files carry; None if a
        page is missing or damaged
    """

    sound: int
    prefixes: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class _SoundPage:
    info: values.PageInfo
    sha256: bytes
    bytes: int


async def check_raw_pages(
    storage: AsyncStorage, receipt: Receipt, findings: Findings, *, pages_at_once: int, max_body_bytes: int
) -> RawPageTotals:
    """Check each page, then the count, the bytes and the digest over all pages.

    The pages belong to the snapshot, or to the one that it was rebuilt from. Pages that the receipt calls missing are
    no difference.
    """
    if receipt.raw.snapshot is None:
        findings.skip("raw pages: the snapshot was made without an archive")
        return RawPageTotals(0, None)
    checker = _PageChecker(storage, receipt.raw.snapshot, receipt.page_size, max_body_bytes, findings)
    expected = await _expected_positions(checker, receipt, findings)
    sound: dict[_Position, _SoundPage] = {}

    async def check(position: _Position) -> None:
        page = await checker.check(position)
        if page is not None:
            sound[position] = page

    await for_each(expected, check, at_once=pages_at_once)
    where = layout.receipt_key(receipt.snapshot)
    findings.compare(where, "raw pages", receipt.raw.pages, len(expected))
    # The digest over all pages needs all of them; the missing ones are differences already.
    if len(sound) < len(expected):
        return RawPageTotals(len(sound), None)
    digest = hashlib.sha256()
    prefixes = {digest.hexdigest()}
    for position in expected:
        digest.update(sound[position].sha256)
        prefixes.add(digest.hexdigest())
    folder = layout.raw_snapshot_folder(receipt.raw.snapshot)
    findings.compare(folder, "bytes of JSON", receipt.raw.bytes, sum(page.bytes for page in sound.values()))
    findings.compare(folder, "SHA-256 over the pages", receipt.raw.sha256, digest.hexdigest())
    _check_objects(receipt, [sound[position].info for position in expected], findings)
    return RawPageTotals(len(sound), frozenset(prefixes))


def _check_objects(receipt: Receipt, pages: Sequence[values.PageInfo], findings: Findings) -> None:
    """Compare the receipt's count of objects, ``total_elements`` and ``complete`` with the envelopes.

    :param pages: the envelope of each page, in the order of reading
    """
    where, limit = layout.receipt_key(receipt.snapshot), receipt.identity.get("limit")
    within = [
        page.announced_objects if limit is None else max(0, min(page.announced_objects, limit - page.first_position))
        for page in pages
    ]
    findings.compare(where, "records seen (objects on the raw pages)", receipt.records.seen, sum(within))
    totals = [page.total_elements for page in pages]
    findings.compare(where, "total_elements (of the last raw page)", receipt.total_elements, totals[-1])
    if receipt.raw.generations == 1:  # with several, it depends on the ids in the last generation
        all_written = not receipt.pages.missing and receipt.records.written == totals[-1]
        complete: bool | str = ("unknown" if len(set(totals)) > 1 else True) if all_written else False
        findings.compare(where, "complete", receipt.complete, complete)


async def _expected_positions(checker: _PageChecker, receipt: Receipt, findings: Findings) -> list[_Position]:
    """Every page that the run read, in the order of reading."""
    if receipt.raw.generations == 1:
        missing = set(receipt.pages.missing)
        return [_Position(0, number) for number in range(receipt.pages.planned) if number not in missing]
    # The receipt has only sums over all generations. The plan of each generation follows from its first page.
    positions: list[_Position] = []
    missing_left = Counter(receipt.pages.missing)
    planned = 0
    for generation in range(receipt.raw.generations):
        first = await checker.check(_Position(generation, 0))
        if first is None:
            continue
        pages = plan_pages(first.info, receipt.identity.get("limit")).pages
        planned += pages
        stored = await checker.zone(generation).page_numbers()
        for number in range(pages):
            # The receipt lists missing pages without their generation: use each number up once.
            if number not in stored and missing_left[number]:
                missing_left[number] -= 1
            else:
                positions.append(_Position(generation, number))
    findings.compare(layout.receipt_key(receipt.snapshot), "pages planned", receipt.pages.planned, planned)
    return positions


class _PageChecker:
    """Reads raw pages of one snapshot, and checks each.

    :param size: the page size of the run, in objects
    """

    def __init__(
        self, storage: AsyncStorage, snapshot: str, size: int, max_body_bytes: int, findings: Findings
    ) -> None:
        self._storage = storage
        self._snapshot = snapshot
        self._size = size
        self._max_body_bytes = max_body_bytes
        self._findings = findings
        self._parsing = threading.Lock()

    def zone(self, generation: int) -> RawZone:
        return RawZone(self._storage, self._snapshot, max_body_bytes=self._max_body_bytes, generation=generation)

    async def check(self, position: _Position) -> _SoundPage | None:
        """The page if it is sound. Otherwise None, and a difference is added."""
        key = self.zone(position.generation).key(position.number)
        try:
            return await self._storage.use(key, lambda storage: self._read(storage, key, position.number))
        except NotFoundError:
            self._findings.differ(key, "raw page", "one", "none")
        except BadPageError as exc:
            self._findings.differ(key, "raw page", "a whole and right one", exc)
        return None

    def _read(self, storage: Storage, key: str, number: int) -> _SoundPage:
        data = storage.get(key, max_bytes=self._max_body_bytes)
        # Bounded: a damaged page may expand to anything.
        body = expand(data, self._max_body_bytes)
        # Parsing holds the interpreter lock. One thread at a time leaves it to other threads between two pages.
        with self._parsing:
            info = envelope.check(body, number, self._size)
        sha256 = hashlib.sha256(body).digest()
        if sealed_sha256(data) not in {None, sha256}:
            raise BadPageError("its seal has another SHA-256")
        return _SoundPage(info, sha256, len(body))

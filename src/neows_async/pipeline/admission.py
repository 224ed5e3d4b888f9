"""The one stateful step between decoding and writing: what follows sees admitted pages only. Pure."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from neows_async.errors import TooManyRejectsError
from neows_async.lake.receipt import RecordCounts

if TYPE_CHECKING:
    from neows_async.pages.values import Page, Rejected

_DIGITS: Final = 19
_BLOCK_BITS: Final = 10


@dataclass(slots=True)
class RecordTally:
    """Records seen = written + duplicates + rejected, always."""

    seen: int = 0
    written: int = 0
    duplicates: int = 0
    rejected: int = 0
    close_approaches: int = 0
    nulls: Counter[str] = field(default_factory=Counter)
    """``dataset.column`` → nulls written."""
    unknown_fields: Counter[str] = field(default_factory=Counter)
    """Dotted name → how often it was seen in written records."""

    def counts(self) -> RecordCounts:
        """The four figures of the receipt."""
        return RecordCounts(seen=self.seen, written=self.written, duplicates=self.duplicates, rejected=self.rejected)


class _Ids:
    """A set of ids, most of which are integers not far from each other: a bit for each, in blocks.

    Where one in fifty numbers is an id, as in NASA's catalogue, that takes a tenth of the memory of a set.
    """

    def __init__(self) -> None:
        self._blocks: dict[int, int] = {}
        self._others: set[str] = set()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, id_: str) -> bool:
        """Whether it is new."""
        # No other text stands for this number.
        if id_.isascii() and id_.isdigit() and not id_.startswith("0") and len(id_) < _DIGITS:
            block, at = divmod(int(id_), 1 << _BLOCK_BITS)
            held = self._blocks.get(block, 0)
            new = not held >> at & 1
            self._blocks[block] = held | 1 << at
        else:
            new = id_ not in self._others
            self._others.add(id_)
        self._count += new
        return new


class Admission:
    """Cuts at the limit, drops ids already seen (the first wins), counts.

    Memory: the distinct ids, some 15 bytes each, but up to 160 where they are far from each other.

    :param limit: admit the Browse positions below this; None is all
    :param max_rejects: None is no limit
    """

    def __init__(self, *, limit: int | None, max_rejects: int | None) -> None:
        self._limit = limit
        self._max_rejects = max_rejects
        self._seen = _Ids()
        # The first generation's are all that were seen.
        self._in_generation = self._seen
        self._rejected_now: set[bytes] = set()
        self._rejected_before: set[bytes] = set()
        self.tally: RecordTally = RecordTally()

    @property
    def distinct_in_generation(self) -> int:
        """How many different objects were read, and written, since the generation began."""
        return len(self._in_generation)

    def begin_generation(self) -> None:
        """The same catalogue is read once more: what was rejected before is not rejected twice."""
        self._in_generation = _Ids()
        self._rejected_before |= self._rejected_now
        self._rejected_now.clear()

    def admit(self, page: Page) -> Page:
        """``page`` without what is beyond the limit and what was seen before. Call it in page order.

        :raises TooManyRejectsError: more objects were rejected than is allowed
        """
        objects = page.info.announced_objects
        if self._limit is not None:
            objects = max(0, min(objects, self._limit - page.info.first_position))
        ids = page.neos["id"].to_pylist()
        keep = [index < objects and self._is_new(id_) for index, id_ in zip(page.indices, ids, strict=True)]
        within = sum(index < objects for index in page.indices)
        first_beyond = page.info.first_position + objects
        admitted = replace(
            _kept(page, keep),
            rejected=tuple(
                entry for entry in page.rejected if entry.position < first_beyond and self._is_new_reject(entry)
            ),
        )
        self._count(admitted, within + sum(entry.position < first_beyond for entry in page.rejected))
        return admitted

    def _is_new_reject(self, entry: Rejected) -> bool:
        digest = hashlib.sha256(entry.raw.encode()).digest()
        self._rejected_now.add(digest)
        return digest not in self._rejected_before

    def _is_new(self, id_: str) -> bool:
        new = self._seen.add(id_)
        if self._in_generation is not self._seen:
            self._in_generation.add(id_)
        return new

    def _count(self, page: Page, seen: int) -> None:
        tally = self.tally
        written = page.neos.num_rows
        tally.seen += seen
        tally.written += written
        tally.duplicates += seen - written - len(page.rejected)
        tally.rejected += len(page.rejected)
        tally.close_approaches += page.close_approaches.num_rows
        for dataset, batch in (("neos", page.neos), ("close_approaches", page.close_approaches)):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                if column.null_count:
                    tally.nulls[f"{dataset}.{name}"] += column.null_count
        for found in page.unknown_fields.values():
            tally.unknown_fields.update(found)
        if self._max_rejects is not None and tally.rejected > self._max_rejects:
            raise TooManyRejectsError(too_many(page.rejected[-1], tally.rejected, self._max_rejects))


def too_many(last: Rejected, rejected: int, max_rejects: int) -> str:
    """The line a user reads."""
    return (
        f"{rejected} objects were unreadable, more than --max-rejects {max_rejects}; the last one on page "
        f"{last.page} at {last.pointer}: {last.reason}. Raise --max-rejects to keep the readable ones"
    )


def _kept(page: Page, keep: list[bool]) -> Page:
    if all(keep):
        return page
    borders = itertools.pairwise(itertools.accumulate(page.approach_counts, initial=0))
    rows = [row for kept, (start, stop) in zip(keep, borders, strict=True) if kept for row in range(start, stop)]
    indices = tuple(itertools.compress(page.indices, keep))
    return replace(
        page,
        indices=indices,
        neos=page.neos.filter(pa.array(keep, pa.bool_())),
        close_approaches=page.close_approaches.take(pa.array(rows, pa.int64())),
        approach_counts=tuple(itertools.compress(page.approach_counts, keep)),
        unknown_fields={index: page.unknown_fields[index] for index in indices if index in page.unknown_fields},
    )

"""The one stateful step between decoding and writing: the outputs see admitted pages only. Pure."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from neows_async.errors import TooManyRejectsError
from neows_async.lake.receipt import RecordCounts

if TYPE_CHECKING:
    from neows_async.pages.values import Page, Rejected


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


class Admission:
    """Cuts at the limit, drops ids already seen (the first wins), counts.

    Memory: the distinct ids, some 100 bytes each.

    :param limit: admit the Browse positions below this; None is all
    :param max_rejects: None is no limit
    """

    def __init__(self, *, limit: int | None, max_rejects: int | None) -> None:
        self._limit = limit
        self._max_rejects = max_rejects
        self._seen: set[str] = set()
        # In the first generation, all ids that were seen.
        self._in_generation = self._seen
        self._rejected_now: set[bytes] = set()
        self._rejected_before: set[bytes] = set()
        self.tally: RecordTally = RecordTally()

    @property
    def distinct_in_generation(self) -> int:
        """How many different objects were read, and written, since the generation began."""
        return len(self._in_generation)

    def begin_generation(self) -> None:
        """The catalogue is read once more: an object that was rejected before is not counted twice."""
        self._in_generation = set()
        self._rejected_before |= self._rejected_now
        self._rejected_now.clear()

    def admit(self, page: Page) -> Page:
        """``page`` without the objects beyond the limit and those seen before. Call it in page order.

        :raises TooManyRejectsError: more objects were rejected than is allowed
        """
        # The envelope's count, not the batch's: rejected objects have a position, too.
        objects = page.info.announced_objects
        if self._limit is not None:
            objects = max(0, min(objects, self._limit - page.info.first_position))
        ids = _first_batch(page)["id"].to_pylist()
        # Beyond the limit first: an id there must not count as seen.
        keep = [index < objects and self._is_new(id_) for index, id_ in zip(page.indices, ids, strict=True)]
        within = sum(index < objects for index in page.indices)
        first_beyond = page.info.first_position + objects
        admitted = replace(
            _only(page, keep),
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
        # The first one wins, in page order, so every run and every rebuild keeps the same object.
        new = id_ not in self._seen
        self._seen.add(id_)
        if self._in_generation is not self._seen:
            # A separate set from the second generation on: completeness is counted within one reading.
            self._in_generation.add(id_)
        return new

    def _count(self, page: Page, seen: int) -> None:
        tally = self.tally
        written = page.object_count
        tally.seen += seen
        tally.written += written
        tally.duplicates += seen - written - len(page.rejected)
        tally.rejected += len(page.rejected)
        tally.close_approaches += sum(page.approach_counts)
        for dataset, batch in page.batches.items():
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                if column.null_count:
                    tally.nulls[f"{dataset}.{name}"] += column.null_count
        for found in page.unknown_fields.values():
            tally.unknown_fields.update(found)
        # After the counts: the error names the total with this page.
        if self._max_rejects is not None and tally.rejected > self._max_rejects:
            raise TooManyRejectsError(too_many(page.rejected[-1], tally.rejected, self._max_rejects))


def _first_batch(page: Page) -> pa.RecordBatch:
    return next(iter(page.batches.values()))


def too_many(last: Rejected, rejected: int, max_rejects: int) -> str:
    """The message."""
    return (
        f"{rejected} objects were unreadable, more than --max-rejects {max_rejects}; the last one on page "
        f"{last.page} at {last.pointer}: {last.reason}. Raise --max-rejects to keep the readable ones"
    )


def _only(page: Page, keep: list[bool]) -> Page:
    """``page`` with those of its objects for which ``keep`` is true, and their approaches."""
    # Nearly every page: no copy.
    if all(keep):
        return page
    borders = itertools.pairwise(itertools.accumulate(page.approach_counts, initial=0))
    rows = [row for kept, (start, stop) in zip(keep, borders, strict=True) if kept for row in range(start, stop)]
    indices = tuple(itertools.compress(page.indices, keep))
    objects, approaches = page.batches
    return replace(
        page,
        indices=indices,
        batches={
            objects: page.batches[objects].filter(pa.array(keep, pa.bool_())),
            approaches: page.batches[approaches].take(pa.array(rows, pa.int64())),
        },
        approach_counts=tuple(itertools.compress(page.approach_counts, keep)),
        unknown_fields={index: page.unknown_fields[index] for index in indices if index in page.unknown_fields},
    )

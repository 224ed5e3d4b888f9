"""Counts of close approaches: within a distance, and by year."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from typing import TYPE_CHECKING, ClassVar, Final, Self

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neows_async.pages.values import Json
    from neows_async.settings import Settings

# A call of Arrow costs more than a page's values take, so several pages are counted in one call. Not more of them: a
# buffered column keeps all columns of its page in memory.
_PAGES_PER_COUNT: Final = 8


class _CloseApproachCounter(ABC):
    """The common half: choose the approaches to one body, and buffer one of their columns.

    :param orbiting_body: count approaches to this body only; None is any
    """

    _column: ClassVar[str]
    _column_type: ClassVar[pa.DataType]

    def __init__(self, orbiting_body: str | None) -> None:
        self._orbiting_body = orbiting_body
        self._buffered: list[pa.Array] = []

    def update(self, batches: Mapping[str, pa.RecordBatch]) -> None:
        """Add the rows of one page."""
        approaches = batches["close_approaches"]
        if self._orbiting_body is not None:
            # A typed scalar: for an untyped one, Arrow imports other libraries to find the type, at each call.
            body = pa.scalar(self._orbiting_body, pa.string())
            approaches = approaches.filter(pc.equal(approaches["orbiting_body"], body))
        self._buffered.append(approaches[self._column])
        if len(self._buffered) == _PAGES_PER_COUNT:
            self._flush()

    def _flush(self) -> None:
        """Count what is buffered. Call it before the counts are read."""
        values = pa.chunked_array(self._buffered, self._column_type)
        self._buffered.clear()
        self._count(values)

    @abstractmethod
    def _count(self, values: pa.ChunkedArray) -> None:
        """Count values of the buffered column."""


class CloseApproachesByYear(_CloseApproachCounter):
    """Counts close approaches by the year of ``close_approach_date``, as NASA gives it.

    One without a date counts in no year.

    :param orbiting_body: count approaches to this body only; None is any
    """

    name = "close_approaches_by_year"
    _column = "close_approach_date"
    _column_type = pa.date32()

    def __init__(self, orbiting_body: str | None = None) -> None:
        super().__init__(orbiting_body)
        self._count_by_year: Counter[int] = Counter()

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """One for a run with ``settings``."""
        return cls(settings.orbiting_body)

    def _count(self, values: pa.ChunkedArray) -> None:
        counted = pc.value_counts(pc.year(values.drop_null()))
        for year, count in zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True):
            self._count_by_year[year] += count

    def merge(self, other: Self) -> None:
        """Add the counts of ``other``, which saw other pages."""
        # Its buffer holds counts that are not counted yet.
        other._flush()
        self._count_by_year.update(other._count_by_year)

    def result(self) -> Mapping[str, Json]:
        """Each year that has approaches, ascending, as four digits."""
        self._flush()
        years: dict[str, Json] = {f"{year:04}": count for year, count in sorted(self._count_by_year.items())}
        return {"orbiting_body": self._orbiting_body, "count_by_year": years}


class CloseApproachesWithin(_CloseApproachCounter):
    """Counts close approaches strictly nearer than ``threshold_au``. One without a distance does not count.

    :param orbiting_body: count approaches to this body only; None is any
    """

    name = "close_approaches_within"
    _column = "miss_distance_au"
    _column_type = pa.float64()

    def __init__(self, threshold_au: float = 0.2, orbiting_body: str | None = None) -> None:
        super().__init__(orbiting_body)
        self._threshold_au = threshold_au
        self._neos = self._close_approaches = self._nearer = 0

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """One for a run with ``settings``."""
        return cls(settings.within_au, settings.orbiting_body)

    def update(self, batches: Mapping[str, pa.RecordBatch]) -> None:
        """Add the rows of one page."""
        self._neos += batches["neos"].num_rows
        super().update(batches)

    def _count(self, values: pa.ChunkedArray) -> None:
        threshold_au = pa.scalar(float(self._threshold_au), pa.float64())  # typed, as above
        self._close_approaches += len(values)
        self._nearer += pc.sum(pc.less(values, threshold_au)).as_py() or 0

    def merge(self, other: Self) -> None:
        """Add the counts of ``other``, which saw other pages."""
        other._flush()
        self._neos += other._neos
        self._close_approaches += other._close_approaches
        self._nearer += other._nearer

    def result(self) -> Mapping[str, Json]:
        """``count`` of the ``close_approaches`` of ``neos`` objects are nearer than the threshold."""
        self._flush()
        return {
            "threshold_au": self._threshold_au,
            "orbiting_body": self._orbiting_body,
            "neos": self._neos,
            "close_approaches": self._close_approaches,
            "count": self._nearer,
        }

"""How many close approaches there are in each year."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, Self

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neows_async.pages.values import Json


_COUNT_PAGES: Final = 8


class CloseApproachesByYear:
    """Counts close approaches by the year of ``close_approach_date`` as the source gives it.

    :param orbiting_body: those to this body alone; None is any
    """

    name = "close_approaches_by_year"

    def __init__(self, orbiting_body: str | None = None) -> None:
        self._orbiting_body = orbiting_body
        self._count_by_year: Counter[int] = Counter()
        self._uncounted: list[pa.Array] = []

    def update(self, batches: Mapping[str, pa.RecordBatch]) -> None:
        """Add the approaches of one page. An approach without a date is in no year."""
        approaches = batches["close_approaches"]
        if self._orbiting_body is not None:
            body = pa.scalar(self._orbiting_body, pa.string())
            approaches = approaches.filter(pc.equal(approaches["orbiting_body"], body))
        self._uncounted.append(approaches["close_approach_date"])
        # Counting takes one call for many pages as it does for one; but what waits holds all of its page's approaches.
        if len(self._uncounted) == _COUNT_PAGES:
            self._count()

    def _count(self) -> None:
        years = pc.year(pa.chunked_array(self._uncounted, pa.date32()).drop_null())
        self._uncounted.clear()
        counted = pc.value_counts(years)
        for year, count in zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True):
            self._count_by_year[year] += count

    def merge(self, other: Self) -> None:
        """Take in what ``other`` counted in other pages."""
        other._count()
        self._count_by_year.update(other._count_by_year)

    def result(self) -> Mapping[str, Json]:
        """Every year present, ascending, four digits."""
        self._count()
        years: dict[str, Json] = {f"{year:04}": count for year, count in sorted(self._count_by_year.items())}
        return {"orbiting_body": self._orbiting_body, "count_by_year": years}


class CloseApproachesWithin:
    """Counts close approaches strictly below ``threshold_au`` (``miss_distance.astronomical``).

    :param orbiting_body: those to this body alone; None is any
    """

    name = "close_approaches_within"

    def __init__(self, threshold_au: float = 0.2, orbiting_body: str | None = None) -> None:
        self._threshold_au = threshold_au
        self._orbiting_body = orbiting_body
        self._neos = self._close_approaches = self._count = 0
        self._uncounted: list[pa.Array] = []

    def update(self, batches: Mapping[str, pa.RecordBatch]) -> None:
        """Add the rows of one page."""
        approaches = batches["close_approaches"]
        if self._orbiting_body is not None:
            body = pa.scalar(self._orbiting_body, pa.string())
            approaches = approaches.filter(pc.equal(approaches["orbiting_body"], body))
        self._neos += batches["neos"].num_rows
        self._close_approaches += approaches.num_rows
        self._uncounted.append(approaches["miss_distance_au"])
        # Counting takes one call for many pages as it does for one; but what waits holds all of its page's approaches.
        if len(self._uncounted) == _COUNT_PAGES:
            self._count_all()

    def _count_all(self) -> None:
        distances_au = pa.chunked_array(self._uncounted, pa.float64())
        self._uncounted.clear()
        # Without its type Arrow would look for other libraries' numbers, and import those, each time.
        threshold_au = pa.scalar(float(self._threshold_au), pa.float64())
        # An unknown distance is not below the threshold.
        self._count += pc.sum(pc.less(distances_au, threshold_au)).as_py() or 0

    def merge(self, other: Self) -> None:
        """Take in what ``other`` counted in other pages."""
        other._count_all()
        self._neos += other._neos
        self._close_approaches += other._close_approaches
        self._count += other._count

    def result(self) -> Mapping[str, Json]:
        """``neos`` and ``close_approaches`` are those that were looked at."""
        self._count_all()
        return {
            "threshold_au": self._threshold_au,
            "orbiting_body": self._orbiting_body,
            "neos": self._neos,
            "close_approaches": self._close_approaches,
            "count": self._count,
        }

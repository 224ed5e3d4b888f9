"""How many close approaches there are in each year."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Self

import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neows_async.page import Json, Page


class CloseApproachesByYear:
    """Counts close approaches by the year of ``close_approach_date`` as the source gives it.

    :param orbiting_body: those to this body alone; None is any
    """

    name = "close_approaches_by_year"

    def __init__(self, orbiting_body: str | None = None) -> None:
        self._orbiting_body = orbiting_body
        self._count_by_year: Counter[int] = Counter()

    def update(self, page: Page) -> None:
        """Fold one page. An approach without a date is in no year."""
        approaches = page.close_approaches
        if self._orbiting_body is not None:
            approaches = approaches.filter(pc.equal(approaches["orbiting_body"], self._orbiting_body))
        for entry in pc.value_counts(pc.year(approaches["close_approach_date"].drop_null())).to_pylist():
            self._count_by_year[entry["values"]] += entry["counts"]

    def merge(self, other: Self) -> None:
        """Take in what ``other`` counted in other pages."""
        self._count_by_year.update(other._count_by_year)

    def result(self) -> Mapping[str, Json]:
        """Every year present, ascending, four digits."""
        years: dict[str, Json] = {f"{year:04}": count for year, count in sorted(self._count_by_year.items())}
        return {"orbiting_body": self._orbiting_body, "count_by_year": years}

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neows_async.endpoints.browse.page_plan import plan_pages
from neows_async.errors import EmptyCatalogueError
from neows_async.pages.values import PageInfo


@pytest.mark.parametrize(
    ("total", "size", "limit", "positions", "pages"),
    [
        (41_282, 20, 200, 200, 10),
        (41_282, 20, 7, 7, 1),
        (41_282, 20, 1, 1, 1),
        (41_282, 20, 201, 201, 11),
        (41_282, 20, None, 41_282, 2_065),
        (41_282, 2, 200, 200, 100),
        (5, 20, 200, 5, 1),
        (40, 20, None, 40, 2),
    ],
)
def test_plan_for_sizes_and_limits(total: int, size: int, limit: int | None, positions: int, pages: int) -> None:
    plan = plan_pages(PageInfo(size, total, 0), limit)
    assert (plan.positions, plan.pages, plan.total_elements, plan.page_size) == (positions, pages, total, size)


def test_empty_catalogue_raises() -> None:
    with pytest.raises(EmptyCatalogueError, match="the catalogue is empty"):
        plan_pages(PageInfo(20, 0, 0), 200)


@given(st.integers(1, 50), st.integers(1, 2_000), st.none() | st.integers(1, 3_000))
def test_plan_has_exactly_the_pages_of_its_positions(size: int, total: int, limit: int | None) -> None:
    plan = plan_pages(PageInfo(size, total, 0), limit)
    positions = range(total if limit is None else min(limit, total))
    assert plan.positions == len(positions)
    assert plan.pages == len({position // size for position in positions})
    pages = len({position // size for position in range(total)})
    assert sum(PageInfo(size, total, number).announced_objects for number in range(pages)) == total

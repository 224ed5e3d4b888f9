"""The pages that a run needs, from the first page's envelope. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from neows_async.errors import EmptyCatalogueError

if TYPE_CHECKING:
    from neows_async.pages.values import PageInfo


@dataclass(frozen=True, slots=True)
class PagePlan:
    """The pages 0 … ``pages - 1``, which hold the first ``positions`` objects.

    :param total_elements: objects in the catalogue, as in the envelope
    :param page_size: objects a page, as in the responses; it may differ from the requested size
    """

    total_elements: int
    page_size: int
    positions: int

    @property
    def pages(self) -> int:
        """The number of pages that hold these positions."""
        return -(-self.positions // self.page_size)


def plan_pages(first: PageInfo, limit: int | None) -> PagePlan:
    """The plan that follows from page 0's envelope.

    :param limit: the number of Browse positions to read, from the first; None is all
    :raises EmptyCatalogueError: the catalogue has no objects
    """
    if first.total_elements == 0:
        raise EmptyCatalogueError("the catalogue is empty: page 0 announces 0 objects; nothing was written")
    positions = first.total_elements if limit is None else min(limit, first.total_elements)
    return PagePlan(first.total_elements, first.size, positions)

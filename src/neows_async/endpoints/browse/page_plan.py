"""Which pages a run needs. Pure page arithmetic, from the first page's envelope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from neows_async.errors import EmptyCatalogueError

if TYPE_CHECKING:
    from neows_async.pages.values import PageInfo


@dataclass(frozen=True, slots=True)
class PagePlan:
    """The pages 0 … ``pages - 1``, of which the first ``positions`` objects are wanted.

    :param total_elements: how many objects the catalogue said it holds
    :param page_size: of the answers, whatever was asked for
    """

    total_elements: int
    page_size: int
    positions: int

    @property
    def pages(self) -> int:
        """How many pages hold the wanted positions."""
        return -(-self.positions // self.page_size)

    @property
    def total_pages(self) -> int:
        """How many pages the whole catalogue has."""
        return -(-self.total_elements // self.page_size)


def plan_pages(first: PageInfo, limit: int | None) -> PagePlan:
    """What follows from page 0's envelope.

    :param limit: the first so many Browse positions; None is all
    :raises EmptyCatalogueError: there is nothing to fetch
    """
    if first.total_elements == 0:
        raise EmptyCatalogueError("the catalogue is empty: page 0 announces 0 objects; nothing was written")
    positions = first.total_elements if limit is None else min(limit, first.total_elements)
    return PagePlan(first.total_elements, first.size, positions)

"""Objects or record batches as they come, without a lake: what the iteration of a stream gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Self

import anyio
from anyio.lowlevel import checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from neows_async.endpoints.browse.neo import Neo
    from neows_async.lake.receipt import RecordCounts
    from neows_async.pages.values import Page
    from neows_async.pipeline.stream import PageStream


class Batches(NamedTuple):
    """The rows of one page, in Browse order: ``neos, close_approaches = batches``."""

    neos: pa.RecordBatch
    """Schema :data:`neows_async.NEOS`: one row an object."""
    close_approaches: pa.RecordBatch
    """Schema :data:`neows_async.CLOSE_APPROACHES`: those of the first object, then those of the second …"""


class _Stream:
    """What both kinds share. One task iterates at a time."""

    def __init__(self, pages: PageStream) -> None:
        self._pages = pages
        self._guard = anyio.ResourceGuard("iterating over")

    def __aiter__(self) -> Self:
        return self

    @property
    def complete(self) -> bool | Literal["unknown"] | None:
        """Whether every object of the catalogue came: None until the end, then True, False or, when the
        catalogue changed meanwhile, ``"unknown"``. It never claims more than is known.
        """
        return self._pages.complete

    @property
    def records(self) -> RecordCounts:
        """What was read until now, which is ahead of what was given out: ``seen = written + duplicates + rejected``."""
        return self._pages.records


class NeoStream(_Stream):
    """Validated objects, in Browse order. Opened by :func:`neows_async.open_neos`."""

    def __init__(self, pages: PageStream) -> None:
        super().__init__(pages)
        self._objects: Iterator[Neo] = iter(())

    async def __anext__(self) -> Neo:
        """The next object. Cancelled while it waits, it loses nothing.

        :raises NeowsError: why there are no more, after all that came before
        :raises anyio.ClosedResourceError: the block has ended
        :raises anyio.BusyResourceError: another task is waiting for the next one
        """
        from neows_async.endpoints.browse.neo import objects  # noqa: PLC0415 - loads pydantic, for those who need it

        with self._guard:
            await checkpoint()  # other tasks get their turn between any two objects
            while True:
                self._pages.check_open()
                for neo in self._objects:
                    return neo
                self._objects = objects(await _next(self._pages))


class BatchStream(_Stream):
    """Record batches, in Browse order, one pair a page. Opened by :func:`neows_async.open_batches`."""

    async def __anext__(self) -> Batches:
        """The next page's. Cancelled while it waits, it loses nothing.

        :raises NeowsError: why there are no more, after all that came before
        :raises anyio.ClosedResourceError: the block has ended
        :raises anyio.BusyResourceError: another task is waiting for the next one
        """
        with self._guard:
            await checkpoint()
            page = await _next(self._pages)
            return Batches(*page.batches.values())


async def _next(pages: PageStream) -> Page:
    page = await pages.next_page()
    if page is None:
        raise StopAsyncIteration
    return page

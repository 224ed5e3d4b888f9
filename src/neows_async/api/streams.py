"""The iterators of objects and of record batches that a stream without a lake returns."""

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
    """Schema :data:`neows_async.CLOSE_APPROACHES`: first those of the first object, then those of the second …"""


class _RecordStream:
    """The common part of both streams. Only one task may iterate at a time."""

    def __init__(self, pages: PageStream) -> None:
        self._pages = pages
        self._guard = anyio.ResourceGuard("iterating over")

    def __aiter__(self) -> Self:
        return self

    @property
    def complete(self) -> bool | Literal["unknown"] | None:
        """Whether the stream delivered every object of the catalogue.

        None before the end; then True, False, or ``"unknown"`` if the catalogue changed during the stream.
        """
        return self._pages.complete

    @property
    def records(self) -> RecordCounts:
        """Counts of the objects read so far, which may be ahead of those delivered.

        ``seen = written + duplicates + rejected``.
        """
        return self._pages.records


class NeoStream(_RecordStream):
    """Validated objects, in Browse order. Opened by :func:`neows_async.open_neos`."""

    def __init__(self, pages: PageStream) -> None:
        super().__init__(pages)
        self._objects: Iterator[Neo] = iter(())

    async def __anext__(self) -> Neo:
        """The next object. A cancellation during the wait loses no object.

        :raises NeowsError: the run failed; all objects before the failure were delivered
        :raises anyio.ClosedResourceError: the block has ended
        :raises anyio.BusyResourceError: another task iterates
        """
        from neows_async.endpoints.browse.neo import objects  # noqa: PLC0415 - it loads pydantic, which batches do not need

        with self._guard:
            await checkpoint()  # other tasks can run between any two objects
            while True:
                # In each round: the block may have ended while this task waited.
                self._pages.check_open()
                for neo in self._objects:
                    # The iterator keeps its place: the next call goes on after this object.
                    return neo
                self._objects = objects(await _next(self._pages))


class BatchStream(_RecordStream):
    """Record batches, in Browse order, one pair a page. Opened by :func:`neows_async.open_batches`."""

    async def __anext__(self) -> Batches:
        """The batches of the next page. A cancellation loses no page. Errors as of :class:`NeoStream`."""
        with self._guard:
            await checkpoint()
            page = await _next(self._pages)
            return Batches(*page.batches.values())


async def _next(pages: PageStream) -> Page:
    page = await pages.next_page()
    if page is None:
        raise StopAsyncIteration
    return page

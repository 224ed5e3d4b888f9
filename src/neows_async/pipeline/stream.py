"""Admitted pages as an iterator, without a lake."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

import anyio

from neows_async.errors import most_relevant
from neows_async.pipeline.guards import check_names
from neows_async.pipeline.page_queue import PageQueue
from neows_async.pipeline.reader import PageReader
from neows_async.pipeline.run import cancelled_within, run_events
from neows_async.telemetry import events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from neows_async.lake.receipt import RecordCounts
    from neows_async.pages.values import Page
    from neows_async.pipeline.fetch_loop import PacedSource
    from neows_async.settings import Settings


@asynccontextmanager
async def open_pages(settings: Settings, origin: PacedSource, listener: events.Listener) -> AsyncIterator[PageStream]:
    """Admitted pages without a lake, while the block runs.

    An exception of the block is raised as it is, not in a group. No task and no request outlives the block.
    """
    check_names(origin.source)
    raised: BaseException | None = None
    stream = PageStream(settings, origin, listener)
    with run_events(origin.source, listener, lambda: "stopped" if stream.complete is None else "read"):
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stream.read)
                try:
                    yield stream
                except BaseException as exc:  # noqa: BLE001 - the task group would wrap it into a group
                    raised = exc
                # First: a caller that still holds the stream gets ClosedResourceError, and never waits.
                stream.close()
                # Requests in flight are dropped: without a lake there is no place for their pages.
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as exc:
            relevant = most_relevant(exc)
            raise relevant from relevant.__cause__
        if raised is not None:
            raise raised


class PageStream:
    """Admitted pages in page order, without their JSON."""

    def __init__(self, settings: Settings, origin: PacedSource, listener: events.Listener) -> None:
        self._settings = settings
        self._listener = listener
        self._reader = PageReader(settings, origin, None, listener, drains=True)
        self._queue = PageQueue(settings.queue_neos)
        self._failure: Exception | None = None
        self._ended = self._closed = False

    async def read(self) -> None:
        """Read all pages. An error is raised by :meth:`next_page`, after the pages that were read before it."""
        try:
            async with self._reader:
                await self._reader.open(set())
                # A task group that another task cancels ends as if its work were done, so the end is recorded.
                ended = False
                async with anyio.create_task_group() as fetchers:
                    for _ in range(self._reader.fetching.tasks):
                        fetchers.start_soon(self._reader.fetching.run)
                    await self._reader.read_pages(self._queue.put)
                    ended = True
                    fetchers.cancel_scope.cancel()
                if not ended:
                    raise cancelled_within()
        except Exception as exc:  # noqa: BLE001 - next_page raises it
            relevant = most_relevant(exc)
            self._failure = relevant if isinstance(relevant, Exception) else exc
        # After the failure is set: next_page drains the queue first, then raises.
        self._queue.close()

    def close(self) -> None:
        """No more pages are returned."""
        self._closed = True

    def check_open(self) -> None:
        """:raises anyio.ClosedResourceError: the block has ended"""
        if self._closed:
            raise anyio.ClosedResourceError

    async def next_page(self) -> Page | None:
        """The next page; waits for it. None after the last one. If cancelled, no page is lost."""
        self.check_open()
        # Takes the page without an await after it, so a cancelled call loses none.
        page = await self._queue.get()
        if page is None and self._failure is not None:
            raise self._failure
        if page is None:
            self._ended = True
        else:
            self._listener(events.PageWritten(page.number, page.object_count, sum(page.approach_counts)))
        return page

    @property
    def complete(self) -> bool | Literal["unknown"] | None:
        """Whether every object of the catalogue was returned; None before the last one was."""
        return self._reader.complete if self._ended else None

    @property
    def records(self) -> RecordCounts:
        """The records read until now."""
        return self._reader.admission.tally.counts()

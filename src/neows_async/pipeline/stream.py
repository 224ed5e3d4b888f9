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
    from neows_async.pipeline.fetch_loop import Origin
    from neows_async.settings import Settings


@asynccontextmanager
async def open_pages(settings: Settings, origin: Origin, listener: events.Listener) -> AsyncIterator[PageStream]:
    """Admitted pages without a lake, for as long as the block lasts.

    What the block raises comes out as it is. When it ends, so have all tasks and requests.
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
                except BaseException as exc:  # noqa: BLE001 - the task group would wrap it into one of its own
                    raised = exc
                stream.close()
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as exc:
            the_one = most_relevant(exc)
            raise the_one from the_one.__cause__
        if raised is not None:
            raise raised


class PageStream:
    """Pages in page order, without their bodies, each as soon as it was fetched and admitted."""

    def __init__(self, settings: Settings, origin: Origin, listener: events.Listener) -> None:
        self._settings = settings
        self._listener = listener
        self._reader = PageReader(settings, origin, None, listener, drains=True)
        self._queue = PageQueue(settings.queue_neos)
        self._failure: Exception | None = None
        self._ended = self._closed = False

    async def read(self) -> None:
        """Read everything; what fails is told to whoever takes the pages, after those that came before it."""
        try:
            async with self._reader:
                await self._reader.open(set())
                ended = False
                async with anyio.create_task_group() as fetchers:
                    for _ in range(self._reader.fetching.tasks):
                        fetchers.start_soon(self._reader.fetching.run)
                    await self._reader.read_pages(self._queue.put)
                    ended = True
                    fetchers.cancel_scope.cancel()
                if not ended:
                    raise cancelled_within()
        except Exception as exc:  # noqa: BLE001 - it is raised where the next page is asked for
            the_one = most_relevant(exc)
            self._failure = the_one if isinstance(the_one, Exception) else exc
        self._queue.close()

    def close(self) -> None:
        """Nothing more is given out."""
        self._closed = True

    def check_open(self) -> None:
        """:raises anyio.ClosedResourceError: the block has ended"""
        if self._closed:
            raise anyio.ClosedResourceError

    async def next_page(self) -> Page | None:
        """The next page; waits for it. None after the last one. Cancelled, it loses nothing.

        :raises NeowsError: why there are no more
        """
        self.check_open()
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
        """Whether every object of the catalogue was given out; None before the last one was."""
        return self._reader.complete if self._ended else None

    @property
    def records(self) -> RecordCounts:
        """What was read until now."""
        return self._reader.admission.tally.counts()

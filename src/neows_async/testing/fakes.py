"""Fakes for tests: a source and a sink over lists. Pass them to a run; nothing needs to be patched."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from anyio import to_thread

from neows_async.errors import UnavailableError
from neows_async.pages.values import RawPage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from neows_async.pages.values import DatasetFile, Page
    from neows_async.protocols import Stage


class ListSource:
    """A source over a list of objects.

    :param objects: NeoWs' JSON objects, in Browse order
    :param fail: called before each response with the page's number and how often it was requested; may raise
    """

    synthetic = True

    def __init__(
        self,
        objects: Sequence[Mapping[str, Any]],
        *,
        origin: str = "list",
        fail: Callable[[int, int], None] | None = None,
    ) -> None:
        self.objects: list[Mapping[str, Any]] = list(objects)
        self.origin: str = origin
        self.asked: list[int] = []
        """The numbers of the requested pages, in order."""
        self._fail = fail

    async def fetch(self, number: int, size: int) -> RawPage:
        """Page ``number`` of ``size`` objects."""
        # Before the failure: a failed request counts as requested.
        self.asked.append(number)
        if self._fail is not None:
            self._fail(number, self.asked.count(number))
        return RawPage(number, browse_page(self.objects, number, size))


def browse_page(objects: Sequence[Mapping[str, Any]], number: int, size: int) -> bytes:
    """The JSON of Browse page ``number`` (from 0), with ``size`` of all ``objects``."""
    shown = objects[number * size : (number + 1) * size]
    pages = -(-len(objects) // size)
    info = {"size": size, "total_elements": len(objects), "total_pages": pages, "number": number}
    page = {"links": {}, "page": info, "near_earth_objects": shown}
    return json.dumps(page, ensure_ascii=False, separators=(",", ":")).encode()


class ListSink:
    """A sink that appends to lists: ``rows`` of NEOs and ``close_approaches``, as plain dictionaries.

    :param fail_after_pages: raise :class:`UnavailableError` after this number of pages; None is never
    """

    def __init__(self, name: str = "list", *, fail_after_pages: int | None = None) -> None:
        self.name: str = name
        self.pages: list[int] = []
        self.rows: list[dict[str, Any]] = []
        self.close_approaches: list[dict[str, Any]] = []
        self.commits: int = 0
        self._fail_after_pages = fail_after_pages

    async def open(self, stage: Stage) -> None:
        """Keep the snapshot's id."""
        self.snapshot: str = stage.snapshot

    async def write(self, page: Page) -> None:
        """Append the page's rows."""
        if len(self.pages) == self._fail_after_pages:
            raise UnavailableError("the list is full")
        self.pages.append(page.number)
        # In a thread: Arrow reads the system's files for the time zone.
        self.rows += await to_thread.run_sync(page.batches["neos"].to_pylist)
        self.close_approaches += await to_thread.run_sync(page.batches["close_approaches"].to_pylist)

    async def finish(self) -> Sequence[DatasetFile]:
        """Return no files: nothing was written into the stage."""
        return ()

    async def commit(self) -> None:
        """Count the call."""
        self.commits += 1

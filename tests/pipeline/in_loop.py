"""A decoder pool without threads and processes, for tests in virtual time: a thread lives in real time."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from neows_async.pages.values import StoredPage

if TYPE_CHECKING:
    from collections.abc import Callable

    from neows_async.pages.values import Page, RawPage
    from neows_async.pipeline.decoder import DecoderPool


class _InLoop:
    def __init__(self, receive: Callable[[RawPage | StoredPage, int | None], Page | StoredPage]) -> None:
        self._receive = receive

    async def receive(self, page: RawPage | StoredPage, size: int | None) -> Page | StoredPage:
        """As the pool's, in the event loop."""
        return self._receive(page, size)


def pool_in_loop(receive: Callable[[RawPage | StoredPage, int | None], Page | StoredPage]) -> DecoderPool:
    """A pool that calls ``receive`` in the event loop."""
    return cast("DecoderPool", _InLoop(receive))


def accept_any(page: RawPage | StoredPage, _: int | None) -> StoredPage:
    """Take any page for a good one."""
    return StoredPage(page.number, b"", 0, b"")

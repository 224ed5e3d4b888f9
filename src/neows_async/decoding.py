"""Where pages are checked and decoded: in threads, a few at a time, and what would hold the GIL one at a time."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import anyio
from anyio import to_thread

from neows_async.decode import check_and_decode

if TYPE_CHECKING:
    from collections.abc import Callable

    from neows_async.page import Page, RawPage

    Read = Callable[[RawPage, int | None], Page]

_T = TypeVar("_T")

AT_ONCE: Final = 2


class Decoding:
    """Threads in which pages are read.

    A page that lies as ever is read mostly without the GIL, so two of them are read at once. Any other holds
    the GIL for milliseconds: with two of those the event loop would wait for its turn twice.

    :param orbiting_body: see :func:`neows_async.decode.decode`
    """

    def __init__(self, *, orbiting_body: str | None) -> None:
        self._read: Read = partial(check_and_decode, orbiting_body=orbiting_body, alone=threading.Lock())
        self._at_once = anyio.CapacityLimiter(AT_ONCE)

    async def run(self, job: Callable[[Read], _T]) -> _T:
        """Run ``job`` in a thread. It is given the function that checks and decodes a page.

        Cancelled, it does not wait for the thread, which has nothing to give to anybody then.
        """
        return await to_thread.run_sync(job, self._read, abandon_on_cancel=True, limiter=self._at_once)

"""Where pages are checked and decoded: one after the other in a thread, or in processes of their own.

Reading JSON holds the GIL, so that however many threads there are, one page is read at a time and the event
loop waits its turn. When pages come faster than that, helpers are started: processes that find a scrubbed body
in memory which they share with us, and put the columns in its place. They are a matter of speed alone. A helper that
dies, hangs or cannot be started is done without: its page is decoded here, by the same function.

Nothing outlives the ``async with``.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self, TypeVar

import anyio
import msgspec
import pyarrow as pa
from anyio import to_thread

from neows_async.endpoints.browse.check import attaching_body, judged, scrubbed
from neows_async.endpoints.browse.decode import decode_checked, decode_checked_batch
from neows_async.pages.stored import StoredPage
from neows_async.pages.values import RawPage
from neows_async.pipeline.decode_worker import PLACE_BYTES, DecodeWorker, NotReadError, handed_over_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from neows_async.pages.redact import Redactor
    from neows_async.pages.values import Page

_T = TypeVar("_T")
# So many pages that had to wait for another one are worth the third of a second that starting takes.
_WAITED_PAGES: Final = 12
_WORTH_PAGES: Final = 150  # the same, of pages that need not be waited for
# A helper that was asked so often has enough to do while what is decoded here is.
_ENOUGH: Final = 2
_GRACE_S: Final = 0.4


class DecoderPool:
    """One page after the other in this process, and in each helper.

    :param helpers: so many processes at most, started when pages have to wait
    :param orbiting_body: see :func:`neows_async.endpoints.browse.decode.decode`
    :param keeps: what is judged is to be kept: a helper that has it in hand makes it what is kept, too
    :param spends: nobody will ask for the body of a page that was decoded
    :param busy: whether this process is at other work beside its event loop. Two threads at work and the loop would
        take the GIL from each other at each step, and a helper its processor: what a helper can do is left to it then
    """

    def __init__(
        self,
        *,
        helpers: int,
        orbiting_body: str | None,
        keeps: bool = False,
        spends: bool = False,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._to_start = helpers
        self._orbiting_body = orbiting_body
        self._keeps = keeps
        self._spends = spends
        self._busy = busy
        self._one_here = anyio.CapacityLimiter(1)
        # To start and to end them. Not the program's own threads, which may all be busy with what is not ours.
        self._seeing_to_helpers = anyio.CapacityLimiter(1)
        self._waited = 0
        self._helpers: list[DecodeWorker] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        def end() -> None:
            for helper in self._helpers:
                helper.end()

        if self._helpers:
            with anyio.move_on_after(_GRACE_S, shield=True):
                await to_thread.run_sync(end, abandon_on_cancel=True, limiter=self._seeing_to_helpers)

    async def scrubbed(self, came: RawPage, scrubber: Redactor) -> RawPage:
        """:func:`neows_async.endpoints.browse.check.scrubbed`."""
        if isinstance(came, StoredPage):  # no thread need be asked to say that it is
            return came
        body = scrubber.at_once(came.body)
        if body is None:
            return await self._here(lambda: scrubbed(came, scrubber))
        # Not what its source says that it decodes to.
        return RawPage(came.number, body, came.rate_limit)

    async def judged(self, raw: RawPage, size: int | None, *, decoded: bool) -> RawPage:
        """:func:`neows_async.endpoints.browse.check.judged`.

        :param decoded: the page is wanted soon: decode it, too
        :raises BadPageError: as that does
        """
        helper = await self._helper_for([raw]) if decoded else None
        if helper is not None:
            with attaching_body(raw):
                pages = await self._ask(helper, [raw], size, keep=self._keeps)
            if pages is not None:
                return pages[0].raw.with_decoded(self._given(pages[0]))
        return await self._here(lambda: judged(raw, size, self._read if decoded else None))

    async def judged_together(self, kept: Sequence[StoredPage], size: int) -> list[RawPage]:
        """The same of several pages in one go, for what each costs by itself; all of them are decoded.

        :raises BadPageError: one of them is none
        """
        helper = await self._helper_for(kept)
        if helper is not None and helper.asked >= _ENOUGH and self._one_here.available_tokens and not self._busy():
            helper = None  # nothing else is to be done here that would have to wait
        pages = None if helper is None else await self._ask(helper, kept, size)
        if pages is None:
            pages = await self._here(lambda: decode_checked_batch(kept, size, orbiting_body=self._orbiting_body))
        return [raw.with_decoded(self._given(page)) for raw, page in zip(kept, pages, strict=True)]

    async def read(self, raw: RawPage) -> Page:
        """:func:`neows_async.endpoints.browse.decode.decode_checked` of a page of any size.

        :raises BadPageError: as that does
        """
        helper = await self._helper_for([raw])
        pages = None if helper is None else await self._ask(helper, [raw], None)
        return self._given(pages[0]) if pages is not None else await self._here(lambda: self._read(raw, None))

    def _read(self, raw: RawPage, size: int | None) -> Page:
        return self._given(decode_checked(raw, size, orbiting_body=self._orbiting_body))

    def _given(self, page: Page) -> Page:
        return page.spent() if self._spends else page

    async def _here(self, job: Callable[[], _T]) -> _T:
        return await to_thread.run_sync(job, abandon_on_cancel=True, limiter=self._one_here)

    async def _helper_for(self, raws: Sequence[RawPage]) -> DecodeWorker | None:
        """The least busy one; None while there is none, and for bodies that are too large for any."""
        if self._to_start:
            self._waited += self._one_here.available_tokens < 1
            if self._waited >= _WAITED_PAGES:
                await self._start()
        if handed_over_bytes(raws) > PLACE_BYTES:
            return None
        ready = [helper for helper in self._helpers if helper.alive and helper.is_ready()]
        return min(ready, key=lambda helper: helper.asked, default=None)

    async def expect(self, pages: int) -> None:
        """So many come as fast as they can be read: if they are worth helpers, those are started now."""
        if pages >= _WORTH_PAGES:
            await self._start()

    async def _start(self) -> None:
        helpers, self._to_start = self._to_start, 0
        with suppress(OSError):  # then it goes on as it did
            for _ in range(helpers):
                helper = DecodeWorker(self._orbiting_body)
                await to_thread.run_sync(helper.start, limiter=self._seeing_to_helpers)
                self._helpers.append(helper)

    async def _ask(
        self, helper: DecodeWorker, raws: Sequence[RawPage], size: int | None, *, keep: bool = False
    ) -> list[Page] | None:
        """None if it gave no answer, and will give none, or if it leaves them to us."""
        if handed_over_bytes(raws) > PLACE_BYTES:  # scrubbed one may be longer than it came
            return None
        try:
            return await helper.ask(raws, size, keep=keep)
        except NotReadError:
            return None
        except (OSError, EOFError, ValueError, msgspec.MsgspecError, pa.ArrowException):
            helper.alive = False  # before its memory goes, so that nobody else looks there
            await to_thread.run_sync(helper.end, limiter=self._seeing_to_helpers)
            return None

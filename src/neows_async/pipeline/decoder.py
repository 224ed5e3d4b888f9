"""Where pages are received and decoded: one after the other in a thread, or in worker processes.

Decoding JSON holds the interpreter's lock, so with any number of threads one page is decoded at a time. If pages arrive
faster than that, worker processes are started. They make a run faster and change nothing else: a page whose worker
dies, hangs or cannot be started is decoded here, by the same function.

No process outlives the ``async with``.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self, TypeVar

import anyio
import msgspec
import pyarrow as pa
from anyio import to_thread

from neows_async.endpoints.browse.receive import Receiver
from neows_async.lake.async_storage import RELEASE_S
from neows_async.pipeline.decode_worker import DeclinedError, DecodeWorker, fits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from neows_async.endpoints.browse.receive import ReceiveOptions
    from neows_async.pages.values import Page, RawPage, StoredPage

_T = TypeVar("_T")
# Starting a worker takes a third of a second, which is worth it after this many pages had to wait for another one …
_WAITED_PAGES: Final = 12
_WORTH_PAGES: Final = 150  # … or if this many are to be read from an archive.
# A worker with this many requests is busy while a page is decoded here.
_BUSY_REQUESTS: Final = 2


class DecoderPool:
    """One page after the other in this process, and in each worker.

    :param workers: start at most this many processes, once pages have to wait
    """

    def __init__(self, options: ReceiveOptions, *, workers: int) -> None:
        self._options = options
        self._receiver = Receiver(options)
        self._to_start = workers
        self._one_here = anyio.CapacityLimiter(1)
        # Threads of our own to start and end workers: those of the program around us may all be busy.
        self._starting = anyio.CapacityLimiter(1)
        self._waited = 0
        self._workers: list[DecodeWorker] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        def end() -> None:
            for worker in self._workers:
                worker.end()

        if self._workers:
            # Bounded: the thread goes on, and a worker ends with its socket anyway.
            with anyio.move_on_after(RELEASE_S, shield=True):
                await to_thread.run_sync(end, abandon_on_cancel=True, limiter=self._starting)

    async def receive(self, page: RawPage | StoredPage, size: int | None) -> Page:
        """:meth:`neows_async.endpoints.browse.receive.Receiver.receive`."""
        pages = await self._in_worker([page], size)
        return pages[0] if pages else await self._here(lambda: self._receiver.receive(page, size))

    async def receive_batch(self, pages: Sequence[StoredPage], size: int) -> list[Page]:
        """:meth:`neows_async.endpoints.browse.receive.Receiver.receive_batch`."""
        if decoded := await self._in_worker(pages, size):
            return decoded
        return await self._here(lambda: self._receiver.receive_batch(pages, size))

    async def check(self, page: RawPage | StoredPage, size: int | None) -> StoredPage:
        """:meth:`neows_async.endpoints.browse.receive.Receiver.check`, for a page that is decoded later."""
        return await self._here(lambda: self._receiver.check(page, size))

    async def expect(self, pages: int) -> None:
        """Start the workers now if ``pages``, which arrive as fast as they are decoded, are worth it."""
        if pages >= _WORTH_PAGES:
            await self._start()

    async def _here(self, job: Callable[[], _T]) -> _T:
        # May be abandoned: decoding is pure, so a late result is dropped and does no harm.
        return await to_thread.run_sync(job, abandon_on_cancel=True, limiter=self._one_here)

    async def _in_worker(self, pages: Sequence[RawPage | StoredPage], size: int | None) -> list[Page] | None:
        """None if no worker decodes them: then it is done here."""
        worker = await self._worker()
        if worker is None or not fits(pages):
            return None
        try:
            # A bad page is declined, never reported by the worker: the main process finds the reason, with the exact
            # path.
            return await worker.decode(pages, size)
        except DeclinedError:
            return None
        except (OSError, EOFError, ValueError, msgspec.MsgspecError, pa.ArrowException):
            worker.abandon()  # before its memory is released, so that no other request reads there
            await to_thread.run_sync(worker.end, limiter=self._starting)
            return None

    async def _worker(self) -> DecodeWorker | None:
        """The least busy worker; None if there is none, or if decoding here is sooner."""
        is_free = self._one_here.available_tokens > 0
        # Only pages that had to wait are counted: without a queue a worker gains nothing.
        if self._to_start:
            self._waited += not is_free
            if self._waited >= _WAITED_PAGES:
                await self._start()
        ready = [worker for worker in self._workers if worker.alive and worker.is_ready()]
        # The fewest requests: a slow page delays only its own worker's queue.
        least = min(ready, key=lambda worker: worker.requests, default=None)
        return None if least is None or (is_free and least.requests >= _BUSY_REQUESTS) else least

    async def _start(self) -> None:
        # Zero first: the start awaits, and another task must not start them a second time.
        workers, self._to_start = self._to_start, 0
        with suppress(OSError):  # then pages are decoded here
            for _ in range(workers):
                worker = DecodeWorker(self._options)
                await to_thread.run_sync(worker.start, limiter=self._starting)
                # Only after the start: end() needs the process.
                self._workers.append(worker)

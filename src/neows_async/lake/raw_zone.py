"""The raw zone: the ledger of what was fetched. Everything downstream is a pure function of it."""

from __future__ import annotations

import re
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import anyio
from anyio import to_thread

from neows_async.endpoints.browse import envelope
from neows_async.errors import BadPageError, DataError, NotFoundError
from neows_async.lake import layout
from neows_async.lake.lake import are_synthetic, receipt_or_none, unfinished_or_none
from neows_async.pages.stored import StoredPage, is_sound, read_stored, store
from neows_async.pages.values import SpentPage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from neows_async.lake.async_storage import AsyncStorage
    from neows_async.pages.values import RawPage

_NAME: Final = re.compile(r"page=(\d+)\.json\.zst")
_BAD_KEPT: Final = 5
MOMENT_S: Final = 0.3  # so long what is paid for is waited for, though its run was cancelled
_MADE_UP: Final = b"(SANDBOX "  # in the name of each object of the sandbox


class RawZone:
    """The pages of one generation of one snapshot.

    :param keeps_late: whether what came is still kept when its run is cancelled: not once the snapshot is another's
    """

    def __init__(
        self,
        lake: AsyncStorage,
        snapshot: str,
        *,
        max_body_bytes: int,
        generation: int = 0,
        keeps_late: Callable[[], bool] = lambda: True,
    ) -> None:
        self._lake = lake
        self._snapshot = snapshot
        self._generation = generation
        self._folder = layout.raw_folder(snapshot, generation)
        self.max_body_bytes = max_body_bytes
        self.keeps_late = keeps_late
        self._bad: deque[str] = deque()
        self._bad_seen = 0

    def next_generation(self) -> RawZone:
        """Where the pages of the next generation lie."""
        return RawZone(
            self._lake,
            self._snapshot,
            max_body_bytes=self.max_body_bytes,
            generation=self._generation + 1,
            keeps_late=self.keeps_late,
        )

    async def counted(self) -> set[int]:
        """The numbers of the pages that lie there, durable."""

        def count() -> set[int]:  # without a list of all, which of ten thousand pages takes ten megabytes
            names = (entry.key.rpartition("/")[2] for entry in self._lake.storage.list(self._folder))
            return {int(found[1]) for name in names if (found := _NAME.fullmatch(name))}

        return await self._lake.call(self._folder, count)

    async def put(self, page: RawPage, *, lingers: bool = True) -> StoredPage:
        """When this returns, the page is durable and is never asked for again.

        It must have been checked and scrubbed. What is as it is kept already is written so.

        :param lingers: cancelled, it still waits for a moment, since the page's request is spent
        :returns: the page as it is kept, which takes a fifth of the memory
        """
        key = self.key(page.number)
        began, ended = threading.Event(), threading.Event()

        def put() -> StoredPage:
            began.set()
            try:
                kept = _kept(page)
                self._lake.storage.put(key, kept.data)
                return kept
            finally:
                ended.set()

        try:
            kept = await self._lake.call(key, put)
        except anyio.get_cancelled_exc_class():
            if lingers:
                with anyio.move_on_after(MOMENT_S, shield=True), suppress(Exception):
                    if began.is_set():  # the thread goes on, but the program may end before it
                        await to_thread.run_sync(ended.wait, MOMENT_S, abandon_on_cancel=True)
                    elif self.keeps_late():
                        await self._lake.call(key, put)
            raise
        return kept

    async def get(self, number: int, size: int | None = None) -> RawPage:
        """The page, whole and right.

        :param size: the objects to a page that it must tell of; None takes any
        :raises NotFoundError: it does not lie there
        :raises BadPageError: it cannot be read any more, or is of another size; it still lies there
        """

        def judged() -> RawPage:
            page = self._read(number)
            envelope.check(page.body, number, size)
            return page

        return await self._lake.call(self.key(number), judged)

    async def get_unchecked(self, number: int) -> RawPage:
        """What lies there, for who judges it anyway; not expanded yet if it is sealed.

        :raises NotFoundError: nothing lies there
        :raises BadPageError: it is damaged, as far as that shows
        """
        return await self._lake.call(self.key(number), lambda: self._read(number))

    async def get_several_unjudged(self, numbers: Sequence[int]) -> list[RawPage]:
        """The same of each, read one after the other; for the price of one where that is little."""
        return await self._lake.call(self.key(numbers[0]), lambda: [self._read(number) for number in numbers])

    def _read(self, number: int) -> RawPage:
        data = self._lake.storage.get(self.key(number), max_bytes=self.max_body_bytes)
        return read_stored(number, data, self.max_body_bytes)

    async def set_aside(self, number: int) -> None:
        """Take a page that cannot be read out of the ledger; it is kept until the snapshot is committed."""
        try:
            await self._lake.move(self.key(number), f"{layout.staging_folder(self._snapshot)}/damaged/{number:05}.zst")
        except NotFoundError:
            return

    async def keep_bad(self, number: int, body: bytes) -> None:
        """Keep a scrubbed body that was no page, for inspection: the last five, until the commit."""
        if not body:
            return
        self._bad_seen += 1
        key = f"{layout.staging_folder(self._snapshot)}/bad/{self._bad_seen:04}-page={number:05}.body"
        self._bad.append(key)
        await self._lake.put(key, body)
        if len(self._bad) > _BAD_KEPT:
            await self._lake.delete(self._bad.popleft())

    def key(self, number: int) -> str:
        """Where page ``number`` lies, or would."""
        return f"{self._folder}/page={number:05}.json.zst"


def _kept(page: RawPage) -> StoredPage:
    if isinstance(page, StoredPage) and is_sound(page):
        return page
    if page.decoded is None:
        return store(page, page.sha256())
    kept = store(page, page.decoded.body_sha256)
    spent = isinstance(page.decoded.raw, SpentPage)
    return kept.with_decoded(page.decoded if spent else replace(page.decoded, raw=kept))


@dataclass(frozen=True, slots=True)
class RawLocation:
    """Where the raw pages of a snapshot lie.

    :param named: the snapshot asked for, by its id
    :param snapshot: whose raw zone they are in: that one, or the one it was rebuilt from
    :param limit: what that snapshot was limited to
    """

    named: str
    snapshot: str
    synthetic: bool
    limit: int | None


async def find_raw(lake: AsyncStorage, snapshot: str, *, max_body_bytes: int = 64 << 20) -> RawLocation:
    """The raw pages behind ``snapshot``, committed or not; ``latest`` is the latest one's.

    Also those of which no receipt and no note is left: whose they are, the rest of the lake says, or their text.

    :raises NotFoundError: there is no such snapshot, or it kept no raw pages
    :raises DataError: its first page cannot be read, and nothing else says whether its objects are made up
    """
    receipt = await receipt_or_none(lake, snapshot)
    if receipt is not None:
        if receipt.raw.snapshot is None:
            raise NotFoundError(f"snapshot {receipt.snapshot} was made without an archive; it has no raw pages")
        return RawLocation(
            receipt.snapshot, receipt.raw.snapshot, receipt.source.synthetic, receipt.identity.get("limit")
        )
    unfinished = await unfinished_or_none(lake, snapshot)
    if unfinished is not None:
        return RawLocation(snapshot, snapshot, unfinished.synthetic, unfinished.identity.get("limit"))
    zone = RawZone(lake, snapshot, max_body_bytes=max_body_bytes)
    if snapshot == "latest" or not await zone.counted():
        raise NotFoundError(f"{lake.uri} has no snapshot {snapshot}; see its _runs/ and raw/ folders")
    synthetic = await are_synthetic(lake)
    if synthetic is None:
        try:
            synthetic = _MADE_UP in (await zone.get(0)).body
        except BadPageError as exc:
            raise DataError(f"{lake.uri}: {zone.key(0)} is damaged ({exc}); restore it, or fetch anew") from exc
    return RawLocation(snapshot, snapshot, synthetic, None)

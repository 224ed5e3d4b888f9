"""The raw zone: every page that was received, as received but redacted. All else is computed from it.

A page is durable, and never requested again, as soon as :meth:`RawZone.put` returns.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio
from anyio import to_thread

from neows_async.endpoints.browse import envelope
from neows_async.errors import BadPageError, DataError, NotFoundError
from neows_async.lake import layout
from neows_async.lake.lake import AsyncLake
from neows_async.pages.stored import json_of, read_stored
from neows_async.pages.values import StoredPage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from neows_async.lake.async_storage import AsyncStorage
    from neows_async.lake.storage.interface import Storage
    from neows_async.pages.values import PageInfo, RawPage

_NAME: Final = re.compile(r"page=(\d+)\.json\.zst")
_BAD_PAGES: Final = 5
LATE_S: Final = 0.3
"""How long a cancelled run waits until a page that was received is stored: its request is spent."""
_SYNTHETIC_NAME: Final = b"(SANDBOX "  # in the name of each object of the sandbox


class RawZone:
    """The pages of one generation of one snapshot.

    :param stores_late: whether a page that was received is stored although the run was cancelled; False once another
        run owns the snapshot
    """

    def __init__(
        self,
        storage: AsyncStorage,
        snapshot: str,
        *,
        max_body_bytes: int,
        generation: int = 0,
        stores_late: Callable[[], bool] = lambda: True,
    ) -> None:
        self._storage = storage
        self._snapshot = snapshot
        self._generation = generation
        self._folder = layout.raw_folder(snapshot, generation)
        self.max_body_bytes = max_body_bytes
        self.stores_late = stores_late
        self._bad: deque[str] = deque()
        self._bad_seen = 0

    def next_generation(self) -> RawZone:
        """The zone of the next generation's pages."""
        # Another folder: pages of two states of the catalogue are never mixed.
        return RawZone(
            self._storage,
            self._snapshot,
            max_body_bytes=self.max_body_bytes,
            generation=self._generation + 1,
            stores_late=self.stores_late,
        )

    async def page_numbers(self) -> set[int]:
        """The numbers of the pages that are stored."""

        def count(storage: Storage) -> set[int]:
            # Not a list of all entries, which for ten thousand pages takes ten megabytes.
            names = (entry.key.rpartition("/")[2] for entry in storage.list(self._folder))
            return {int(found[1]) for name in names if (found := _NAME.fullmatch(name))}

        return await self._storage.use(self._folder, count)

    async def put(self, page: StoredPage, *, lingers: bool = True) -> None:
        """Store a page. When this returns it is durable.

        :param lingers: when cancelled, still wait :data:`LATE_S` until the page is stored
        """
        key = self.key(page.number)
        # The thread outlives a cancelled caller, so the two events show how far it is.
        began, ended = threading.Event(), threading.Event()

        def put(storage: Storage) -> None:
            began.set()
            try:
                storage.put(key, page.data)
            finally:
                ended.set()

        try:
            await self._storage.use(key, put)
        except anyio.get_cancelled_exc_class():
            if lingers:
                # Bounded: a cancelled run ends within a second, even if the storage hangs.
                with anyio.move_on_after(LATE_S, shield=True), suppress(Exception):
                    if began.is_set():  # the thread goes on, but the program may end before it
                        await to_thread.run_sync(ended.wait, abandon_on_cancel=True)
                    # The thread never began: cancelled while it waited for a free one. Do not write if another run
                    # owns the snapshot.
                    elif self.stores_late():
                        await self._storage.use(key, put)
            raise

    async def get(self, number: int, size: int | None = None) -> StoredPage | RawPage:
        """A page, checked: its frame, its JSON, its number and its size.

        :param size: the page size that the run was planned with; None accepts any
        :raises NotFoundError: it is not stored
        :raises BadPageError: it cannot be read, or has another size; it is still stored
        """

        def checked(storage: Storage) -> StoredPage | RawPage:
            page = self._read(storage, number)
            envelope.check(_json_of(page), number, size)
            return page

        return await self._storage.use(self.key(number), checked)

    async def info(self, number: int) -> PageInfo:
        """The envelope of a page, checked as by :meth:`get`."""
        return await self._storage.use(
            self.key(number), lambda storage: envelope.check(_json_of(self._read(storage, number)), number)
        )

    async def get_unchecked(self, numbers: Sequence[int]) -> list[StoredPage | RawPage]:
        """Pages for a caller that checks them, read one after the other; not decompressed if they are sealed."""
        return await self._storage.use(
            self.key(numbers[0]), lambda storage: [self._read(storage, number) for number in numbers]
        )

    def _read(self, storage: Storage, number: int) -> StoredPage | RawPage:
        data = storage.get(self.key(number), max_bytes=self.max_body_bytes)
        return read_stored(number, data, self.max_body_bytes)

    async def set_aside(self, number: int) -> None:
        """Move a page that cannot be read out of the zone; the file is kept until the snapshot is committed."""
        # Moved, not deleted: the bytes may show what damaged them. The page counts as not stored from here on.
        target = f"{layout.staging_folder(self._snapshot)}/damaged/{number:05}.zst"
        with suppress(NotFoundError):
            await self._storage.move(self.key(number), target)

    async def put_bad(self, number: int, body: bytes) -> None:
        """Keep a redacted body that was not a page, for inspection: the last five, until the commit."""
        if not body:
            return
        self._bad_seen += 1
        key = f"{layout.staging_folder(self._snapshot)}/bad/{self._bad_seen:04}-page={number:05}.body"
        # Before the write: if that fails, the key is still deleted with the others.
        self._bad.append(key)
        await self._storage.put(key, body)
        if len(self._bad) > _BAD_PAGES:
            await self._storage.delete(self._bad.popleft())

    def key(self, number: int) -> str:
        """The key of page ``number``, stored or not."""
        return f"{self._folder}/page={number:05}.json.zst"


def _json_of(page: StoredPage | RawPage) -> bytes:
    return json_of(page) if isinstance(page, StoredPage) else page.body


@dataclass(frozen=True, slots=True)
class RawLocation:
    """Where the raw pages of a snapshot are stored.

    :param named: the requested snapshot, by its id
    :param snapshot: the one whose raw zone has them: the requested one, or the one it was rebuilt from
    :param limit: of that snapshot
    """

    named: str
    snapshot: str
    synthetic: bool
    limit: int | None


async def find_raw(storage: AsyncStorage, snapshot: str, *, max_body_bytes: int = 64 << 20) -> RawLocation:
    """The raw pages behind ``snapshot``, committed or not; ``latest`` is the latest committed one.

    Raw pages without a receipt and a run note are found, too. The lake's other snapshots, or the first page, show
    whether they are synthetic.

    :raises NotFoundError: there is no such snapshot, or it has no raw pages
    :raises DataError: its first page cannot be read, and nothing else shows whether its objects are synthetic
    """
    lake = AsyncLake(storage)
    receipt = await lake.find_receipt(snapshot)
    if receipt is not None:
        if receipt.raw.snapshot is None:
            raise NotFoundError(f"snapshot {receipt.snapshot} was made without an archive; it has no raw pages")
        return RawLocation(
            receipt.snapshot, receipt.raw.snapshot, receipt.source.synthetic, receipt.identity.get("limit")
        )
    # No receipt: a run may still be fetching. Its stored pages are durable and never change.
    unfinished = await lake.run_note(snapshot)
    if unfinished is not None:
        return RawLocation(snapshot, snapshot, unfinished.synthetic, unfinished.identity.get("limit"))
    zone = RawZone(storage, snapshot, max_body_bytes=max_body_bytes)
    if snapshot == "latest" or not await zone.page_numbers():
        raise NotFoundError(f"{storage.uri} has no snapshot {snapshot}; see its _runs/ and raw/ folders")
    # Without receipt and note, as after a manual copy. A wrong guess would mix real and synthetic objects.
    synthetic = await lake.is_synthetic()
    if synthetic is None:
        try:
            synthetic = _SYNTHETIC_NAME in _json_of(await zone.get(0))
        except BadPageError as exc:
            raise DataError(
                f"{storage.uri}: {zone.key(0)} is damaged ({exc}); restore it, or fetch the snapshot again"
            ) from exc
    return RawLocation(snapshot, snapshot, synthetic, None)

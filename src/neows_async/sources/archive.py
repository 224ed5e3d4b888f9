"""The raw zone of an earlier snapshot as a source: rebuilds without a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neows_async.errors import BadPageError, DataError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neows_async.lake.raw_zone import RawZone
    from neows_async.pages.values import RawPage, StoredPage


class ArchiveSource:
    """Pages of a raw zone.

    :param snapshot: the one that they belong to
    :param synthetic: as in that snapshot's receipt
    """

    def __init__(self, zone: RawZone, *, snapshot: str, synthetic: bool) -> None:
        self._zone = zone
        self._snapshot = snapshot
        self.origin: str = f"snapshot={snapshot}"
        self.synthetic = synthetic

    async def next_generation(self) -> bool:
        """Go on to the pages of the next generation; False if there are none."""
        zone = self._zone.next_generation()
        if not await zone.page_numbers():
            return False
        # Only if it has pages: otherwise the last generation stays, and the run ends with it.
        self._zone = zone
        return True

    async def fetch(self, number: int, size: int) -> RawPage | StoredPage:  # noqa: ARG002 - a stored page has the size that it has
        """Page ``number``."""
        try:
            return (await self._zone.get_unchecked([number]))[0]
        except NotFoundError as exc:
            raise UnavailableError(f"the raw zone of snapshot {self._snapshot} has no page {number}") from exc
        except BadPageError as exc:
            raise self.damaged(number, exc) from exc

    async def fetch_several(self, numbers: Sequence[int], size: int) -> Sequence[RawPage | StoredPage]:  # noqa: ARG002 - as above
        """Several pages, read one after the other."""
        return await self._zone.get_unchecked(numbers)

    def damaged(self, number: int, exc: BadPageError) -> DataError:
        """The error for page ``number``, which is not the page that was stored."""
        return DataError(f"raw page {number} of snapshot {self._snapshot} is damaged ({exc}); fetch the snapshot again")

"""The raw zone of an earlier snapshot as a source: rebuilds without a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neows_async.errors import BadPageError, DataError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neows_async.lake.raw_zone import RawZone
    from neows_async.pages.values import RawPage


class ArchiveSource:
    """Pages as they were kept.

    :param snapshot: whose raw pages they are
    :param synthetic: as that snapshot's receipt says
    """

    def __init__(self, zone: RawZone, *, snapshot: str, synthetic: bool) -> None:
        self._zone = zone
        self._snapshot = snapshot
        self.origin: str = f"snapshot={snapshot}"
        self.synthetic = synthetic

    async def next_generation(self) -> bool:
        """Go on to the pages of the next generation; False if there are none."""
        zone = self._zone.next_generation()
        if not await zone.counted():
            return False
        self._zone = zone
        return True

    async def fetch(self, number: int, size: int) -> RawPage:  # noqa: ARG002 - the archive's pages have the size they have
        """Page ``number``.

        :raises UnavailableError: it was never fetched
        :raises DataError: it cannot be read any more
        """
        try:
            return await self._zone.get_unchecked(number)
        except NotFoundError as exc:
            raise UnavailableError(f"the raw zone of snapshot {self._snapshot} has no page {number}") from exc
        except BadPageError as exc:
            raise self.damaged(number, exc) from exc

    async def fetch_several(self, numbers: Sequence[int], size: int) -> Sequence[RawPage]:  # noqa: ARG002 - as above
        """Each of these, read one after the other.

        :raises NotFoundError: one was never fetched
        :raises BadPageError: one cannot be read any more
        """
        return await self._zone.get_several_unjudged(numbers)

    def damaged(self, number: int, exc: BadPageError) -> DataError:
        """What it means that page ``number`` is none."""
        return DataError(f"raw page {number} of snapshot {self._snapshot} is damaged ({exc}); fetch the snapshot again")

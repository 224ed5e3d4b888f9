"""The objects that could not be read: taken out again, and judged anew after a fix, without a request."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from neows_async.endpoints.browse.neo import Neo, Unreadable, parse
from neows_async.errors import DataError, NotFoundError, SettingsError
from neows_async.lake.lake import AsyncLake
from neows_async.pages.values import Rejected
from neows_async.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from neows_async.lake.async_storage import AsyncStorage
    from neows_async.lake.receipt import Receipt

_CHUNK_BYTES: Final = 1 << 20


async def read_rejected(lake: AsyncStorage, receipt: Receipt, take: Callable[[Rejected], None]) -> None:
    """Hand each rejected object of a snapshot to ``take``, in page order; in memory are some at a time.

    :param take: called in a worker thread, never concurrently with itself
    :raises DataError: the quarantine is not what the receipt says
    """
    for file in receipt.files:
        if file.dataset == "quarantine":
            try:
                async with lake.open_input(file.path) as opened:
                    read = _Lines(opened, file.path, take)
                    while await lake.call(file.path, read.some):
                        pass
            except NotFoundError as exc:
                raise DataError(f"{lake.uri}: {file.path} is gone; 'neows-async verify' tells what else is") from exc


class _Lines:
    def __init__(self, opened: BinaryIO, path: str, take: Callable[[Rejected], None]) -> None:
        self._opened = opened
        self._path = path
        self._take = take
        self._number = 0

    def some(self) -> bool:
        """The next lines; False if there are none."""
        lines = self._opened.readlines(_CHUNK_BYTES)
        for line in lines:
            self._number += 1
            try:
                entry = Rejected(**json.loads(line))
            except (ValueError, TypeError) as exc:
                raise DataError(f"{self._path}: line {self._number} is damaged; rebuild the snapshot") from exc
            self._take(entry)
        return bool(lines)


def rejection_reason(entry: Rejected) -> str | None:
    """Why the object cannot be read by this version; None if it can."""
    try:
        Neo.from_value(parse(entry.raw.encode()))
    except Unreadable as exc:
        return exc.reason
    except ValueError:
        return "not JSON"
    return None


@dataclass(frozen=True, slots=True)
class Replay:
    """What judging the rejected objects of a snapshot anew comes to.

    :param rejected: how many there are
    :param readable: the Browse positions of those that can be read now
    """

    receipt: Receipt
    rejected: int
    readable: tuple[int, ...]


async def plan_replay(lake: AsyncStorage, snapshot: str) -> Replay:
    """Judge the rejected objects of ``snapshot`` again. Nothing is written, and nothing asked for.

    :raises NotFoundError: there is no such committed snapshot
    :raises DataError: its quarantine is damaged
    """
    receipt = await AsyncLake(lake).receipt(snapshot)
    rejected = 0
    readable: list[int] = []

    def take(entry: Rejected) -> None:
        nonlocal rejected
        rejected += 1
        if rejection_reason(entry) is None:
            readable.append(entry.position)

    await read_rejected(lake, receipt, take)
    return Replay(receipt, rejected, tuple(readable))


def settings_to_rebuild(receipt: Receipt, known: Sequence[str]) -> Settings:
    """The settings by which a snapshot is made from its raw pages again; root and operation are not among them.

    :param known: the names of the sinks and aggregators and the types of the aggregate writers that
        are ours: a receipt says what somebody else's are called, not where they come from
    :raises SettingsError: it has no raw pages, or was made with a part of somebody else's
    """
    again = f"'neows-async run --source archive --from-snapshot {receipt.snapshot}' with it makes it again"
    if receipt.raw.snapshot is None:
        raise SettingsError(
            f"snapshot {receipt.snapshot} was made with --no-archive: where its objects stood in the catalogue is not "
            "kept, so that only a new run can put in what is missing"
        )
    made_with = receipt.derivation
    names: list[Any] = [*made_with.get("sinks", ()), *made_with.get("aggregators", ())]
    for name in [*names, made_with.get("aggregate_writer")]:
        if name not in known:
            raise SettingsError(f"snapshot {receipt.snapshot} was made with {name}, which is not one of ours; {again}")
    chosen = {name: made_with[name] for name in Settings.DERIVATION if name in made_with}
    identity = {name: receipt.identity[name] for name in ("page_size", "limit") if name in receipt.identity}
    return Settings(**chosen, **identity, max_missing_pages=None)

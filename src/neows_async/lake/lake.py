"""What a lake has written down of its snapshots: receipts, and the notes and intents of those that are unfinished.

::

    _runs/<id>.json             the receipt: the snapshot exists
    _runs/latest.json           the receipt of the latest one
    _staging/<id>/run.json      the note of the run that began it: it is unfinished
    _staging/<id>/commit.json   the intent: the receipt that it is about to have
    _staging/<id>/removed.json  it was one of these, and is being removed
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from pydantic import BaseModel, ValidationError

from neows_async.errors import DataError, NotFoundError
from neows_async.lake import layout
from neows_async.lake.receipt import Receipt, RunNote
from neows_async.settings import SNAPSHOT_ID

if TYPE_CHECKING:
    from neows_async.lake.async_storage import AsyncStorage

_MAX_JSON_BYTES: Final = 64 << 20
_Record = TypeVar("_Record", bound=BaseModel)


def run_key(snapshot: str) -> str:
    """What makes an id taken."""
    return f"{layout.staging_folder(snapshot)}/run.json"


def commit_key(snapshot: str) -> str:
    """The receipt-to-be."""
    return f"{layout.staging_folder(snapshot)}/commit.json"


async def unfinished_ids(lake: AsyncStorage) -> list[str]:
    """The ids of the snapshots that were begun and are still in the staging folder, ascending."""
    keys = [entry.key for entry in await lake.list("_staging")]
    parts = [key.split("/") for key in keys]
    return sorted({snapshot for _, snapshot, *rest in parts if rest == ["run.json"]})


async def read_receipt(lake: AsyncStorage, snapshot: str) -> Receipt:
    """The receipt of a committed snapshot; ``latest`` is the latest one's.

    :raises NotFoundError: there is no such snapshot
    :raises DataError: it is damaged
    """
    receipt = await receipt_or_none(lake, snapshot) if SNAPSHOT_ID.fullmatch(snapshot) else None
    if receipt is None:
        what = "no snapshot yet" if snapshot == "latest" else f"no committed snapshot {snapshot}"
        raise NotFoundError(f"{lake.uri} has {what}")
    return receipt


async def receipt_or_none(lake: AsyncStorage, snapshot: str) -> Receipt | None:
    """The receipt of ``snapshot``; None if it is not committed.

    :raises DataError: it is damaged
    """
    return await _read(lake, layout.receipt_key(snapshot), Receipt)


async def unfinished_or_none(lake: AsyncStorage, snapshot: str) -> RunNote | None:
    """What the run that began ``snapshot`` noted; None if nobody did, or it is committed and tidied up.

    :raises DataError: it is damaged
    """
    return await _read(lake, run_key(snapshot), RunNote)


async def intent_or_none(lake: AsyncStorage, snapshot: str) -> Receipt | None:
    """The receipt that ``snapshot`` is about to have; None if its commit was not begun.

    :raises DataError: it is damaged
    """
    return await _read(lake, commit_key(snapshot), Receipt)


async def is_half_removed(lake: AsyncStorage, snapshot: str) -> bool:
    """Whether somebody began to remove ``snapshot`` and did not come to the end."""
    try:
        await lake.get(layout.removal_key(snapshot), max_bytes=_MAX_JSON_BYTES)
    except NotFoundError:
        return False
    return True


async def are_synthetic(lake: AsyncStorage) -> bool | None:
    """Whether the objects of the lake are made up, as its snapshots say; None if there is none that could.

    :raises DataError: a receipt or a note is damaged
    """
    latest = await receipt_or_none(lake, "latest")
    if latest is not None:
        return latest.source.synthetic
    synthetic = None
    for snapshot in await unfinished_ids(lake):
        unfinished = await unfinished_or_none(lake, snapshot)
        synthetic = unfinished.synthetic if unfinished else synthetic
    return synthetic


async def _read(lake: AsyncStorage, key: str, type_: type[_Record]) -> _Record | None:
    try:
        return type_.model_validate_json(await lake.get(key, max_bytes=_MAX_JSON_BYTES))
    except NotFoundError:
        return None
    except ValidationError as exc:
        where = ".".join(str(part) for part in exc.errors()[0]["loc"])
        raise DataError(f"{lake.uri}: {key} is damaged ({where or 'not JSON'}); restore it, or move it away") from exc

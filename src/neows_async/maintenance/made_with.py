"""What a receipt says a snapshot was made with, as settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from neows_async.errors import DataError
from neows_async.lake.layout import receipt_key
from neows_async.settings import Settings

if TYPE_CHECKING:
    from neows_async.lake.receipt import Receipt


def settings_of(receipt: Receipt, **others: Any) -> Settings:
    """The settings that decided, with the raw pages, what was written.

    :param others: more settings; they are not in receipts, or not checked when a snapshot is rebuilt
    :raises DataError: the receipt has settings that no run can have
    """
    recorded = {name: receipt.derivation[name] for name in Settings.DERIVATION if name in receipt.derivation}
    try:
        return Settings(**recorded, **others)
    except ValidationError as exc:
        [first, *_] = exc.errors()
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{receipt_key(receipt.snapshot)}: {where}: {first['msg']}") from exc

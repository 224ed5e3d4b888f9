"""Keys: relative, ``/``-separated names of objects, checked before any call uses them."""

from __future__ import annotations

import re
from typing import Final

from neows_async.errors import StorageError

TEMPORARY: Final = re.compile(r"\.neows-[0-9a-f]{16}\.tmp")  # an unfinished local write; never a key


def key_parts(key: str) -> tuple[str, ...]:
    """The folders and the name of ``key``.

    Keys also come from receipts, which a user may have edited: no key leaves the root.

    :raises StorageError: it is empty, absolute, or has a part that is empty, ``.``, ``..`` or the name of an
        unfinished write
    """
    parts = tuple(key.split("/"))
    for part in parts:
        if part in ("", ".", "..") or "\0" in part or TEMPORARY.fullmatch(part):
            raise StorageError(
                f"{key!r} is not a key; use a relative path without '.' or '..', such as _runs/latest.json"
            )
    return parts


def folder_parts(prefix: str) -> tuple[str, ...]:
    """The parts of the folder ``prefix``. A final ``/`` makes no difference; ``""`` is the root."""
    folder = prefix.removesuffix("/")
    return key_parts(folder) if folder else ()

"""Keys: relative, ``/``-separated names of objects, checked before they touch a disk or a wire."""

from __future__ import annotations

import re
from typing import Final

from neows_async.errors import StorageError

TEMPORARY: Final = re.compile(r"\.neows-[0-9a-f]{16}\.tmp")  # an unfinished local write; never a key


def key_parts(key: str) -> tuple[str, ...]:
    """The folders of ``key`` and its name.

    Keys come from receipts too, which anybody may have edited: nothing leaves the root.

    :raises StorageError: it is empty, absolute, or has a part that is empty, ``.`` or ``..``, or
        that only an unfinished write may be called
    """
    parts = tuple(key.split("/"))
    for part in parts:
        if part in ("", ".", "..") or "\0" in part or TEMPORARY.fullmatch(part):
            raise StorageError(
                f"{key!r} is not a key: want a relative path without '.' or '..', such as _runs/latest.json"
            )
    return parts


def folder_parts(prefix: str) -> tuple[str, ...]:
    """The parts of the folder ``prefix``; a final ``/`` means nothing, ``""`` is the root.

    :raises StorageError: as for :func:`key_parts`
    """
    folder = prefix.removesuffix("/")
    return key_parts(folder) if folder else ()

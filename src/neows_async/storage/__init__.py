"""The storage seam: the same verbs for a folder and for an object store."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from neows_async.errors import SettingsError
from neows_async.storage.local import LocalStorage

if TYPE_CHECKING:
    from neows_async.protocols import Storage

__all__ = ["LocalStorage", "open_storage"]

_URI: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://.*", re.DOTALL)


def open_storage(uri: str, *, durable: bool = True) -> Storage:
    """The storage that ``uri`` names: a path such as ``data/``, or ``file:///srv/lake``.

    :param durable: False skips a local lake's syncs, which are its cost
    :raises SettingsError: the URI is not understood
    :raises StorageError: the root cannot be what it should be
    """
    match = _URI.fullmatch(uri)
    if match is None:
        if not uri:
            raise SettingsError("the root is empty; give a folder such as data/, or a URI such as s3://bucket/prefix")
        return LocalStorage(Path(uri), durable=durable)
    scheme = match[1].lower()
    if scheme == "file":
        return LocalStorage(_file_path(uri), durable=durable)
    raise SettingsError(f"{scheme}:// is no storage that is known; give a folder, file:///… or s3://bucket/prefix")


def _file_path(uri: str) -> Path:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost") or not parts.path or parts.query or parts.fragment:
        raise SettingsError(f"{uri} is not understood; give file:// and an absolute path, such as file:///srv/lake")
    return Path(unquote(parts.path))

"""The storage seam: the same verbs for a folder and for an object store."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from neows_async.errors import SettingsError
from neows_async.lake.storage.local import LocalStorage

if TYPE_CHECKING:
    from neows_async.lake.storage.interface import Storage

__all__ = ["LocalStorage", "location", "open_storage"]

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_OBJECT_STORES: Final = ("s3", "gs", "az")
_KNOWN: Final = "a folder such as data/, file:///…, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"


def open_storage(uri: str, *, durable: bool = True) -> Storage:
    """The storage that ``uri`` names.

    A path such as ``data/`` or ``file:///srv/lake``;
    ``s3://bucket/prefix?region=…&endpoint_override=…``; ``gs://bucket/prefix``;
    ``az://container/prefix``. For an object store **the environment is read** (credentials,
    profile, region, endpoint), see :func:`neows_async.lake.storage.uris.open_object_storage`;
    nothing is sent yet.

    :param durable: False skips a local lake's syncs, to measure what they cost
    :raises SettingsError: the URI is not understood, or its extra is not installed
    :raises StorageError: a local root cannot be a folder
    """
    match = _SCHEME.match(uri)
    if match is None:
        if not uri or uri.partition(":")[0].lower() in ("file", *_OBJECT_STORES):
            raise SettingsError(f"the root {uri!r} is not understood; give {_KNOWN}")
        return LocalStorage(Path(uri), durable=durable)
    scheme = match[1].lower()
    if scheme == "file":
        return LocalStorage(_file_path(uri), durable=durable)
    if scheme not in _OBJECT_STORES:
        raise SettingsError(f"{scheme}:// is no storage that is known; give {_KNOWN}")
    try:
        from neows_async.lake.storage.uris import open_object_storage  # noqa: PLC0415 - an extra brings its client
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] != "obstore":
            raise
        raise SettingsError(f"{scheme}:// needs a package that is not installed; install neows-async[s3]") from exc
    return open_object_storage(uri)


def location(uri: str) -> str:
    """``uri`` as other programs name the place: without a query, which only a URI has, and without a slash at its end.

    A folder may have a question mark in its name.
    """
    return (uri.partition("?")[0] if _SCHEME.match(uri) else uri).rstrip("/")


def _file_path(uri: str) -> Path:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost") or not parts.path or parts.query or parts.fragment:
        raise SettingsError(f"{uri} is not understood; give file:// and an absolute path, such as file:///srv/lake")
    return Path(unquote(parts.path))

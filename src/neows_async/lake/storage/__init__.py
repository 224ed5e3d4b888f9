"""The storage below a lake: the same calls for a local folder and for an object store.

::

    interface.py       Storage: what every storage does                     (start here)
    keys.py            the names of objects, checked

    local.py           LocalStorage: a folder                  object_store.py   ObjectStorage: S3, Google, Azure
    local_files.py     its files while written and read        uris.py           opens one from a URI
    folders.py         folders, fsync, rename                  aws_profile.py    credentials of an AWS profile
    file_lock.py       lock: flock                             lease.py          lock: an object that expires
    disk_errors.py     errno -> StorageError                   object_errors.py  response -> StorageError

Blocking throughout; :class:`~neows_async.lake.async_storage.AsyncStorage` calls it in threads.

It promises: an object is whole or absent, whenever the process dies; ``create`` succeeds for exactly one of several
creators; a lock has one live owner; an error is one line that names the object, the cause and the remedy.
``neows_async.testing.StorageConformance`` tests these promises for any storage, also one of your own.

Only this package imports obstore, and only for a URI that needs it.
"""

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
    no request is sent yet.

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
        raise SettingsError(f"{scheme}:// is no known storage; give {_KNOWN}")
    try:
        from neows_async.lake.storage.uris import open_object_storage  # noqa: PLC0415 - an extra brings its client
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] != "obstore":
            raise
        raise SettingsError(f"{scheme}:// needs a package that is not installed; install neows-async[s3]") from exc
    return open_object_storage(uri)


def location(uri: str) -> str:
    """``uri`` as other programs name the place: without a URI's options, and without a slash at the end.

    The name of a local folder may contain a question mark, so a path is not cut there.
    """
    return (uri.partition("?")[0] if _SCHEME.match(uri) else uri).rstrip("/")


def _file_path(uri: str) -> Path:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost") or not parts.path or parts.query or parts.fragment:
        raise SettingsError(f"{uri} is not understood; give file:// and an absolute path, such as file:///srv/lake")
    return Path(unquote(parts.path))

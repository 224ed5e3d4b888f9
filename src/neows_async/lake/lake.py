"""A lake as its records describe it: receipts, and the notes of unfinished snapshots.

::

    _runs/<id>.json             the receipt: the snapshot exists
    _runs/latest.json           a copy of the latest snapshot's receipt
    _staging/<id>/run.json      the note of the run that began the snapshot: it is unfinished
    _staging/<id>/commit.json   the commit intent: the receipt that the snapshot is about to get
    _staging/<id>/removed.json  the receipt or note of a snapshot that is being removed

:class:`Lake` is for readers: public, blocking, committed snapshots only. :class:`AsyncLake` is for runs and
maintenance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from pydantic import BaseModel, ValidationError

from neows_async.errors import DataError, NotFoundError
from neows_async.lake import layout
from neows_async.lake.receipt import Receipt, RunNote
from neows_async.lake.storage import location, open_storage
from neows_async.settings import SNAPSHOT_ID

if TYPE_CHECKING:
    from collections.abc import Iterable

    from neows_async.lake.async_storage import AsyncStorage
    from neows_async.lake.storage.interface import ObjectInfo, Storage

# A damaged or foreign object must not fill the memory.
_MAX_JSON_BYTES: Final = 64 << 20
_Record = TypeVar("_Record", bound=BaseModel)


def open_lake(uri: str) -> Lake:
    """The lake at ``uri``: a folder, or a URI as :func:`~neows_async.open_storage` understands it.

    :raises SettingsError: the URI is not understood, or its extra is not installed
    :raises StorageError: a local root cannot be a folder
    """
    return Lake(open_storage(uri))


class Lake:
    """The committed snapshots of a lake, for readers. Blocking; any thread may call it.

    Each call reads the storage again. A committed snapshot never changes, but ``prune`` may remove it.

    :raises StorageError: from each call: the lake could not be read
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @property
    def uri(self) -> str:
        """The root as a user would write it."""
        return self._storage.uri

    def latest(self) -> Receipt | None:
        """The receipt of the latest snapshot; None if the lake has no snapshot.

        :raises DataError: the receipt is damaged
        """
        return self._find("latest")

    def receipt(self, snapshot: str = "latest") -> Receipt:
        """The receipt of the committed snapshot with the id ``snapshot``.

        :raises NotFoundError: there is no such snapshot
        :raises DataError: the receipt is damaged
        """
        # Checked first: the id becomes part of a key, and a user may type anything.
        found = self._find(snapshot) if SNAPSHOT_ID.fullmatch(snapshot) else None
        return _existing(self.uri, snapshot, found)

    def snapshots(self) -> list[str]:
        """The ids of all committed snapshots, ascending as text."""
        return _committed_ids(self._storage.list(layout.RECEIPTS))

    def path(self, dataset: str, snapshot: str = "latest") -> str:
        """The folder or URI in which the files of ``dataset`` are, such as ``data/neos/snapshot=2026-11-22``.

        Without a slash at the end and without the URI's options. DuckDB, Polars and pandas read
        ``<path>/**/*.parquet``.

        :raises NotFoundError: there is no such snapshot, or it has no file of that dataset
        :raises DataError: the receipt is damaged
        """
        receipt = self.receipt(snapshot)
        datasets = sorted({file.dataset for file in receipt.files})
        if dataset not in datasets:
            raise NotFoundError(
                f"{self.uri}: snapshot {receipt.snapshot} has no dataset {dataset}; it has {', '.join(datasets)}"
            )
        return f"{location(self.uri)}/{layout.dataset_folder(dataset, receipt.snapshot)}"

    def _find(self, snapshot: str) -> Receipt | None:
        key = layout.receipt_key(snapshot)
        try:
            data = self._storage.get(key, max_bytes=_MAX_JSON_BYTES)
        except NotFoundError:
            return None
        return _parsed(self.uri, key, data, Receipt)


class AsyncLake:
    """The records of a lake, for runs and maintenance.

    :raises StorageError: from each call: the lake could not be read
    :raises DataError: from each call that reads a record: the record is damaged
    """

    def __init__(self, storage: AsyncStorage) -> None:
        self._storage = storage

    async def latest(self) -> Receipt | None:
        """The receipt of the latest snapshot; None if the lake has no snapshot."""
        return await self.find_receipt("latest")

    async def receipt(self, snapshot: str) -> Receipt:
        """The receipt of a committed snapshot; ``latest`` is the latest snapshot's."""
        found = await self.find_receipt(snapshot) if SNAPSHOT_ID.fullmatch(snapshot) else None
        return _existing(self._storage.uri, snapshot, found)

    async def find_receipt(self, snapshot: str) -> Receipt | None:
        """The receipt of ``snapshot``; None if it is not committed."""
        return await self._read(layout.receipt_key(snapshot), Receipt)

    async def run_note(self, snapshot: str) -> RunNote | None:
        """The note of the run that began ``snapshot``; None if there is no such run, or after the commit's cleanup."""
        return await self._read(layout.run_note_key(snapshot), RunNote)

    async def commit_intent(self, snapshot: str) -> Receipt | None:
        """The receipt that ``snapshot`` is about to get; None if its commit did not begin."""
        return await self._read(layout.commit_key(snapshot), Receipt)

    async def committed_ids(self) -> list[str]:
        """The ids of all receipts, ascending."""
        return _committed_ids(await self._storage.list(layout.RECEIPTS))

    async def unfinished_ids(self) -> list[str]:
        """The ids of the snapshots that have a run's note, ascending."""
        parts = [entry.key.split("/") for entry in await self._storage.list(layout.STAGING)]
        # Only run.json counts: a lock or a leftover file alone is nothing that a run could resume.
        return sorted({snapshot for _, snapshot, *rest in parts if rest == ["run.json"]})

    async def is_half_removed(self, snapshot: str) -> bool:
        """Whether the removal of ``snapshot`` began and did not end."""
        # Existence is enough: prune writes this object before its first deletion, and deletes it last.
        try:
            await self._storage.get(layout.removal_key(snapshot), max_bytes=_MAX_JSON_BYTES)
        except NotFoundError:
            return False
        return True

    async def is_synthetic(self) -> bool | None:
        """Whether the lake's objects are made up, by its receipts and notes; None if it has neither."""
        # The latest receipt decides alone: no lake mixes both kinds, so one is enough.
        latest = await self.latest()
        if latest is not None:
            return latest.source.synthetic
        synthetic = None
        for snapshot in await self.unfinished_ids():
            note = await self.run_note(snapshot)
            synthetic = note.synthetic if note else synthetic
        return synthetic

    async def _read(self, key: str, type_: type[_Record]) -> _Record | None:
        try:
            data = await self._storage.get(key, max_bytes=_MAX_JSON_BYTES)
        except NotFoundError:
            return None
        return _parsed(self._storage.uri, key, data, type_)


def _parsed(uri: str, key: str, data: bytes, type_: type[_Record]) -> _Record:
    try:
        return type_.model_validate_json(data)
    except ValidationError as exc:
        where = ".".join(str(part) for part in exc.errors()[0]["loc"])
        # Never treated as absent: a run would then begin a snapshot that already exists.
        raise DataError(f"{uri}: {key} is damaged ({where or 'not JSON'}); restore it, or move it away") from exc


def _existing(uri: str, snapshot: str, receipt: Receipt | None) -> Receipt:
    if receipt is None:
        what = "no snapshot yet" if snapshot == "latest" else f"no committed snapshot {snapshot}"
        raise NotFoundError(f"{uri} has {what}")
    return receipt


def _committed_ids(receipts: Iterable[ObjectInfo]) -> list[str]:
    keys = [entry.key for entry in receipts]
    names = [key.removeprefix(f"{layout.RECEIPTS}/").removesuffix(".json") for key in keys if key.endswith(".json")]
    # latest.json is a copy, not a snapshot.
    return sorted(name for name in names if SNAPSHOT_ID.fullmatch(name) and name != "latest")

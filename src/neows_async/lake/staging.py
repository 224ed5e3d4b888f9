"""The files of a snapshot before its commit."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Self

import anyio
from anyio import to_thread

from neows_async.lake.async_storage import RELEASE_S
from neows_async.lake.layout import dataset_folder, staged_key
from neows_async.pages.values import DatasetFile

if TYPE_CHECKING:
    from neows_async.lake.async_storage import AsyncStorage
    from neows_async.lake.storage.interface import OutputFile


class LakeStage:
    """A :class:`~neows_async.protocols.Stage` that keeps its files below ``_staging/<id>/files/`` until the commit."""

    def __init__(self, storage: AsyncStorage, snapshot: str) -> None:
        self._storage = storage
        self._outputs: list[OutputFile] = []
        self.snapshot = snapshot

    async def open(self, dataset: str, path: str) -> LakeFile:
        """Begin the file that will be ``<dataset>/snapshot=<id>/<path>``."""
        final_key = f"{dataset_folder(dataset, self.snapshot)}/{path}"
        output = await self._storage.open_output(staged_key(self.snapshot, final_key))
        # Registered before the first write, so that __aexit__ also discards a file whose sink failed.
        self._outputs.append(output)
        return LakeFile(self._storage, output, dataset, final_key)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Discard the unfinished files, also when cancelled. What remains is removed by the next run."""

        def abort() -> None:
            for output in self._outputs:
                output.abort()  # no effect on a file that was finished

        # Shielded, but bounded: a storage that hangs must not keep a cancelled run alive.
        with anyio.move_on_after(RELEASE_S, shield=True):
            # Not through call(): its thread limit may be used up by the very calls that hang.
            await to_thread.run_sync(abort, abandon_on_cancel=True)


class LakeFile:
    """A :class:`~neows_async.protocols.StagedFile` of a :class:`LakeStage`."""

    def __init__(self, storage: AsyncStorage, output: OutputFile, dataset: str, final_key: str) -> None:
        self._storage = storage
        self._output = output
        self._dataset = dataset
        self._final_key = final_key
        self._sha256 = hashlib.sha256()
        self._bytes = 0

    async def write(self, data: bytes) -> None:
        """Append ``data``."""

        def append() -> None:
            self._output.write(data)
            # Hashed in the same thread as the write: the event loop stays free.
            self._sha256.update(data)

        await self._storage.call(self._final_key, append)
        # After the write: a failed write ends the run, so the digest and the size never disagree in a receipt.
        self._bytes += len(data)

    async def finish(self, rows: int | None) -> DatasetFile:
        """Make the file durable under its staged key, and describe it."""
        await self._storage.call(self._final_key, self._output.close)
        return DatasetFile(self._dataset, self._final_key, rows, self._bytes, self._sha256.hexdigest())

"""Stores rejected objects: one JSON line for each, with the reason and the object's own text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neows_async.pages.values import DatasetFile, Page
    from neows_async.protocols import Stage, StagedFile


class QuarantineSink:
    """Writes ``quarantine/snapshot=<id>/rejected.jsonl``; no file if nothing was rejected."""

    name = "quarantine"

    def __init__(self) -> None:
        self._stage: Stage | None = None
        self._file: StagedFile | None = None
        self._lines = 0

    async def open(self, stage: Stage) -> None:
        """Called once, before the first page."""
        self._stage = stage

    async def write(self, page: Page) -> None:
        """Write the page's rejected objects. The file is begun with the first one."""
        if not page.rejected:
            return
        if self._file is None:
            if self._stage is None:
                raise RuntimeError("write before open")
            self._file = await self._stage.open("quarantine", "rejected.jsonl")
        lines = [json.dumps(entry.as_json(), ensure_ascii=False) + "\n" for entry in page.rejected]
        await self._file.write("".join(lines).encode())
        self._lines += len(lines)

    async def finish(self) -> Sequence[DatasetFile]:
        """Make the file durable, if there is one."""
        return () if self._file is None else (await self._file.finish(self._lines),)

    async def commit(self) -> None:
        """Do nothing: the snapshot's commit renames the file."""

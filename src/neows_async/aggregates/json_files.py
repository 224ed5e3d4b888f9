"""Writes aggregates as JSON files, one each: what a website fetches as it lies."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from neows_async.page import DatasetFile, Json
    from neows_async.protocols import Stage


class JsonAggregates:
    """``aggregates/snapshot=<id>/<name>.json``."""

    async def write(self, stage: Stage, results: Mapping[str, Mapping[str, Json]]) -> Sequence[DatasetFile]:
        """Equal results give equal bytes.

        :raises StorageError: nothing of this snapshot will be visible
        """
        files = []
        for name, result in results.items():
            staged = await stage.open("aggregates", f"{name}.json")
            await staged.write(json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n")
            files.append(await staged.finish(None))
        return files

"""Writers of aggregates: one JSON or CSV file for each aggregate."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from neows_async.pages.values import DatasetFile, Json
    from neows_async.protocols import Stage


class CsvAggregates:
    """``aggregates/snapshot=<id>/<name>.csv``, a line a figure: its dotted name and its value."""

    async def write(self, stage: Stage, results: Mapping[str, Mapping[str, Json]]) -> Sequence[DatasetFile]:
        """Equal results give equal bytes.

        :raises StorageError: nothing of this snapshot will be visible
        """
        files = []
        for name, result in results.items():
            text = io.StringIO()
            lines = csv.writer(text, lineterminator="\n")
            rows = [("figure", "value"), *_figures(result, "")]
            lines.writerows(rows)
            staged = await stage.open("aggregates", f"{name}.csv")
            await staged.write(text.getvalue().encode())
            files.append(await staged.finish(len(rows) - 1))
        return files


def _figures(value: Json | Mapping[str, Json], path: str) -> Iterator[tuple[str, Json]]:
    if isinstance(value, Mapping):
        for name, beneath in value.items():
            yield from _figures(beneath, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for index, beneath in enumerate(value):
            yield from _figures(beneath, f"{path}.{index}")
    else:
        yield path, value


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

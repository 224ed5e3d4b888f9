"""Writes aggregates as CSV files, one each: for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neows_async.page import DatasetFile, Json
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

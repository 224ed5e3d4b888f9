"""Writers of aggregates: one JSON or CSV file for each. Equal results give equal bytes."""

from __future__ import annotations

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from neows_async.pages.values import DatasetFile, Json
    from neows_async.protocols import Stage


class _AggregateFiles(ABC):
    _suffix: ClassVar[str]

    async def write(self, stage: Stage, results: Mapping[str, Mapping[str, Json]]) -> Sequence[DatasetFile]:
        """Write one file for each named result."""
        files = []
        for name, result in results.items():
            data, rows = self._encode(result)
            staged = await stage.open("aggregates", f"{name}.{self._suffix}")
            await staged.write(data)
            files.append(await staged.finish(rows))
        return files

    @abstractmethod
    def _encode(self, result: Mapping[str, Json]) -> tuple[bytes, int | None]:
        """A file's content and its number of rows; None if it has no rows."""


class JsonAggregates(_AggregateFiles):
    """``aggregates/snapshot=<id>/<name>.json``."""

    _suffix = "json"

    def _encode(self, result: Mapping[str, Json]) -> tuple[bytes, int | None]:
        return json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n", None


class CsvAggregates(_AggregateFiles):
    """``aggregates/snapshot=<id>/<name>.csv``: one row for each figure, with its dotted name and its value."""

    _suffix = "csv"

    def _encode(self, result: Mapping[str, Json]) -> tuple[bytes, int | None]:
        text = io.StringIO()
        rows = list(_figures(result, ""))
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(("figure", "value"))
        lines.writerows(rows)
        return text.getvalue().encode(), len(rows)


def _figures(value: Json | Mapping[str, Json], path: str) -> Iterator[tuple[str, Json]]:
    if isinstance(value, Mapping):
        for name, below in value.items():
            yield from _figures(below, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _figures(below, f"{path}.{index}")
    else:
        yield path, value

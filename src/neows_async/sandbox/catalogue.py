"""What the imitation serves: made-up objects, or recorded pages."""

from __future__ import annotations

import functools
import gzip
import json
import re
from typing import TYPE_CHECKING, Any, Final, Protocol

import zstandard

from neows_async.errors import SettingsError
from neows_async.sandbox.objects import synthetic_object

if TYPE_CHECKING:
    from pathlib import Path

_PAGE: Final = re.compile(r"page[_=]?(\d+)\.json(\.gz|\.zst)?")


class Catalogue(Protocol):
    """Objects in Browse order."""

    @property
    def total(self) -> int:
        """How many there are."""

    def objects(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Those of the positions ``start`` up to ``stop``, as far as there are; ``links`` are added by the server."""


class SyntheticCatalogue:
    """Objects that follow from ``seed``.

    :param approaches: exactly so many an object, for pages of a known size; None is as in nature
    """

    def __init__(self, neos: int, seed: int = 1, *, approaches: int | None = None) -> None:
        self.total = neos
        self._seed = seed
        self._approaches = approaches

    def objects(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Made when they are asked for."""
        return [
            synthetic_object(self._seed, index, approaches=self._approaches)
            for index in range(start, min(stop, self.total))
        ]


class RecordedPages:
    """The objects of recorded pages, ``page_NNNNN.json``, ``.json.gz`` or ``.json.zst``, in the pages' order.

    :raises SettingsError: there are none, or one cannot be read
    """

    def __init__(self, folder: Path) -> None:
        files = sorted(
            (int(found[1]), file) for file in _files(folder) if (found := _PAGE.fullmatch(file.name)) is not None
        )
        if not files:
            raise SettingsError(f"--pages {folder} has no page_NNNNN.json, .json.gz or .json.zst")
        if [number for number, _ in files] != list(range(len(files))):
            raise SettingsError(f"--pages {folder}: the pages are not numbered 0 to {len(files) - 1} without a gap")
        self._files = [file for _, file in files]
        # Only as many as are being read are held; of the rest only how many objects they have.
        self._page = functools.lru_cache(maxsize=8)(self._read)
        self._starts = [0]
        for number in range(len(files)):
            self._starts.append(self._starts[-1] + len(self._page(number)))
        self.total = self._starts[-1]

    def objects(self, start: int, stop: int) -> list[dict[str, Any]]:
        """As they were recorded."""
        found: list[dict[str, Any]] = []
        for number in range(len(self._files)):
            first, beyond = self._starts[number], self._starts[number + 1]
            if first < stop and beyond > start:
                found += self._page(number)[max(0, start - first) : max(0, stop - first)]
        return found

    def _read(self, number: int) -> list[dict[str, Any]]:
        file = self._files[number]
        try:
            data = file.read_bytes()
            if file.suffix == ".gz":
                data = gzip.decompress(data)
            elif file.suffix == ".zst":
                data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
            objects: list[dict[str, Any]] = json.loads(data)["near_earth_objects"]
        except (OSError, EOFError, ValueError, KeyError, TypeError, zstandard.ZstdError) as exc:
            raise SettingsError(f"--pages: {file} is no recorded Browse page: {exc}") from exc
        return objects


def _files(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as exc:
        raise SettingsError(f"--pages {folder} cannot be read: {exc.strerror or exc}") from exc

"""The objects that the sandbox serves, in Browse order: synthetic ones, recorded pages, or a catalogue that changes."""

from __future__ import annotations

import functools
import gzip
import random
import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
import zstandard

from neows_async.endpoints.browse import envelope
from neows_async.errors import BadPageError, SettingsError
from neows_async.sandbox.synthetic import MOST_OBJECTS, synthetic_object

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from neows_async.sandbox.scenario import Change

_PAGE: Final = re.compile(r"page[_=]?(\d+)\.json(\.gz|\.zst)?")
# The first index of the synthetic objects that a change adds.
_NEW_INDEX: Final = 9_000_000
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_id = msgspec.json.Decoder(str)


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One object.

    :param body: its JSON without ``links``, which depend on the request
    """

    id: str
    body: bytes


class Catalogue(Protocol):
    """Objects in Browse order. Several threads read it at once."""

    @property
    def total(self) -> int:
        """The number of objects in the totals of each page."""

    def entries(self, start: int, stop: int) -> list[CatalogueEntry]:
        """The objects at positions ``start`` to ``stop``, exclusive; fewer at the end of the catalogue."""


class SyntheticCatalogue:
    """Objects made from ``seed`` and their position, on request.

    :param approaches: close approaches of each object, for pages of a known size; None draws a natural number
    :raises SettingsError: more objects than there are ids
    """

    def __init__(self, neos: int = 41_282, seed: int = 1, *, approaches: int | None = None) -> None:
        if not 0 <= neos <= _NEW_INDEX:
            raise SettingsError(f"a synthetic catalogue has 0 to {_NEW_INDEX:,} objects, not {neos:,}")
        self.total: int = neos
        self._seed = seed
        self._approaches = approaches

    def entries(self, start: int, stop: int) -> list[CatalogueEntry]:
        """The same bytes for the same seed and position, in a catalogue of any size."""
        return [_synthetic(self._seed, index, self._approaches) for index in range(start, min(stop, self.total))]


class RecordedPages:
    """The objects of recorded pages, ``page_NNNNN.json``, ``.json.gz`` or ``.json.zst``, in the pages' order.

    Each object keeps its recorded bytes, except its ``links``.

    :param announced_total: the total in each page, e.g. 41,282 for a recording of the first pages only; later
        pages are then short or empty. None is the number of recorded objects
    :raises SettingsError: there are no pages, or one cannot be read
    """

    def __init__(self, folder: Path, *, announced_total: int | None = None) -> None:
        files = sorted(
            (int(found[1]), file) for file in _files(folder) if (found := _PAGE.fullmatch(file.name)) is not None
        )
        if not files:
            raise SettingsError(f"--pages {folder} has no page_NNNNN.json, .json.gz or .json.zst")
        if [number for number, _ in files] != list(range(len(files))):
            raise SettingsError(f"--pages {folder}: the pages are not numbered 0 to {len(files) - 1} without a gap")
        self._files = [file for _, file in files]
        # Only a few pages are in memory; of the others, only the number of objects.
        self._page = functools.lru_cache(maxsize=8)(self._read)
        self._starts = [0]
        for number in range(len(files)):
            self._starts.append(self._starts[-1] + len(self._page(number)))
        self.total: int = self._starts[-1] if announced_total is None else announced_total

    def entries(self, start: int, stop: int) -> list[CatalogueEntry]:
        """The recorded objects."""
        found: list[CatalogueEntry] = []
        # The page that holds position ``start``: the last page that begins at or before it.
        number = bisect_right(self._starts, start) - 1
        while number < len(self._files) and self._starts[number] < min(stop, self.total):
            first = self._starts[number]
            found += self._page(number)[max(0, start - first) : min(stop, self.total) - first]
            number += 1
        return found

    def _read(self, number: int) -> list[CatalogueEntry]:
        file = self._files[number]
        try:
            data = file.read_bytes()
            if file.suffix == ".gz":
                data = gzip.decompress(data)
            elif file.suffix == ".zst":
                data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
            _, objects = envelope.split(data)
        except (OSError, EOFError, zstandard.ZstdError, BadPageError) as exc:
            raise SettingsError(f"--pages: {file} is not a recorded Browse page: {exc}") from exc
        return [_recorded(raw) for raw in objects]


class ChangingCatalogue:
    """``base``, changed while clients read it. Each request gets a view that no longer changes.

    :param changes: each is made once, when it is due, in this order
    """

    def __init__(self, base: Catalogue, changes: Sequence[Change], seed: int) -> None:
        self._base = base
        self._seed = seed
        self._due = list(changes)
        self._applied = 0
        # Positions in the base. Negative numbers are added objects: -1 is the first.
        self._order: Sequence[int] = range(base.total)
        self._new = 0

    def view(self, requests: int, elapsed_s: float) -> Catalogue:
        """The catalogue after ``requests`` requests and ``elapsed_s`` seconds."""
        while self._due and self._due[0].is_due(requests, elapsed_s):
            self._apply(self._due.pop(0))
        # A page in the making keeps its view, whatever changes meanwhile.
        return self._base if not self._applied else _Reordered(self._base, self._order, self._seed)

    def _apply(self, change: Change) -> None:
        order = list(self._order)
        if change.remove:
            del order[change.position : change.position + change.remove]
        new = [-1 - self._new - number for number in range(change.add)]
        order[change.position : change.position] = new
        if change.shuffle:
            random.Random(f"{self._seed}:shuffle:{self._applied}").shuffle(order)  # noqa: S311 - not a secret
        # Replaced, never changed: views of earlier requests read the old list in other threads.
        self._order = order
        self._new += change.add
        self._applied += 1


@dataclass(frozen=True, slots=True)
class _Reordered:
    base: Catalogue
    order: Sequence[int]
    seed: int

    @property
    def total(self) -> int:
        return len(self.order)

    def entries(self, start: int, stop: int) -> list[CatalogueEntry]:
        found: list[CatalogueEntry] = []
        for position in self.order[start:stop]:
            if position < 0:
                found.append(_synthetic(self.seed, _NEW_INDEX - 1 - position, None))
            else:
                found += self.base.entries(position, position + 1)
        return found


def _synthetic(seed: int, index: int, approaches: int | None) -> CatalogueEntry:
    if index >= MOST_OBJECTS:
        raise SettingsError(f"there is no synthetic object {index:,}: there are {MOST_OBJECTS:,} ids")
    made = synthetic_object(seed, index, approaches=approaches)
    return CatalogueEntry(made["id"], msgspec.json.encode(made))


def _recorded(raw: bytes) -> CatalogueEntry:
    try:
        members = _object.decode(raw)
    except msgspec.DecodeError:
        # Not an object, or it holds a NaN. It is served unchanged, so that clients are tested with it.
        return CatalogueEntry("", raw)
    members.pop("links", None)
    try:
        name = _id.decode(members.get("id", members.get("neo_reference_id", msgspec.Raw(b'""'))))
    except msgspec.DecodeError:
        name = ""
    return CatalogueEntry(name, msgspec.json.encode(members))


def _files(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as exc:
        raise SettingsError(f"--pages {folder} cannot be read: {exc.strerror or exc}") from exc

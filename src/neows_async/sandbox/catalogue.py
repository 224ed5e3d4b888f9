"""What the imitation serves, in Browse order: made-up objects, recorded pages, and either of them changing."""

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
# Where in the series of synthetic objects those begin that a growing catalogue takes in.
_NEW_INDEX: Final = 9_000_000
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_id = msgspec.json.Decoder(str)


@dataclass(frozen=True, slots=True)
class Entry:
    """An object as it is served.

    :param body: its JSON without ``links``, whose host and key are the request's
    """

    id: str
    body: bytes


class Catalogue(Protocol):
    """Objects in Browse order. Read from threads, several at once."""

    @property
    def total(self) -> int:
        """How many are announced."""

    def entries(self, start: int, stop: int) -> list[Entry]:
        """Those of the positions ``start`` up to ``stop``, as far as there are."""


class SyntheticCatalogue:
    """Objects that follow from ``seed``, made when they are asked for.

    :param approaches: exactly so many an object, for pages of a known size; None is as in nature
    :raises SettingsError: more objects than there are ids
    """

    def __init__(self, neos: int = 41_282, seed: int = 1, *, approaches: int | None = None) -> None:
        if not 0 <= neos <= _NEW_INDEX:
            raise SettingsError(f"a synthetic catalogue has 0 to {_NEW_INDEX:,} objects, not {neos:,}")
        self.total: int = neos
        self._seed = seed
        self._approaches = approaches

    def entries(self, start: int, stop: int) -> list[Entry]:
        """The same bytes for the same seed and position, whatever else the catalogue holds."""
        return [_synthetic(self._seed, index, self._approaches) for index in range(start, min(stop, self.total))]


class RecordedPages:
    """The objects of recorded pages, ``page_NNNNN.json``, ``.json.gz`` or ``.json.zst``, in the pages' order.

    Each object's bytes are as they were recorded, but for its ``links``.

    :param announced_total: what is said to be there, e.g. the 41,282 of a recording of whose pages only the
        first are here; those beyond are then short or empty. None announces those that are here
    :raises SettingsError: there are none, or one cannot be read
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
        # Only as many as are being read are held; of the rest only how many objects they have.
        self._page = functools.lru_cache(maxsize=8)(self._read)
        self._starts = [0]
        for number in range(len(files)):
            self._starts.append(self._starts[-1] + len(self._page(number)))
        self.total: int = self._starts[-1] if announced_total is None else announced_total

    def entries(self, start: int, stop: int) -> list[Entry]:
        """As they were recorded.

        :raises SettingsError: a page can no longer be read
        """
        found: list[Entry] = []
        # The page of the first, which is the last one that begins at or before it.
        number = bisect_right(self._starts, start) - 1
        while number < len(self._files) and self._starts[number] < min(stop, self.total):
            first = self._starts[number]
            found += self._page(number)[max(0, start - first) : min(stop, self.total) - first]
            number += 1
        return found

    def _read(self, number: int) -> list[Entry]:
        file = self._files[number]
        try:
            data = file.read_bytes()
            if file.suffix == ".gz":
                data = gzip.decompress(data)
            elif file.suffix == ".zst":
                data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
            _, objects = envelope.split(data)
        except (OSError, EOFError, zstandard.ZstdError, BadPageError) as exc:
            raise SettingsError(f"--pages: {file} is no recorded Browse page: {exc}") from exc
        return [_recorded(raw) for raw in objects]


class ChangingCatalogue:
    """``base`` with ``changes`` while it is being read. A reader gets a view that does not change any more.

    :param changes: each is made once, when its time has come, in the given order
    """

    def __init__(self, base: Catalogue, changes: Sequence[Change], seed: int) -> None:
        self._base = base
        self._seed = seed
        self._due = list(changes)
        self._made = 0
        # Positions in the base; -1 is the first object that came later.
        self._order: Sequence[int] = range(base.total)
        self._new = 0

    def view(self, requests: int, elapsed_s: float) -> Catalogue:
        """The catalogue after so many requests and so many seconds."""
        while self._due and self._due[0].is_due(requests, elapsed_s):
            self._make(self._due.pop(0))
        return self._base if not self._made else _Reordered(self._base, self._order, self._seed)

    def _make(self, change: Change) -> None:
        order = list(self._order)
        if change.remove:
            del order[change.position : change.position + change.remove]
        new = [-1 - self._new - number for number in range(change.add)]
        order[change.position : change.position] = new
        if change.shuffle:
            random.Random(f"{self._seed}:shuffle:{self._made}").shuffle(order)  # noqa: S311 - not a secret
        self._order = order
        self._new += change.add
        self._made += 1


@dataclass(frozen=True, slots=True)
class _Reordered:
    base: Catalogue
    order: Sequence[int]
    seed: int

    @property
    def total(self) -> int:
        return len(self.order)

    def entries(self, start: int, stop: int) -> list[Entry]:
        found: list[Entry] = []
        for position in self.order[start:stop]:
            if position < 0:
                found.append(_synthetic(self.seed, _NEW_INDEX - 1 - position, None))
            else:
                found += self.base.entries(position, position + 1)
        return found


def _synthetic(seed: int, index: int, approaches: int | None) -> Entry:
    if index >= MOST_OBJECTS:
        raise SettingsError(f"there is no synthetic object {index:,}; the ids end before it")
    made = synthetic_object(seed, index, approaches=approaches)
    return Entry(made["id"], msgspec.json.encode(made))


def _recorded(raw: bytes) -> Entry:
    try:
        members = _object.decode(raw)
    except msgspec.DecodeError:
        # Something that is no object, or holds a NaN: it is served as it is, so that a reader must cope.
        return Entry("", raw)
    members.pop("links", None)
    try:
        name = _id.decode(members.get("id", members.get("neo_reference_id", msgspec.Raw(b'""'))))
    except msgspec.DecodeError:
        name = ""
    return Entry(name, msgspec.json.encode(members))


def _files(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as exc:
        raise SettingsError(f"--pages {folder} cannot be read: {exc.strerror or exc}") from exc

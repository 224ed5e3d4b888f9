"""Decoded pages for tests, and a stage in memory for what is made from them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from neows_async.endpoints.browse.decode import PageJson
from neows_async.endpoints.browse.receive import ReceiveOptions, Receiver
from neows_async.pages import stored
from neows_async.pages.values import DatasetFile, RawPage
from neows_async.testing import browse_page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from neows_async.pages.values import Page, StoredPage


def page_json(body: bytes, number: int = 0) -> PageJson:
    """A page's redacted JSON, with its digest."""
    return PageJson(number, body, hashlib.sha256(body).digest())


def stored_page(body: bytes, number: int = 0) -> StoredPage:
    """A page as the raw zone stores it."""
    return stored.store(*page_json(body, number))


def received(raw: RawPage | StoredPage, *, orbiting_body: str | None = None) -> Page:
    """A page with its JSON, without a key to redact."""
    return Receiver(ReceiveOptions(keeps_json=True, orbiting_body=orbiting_body)).receive(raw, None)


def pages(objects: Sequence[Mapping[str, Any]], size: int = 20) -> list[Page]:
    """All pages of a catalogue of ``objects``."""
    count = -(-len(objects) // size)
    return [received(RawPage(number, browse_page(objects, number, size))) for number in range(count)]


class MemoryStage:
    """Keeps finished files by their path."""

    snapshot = "memory"

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.begun: list[str] = []

    async def open(self, dataset: str, path: str) -> MemoryFile:
        """Begin a file; the same one twice is a fault."""
        key = f"{dataset}/{path}"
        assert key not in self.begun
        self.begun.append(key)
        return MemoryFile(self, dataset, key)


class MemoryFile:
    def __init__(self, stage: MemoryStage, dataset: str, key: str) -> None:
        self._stage = stage
        self._dataset = dataset
        self._key = key
        self._data = bytearray()

    async def write(self, data: bytes) -> None:
        """Append."""
        self._data += data

    async def finish(self, rows: int | None) -> DatasetFile:
        """Now it is there."""
        data = self._stage.files[self._key] = bytes(self._data)
        return DatasetFile(self._dataset, self._key, rows, len(data), hashlib.sha256(data).hexdigest())

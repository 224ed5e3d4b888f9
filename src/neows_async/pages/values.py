"""The values that travel: ``RawPage`` (as received) → ``Page`` (validated, columnar) → ``DatasetFile``.

Beside them, ``StoredPage``: a page in the raw zone. All are plain frozen values.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from neows_async.errors import RateLimit

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


@dataclass(frozen=True, slots=True)
class RawPage:
    """A page as a source sent it, or of an archive without seals, where the body is plain JSON.

    :param number: the page's number, from 0
    :param body: the response's body as received: still encoded, and it may hold a key
    :param content_encoding: how ``body`` is encoded: ``gzip``, or None for plain JSON
    :param rate_limit: the quota in the response's headers, if there was one
    """

    number: int
    body: bytes
    content_encoding: str | None = None
    rate_limit: RateLimit | None = None

    def __repr__(self) -> str:
        # A traceback shows reprs, and the body may hold a key.
        return f"RawPage(number={self.number}, <{len(self.body)} bytes>)"


@dataclass(frozen=True, slots=True)
class StoredPage:
    """A page as the raw zone stores it: checked, redacted, compressed and sealed. See :mod:`neows_async.pages.stored`.

    :param number: the page's number, from 0
    :param data: a zstd frame of the JSON, and its seal
    :param json_bytes: the size of the JSON
    :param sha256: the JSON's digest
    """

    number: int
    data: bytes
    json_bytes: int
    sha256: bytes

    def __repr__(self) -> str:
        return f"StoredPage(number={self.number}, <{len(self.data)} bytes>)"


class PageInfo(msgspec.Struct, frozen=True):
    """The envelope's ``page``: this page's ``number`` (from 0), the ``size`` the source uses, and
    how many objects its catalogue holds.
    """

    size: int
    total_elements: int
    number: int

    @property
    def first_position(self) -> int:
        """The Browse position (from 0) of the page's first object."""
        return self.number * self.size

    @property
    def announced_objects(self) -> int:
        """How many objects the page must hold: ``size``, or fewer on the last one."""
        return max(0, min(self.size, self.total_elements - self.first_position))


@dataclass(frozen=True, slots=True)
class Rejected:
    """An object that could not be read, and why. One line of ``rejected.jsonl``.

    :param page: the number of its page
    :param position: its Browse position, from 0
    :param id: as far as one could be read; None if not
    :param reason: what is wrong, in one line
    :param pointer: where the fault is in the page (RFC 6901)
    :param raw: the object's JSON text, byte for byte
    """

    page: int
    position: int
    id: str | None
    reason: str
    pointer: str
    raw: str

    def as_json(self) -> dict[str, Json]:
        """The line's members, in order."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Page:
    """One page, validated. Rows are in Browse order; approaches in the order of their object's list.

    :param info: the page's envelope
    :param batches: dataset name → the page's rows, by the schemas of the endpoint
        (:data:`neows_async.endpoints.browse.schema.DATASETS`). The first dataset has one row for each object
    :param indices: for each object, its index in the page; ascending
    :param approach_counts: for each object, how many rows of the second dataset belong to it
    :param rejected: the objects that could not be read, by position
    :param unknown_fields: object's index → fields that are not in the contract: name → how often
    :param json_bytes: the size of the page's JSON
    :param sha256: the digest of the page's JSON
    :param source: the page's JSON, if a sink or an aggregator needs it or it is to be stored
    :param generation: how often the catalogue was read before; see the receipt
    """

    info: PageInfo
    batches: Mapping[str, pa.RecordBatch]
    indices: tuple[int, ...]
    approach_counts: tuple[int, ...]
    rejected: tuple[Rejected, ...]
    unknown_fields: Mapping[int, Mapping[str, int]]
    json_bytes: int
    sha256: bytes
    source: StoredPage | None = None
    generation: int = 0

    @property
    def number(self) -> int:
        """The page's number, from 0."""
        return self.info.number

    @property
    def object_count(self) -> int:
        """How many objects the page has: rows of its first dataset."""
        return len(self.indices)

    def __repr__(self) -> str:
        rows = ", ".join(f"{name}={batch.num_rows}" for name, batch in self.batches.items())
        return f"Page(number={self.number}, {rows}, rejected={len(self.rejected)})"


@dataclass(frozen=True, slots=True)
class DatasetFile:
    """A file of a snapshot, as the receipt names it.

    :param dataset: ``neos``, ``close_approaches``, or that of a sink of your own
    :param path: relative to the lake's root, its final name
    :param rows: records in it; None where that means nothing
    :param bytes: its size, and ``sha256`` of its content, in hexadecimal
    """

    dataset: str
    path: str
    rows: int | None
    bytes: int
    sha256: str

"""The values that cross the stages: ``RawPage`` (bytes) → ``Page`` (validated, columnar) → files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from neows_async.errors import RateLimit

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


@dataclass(frozen=True, slots=True)
class RawPage:
    """One Browse page as bytes.

    :param number: the page's number, from 0
    :param body: its JSON. Out of a source it may hold a key; in the raw zone it never does
    :param rate_limit: what the answer said of the quota, if it said
    :param decoded: what ``body`` says, where it was read already
    """

    number: int
    body: bytes
    rate_limit: RateLimit | None = None
    decoded: Page | None = field(default=None, compare=False)

    @property
    def size(self) -> int:
        """Bytes of ``body``."""
        return len(self.body)

    def sha256(self) -> bytes:
        """The digest of ``body``; takes two thirds of a millisecond, where it is not known already."""
        return hashlib.sha256(self.body).digest()

    def with_decoded(self, page: Page) -> RawPage:
        """The same, of which ``page`` was read."""
        return replace(self, decoded=page)

    def lightened(self) -> RawPage:
        """The same without its body, if ``decoded`` is spent."""
        if self.decoded is None or not isinstance(self.decoded.raw, SpentPage):
            return self
        return self.decoded.raw.with_decoded(self.decoded)

    def __repr__(self) -> str:
        # The body may still hold a key, and a traceback shows reprs.
        return f"{type(self).__name__}(number={self.number}, <{self.size} bytes>)"


class SpentPage(RawPage):
    """A page whose columns were read, and whose body is gone.

    :param size: bytes of the body that it had
    """

    __slots__ = ("_size",)

    _size: int

    def __init__(self, number: int, size: int, decoded: Page | None = None) -> None:
        for name, value in (("number", number), ("rate_limit", None), ("decoded", decoded), ("_size", size)):
            object.__setattr__(self, name, value)  # it is frozen

    def __reduce__(self) -> tuple[type[SpentPage], tuple[object, ...]]:
        return SpentPage, (self.number, self._size, self.decoded)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SpentPage):
            return NotImplemented
        return (self.number, self._size) == (other.number, other._size)  # a Page knows the digest besides

    def __hash__(self) -> int:
        return hash((self.number, self._size))

    @property
    def body(self) -> bytes:
        """Raises.

        :raises LookupError: always
        """
        raise LookupError(
            f"the body of page {self.number} was let go, since all sinks and aggregators say `columns_only = True`; "
            "who asks for bodies must not"
        )

    @property
    def size(self) -> int:
        """Bytes of the body that it had."""
        return self._size

    def with_decoded(self, page: Page) -> SpentPage:
        """The same, of which ``page`` was read."""
        return SpentPage(self.number, self._size, page)


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
    :param pointer: where in the page (RFC 6901) the trouble lies
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
        return {
            "page": self.page,
            "position": self.position,
            "id": self.id,
            "reason": self.reason,
            "pointer": self.pointer,
            "raw": self.raw,
        }


@dataclass(frozen=True, slots=True)
class Page:
    """One page, validated. Rows are in Browse order; approaches in the order of their object's list.

    :param info: what the envelope said
    :param raw: the raw page it was decoded from
    :param body_sha256: the digest of its body
    :param indices: for each row of ``neos``, its object's index in the page; ascending
    :param neos: schema :data:`neows_async.endpoints.browse.schema.NEOS`
    :param close_approaches: schema :data:`neows_async.endpoints.browse.schema.CLOSE_APPROACHES`; those of the first
        row of ``neos``, then those of the second …
    :param approach_counts: for each row of ``neos``, how many rows of ``close_approaches`` are its
    :param rejected: the objects that could not be read, by position
    :param generation: how often the catalogue had been read before; see the receipt
    :param unknown_fields: for an object's index, the fields nobody told us of: name → how often
    """

    info: PageInfo
    raw: RawPage
    body_sha256: bytes
    indices: tuple[int, ...]
    neos: pa.RecordBatch
    close_approaches: pa.RecordBatch
    approach_counts: tuple[int, ...]
    rejected: tuple[Rejected, ...]
    unknown_fields: Mapping[int, Mapping[str, int]]
    generation: int = 0

    @property
    def number(self) -> int:
        """The page's number, from 0."""
        return self.info.number

    @property
    def body(self) -> bytes:
        """The raw page's JSON; of a page that is kept in a raw zone it is expanded anew at each call.

        :raises LookupError: all sinks and aggregators say that they look at columns only, and one does not
        """
        return self.raw.body

    def spent(self) -> Page:
        """The same without the raw page's body, for when nobody will ask for it."""
        return replace(self, raw=SpentPage(self.raw.number, self.raw.size))

    def __repr__(self) -> str:
        rows = f"neos={self.neos.num_rows}, close_approaches={self.close_approaches.num_rows}"
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

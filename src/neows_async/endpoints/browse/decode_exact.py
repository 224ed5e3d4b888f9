"""The exact path of decoding, object by object: irregular objects are named, and all others are decoded. Pure.

It decodes the pages that :mod:`neows_async.endpoints.browse.decode_fast` does not.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from neows_async.endpoints.browse import envelope
from neows_async.endpoints.browse.decode_fast import KNOWN_FIELDS, Columns, FieldTree
from neows_async.endpoints.browse.neo import CloseApproach, Neo, Unreadable, parse
from neows_async.endpoints.browse.schema import CLOSE_APPROACHES, NEOS
from neows_async.pages.values import Rejected

if TYPE_CHECKING:
    from neows_async.pages import values


@dataclass(frozen=True, slots=True)
class DecodedObjects:
    """The content of a page; its fields are those of :class:`neows_async.pages.values.Page`."""

    info: values.PageInfo
    indices: tuple[int, ...]
    columns: Columns
    rejected: tuple[Rejected, ...]
    unknown_fields: dict[int, dict[str, int]]


def decode_object_by_object(body: bytes) -> DecodedObjects:
    """Decode each object of a page by itself."""
    info, objects = envelope.split(body)
    neos: list[Neo] = []
    indices: list[int] = []
    rejected: list[Rejected] = []
    unknown: dict[int, dict[str, int]] = {}
    for index, text in enumerate(objects):
        try:
            value = parse(text)
            # Appended only when valid: an object that fails leaves nothing behind.
            neos.append(Neo.from_value(value))
        except Unreadable as exc:
            rejected.append(_rejected(info, index, text, exc))
            continue
        indices.append(index)
        if found := _unknown_fields(value):
            unknown[index] = found
    return DecodedObjects(info, tuple(indices), _columns(neos), tuple(rejected), unknown)


def _rejected(info: values.PageInfo, index: int, text: bytes, error: Unreadable) -> Rejected:
    return Rejected(
        page=info.number,
        position=info.first_position + index,
        id=_claimed_id(text),
        reason=error.reason,
        pointer=envelope.pointer("near_earth_objects", index, *error.path),
        raw=text.decode(),
    )


def _claimed_id(text: bytes) -> str | None:
    """The id of a rejected object, if it has a usable one."""
    try:
        record = parse(text)
    except Unreadable:
        return None
    for name in ("id", "neo_reference_id"):
        value = record.get(name) if isinstance(record, dict) else None
        if isinstance(value, str) and value and value.isprintable() and value.isascii():
            return value
    return None


def _unknown_fields(record: Any) -> dict[str, int]:
    """The unknown fields of an object: dotted name → number of occurrences, sorted by name."""
    found: Counter[str] = Counter()

    def walk(value: Any, known: FieldTree, path: str) -> None:
        for entry in value if isinstance(value, list) else [value]:
            for name, member in entry.items() if isinstance(entry, dict) else ():
                if name not in known:
                    found[path + name.encode(errors="backslashreplace").decode()] += 1
                elif (deeper := known[name]) is not None:
                    walk(member, deeper, f"{path}{name}.")

    walk(record, KNOWN_FIELDS, "")
    return dict(sorted(found.items()))


def _columns(neos: list[Neo]) -> Columns:
    approaches = [(neo.id, approach) for neo in neos for approach in neo.close_approaches]
    names = [name for name in NEOS.names if not name.startswith("closest_")]
    return Columns(
        {name: pa.array([getattr(neo, name) for neo in neos], NEOS.field(name).type) for name in names},
        pa.RecordBatch.from_arrays(
            [
                pa.array([id_ for id_, _ in approaches], pa.string()),
                *(
                    pa.array([getattr(approach, name) for _, approach in approaches], type_)
                    for name, type_ in _APPROACH_FIELDS
                ),
            ],
            schema=CLOSE_APPROACHES,
        ),
        tuple(len(neo.close_approaches) for neo in neos),
    )


_APPROACH_FIELDS = list(zip(CloseApproach.model_fields, CLOSE_APPROACHES.types[1:], strict=True))

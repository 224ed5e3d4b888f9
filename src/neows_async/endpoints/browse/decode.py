"""``RawPage`` → ``Page``: validated, columnar. Pure: equal bytes give an equal page."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neows_async.endpoints.browse import decode_fast, envelope
from neows_async.endpoints.browse.schema import NEOS
from neows_async.pages.values import Page, RawPage, Rejected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from neows_async.endpoints.browse.decode_fast import Columns
    from neows_async.pages import values


def decode(raw: RawPage, *, orbiting_body: str | None = None) -> Page:
    """Read a page that has passed :func:`neows_async.endpoints.browse.envelope.check`.

    :param orbiting_body: choose the closest approach among those to this body; None is any
    :raises BadPageError: it is not a Browse page after all
    """
    body = raw.body
    read = decode_fast.decode_columns(body)
    return _by_contract(raw, body, orbiting_body) if read is None else _regular(raw, read, orbiting_body)


def decode_checked(raw: RawPage, size: int | None, *, orbiting_body: str | None = None) -> Page:
    """``check``, then :func:`decode`, for the price of the latter where the page is regular.

    :raises BadPageError: as the check does
    """
    body = raw.body
    read = decode_fast.decode_columns(body)
    if read is None:
        envelope.check(body, raw.number, size)
        return _by_contract(raw, body, orbiting_body)
    info, columns = read
    envelope.require_whole(info, len(columns.approach_counts), raw.number, size)
    return _regular(raw, read, orbiting_body)


def decode_checked_batch(raws: Sequence[RawPage], size: int | None, *, orbiting_body: str | None) -> list[Page]:
    """:func:`decode_checked` of each, for three quarters of the price where all of them are regular.

    :raises BadPageError: as that does, of the first that is none
    """
    read = decode_fast.decode_columns_of(raw.body for raw in raws) if len(raws) > 1 else None
    if read is None:
        return [decode_checked(raw, size, orbiting_body=orbiting_body) for raw in raws]
    infos, objects, columns = read
    for raw, info, count in zip(raws, infos, objects, strict=True):
        envelope.require_whole(info, count, raw.number, size)
    neos, close_approaches = _rows(columns, orbiting_body)
    pages: list[Page] = []
    first = first_approach = 0
    for raw, info, count in zip(raws, infos, objects, strict=True):
        counts = columns.approach_counts[first : first + count]
        rows = neos.slice(first, count), close_approaches.slice(first_approach, sum(counts))
        pages.append(_page(raw, info, tuple(range(count)), rows, counts))
        first += count
        first_approach += sum(counts)
    return pages


def decode_by_contract(raw: RawPage, orbiting_body: str | None) -> Page:
    """As :func:`decode`, but the contract judges each object, also of a regular page."""
    return _by_contract(raw, raw.body, orbiting_body)


def _by_contract(raw: RawPage, body: bytes, orbiting_body: str | None) -> Page:
    from neows_async.endpoints.browse import decode_exact  # noqa: PLC0415 - pydantic loads only for a page that is out of the ordinary

    read = decode_exact.decode_object_by_object(body)
    rows, counts = _rows(read.columns, orbiting_body), read.columns.approach_counts
    return _page(raw, read.info, read.indices, rows, counts, read.rejected, read.unknown_fields)


def _regular(raw: RawPage, read: tuple[values.PageInfo, Columns], orbiting_body: str | None) -> Page:
    info, columns = read
    counts = columns.approach_counts
    return _page(raw, info, tuple(range(len(counts))), _rows(columns, orbiting_body), counts)


def _page(  # noqa: PLR0913, PLR0917 - a page has so many parts; both ways of reading one end here
    raw: RawPage,
    info: values.PageInfo,
    indices: tuple[int, ...],
    rows: tuple[pa.RecordBatch, pa.RecordBatch],
    approach_counts: tuple[int, ...],
    rejected: tuple[Rejected, ...] = (),
    unknown_fields: dict[int, dict[str, int]] | None = None,
) -> Page:
    neos, close_approaches = rows
    return Page(
        info=info,
        raw=raw,
        body_sha256=raw.sha256(),
        indices=indices,
        neos=neos,
        close_approaches=close_approaches,
        approach_counts=approach_counts,
        rejected=rejected,
        unknown_fields=unknown_fields or {},
    )


def _rows(columns: Columns, orbiting_body: str | None) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Those of both datasets."""
    closest = columns.close_approaches.take(_closest(columns, orbiting_body))
    neos = columns.neos | {
        "closest_approach_miss_distance_km": closest["miss_distance_km"],
        "closest_approach_date": closest["close_approach_date"],
        "closest_approach_relative_velocity_km_s": closest["relative_velocity_km_s"],
    }
    rows = pa.RecordBatch.from_arrays([neos[name] for name in NEOS.names], schema=NEOS)
    return rows, columns.close_approaches


def _closest(columns: Columns, orbiting_body: str | None) -> pa.Array:
    """For each NEO the row of its closest approach, or null: the least km, then the earlier epoch, then the first."""
    approaches = columns.close_approaches
    distances_km = approaches["miss_distance_km"].to_numpy(zero_copy_only=False)  # null is NaN
    if orbiting_body is not None:
        body = pa.scalar(orbiting_body, pa.string())
        of_body = pc.fill_null(pc.equal(approaches["orbiting_body"], body), pa.scalar(False, pa.bool_()))  # noqa: FBT003 - a value
        distances_km = np.where(of_body.to_numpy(zero_copy_only=False), distances_km, np.nan)
    counts = np.array(columns.approach_counts, np.int64)
    firsts = np.cumsum(counts) - counts
    with_approaches = counts > 0
    least_km = np.full(len(counts), np.nan)
    if len(distances_km):
        least_km[with_approaches] = np.fmin.reduceat(distances_km, firsts[with_approaches])
    # Of an object's approaches at its least distance, which is one but for a rare tie.
    rows = np.flatnonzero(distances_km == np.repeat(least_km, counts))
    objects = np.repeat(np.arange(len(counts)), counts)[rows]
    if len(rows) > 1 and (objects[1:] == objects[:-1]).any():
        rows, objects = _earliest(approaches, rows, objects)
    chosen = np.zeros(len(counts), np.int64)
    chosen[objects] = rows
    none = np.ones(len(counts), np.bool_)
    none[objects] = False
    return pa.array(chosen, pa.int64(), mask=none)


def _earliest(
    approaches: pa.RecordBatch, rows: NDArray[np.int64], objects: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of ``rows``, one for each object: that of the earliest epoch, or the first."""
    epochs_ms = approaches["close_approach_at"].take(pa.array(rows)).view(pa.int64()).to_pylist()
    chosen: dict[int, tuple[float, int]] = {}
    for row, object_, epoch_ms in zip(rows.tolist(), objects.tolist(), epochs_ms, strict=True):
        at = (math.inf if epoch_ms is None else epoch_ms, row)
        chosen[object_] = min(chosen.get(object_, at), at)
    return np.array([row for _, row in chosen.values()], np.int64), np.array([*chosen], np.int64)

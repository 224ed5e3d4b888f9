"""What scripts can rely on: one exit code a kind of ending (after sysexits.h, where it has one)."""

from __future__ import annotations

from typing import Final

from neows_async import errors

DONE: Final = 0
FAULT: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
TERMINATED: Final = 143

# The first that fits counts: children stand before their parents.
_CODES: Final[tuple[tuple[type[errors.NeowsError], int], ...]] = (
    (errors.SettingsError, USAGE),
    (errors.DataError, 65),
    (errors.KeyRefusedError, 77),
    (errors.SourceError, 69),
    (errors.SnapshotHeldError, 73),
    (errors.StorageError, 74),
    (errors.PausedError, 75),
)

MEANINGS: Final = {
    DONE: "done",
    FAULT: "a fault of the program, or of a part that was handed in",
    USAGE: "wrong usage or settings",
    65: "data: too many unreadable objects, an empty catalogue, a damaged page, or verify found differences",
    69: "the source is unavailable; run the same command again to go on",
    73: "the snapshot is being written by another run",
    74: "the storage failed; run the same command again to go on",
    75: "the quota is spent; run the same command again at the time printed",
    77: "the key is missing or refused",
    INTERRUPTED: "interrupted; run the same command again to go on",
    TERMINATED: "terminated; run the same command again to go on",
}


def code_of(exc: errors.NeowsError) -> int:
    """The exit code for what a run raised."""
    return next((code for kind, code in _CODES if isinstance(exc, kind)), FAULT)

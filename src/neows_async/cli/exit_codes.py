"""The exit codes, one for each kind of ending. Scripts rely on them.

The numbers are those of sysexits.h, where it has one.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from neows_async import errors


class ExitCode(IntEnum):
    """How a command ended."""

    DONE = 0
    FAULT = 1
    USAGE = 2
    DATA = 65
    UNAVAILABLE = 69
    HELD = 73
    STORAGE = 74
    PAUSED = 75
    KEY = 77
    INTERRUPTED = 130
    TERMINATED = 143


MEANINGS: Final = {
    ExitCode.DONE: "done",
    ExitCode.FAULT: "a bug in the program, or in a part of your own",
    ExitCode.USAGE: "wrong usage or settings",
    ExitCode.DATA: "data: too many unreadable objects, an empty catalogue, a damaged page, or a failed verify",
    ExitCode.UNAVAILABLE: "the source is unavailable; run the same command again to resume",
    ExitCode.HELD: "another run writes the snapshot",
    ExitCode.STORAGE: "the storage failed; run the same command again to resume",
    ExitCode.PAUSED: "paused by quota or budget; run the same command again at the printed time",
    ExitCode.KEY: "the key is missing or refused",
    ExitCode.INTERRUPTED: "interrupted (SIGINT); run the same command again to resume",
    ExitCode.TERMINATED: "terminated (SIGTERM); run the same command again to resume",
}

# The first match counts: subclasses are before their base classes.
_BY_ERROR: Final[tuple[tuple[type[errors.NeowsError], ExitCode], ...]] = (
    (errors.SettingsError, ExitCode.USAGE),
    (errors.DataError, ExitCode.DATA),
    (errors.KeyRefusedError, ExitCode.KEY),
    (errors.SourceError, ExitCode.UNAVAILABLE),
    (errors.SnapshotHeldError, ExitCode.HELD),
    (errors.StorageError, ExitCode.STORAGE),
    (errors.PausedError, ExitCode.PAUSED),
)


def exit_code_of(exc: Exception) -> ExitCode:
    """The exit code for ``exc``; ``FAULT`` for an exception that is not a :class:`~neows_async.errors.NeowsError`."""
    return next((code for kind, code in _BY_ERROR if isinstance(exc, kind)), ExitCode.FAULT)

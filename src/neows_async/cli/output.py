"""How anything is said. Whoever listens may leave, or have a full disk: that must not cost what a run has done."""

from __future__ import annotations

import json
import os
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeVar

import click

from neows_async import errors
from neows_async.errors import NeowsError, NotFoundError, SettingsError, StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from neows_async.lake.async_storage import AsyncStorage

_PROGRAM: Final = "neows-async"
_TRACEBACK: Final = "NEOWS_TRACEBACK"
_GRACE_S: Final = 1.5
_T = TypeVar("_T")

# What scripts can rely on: one exit code for each kind of ending (after sysexits.h, where it has one).
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


def clean(text: str) -> str:
    """Text of the source or of a part, without what a terminal would obey."""
    return "".join(char if char.isprintable() else "?" for char in text)


def size(size_bytes: float) -> str:
    """``34.2 MB``: so many bytes, for people."""
    for unit in ("bytes", "kB", "MB"):
        if size_bytes < 1000:  # noqa: PLR2004 - a thousand of each is one of the next
            return f"{size_bytes:.0f} {unit}" if unit == "bytes" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB"


def counted(number: int, what: str, plural: str = "s") -> str:
    """``1 page``, ``2 pages``, ``3,000 pages``."""
    return f"{number:,} {what}{'' if number == 1 else plural}"


def notice(message: str, *, as_json: bool) -> None:
    """One line on stderr that is neither an event of the run nor an error."""
    _say(json.dumps({"event": "notice", "message": message}) if as_json else message)


def fail(message: str, code: int, *, as_json: bool = False) -> int:
    """The one line of an error; returns ``code``."""
    line = clean(" ".join(message.split()))
    _say(
        json.dumps({"event": "error", "exit_code": code, "message": line}) if as_json else f"{_PROGRAM}: {line}",
    )
    return code


def told(exc: Exception) -> str:
    """The line of ``exc``; a stranger's is a fault of the program.

    :raises Exception: ``exc`` itself, if it is a stranger's and the user wants to see where it comes from
    """
    if isinstance(exc, NeowsError):
        return str(exc)
    if os.environ.get(_TRACEBACK):
        raise exc
    return f"a fault of the program: {type(exc).__name__}: {exc}; {_TRACEBACK}=1 shows where"


def code_of(exc: Exception) -> int:
    """The exit code for ``exc``."""
    return next((code for kind, code in _CODES if isinstance(exc, kind)), FAULT)


@contextmanager
def answering() -> Iterator[None]:
    """Print the answer within. Readers may leave before its end (``| head -1``).

    :raises StorageError: standard output cannot be written
    """
    try:
        yield
        if sys.stdout is not None:  # it is when a program is started without one
            sys.stdout.flush()
    except BrokenPipeError:
        _silence()
    except OSError as exc:
        _silence()
        raise StorageError(
            f"standard output cannot be written: {exc.strerror or exc}; the lake is as it should be, only the answer "
            "is lost"
        ) from exc


def _silence() -> None:
    """What is still in the buffer would fail again when Python ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(line: str) -> None:
    with suppress(OSError):
        click.echo(line, err=True)


def run_on_lake(question: Callable[[AsyncStorage], Awaitable[_T]], root: str) -> _T:
    """What ``question`` says of the lake at ``root``.

    :raises SettingsError: there is no such snapshot
    :raises NeowsError: what else ``question`` raises
    """
    import anyio  # noqa: PLC0415 - heavy, and --help does without

    from neows_async.lake.async_storage import AsyncStorage  # noqa: PLC0415 - as above
    from neows_async.lake.storage import open_storage  # noqa: PLC0415 - as above

    try:
        return anyio.run(question, AsyncStorage(open_storage(root)))
    except NotFoundError as exc:
        raise SettingsError(f"{exc}; 'neows-async snapshots' lists what is there") from exc
    except KeyboardInterrupt:
        # A storage call that hangs in its thread must not hold the process.
        timer = threading.Timer(_GRACE_S, os._exit, args=(INTERRUPTED,))
        timer.daemon = True
        timer.start()
        raise

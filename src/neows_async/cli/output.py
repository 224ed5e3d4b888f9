"""Prints answers to stdout, and notices and errors to stderr.

The reader may go away (``| head -1``), and the disk behind a redirection may be full. A run must survive both.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import click

from neows_async.errors import NeowsError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM: Final = "neows-async"
_TRACEBACK: Final = "NEOWS_TRACEBACK"


# -- words --------------------------------------------------------------------------------------


def clean(text: str) -> str:
    """``text`` without control characters, which a terminal would obey. For text from the source or from parts."""
    return "".join(char if char.isprintable() else "?" for char in text)


def counted(number: int, what: str, plural: str = "s") -> str:
    """``1 page``, ``2 pages``, ``3,000 pages``."""
    return f"{number:,} {what}{'' if number == 1 else plural}"


def duration(seconds: float) -> str:
    """``12 s``, ``4 min 5 s``, ``2 h 4 min``."""
    minutes, rest_s = divmod(round(seconds), 60)
    hours, rest_min = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {rest_min} min"
    return f"{minutes} min {rest_s} s" if minutes else f"{rest_s} s"


# -- stderr -------------------------------------------------------------------------------------


def notice(message: str, *, as_json: bool) -> None:
    """Print a line that is neither an event of the run nor an error."""
    _to_stderr(json.dumps({"event": "notice", "message": message}) if as_json else message)


def error(message: str, code: int, *, as_json: bool = False) -> int:
    """Print an error as one line; returns ``code``."""
    # One line without control characters: error texts may quote a source.
    line = clean(" ".join(message.split()))
    if as_json:
        _to_stderr(json.dumps({"event": "error", "exit_code": int(code), "message": line}))
    else:
        _to_stderr(f"{PROGRAM}: {line}")
    return code


def message_of(exc: Exception) -> str:
    """The message of ``exc``, one line.

    :raises Exception: ``exc`` itself, if it is a bug and ``NEOWS_TRACEBACK`` is set
    """
    if isinstance(exc, NeowsError):
        return str(exc)
    if os.environ.get(_TRACEBACK):
        raise exc
    return f"a bug: {type(exc).__name__}: {exc}; set {_TRACEBACK}=1 to see the traceback"


def _to_stderr(line: str) -> None:
    # A full disk or a closed stderr must not end a run.
    with suppress(OSError):
        click.echo(line, err=True)


# -- stdout -------------------------------------------------------------------------------------


@contextmanager
def printing_answer() -> Iterator[None]:
    """Print the answer inside this block. A reader that went away is no error; a full disk is a StorageError."""
    try:
        yield
        if sys.stdout is not None:  # None if the program was started with stdout closed
            # Here, and not at exit: an error must show as ours, with its exit code.
            sys.stdout.flush()
    except BrokenPipeError:
        # The answer's reader is gone, as with `| head -1`: that is no error.
        _discard_stdout()
    except OSError as exc:
        _discard_stdout()
        raise StorageError(
            f"standard output cannot be written: {exc.strerror or exc}; the lake is complete, only the answer is lost"
        ) from exc


def _discard_stdout() -> None:
    # The buffer still holds text. Python flushes it at exit, which would fail again with a traceback.
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

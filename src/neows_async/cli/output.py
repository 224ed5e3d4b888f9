"""How anything is said. Whoever listens may leave, or have a full disk: that must not cost what a run has done."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import click

from neows_async.cli import exits
from neows_async.errors import NeowsError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROGRAM: Final = "neows-async"
_TRACEBACK: Final = "NEOWS_TRACEBACK"


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
    return exits.code_of(exc) if isinstance(exc, NeowsError) else exits.FAULT


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

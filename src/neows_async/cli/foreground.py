"""Runs asynchronous work for a command, and ends the process in time when a signal comes.

A cancelled task cannot stop a storage call that hangs in its thread. Such a thread must not hold the process: after
:data:`GRACE_S` the process exits without it. The next run finds a killed run's snapshot unfinished, as after any crash.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from neows_async.cli.exit_codes import ExitCode
from neows_async.errors import NotFoundError, SettingsError
from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.storage import open_storage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

GRACE_S: Final = 1.5
"""From a signal to the exit of the process, at most."""
_MESSAGE_S: Final = 0.2
_T = TypeVar("_T")


def exit_after_grace(code: int, announce: Callable[[], object] = lambda: None) -> None:
    """Exit the process after :data:`GRACE_S`, unless it ends before. ``announce`` prints the last message."""

    def announce_and_exit() -> None:
        announce()
        os._exit(code)

    # The second timer is for a message that blocks, since nobody reads the pipe.
    _call_after(GRACE_S, announce_and_exit)
    _call_after(GRACE_S + _MESSAGE_S, lambda: os._exit(code))


def _call_after(delay_s: float, function: Callable[[], object]) -> None:
    timer = threading.Timer(delay_s, function)
    timer.daemon = True  # must not keep the process alive
    timer.start()


def run_on_lake(function: Callable[[AsyncStorage], Awaitable[_T]], root: str) -> _T:
    """The result of ``function`` for the lake at ``root``."""
    try:
        return anyio.run(function, AsyncStorage(open_storage(root)))
    except NotFoundError as exc:
        raise SettingsError(f"{exc}; 'neows-async snapshots' lists all, 'neows-async run' makes one") from exc
    except KeyboardInterrupt:
        exit_after_grace(ExitCode.INTERRUPTED)
        raise

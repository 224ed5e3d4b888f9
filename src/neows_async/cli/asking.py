"""What the commands that look after a lake share: a lake, an event loop, one answer or one line."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from neows_async.cli import exits
from neows_async.errors import NotFoundError, SettingsError
from neows_async.lake import Lake
from neows_async.storage import open_storage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_GRACE_S: Final = 1.5
_T = TypeVar("_T")


def ask(question: Callable[[Lake], Awaitable[_T]], root: str) -> _T:
    """What ``question`` says of the lake at ``root``.

    :raises SettingsError: there is no such snapshot
    :raises NeowsError: what else ``question`` raises
    """
    try:
        return anyio.run(question, Lake(open_storage(root)))
    except NotFoundError as exc:
        raise SettingsError(f"{exc}; 'neows-async snapshots' lists what is there") from exc
    except KeyboardInterrupt:
        # A storage call that hangs in its thread must not hold the process.
        timer = threading.Timer(_GRACE_S, os._exit, args=(exits.INTERRUPTED,))
        timer.daemon = True
        timer.start()
        raise

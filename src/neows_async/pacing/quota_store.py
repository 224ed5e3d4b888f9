"""Where runs with one key share what they know of its quota: in memory, or in a small SQLite database.

SQLite is in the standard library. A change is whole or absent if its writer is killed at any time, a lock ends with its
process, and a damaged file is recognised.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import secrets
import sqlite3
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol, Self

import anyio
from anyio import to_thread

from neows_async._process import ProcessId, is_dead, this_process
from neows_async.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_VERSION: Final = 1
_BUSY_S: Final = 5.0
_CHANGE_S: Final = 10.0
_CLOSE_S: Final = 0.4
_KEPT_S: Final = 7 * 86_400.0
_SCHEMA: Final = """
CREATE TABLE salt (salt BLOB NOT NULL);
CREATE TABLE quota (name TEXT PRIMARY KEY, written_s REAL NOT NULL, state TEXT NOT NULL) WITHOUT ROWID;
"""


class QuotaStore(Protocol):
    """Stores one text: what all runs with one key know of its quota."""

    @property
    def owner(self) -> str:
        """This process, as the other processes see it. Valid within :meth:`change`."""

    @property
    def lasting(self) -> bool:
        """Whether the text stays valid after every process that wrote it has ended."""

    def is_gone(self, owner: str) -> bool:
        """Return whether the process has certainly ended. Called within :meth:`change`; must be quick."""

    async def change(self, change: Callable[[str | None], str]) -> None:
        """Replace the text by ``change(text)``, while no other process reads or writes. None is no text.

        ``change`` is quick, may run in a thread, and is called at most once.

        :raises StorageError: the store failed, and the text may or may not be replaced; or ``change`` raised it, and
            the text is unchanged
        """


class MemoryQuotaStore:
    """For several runs in one program, on one event loop."""

    owner = "this program"
    lasting = True

    def __init__(self) -> None:
        self._text: str | None = None

    def is_gone(self, owner: str) -> bool:  # noqa: ARG002 - one program has one process
        """Return False: the only process is this one."""
        return False

    async def change(self, change: Callable[[str | None], str]) -> None:
        """Replace the text by ``change(text)``."""
        self._text = change(self._text)


class SqliteQuotaStore:
    """For several processes of one user on one machine: a SQLite database at ``path``.

    It holds no keys: an entry's name is a salted hash. Close it by ``async with``.

    :param host: of the gateway; a key has one quota at each
    :param api_key: the key of the quota; it is hashed and not stored
    :param lasting: whether the text stays valid after every process that wrote it has ended
    """

    def __init__(self, path: Path, *, host: str, api_key: str, lasting: bool = True) -> None:
        self.lasting = lasting
        self._path = path
        self._subject = json.dumps([host, api_key]).encode()
        self._name = ""
        self._connection: sqlite3.Connection | None = None
        self._one_at_a_time = threading.Lock()
        self._threads = anyio.CapacityLimiter(2)
        self._me = ProcessId("", "", "", 0, 0)
        self.owner: str = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        # Bounded: SQLite's file is whole without a close, too.
        with anyio.move_on_after(_CLOSE_S, shield=True):
            await to_thread.run_sync(self._close, limiter=self._threads, abandon_on_cancel=True)

    def is_gone(self, owner: str) -> bool:
        """Return whether the process has certainly ended."""
        try:
            return owner != self.owner and is_dead(ProcessId(*json.loads(owner)), seen_from=self._me)
        except (TypeError, ValueError):
            return False

    async def change(self, change: Callable[[str | None], str]) -> None:
        """Replace the text by ``change(text)`` in a thread, while no other process reads or writes."""
        try:
            # Longer than SQLite waits for another process, so its own error comes first.
            with anyio.fail_after(_CHANGE_S):
                await to_thread.run_sync(self._change, change, limiter=self._threads, abandon_on_cancel=True)
        except TimeoutError as exc:
            raise StorageError(f"{self._path}: no response within {_CHANGE_S:g} s") from exc

    def _change(self, change: Callable[[str | None], str]) -> None:
        # A change that was abandoned at its time limit may still run in its thread.
        with self._one_at_a_time:
            try:
                connection = self._open()
                with connection:  # commits, or rolls back after an error
                    # The write lock before the read: what is written follows from what was read.
                    connection.execute("BEGIN IMMEDIATE")
                    found = connection.execute("SELECT state FROM quota WHERE name = ?", (self._name,)).fetchone()
                    state = change(found[0] if found else None)
                    # Within the transaction of the read: no other process can decide in between.
                    connection.execute("REPLACE INTO quota VALUES (?, ?, ?)", (self._name, time.time(), state))
            except (OSError, sqlite3.Error, StorageError) as exc:
                raise StorageError(f"{self._path}: {_reason(exc, self._path)}") from exc

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            # Only a new file may be opened here: POSIX ends all locks of a process on a file when it closes any of its
            # descriptors, and this process may have the database open already.
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        # Here, in the thread: it reads files.
        # uses it.
        self._me = this_process()
        self.owner = json.dumps(dataclasses.astuple(self._me))
        connection = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        # The database is whole after any kill. A power cut may lose the last changes, but never damages it. FULL would
        # cost an fsync for each request.
        connection.execute("PRAGMA synchronous = NORMAL")
        # Two processes may open a new file at once: the second one finds the version that the first one wrote.
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            [version] = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    connection.execute(statement)
                connection.execute("INSERT INTO salt VALUES (?)", (secrets.token_bytes(16),))
                connection.execute(f"PRAGMA user_version = {_VERSION}")
            elif version != _VERSION:
                raise StorageError(f"it has version {version}, and this program reads version {_VERSION}")
            connection.execute("DELETE FROM quota WHERE written_s < ?", (time.time() - _KEPT_S,))
            [salt] = connection.execute("SELECT salt FROM salt").fetchone()
        self._name = hashlib.blake2b(self._subject, digest_size=16, salt=salt).hexdigest()

    def _close(self) -> None:
        with self._one_at_a_time, suppress(sqlite3.Error):
            if self._connection is not None:
                self._connection.close()
                self._connection = None


def _reason(exc: Exception, path: Path) -> str:
    """Return what is wrong, and what helps if it does not pass by itself."""
    if isinstance(exc, OSError):
        elsewhere = f": {exc.filename}" if exc.filename not in (None, path, str(path)) else ""
        return f"{exc.strerror or exc}{elsewhere}"
    # SQLite raises a subclass for an error that may pass, and the base class for a file that is no database.
    if type(exc) is sqlite3.DatabaseError:
        return f"it is damaged ({exc}); remove it"
    return str(exc)

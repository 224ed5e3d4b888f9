"""What several runs with one key know of its quota, in one place: in memory, or in a small database on disk.

The database is SQLite's: the standard library has it, a change is whole or not there whenever its writer
is killed, its lock ends with the process that holds it, and a damaged file is told from a good one.
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
_LIMIT_S: Final = 10.0
_GRACE_S: Final = 0.4
_KEPT_S: Final = 7 * 86_400.0
_SCHEMA: Final = """
CREATE TABLE salt (salt BLOB NOT NULL);
CREATE TABLE quota (name TEXT PRIMARY KEY, written_s REAL NOT NULL, state TEXT NOT NULL) WITHOUT ROWID;
"""


class QuotaStore(Protocol):
    """Where all who use a key keep what they know of its quota: one text, in a form of their own."""

    @property
    def owner(self) -> str:
        """Names us to the others, within :meth:`change`."""

    @property
    def lasting(self) -> bool:
        """Whether what was kept holds when nobody who wrote it lives any more."""

    def is_gone(self, owner: str) -> bool:
        """Whether it surely lives no more. Called within :meth:`change`; quick."""

    async def change(self, change: Callable[[str | None], str]) -> None:
        """Keep what ``change`` makes of what was kept (None: nothing), while nobody else reads or writes.

        ``change`` is quick, may run in a thread, and is called at most once.

        :raises StorageError: the ledger cannot be used, and may or may not have been changed; or
            ``change`` raised it, and nothing was
        """


class MemoryQuotaStore:
    """For several runs in one program, on one event loop."""

    owner = "this program"
    lasting = True

    def __init__(self) -> None:
        self._kept: str | None = None

    def is_gone(self, owner: str) -> bool:  # noqa: ARG002 - one program lives as long as it asks
        """Never."""
        return False

    async def change(self, change: Callable[[str | None], str]) -> None:
        """Keep what ``change`` makes of what was kept."""
        self._kept = change(self._kept)


class SqliteQuotaStore:
    """For several processes of one user on one machine: a SQLite database at ``path``.

    It holds neither keys nor what they could be found from: an entry's name is a salted hash. Close it
    by ``async with``.

    :param host: the gateway's, since a key has a quota at each
    :param api_key: whose quota it is; it is hashed and not kept
    :param lasting: whether what was kept holds when nobody who wrote it lives any more
    """

    def __init__(self, path: Path, *, host: str, api_key: str, lasting: bool = True) -> None:
        self.lasting = lasting
        self._path = path
        self._subject = json.dumps([host, api_key]).encode()
        self._name = ""
        self._connection: sqlite3.Connection | None = None
        self._turn = threading.Lock()
        self._threads = anyio.CapacityLimiter(2)
        self._me = ProcessId("", "", "", 0, 0)
        self.owner: str = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.move_on_after(_GRACE_S, shield=True):
            await to_thread.run_sync(self._close, limiter=self._threads, abandon_on_cancel=True)

    def is_gone(self, owner: str) -> bool:
        """Whether the process surely runs no more."""
        try:
            return owner != self.owner and is_dead(ProcessId(*json.loads(owner)), seen_from=self._me)
        except (TypeError, ValueError):
            return False

    async def change(self, change: Callable[[str | None], str]) -> None:
        """Keep what ``change`` makes of what was kept; it runs in a thread, while no other process reads or writes.

        :raises StorageError: the database cannot be used, or not in time; or ``change`` raised it
        """
        try:
            with anyio.fail_after(_LIMIT_S):
                await to_thread.run_sync(self._change, change, limiter=self._threads, abandon_on_cancel=True)
        except TimeoutError as exc:
            raise StorageError(f"{self._path}: no answer within {_LIMIT_S:g} s") from exc

    def _change(self, change: Callable[[str | None], str]) -> None:
        with self._turn:  # one that was abandoned may still be at it
            try:
                connection = self._open()
                with _transaction(connection):
                    found = connection.execute("SELECT state FROM quota WHERE name = ?", (self._name,)).fetchone()
                    state = change(found[0] if found else None)
                    connection.execute("REPLACE INTO quota VALUES (?, ?, ?)", (self._name, time.time(), state))
            except (OSError, sqlite3.Error, StorageError) as exc:
                raise StorageError(f"{self._path}: {_told(exc, self._path)}") from exc

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            # Exclusively: to close a file that this process has open elsewhere would end its locks there.
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
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
        connection.execute("PRAGMA synchronous = NORMAL")  # whole after any kill; a power cut may cost the last changes
        with _transaction(connection):
            [version] = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    connection.execute(statement)
                connection.execute("INSERT INTO salt VALUES (?)", (secrets.token_bytes(16),))
                connection.execute(f"PRAGMA user_version = {_VERSION}")
            elif version != _VERSION:
                raise StorageError(f"it is of version {version}, and this program knows {_VERSION}")
            connection.execute("DELETE FROM quota WHERE written_s < ?", (time.time() - _KEPT_S,))
            [salt] = connection.execute("SELECT salt FROM salt").fetchone()
        self._name = hashlib.blake2b(self._subject, digest_size=16, salt=salt).hexdigest()

    def _close(self) -> None:
        with self._turn, suppress(sqlite3.Error):
            if self._connection is not None:
                self._connection.close()
                self._connection = None


def _told(exc: Exception, path: Path) -> str:
    """What is wrong, and what helps if it will not pass."""
    if isinstance(exc, OSError):
        elsewhere = f": {exc.filename}" if exc.filename not in (None, path, str(path)) else ""
        return f"{exc.strerror or exc}{elsewhere}"
    # Of SQLite's errors those of a class of their own are of this try; a file that is no database stays none.
    if type(exc) is sqlite3.DatabaseError:
        return f"it is damaged ({exc}); remove it"
    return str(exc)


class _transaction:  # noqa: N801 - reads as one
    """Alone from its beginning, since what is written follows from what was read."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._connection.execute("COMMIT")
        else:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

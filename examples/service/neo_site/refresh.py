"""Refresh the catalogue: a run, then a wait, until the site ends."""

from __future__ import annotations

import logging
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread
from pydantic import ValidationError

from neo_site.catalogue import Catalogue
from neows_async import (
    DataError,
    NeowsError,
    NotFoundError,
    PausedError,
    Progress,
    Receipt,
    ingest,
    keep_newest,
    open_sandbox,
    open_storage,
)
from neows_async.telemetry import events

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from neo_site.config import Config
    from neows_async import Listener, Storage

_log = logging.getLogger(__name__)
_LATEST = "_runs/latest.json"


@dataclass(frozen=True, slots=True)
class RefreshResult:
    """The result of a refresh.

    :param outcome: ``committed``, ``paused`` or ``failed``
    :param reason: why it is not ``committed``
    :param ended_s: UTC, seconds since 1970
    """

    outcome: str
    reason: str | None
    ended_s: float


class Refresher:
    """Holds the newest committed catalogue, and fetches the next one in the background.

    :param listener: receives the events of all runs
    """

    def __init__(self, config: Config, listener: Listener = events.ignore) -> None:
        self._config = config
        self._settings = config.settings()
        self._progress = Progress()
        self._listener = events.each(self._progress, listener)
        self._storage: Storage
        self.catalogue: Catalogue | None = None
        """None before the first commit. Replaced as a whole, never changed."""
        self.running = False
        self.last: RefreshResult | None = None
        """None before the end of the first refresh."""
        self.next_s: float | None = None
        """The begin of the next refresh; None during a refresh."""

    @property
    def progress(self) -> Progress:
        """The progress of the current run, or of the last one."""
        return self._progress

    async def run(self) -> None:
        """Refresh until cancelled, which may happen at any time: the next start resumes the run."""
        while not await self._try(self._begin):
            await self._wait()
        self.last = None
        while True:
            await self._wait()
            self.running = True
            if await self._try(self._refresh):
                self.last = RefreshResult("committed", None, time.time())
            self.running = False

    async def _try(self, step: Callable[[], Awaitable[None]]) -> bool:
        """Whether ``step`` succeeded. A failure is logged, and the site serves the catalogue that it has."""
        self.next_s = None
        try:
            await step()
        except PausedError as exc:
            self.last = RefreshResult("paused", str(exc), time.time())
            self.next_s = exc.resume_at_s
        except NeowsError as exc:
            self.last = RefreshResult("failed", str(exc), time.time())
        except Exception as exc:  # noqa: BLE001 - a bug; logged with its traceback
            _log.exception("the refresh failed")
            self.last = RefreshResult("failed", type(exc).__name__, time.time())
        else:
            return True
        _log.warning("refresh %s: %s", self.last.outcome, self.last.reason)
        return False

    async def _begin(self) -> None:
        """Open the lake, and serve its newest catalogue."""
        self._storage = await to_thread.run_sync(open_storage, self._settings.root)
        await self._adopt()

    async def _wait(self) -> None:
        """Wait until the catalogue is old enough, or the last failure long enough ago."""
        if self.next_s is None:
            self.next_s = 0.0
            if self.catalogue is not None:
                self.next_s = self.catalogue.receipt.committed_at.timestamp() + self._config.refresh_every_s
            if self.last is not None and self.last.outcome != "committed":
                self.next_s = max(self.next_s, self.last.ended_s + self._config.retry_after_s)
        # By wall-clock time, in steps: clocks are set, and machines sleep.
        while (left_s := self.next_s - time.time()) > 0:  # noqa: ASYNC110 - it waits for a time, not for an event
            await anyio.sleep(min(left_s, 60.0))

    async def _refresh(self) -> None:
        settings = self._settings
        async with AsyncExitStack() as stack:
            source = None
            if self._config.synthetic:
                source = await stack.enter_async_context(open_sandbox(settings, neos=self._config.sandbox_neos))
            await ingest(settings, source=source, storage=self._storage, on_event=self._listener)
        await self._adopt()
        await keep_newest(settings, self._config.keep, storage=self._storage)

    async def _adopt(self) -> None:
        """Serve the newest committed snapshot.

        :raises NeowsError: there may be one, but it cannot be read
        """
        current, storage = self.catalogue, self._storage

        def load() -> Catalogue | None:
            try:
                receipt = Receipt.model_validate_json(storage.get(_LATEST))
            except NotFoundError:
                return current
            except ValidationError as exc:
                raise DataError(f"{storage.uri}: {_LATEST} is damaged; restore it, or move it away") from exc
            return current if current and current.receipt == receipt else Catalogue.load(storage, receipt)

        self.catalogue = await to_thread.run_sync(load)
        if self.catalogue is not None and self.catalogue is not current:
            receipt = self.catalogue.receipt
            _log.info("serving snapshot %s: %s objects", receipt.snapshot, f"{receipt.records.written:,}")

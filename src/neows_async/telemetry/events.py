"""The events of a run: frozen values, each passed to a listener, which is a plain function.

A listener is called in the event loop's thread, must be quick, and must not raise. ``RunStarted`` is the first event of
a run and ``RunEnded`` the last, however the run ends. No text holds a key.

A field's name has one meaning in all events: ``number`` is a page's number, from 0; ``snapshot`` a snapshot's id;
``rate_limit`` the quota in the response's headers, or None if it has none; ``reason`` one line for people.

Ready-made listeners are in :mod:`neows_async.telemetry`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neows_async.errors import RateLimit
    from neows_async.pages.values import Json, Rejected


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run begins. No page was read or requested yet.

    :param origin: the source of the pages, see :attr:`Source.origin <neows_async.protocols.Source.origin>`
    :param synthetic: the objects are made up
    :param compiled_scanner: this installation has the compiled page scanner; without it, decoding takes twice as long
    """

    origin: str
    synthetic: bool
    compiled_scanner: bool


@dataclass(frozen=True, slots=True)
class SnapshotOpened:
    """The run has opened the snapshot that it writes.

    :param resumed: an earlier run began the snapshot
    :param pages_kept: pages that an earlier run stored in the raw zone; they are not requested again
    """

    snapshot: str
    resumed: bool
    pages_kept: int


@dataclass(frozen=True, slots=True)
class SnapshotPassedOver:
    """An unfinished snapshot with similar settings is not resumed, for ``reason``."""

    snapshot: str
    reason: str


@dataclass(frozen=True, slots=True)
class Planned:
    """The size of the catalogue is known from the first page of a generation.

    :param total_elements: objects in the catalogue
    :param page_size: objects a page, from the response
    :param pages: pages to read in this generation
    :param positions: Browse positions to read; fewer than the limit if the catalogue is smaller
    :param generation: 0; 1 when the catalogue changed during the run and is read again
    """

    total_elements: int
    page_size: int
    pages: int
    positions: int
    generation: int = 0


@dataclass(frozen=True, slots=True)
class PageFetched:
    """A complete and valid page was received.

    :param body_bytes: the size of its JSON
    :param fetch_s: seconds that the successful attempt took
    """

    number: int
    body_bytes: int
    fetch_s: float
    rate_limit: RateLimit | None


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt at a page failed; a retry may succeed.

    :param attempt: counted from 1
    :param wait_s: seconds until the earliest retry; None if the page's retry budget is spent
    :param error: the exception's name in :mod:`neows_async.errors`
    :param status: the HTTP status; None without a response
    """

    number: int
    attempt: int
    reason: str
    wait_s: float | None
    error: str = "AttemptError"
    status: int | None = None
    rate_limit: RateLimit | None = None


@dataclass(frozen=True, slots=True)
class WaitingForQuota:
    """The quota allows no request before ``until_s`` (UTC, seconds since 1970), which is ``wait_s`` from now."""

    until_s: float
    wait_s: float


@dataclass(frozen=True, slots=True)
class QuotaSharingFailed:
    """The quota store failed: from now on, the run counts its own requests only."""

    reason: str


@dataclass(frozen=True, slots=True)
class SourceDown:
    """Requests for different pages failed in a row. The source counts as down, and the run only probes it.

    :param since_s: the first failure; UTC, seconds since 1970
    :param next_probe_s: the next request; UTC, seconds since 1970
    """

    since_s: float
    next_probe_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class SourceStillDown:
    """A probe during an outage failed.

    :param since_s: the first failure; UTC, seconds since 1970
    :param next_probe_s: the next request; UTC, seconds since 1970
    """

    since_s: float
    next_probe_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class SourceUp:
    """The outage is over: a valid page was received.

    :param down_s: its length in seconds
    """

    down_s: float


@dataclass(frozen=True, slots=True)
class Draining:
    """The run ends for ``reason``. Before, it stores the responses to ``requests`` requests in flight."""

    reason: str
    requests: int


@dataclass(frozen=True, slots=True)
class PageDeferred:
    """A page used up its retry budget. It is requested again after the other pages."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class PageMissing:
    """A page could not be read; ``--max-missing-pages`` allows it."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class PageDamaged:
    """A page in the raw zone is damaged. It was set aside and is requested again."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class ObjectRejected:
    """An object could not be read. It is written to the quarantine.

    :param rejected: its place, the reason, and its text
    """

    rejected: Rejected


@dataclass(frozen=True, slots=True)
class PageWritten:
    """Every sink and aggregator has processed the page; in a stream, the consumer has received it.

    :param neos: written objects of the page, without duplicates and rejects; ``close_approaches``: theirs
    """

    number: int
    neos: int
    close_approaches: int


@dataclass(frozen=True, slots=True)
class Aggregated:
    """The aggregators' results so far: after the first page, then at most once a second, and after the last page.

    :param results: aggregator's name → its result
    """

    results: Mapping[str, Mapping[str, Json]]


@dataclass(frozen=True, slots=True)
class Committing:
    """The last page is written. Next, the files get their final names.

    :param files: the number of files, with ``bytes`` bytes in all
    """

    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Committed:
    """The snapshot exists."""

    snapshot: str


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run, or the stream, is over.

    :param outcome: ``committed``; for a stream, ``read`` to its end or ``stopped`` before; ``paused`` by the quota or
        the budget; ``cancelled`` by the caller; ``failed`` otherwise, also if the consumer of a stream raised
    :param error: the name of the exception that ended the run; None without one
    :param reason: the exception's text, if it is of :mod:`neows_async.errors`; the text of others may hold a key
    :param run_s: seconds since ``RunStarted``
    """

    outcome: Literal["committed", "read", "stopped", "paused", "cancelled", "failed"]
    error: str | None
    reason: str | None
    run_s: float


Event: TypeAlias = (
    RunStarted
    | SnapshotOpened
    | SnapshotPassedOver
    | Planned
    | PageFetched
    | AttemptFailed
    | WaitingForQuota
    | QuotaSharingFailed
    | SourceDown
    | SourceStillDown
    | SourceUp
    | Draining
    | PageDeferred
    | PageMissing
    | PageDamaged
    | ObjectRejected
    | PageWritten
    | Aggregated
    | Committing
    | Committed
    | RunEnded
)
Listener: TypeAlias = Callable[[Event], None]


def ignore(_: Event) -> None:
    """A listener that does nothing."""


def each(*listeners: Listener) -> Listener:
    """A listener that passes each event to all ``listeners``, in their order."""

    def listen(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return listen


def name_of(event: Event) -> str:
    """The event's name in logs: ``page_fetched`` for :class:`PageFetched`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()

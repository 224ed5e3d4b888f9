"""What a run says while it goes on: one frozen value each, to a plain function.

A listener is called in the event loop's thread, must be quick, and must not raise. ``RunStarted`` is the
first it hears of a run and ``RunEnded`` the last, however the run ends. No text holds a key.

What has one name means the same everywhere: ``number`` is a page's, from 0, ``snapshot`` an id, ``rate_limit`` what the
answer said of the quota, or None if it said nothing, and ``reason`` one line for people.

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
    """A run begins; nothing was read or asked for yet.

    :param origin: what the pages are of, see :attr:`Source.origin <neows_async.protocols.Source.origin>`
    :param synthetic: the objects are made up
    """

    origin: str
    synthetic: bool


@dataclass(frozen=True, slots=True)
class SnapshotOpened:
    """The run knows where it writes.

    :param resumed: an earlier try began the snapshot
    :param pages_kept: of an earlier try, already in the raw zone; they are not asked for again
    """

    snapshot: str
    resumed: bool
    pages_kept: int


@dataclass(frozen=True, slots=True)
class SnapshotPassedOver:
    """An unfinished snapshot that could be meant is not resumed, and why."""

    snapshot: str
    reason: str


@dataclass(frozen=True, slots=True)
class Planned:
    """The first page of a generation told how large the catalogue is.

    :param total_elements: objects in all
    :param page_size: objects a page, as the source answered
    :param pages: to be read in this generation
    :param generation: 0, and 1 when it changed meanwhile and is read once more
    :param positions: Browse positions wanted; fewer than the limit when there are no more
    """

    total_elements: int
    page_size: int
    pages: int
    positions: int
    generation: int = 0


@dataclass(frozen=True, slots=True)
class PageFetched:
    """A whole, right page came.

    :param body_bytes: of its JSON
    :param fetch_s: for the attempt that succeeded
    """

    number: int
    body_bytes: int
    fetch_s: float
    rate_limit: RateLimit | None


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt failed, as another one need not.

    :param attempt: from 1
    :param wait_s: it is tried again so much later, at the earliest; None when the page's budget is spent
    :param error: the exception's name in :mod:`neows_async.errors`
    :param status: the HTTP status, where there was an answer
    :param rate_limit: what that answer said of the quota, if it said
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
    """No request may go out before ``until_s`` (UTC, seconds since 1970), ``wait_s`` from now."""

    until_s: float
    wait_s: float


@dataclass(frozen=True, slots=True)
class QuotaSharingFailed:
    """The ledger cannot be used: from here on the run goes by its own requests alone."""

    reason: str


@dataclass(frozen=True, slots=True)
class SourceDown:
    """Different pages fail in a row: the source is taken to be down, and is asked rarely.

    :param since_s: UTC, seconds since 1970: the first failure
    :param next_probe_s: UTC, when it is asked next
    """

    since_s: float
    next_probe_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class SourceStillDown:
    """During an outage it was asked, in vain.

    :param since_s: UTC, seconds since 1970: the first failure
    :param next_probe_s: UTC, when it is asked next
    """

    since_s: float
    next_probe_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class SourceUp:
    """After an outage a good page came.

    :param down_s: how long it lasted
    """

    down_s: float


@dataclass(frozen=True, slots=True)
class Draining:
    """The run ends for ``reason``; before, what comes of ``requests`` that are under way is kept."""

    reason: str
    requests: int


@dataclass(frozen=True, slots=True)
class PageDeferred:
    """A page failed for its whole retry budget; the others go first, then it is tried again."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class PageMissing:
    """A page stays a hole, as was allowed."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class PageDamaged:
    """A page of the raw zone can't be read any more: it was set aside and is fetched again."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class ObjectRejected:
    """An object could not be read; it goes to the quarantine.

    :param rejected: which, why, and its own text
    """

    rejected: Rejected


@dataclass(frozen=True, slots=True)
class PageWritten:
    """Every sink and aggregator has taken the page; a stream has given it out.

    :param neos: rows of it that were written, without duplicates and rejects; ``close_approaches`` those of them
    """

    number: int
    neos: int
    close_approaches: int


@dataclass(frozen=True, slots=True)
class Aggregated:
    """The aggregators' figures so far: told after the first page, then once a second at most, and after the last.

    :param results: by the aggregator's name
    """

    results: Mapping[str, Mapping[str, Json]]


@dataclass(frozen=True, slots=True)
class Committing:
    """The last page is written; files are about to get their final names.

    :param files: how many, of ``bytes`` in all
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

    :param outcome: ``committed``; of a stream ``read`` to its end, or left before as ``stopped``; ``paused`` by the
        quota or the budget, ``cancelled`` from outside, ``failed`` otherwise, also by what the user of a stream raised
    :param error: the name of the exception that ended it; None if there is none
    :param reason: its text, if it is one of :mod:`neows_async.errors`; that of others is not known to be free of keys
    :param run_s: since ``RunStarted``
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
    """The listener of those who do not listen."""


def each(*listeners: Listener) -> Listener:
    """One listener that tells all of ``listeners``, in their order."""

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return tell


def name_of(event: Event) -> str:
    """How logs call it: ``page_fetched`` for :class:`PageFetched`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()

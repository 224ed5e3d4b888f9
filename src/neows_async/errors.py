"""The one tree of exceptions that leaves this package.

::

    NeowsError
    ├── SettingsError              a setting is wrong, or two of them do not go together
    ├── DataError                  what the source said cannot become a snapshot
    │   ├── EmptyCatalogueError    it has no objects at all
    │   ├── TooManyRejectsError    more objects were unreadable than was allowed
    │   └── DifferenceError        a snapshot is not what its receipt says
    ├── SourceError                a page could not be had
    │   ├── UnavailableError       it was tried as long as was allowed; ``__cause__`` is the last reason
    │   │   └── OutageError        the source as a whole is down, for longer than was allowed
    │   ├── RefusedError           asking again cannot help (400, 404, a redirect …)
    │   │   └── KeyRefusedError    the key is missing, unknown, disabled or not allowed
    │   └── AttemptError           one attempt failed; another may succeed
    │       ├── UnreachableError   nothing listens there, or the name does not resolve
    │       ├── RateLimitedError   429: the source names when to come back
    │       └── BadPageError       an answer came, but it is not the whole, right page
    ├── PausedError                the quota is spent for now; resumable from ``resume_at_s``
    ├── PartError                  a part that was handed in failed; ``__cause__`` is its own exception
    ├── SnapshotHeldError          another live run writes this snapshot
    └── StorageError               the lake could not be read or written
        ├── NotFoundError          no object of that name
        └── AlreadyExistsError     create-only, and somebody was first

Every text is one line that says what was wrong, where, and what to do. No text holds a key.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What the last answer said of the hour; it may jump between answers, since several nodes count.

    :param limit: ``X-RateLimit-Limit``: requests an hour
    :param remaining: ``X-RateLimit-Remaining``: those left of them
    """

    limit: int
    remaining: int


class NeowsError(Exception):
    """The root: ``except NeowsError`` catches whatever a run raises on purpose.

    It can be copied and pickled, as worker processes and schedulers do; its cause stays behind.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # As it is, and not made anew: not all that it was made of stands in its arguments.
        return _as_it_was, (type(self), self.args), vars(self)


class SettingsError(NeowsError):
    """A setting is wrong, or two of them do not go together."""


class DataError(NeowsError):
    """What the source said cannot become a snapshot."""


class EmptyCatalogueError(DataError):
    """The source announces a catalogue of no objects."""


class TooManyRejectsError(DataError):
    """More objects were unreadable than the settings allow."""


class DifferenceError(DataError):
    """A snapshot is not what its receipt says."""


class SourceError(NeowsError):
    """A page could not be had."""


class UnavailableError(SourceError):
    """The source was tried for as long as was allowed; ``__cause__`` is the last real reason."""


class OutageError(UnavailableError):
    """The source as a whole has been down for longer than is to be waited for: no page can be had."""


class RefusedError(SourceError):
    """Asking again cannot help: the request itself is what the source refuses.

    :param status: the HTTP status, where there was an answer
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class KeyRefusedError(RefusedError):
    """The key is missing, unknown, disabled or not allowed to ask."""


class AttemptError(SourceError):
    """One attempt failed in a way that another attempt may not.

    :param status: the HTTP status, where there was an answer
    :param rate_limit: what that answer said of the quota, if it said
    :param body: what came instead of a page, already scrubbed, for inspection; may be cut short
    """

    def __init__(
        self, message: str, *, status: int | None = None, rate_limit: RateLimit | None = None, body: bytes = b""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.rate_limit = rate_limit
        self.body = body


class UnreachableError(AttemptError):
    """Nothing listens at the address, or its name does not resolve."""


class RateLimitedError(AttemptError):
    """The gateway refuses for now; the status is 429.

    :param retry_after_s: seconds from now, in its own word; None if it gave none
    """

    def __init__(
        self, message: str, *, retry_after_s: float | None, rate_limit: RateLimit | None = None, body: bytes = b""
    ) -> None:
        super().__init__(message, status=429, rate_limit=rate_limit, body=body)
        self.retry_after_s = retry_after_s


class BadPageError(AttemptError):
    """An answer came, but it is not the whole, right page; it never enters the raw zone."""


class PausedError(NeowsError):
    """The quota (or the budget) is spent for now. What was fetched is kept.

    :param resume_at_s: UTC, seconds since 1970, from when the same command can go on
    """

    def __init__(self, message: str, *, resume_at_s: float) -> None:
        resume_at = dt.datetime.fromtimestamp(math.ceil(resume_at_s), dt.UTC)
        super().__init__(f"{message}; run the same command again at {resume_at:%Y-%m-%dT%H:%M:%SZ} or later")
        self.resume_at_s = resume_at_s


class PartError(NeowsError):
    """A sink, source or aggregator that was handed in failed in a way of its own."""


class SnapshotHeldError(NeowsError):
    """Another live run writes this snapshot; the text says who."""


class StorageError(NeowsError):
    """The lake could not be read or written; the text names the object."""


class NotFoundError(StorageError):
    """There is no object of that name."""


class AlreadyExistsError(StorageError):
    """The object was to be created, but exists."""


def _as_it_was(kind: type[NeowsError], args: tuple[Any, ...]) -> NeowsError:
    return kind.__new__(kind, *args)


def most_relevant(raised: BaseException) -> BaseException:
    """Of what several tasks raised at once the one that tells most: the user's word to end, then one of
    ours before a stranger.
    """
    if not isinstance(raised, BaseExceptionGroup):
        return raised
    leaves = [most_relevant(exc) for exc in raised.exceptions]
    for kinds in ((KeyboardInterrupt, SystemExit), NeowsError):
        for exc in leaves:
            if isinstance(exc, kinds):
                return exc
    return leaves[0]


def known_name(exc: BaseException) -> str:
    """Its name, if it is of this tree; else that of the first of its ancestors that is, or its own if none is."""
    ours = (cls.__name__ for cls in type(exc).__mro__ if cls.__module__ == __name__)
    return next(ours, type(exc).__name__)

"""Every exception that leaves this package, and the quota in a response's headers.

::

    NeowsError
    ├── SettingsError              a setting is wrong, or two settings do not fit together
    ├── DataError                  the source's data cannot become a snapshot
    │   ├── EmptyCatalogueError    the catalogue has no objects
    │   ├── TooManyRejectsError    more objects could not be read than the settings allow
    │   └── DifferenceError        a snapshot differs from its receipt
    ├── SourceError                a page could not be fetched
    │   ├── UnavailableError       all retries failed; ``__cause__`` is the last failure
    │   │   └── OutageError        the whole source is down for longer than the settings allow
    │   ├── RefusedError           a retry cannot succeed (400, 404, a redirect …)
    │   │   └── KeyRefusedError    the key is missing, unknown, disabled or not authorized
    │   └── AttemptError           one attempt failed; a retry may succeed
    │       ├── UnreachableError   no server listens there, or the name does not resolve
    │       ├── RateLimitedError   429; it may say when to retry
    │       └── BadPageError       a response was received, but it is not the complete, valid page
    ├── PausedError                the quota is used up; the run can be resumed from ``resume_at_s`` on
    ├── PartError                  a sink, source or aggregator of the caller failed; ``__cause__`` is its exception
    ├── SnapshotHeldError          another live run writes this snapshot
    └── StorageError               the lake could not be read or written
        ├── NotFoundError          there is no object of this name
        └── AlreadyExistsError     the object exists, and must not be overwritten

Each text is one line that says what is wrong, where, and what to do. No text holds a key.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The quota in a response's headers. Values may jump between responses, since several nodes count.

    :param limit: ``X-RateLimit-Limit``: requests an hour
    :param remaining: ``X-RateLimit-Remaining``: requests left of ``limit``
    """

    limit: int
    remaining: int


class NeowsError(Exception):
    """The root: ``except NeowsError`` catches every exception that a run raises on purpose.

    It can be copied and pickled, as worker processes and schedulers do, but without its cause.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # Not by calling the class again: ``args`` does not hold all arguments of every constructor.
        return _restore, (type(self), self.args), vars(self)


class SettingsError(NeowsError):
    """A setting is wrong, or two settings do not fit together."""


class DataError(NeowsError):
    """The source's data cannot become a snapshot."""


class EmptyCatalogueError(DataError):
    """The catalogue has no objects."""


class TooManyRejectsError(DataError):
    """More objects could not be read than the settings allow."""


class DifferenceError(DataError):
    """A snapshot differs from its receipt."""


class SourceError(NeowsError):
    """A page could not be fetched."""


class UnavailableError(SourceError):
    """All retries that the settings allow failed; ``__cause__`` is the last failure."""


class OutageError(UnavailableError):
    """The whole source is down for longer than the settings allow."""


class RefusedError(SourceError):
    """The source refuses the request itself, so a retry cannot succeed.

    :param status: the HTTP status; None without a response
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class KeyRefusedError(RefusedError):
    """The key is missing, unknown, disabled or not authorized."""


class AttemptError(SourceError):
    """One attempt failed; a retry may succeed.

    :param status: the HTTP status; None without a response
    :param rate_limit: the quota in the response's headers; None if it has none
    :param body: the redacted body of the response, for inspection; may be cut short
    """

    def __init__(
        self, message: str, *, status: int | None = None, rate_limit: RateLimit | None = None, body: bytes = b""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.rate_limit = rate_limit
        self.body = body


class UnreachableError(AttemptError):
    """No server listens at the address, or its name does not resolve."""


class RateLimitedError(AttemptError):
    """The gateway refuses requests for now; the status is 429.

    :param retry_after_s: seconds from now, from ``Retry-After``; None without this header
    """

    def __init__(
        self, message: str, *, retry_after_s: float | None, rate_limit: RateLimit | None = None, body: bytes = b""
    ) -> None:
        super().__init__(message, status=429, rate_limit=rate_limit, body=body)
        self.retry_after_s = retry_after_s


class BadPageError(AttemptError):
    """A response was received, but it is not the complete, valid page. It is never stored in the raw zone."""


class PausedError(NeowsError):
    """The quota or the budget is used up for now. Fetched pages are stored.

    :param resume_at_s: from this time on, the same command resumes the run; UTC, seconds since 1970
    """

    def __init__(self, message: str, *, resume_at_s: float) -> None:
        resume_at = dt.datetime.fromtimestamp(math.ceil(resume_at_s), dt.UTC)
        super().__init__(f"{message}; run the same command again at {resume_at:%Y-%m-%dT%H:%M:%SZ} or later")
        self.resume_at_s = resume_at_s


class PartError(NeowsError):
    """A sink, source or aggregator of the caller raised an exception of another kind; ``__cause__`` is it."""


class SnapshotHeldError(NeowsError):
    """Another live run writes this snapshot; the text names it."""


class StorageError(NeowsError):
    """The lake could not be read or written; the text names the object."""


class NotFoundError(StorageError):
    """There is no object of this name."""


class AlreadyExistsError(StorageError):
    """The object exists, and must not be overwritten."""


def _restore(kind: type[NeowsError], args: tuple[Any, ...]) -> NeowsError:
    return kind.__new__(kind, *args)


def most_relevant(raised: BaseException) -> BaseException:
    """The one exception to report of a group: an interrupt by the user, else the first of this tree, else the first."""
    if not isinstance(raised, BaseExceptionGroup):
        return raised
    leaves = [most_relevant(exc) for exc in raised.exceptions]
    # A group loses the order of time, so the kind decides.
    for kinds in ((KeyboardInterrupt, SystemExit), NeowsError):
        for exc in leaves:
            if isinstance(exc, kinds):
                return exc
    return leaves[0]


def known_name(exc: BaseException) -> str:
    """The name of the nearest class of this tree that ``exc`` belongs to, or else the name of its own class."""
    ours = (cls.__name__ for cls in type(exc).__mro__ if cls.__module__ == __name__)
    return next(ours, type(exc).__name__)

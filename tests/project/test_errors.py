"""The tree of exceptions, as other programs carry it about."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING

import pytest

from neows_async import (
    AttemptError,
    BadPageError,
    KeyRefusedError,
    NeowsError,
    PartError,
    PausedError,
    RateLimit,
    RateLimitedError,
    StorageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

ERRORS = [
    NeowsError("all"),
    StorageError(),
    PartError("mine failed"),
    AttemptError("503", status=503, rate_limit=RateLimit(1000, 7), body=b"<html>"),
    BadPageError("short", body=b"{"),
    KeyRefusedError("403", status=403),
    RateLimitedError("429", retry_after_s=2870.0, rate_limit=RateLimit(1000, 0)),
    PausedError("the quota is spent", resume_at_s=1_795_612_442.5),
]


def pickled(exc: NeowsError) -> NeowsError:
    found: NeowsError = pickle.loads(pickle.dumps(exc))  # noqa: S301 - our own
    return found


@pytest.mark.parametrize("exc", ERRORS, ids=lambda exc: type(exc).__name__)
@pytest.mark.parametrize("again", [pickled, copy.copy, copy.deepcopy])
def test_an_error_comes_through_a_worker_process_as_it_was(
    exc: NeowsError, again: Callable[[NeowsError], NeowsError]
) -> None:
    exc.add_note("in the nightly job")
    other = again(exc)
    assert type(other) is type(exc)
    assert (str(other), other.args, vars(other)) == (str(exc), exc.args, vars(exc))

"""From one page number to one whole, right, scrubbed page: attempts until there is one, or the budget is spent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

import anyio
from anyio.lowlevel import checkpoint
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from neows_async.errors import (
    AttemptError,
    RateLimitedError,
    UnavailableError,
    UnreachableError,
    known_name,
)
from neows_async.pages.values import RawPage
from neows_async.pipeline.guards import blaming
from neows_async.telemetry.events import AttemptFailed, Listener, PageFetched

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from neows_async.pacing.gate import Gate
    from neows_async.protocols import AtHand, Source

_T = TypeVar("_T")
_LONGEST_WAIT_S: Final = 10.0
# A source that keeps the limit of a request itself says better what happened.
_GRACE_S: Final = 1.0
# So many steps of the event loop take whoever waits for a turn from there to the network. It goes first: judging an
# answer can wait for a moment, and the source answers the next request meanwhile.
_NEXT_GOES_STEPS: Final = 3
# Full jitter: all waits up to the bound are equally likely, so that fetchers do not come back together.
_backoff = wait_random_exponential(max=_LONGEST_WAIT_S)


@dataclass(slots=True)
class _Trying:
    """How it stands with one page."""

    left_s: float
    failed: AttemptError = field(default_factory=lambda: AttemptError("not tried yet"))

    def told(self, number: int, attempt: int, wait_s: float | None) -> AttemptFailed:
        failed = self.failed
        return AttemptFailed(
            number,
            attempt,
            str(failed),
            wait_s,
            error=known_name(failed),
            status=failed.status,
            rate_limit=failed.rate_limit,
        )


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How long one page is tried.

    :param budget_s: for so long new attempts begin, in a row; neither waiting for the gate nor an outage counts
    :param request_timeout_s: for one attempt, the last one too: its request is spent, so its answer is waited for
    """

    budget_s: float = 30.0
    request_timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Handling:
    """What is done with what comes. Sizes are the objects a page must announce; None takes any.

    :param scrub: :func:`neows_async.endpoints.browse.check.scrubbed`, wherever it may take its time
    :param judge: :func:`neows_async.endpoints.browse.check.judged`, likewise
    :param keep_bad: is given the number and what came instead of a page, scrubbed
    :param keep_late: is given what was not judged, or not handed on, when the run was cancelled, scrubbed or not; its
        request is spent
    """

    scrub: Callable[[RawPage], Awaitable[RawPage]]
    judge: Callable[[RawPage, int | None], Awaitable[RawPage]]
    keep_bad: Callable[[int, bytes], Awaitable[None]]
    keep_late: Callable[[RawPage, int | None], Awaitable[None]]


class PageFetcher:
    """Fetches pages of one source; shared by all fetchers."""

    def __init__(
        self,
        source: Source,
        *,
        gate: Gate,
        handling: Handling,
        limits: FetchLimits,
        listener: Listener,
    ) -> None:
        self._source = source
        self._gate = gate
        self._handling = handling
        self._limits = limits
        self._listener = listener
        self.proven: bool = False
        """Whether a good page ever came from there: then what cannot be reached is down, and not a wrong address."""
        self.failed: int = 0
        self.network_s: float = 0.0
        """Time spent in requests, summed over all that were under way at once."""

    async def fetch(self, number: int, size: int, *, exact_size: bool) -> RawPage:
        """Page ``number``, whole, right and scrubbed.

        :param exact_size: the answer must use ``size``, since the run is planned with it
        :raises UnavailableError: it could not be had within the budget; the last reason is its cause
        :raises RefusedError: no attempt can succeed
        :raises PausedError: the gate lets nothing out for longer than is to be waited for
        """
        trying = _Trying(self._limits.budget_s)
        try:
            return await self._attempt(number, size, exact_size, trying)
        except AttemptError as exc:
            failed = exc
        return await self._try_again(failed, number, size, exact_size, trying)

    async def _try_again(
        self,
        failed: AttemptError,
        number: int,
        size: int,
        exact_size: bool,  # noqa: FBT001 - passed on
        trying: _Trying,
    ) -> RawPage:
        """What follows a first attempt that failed, which counts as one."""
        first: AttemptError | None = failed

        async def attempt() -> RawPage:
            nonlocal first
            if first is not None:
                exc, first = first, None
                raise exc
            return await self._attempt(number, size, exact_size, trying)

        def before_sleep(state: RetryCallState) -> None:
            if not self._gate.is_down:
                trying.left_s -= state.upcoming_sleep
            wait_s = max(state.upcoming_sleep, self._gate.closed_s)
            self._listener(trying.told(number, state.attempt_number, wait_s))

        retrying = AsyncRetrying(
            sleep=self._gate.sleep,
            retry=retry_if_exception(self._may_pass),
            stop=lambda state: self._ends(state.upcoming_sleep, trying),
            # After a 429 the gate knows better how long to wait.
            wait=lambda state: 0.0 if isinstance(trying.failed, RateLimitedError) else _backoff(state),
            before_sleep=before_sleep,
            reraise=True,
        )
        try:
            return await retrying(attempt)
        except AttemptError as exc:
            if not self._may_pass(exc):
                # Nothing listens and nothing ever did: known at once, not after the whole budget.
                raise UnavailableError(str(exc)) from exc
            self._listener(trying.told(number, retrying.statistics["attempt_number"], None))
            raise UnavailableError(
                f"page {number} could not be had within {self._limits.budget_s:g} s of trying; at last: {exc}. "
                "Run the same command again to go on"
            ) from exc

    def _ends(self, wait_s: float, trying: _Trying) -> bool:
        """Whether there is no time for another attempt ``wait_s`` from now."""
        return self._gate.is_closed or (wait_s >= trying.left_s and not self._gate.is_down)

    def _may_pass(self, exc: BaseException) -> bool:
        return isinstance(exc, AttemptError) and (self.proven or not isinstance(exc, UnreachableError))

    async def _attempt(self, number: int, size: int, exact_size: bool, trying: _Trying) -> RawPage:  # noqa: FBT001 - passed on
        came: RawPage | None = None
        judged_size = size if exact_size else None
        try:
            # The page's budget is for the page; what the gate takes is the quota's affair, or the outage's.
            async with self._gate.permit(number) as turn:
                started_s = anyio.current_time()
                try:
                    try:
                        came = await self.ask(number, size)
                    finally:
                        fetch_s = anyio.current_time() - started_s
                        self.network_s += fetch_s
                    turn.answered(came.rate_limit)
                    for _ in range(_NEXT_GOES_STEPS):
                        await checkpoint()
                    came = await self._handling.scrub(came)  # one of a megabyte is enough
                    raw = await self._handling.judge(came, judged_size)
                except AttemptError as exc:
                    self.failed += 1
                    turn.failed(exc)
                    trying.failed = exc
                    trying.left_s = self._limits.budget_s if self._gate.is_down else trying.left_s - fetch_s
                    await self._handling.keep_bad(number, exc.body)
                    raise
                turn.good(fetch_s)
        except anyio.get_cancelled_exc_class():
            if came is not None:
                await self._handling.keep_late(came, judged_size)
            raise
        self.proven = True
        self._listener(PageFetched(number, raw.size, fetch_s, came.rate_limit))
        return raw

    async def ask_at_hand(self, source: AtHand, numbers: Sequence[int], size: int) -> list[RawPage]:
        """Several pages, past the gate; neither judged nor scrubbed.

        :raises NeowsError: what the source raised, or that it broke its word, or gave no answer in time
        """

        async def asking() -> list[RawPage]:
            came = [*await source.fetch_several(tuple(numbers), size)]
            if any(not isinstance(raw, RawPage) for raw in came) or [raw.number for raw in came] != [*numbers]:
                raise TypeError(f"it gave others than the pages {[*numbers]}")
            return came

        return await self._in_time(asking())

    def took(self, raws: Sequence[RawPage], fetch_s: float) -> None:
        """These came past the gate, and are whole, right and scrubbed.

        :param fetch_s: that all of them took
        """
        self.proven = True
        self._gate.sent += len(raws)
        self.network_s += fetch_s
        for raw in raws:
            self._listener(PageFetched(raw.number, raw.size, fetch_s / len(raws), None))

    async def ask(self, number: int, size: int) -> RawPage:
        """One attempt, past the gate; neither judged nor scrubbed.

        :raises NeowsError: what the source raised, or that it broke its word, or gave no answer in time
        """

        async def asking() -> RawPage:
            came = await self._source.fetch(number, size)
            if not isinstance(came, RawPage):
                raise TypeError(f"it gave a {type(came).__name__} where a RawPage was expected")
            return came

        return await self._in_time(asking())

    async def _in_time(self, answer: Awaitable[_T]) -> _T:
        limit_s = self._limits.request_timeout_s
        with anyio.move_on_after(limit_s + _GRACE_S), blaming(f"the source {self._source.origin}"):
            return await answer
        raise AttemptError(f"no answer within {limit_s:.3g} s")

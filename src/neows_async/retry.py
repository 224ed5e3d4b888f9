"""From one page number to one whole, right, scrubbed page: attempts until there is one, or the budget is spent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from neows_async.errors import (
    AttemptError,
    RateLimitedError,
    UnavailableError,
    UnreachableError,
    known_name,
)
from neows_async.events import AttemptFailed, Listener, PageFetched
from neows_async.page import RawPage
from neows_async.promises import naming

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from neows_async.gate import Gate
    from neows_async.protocols import Source

_LONGEST_WAIT_S: Final = 10.0
# Full jitter: all waits up to the bound are equally likely, so that fetchers do not come back together.
_backoff = wait_random_exponential(max=_LONGEST_WAIT_S)


def _told(number: int, attempt: int, failed: AttemptError | None, wait_s: float) -> AttemptFailed:
    return AttemptFailed(
        number,
        attempt,
        str(failed),
        wait_s,
        error=known_name(failed) if failed else AttemptError.__name__,
        status=failed.status if failed else None,
        rate_limit=failed.rate_limit if failed else None,
    )


class PageFetcher:
    """Fetches pages of one source; shared by all fetchers.

    :param judge: :func:`neows_async.intake.take_in`, wherever it may take its time
    :param budget_s: how long one page is tried in a row; neither waiting for the gate nor an outage counts
    :param keep_bad: is given what came instead of a page, scrubbed
    """

    def __init__(
        self,
        source: Source,
        *,
        gate: Gate,
        judge: Callable[[RawPage, int | None], Awaitable[RawPage]],
        budget_s: float,
        keep_bad: Callable[[int, bytes], Awaitable[None]],
        listener: Listener,
    ) -> None:
        self._source = source
        self._gate = gate
        self._judge = judge
        self._budget_s = budget_s
        self._keep_bad = keep_bad
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
        last: AttemptError | None = None

        async def attempt() -> RawPage:
            nonlocal last
            try:
                return await self._attempt(number, size, exact_size, scope)
            except AttemptError as exc:
                last = exc
                self.failed += 1
                raise

        def before_sleep(state: RetryCallState) -> None:
            wait_s = state.next_action.sleep if state.next_action else 0.0
            self._listener(_told(number, state.attempt_number, last, max(wait_s, self._gate.closed_s)))

        retrying = AsyncRetrying(
            sleep=anyio.sleep,
            retry=retry_if_exception(self._may_pass),
            # After a 429 the gate knows better how long to wait.
            wait=lambda state: 0.0 if isinstance(last, RateLimitedError) else _backoff(state),
            before_sleep=before_sleep,
            reraise=True,
        )
        with anyio.move_on_after(self._budget_s) as scope:
            try:
                return await retrying(attempt)
            except UnreachableError as exc:
                # Nothing listens and nothing ever did: known at once, not after the whole budget.
                raise UnavailableError(str(exc)) from exc
        reason = last or AttemptError(f"no answer within {self._budget_s:g} s")
        raise UnavailableError(
            f"page {number} could not be had within {self._budget_s:g} s of trying; at last: {reason}. Run the same "
            "command again to go on"
        ) from reason

    def _may_pass(self, exc: BaseException) -> bool:
        return isinstance(exc, AttemptError) and (self.proven or not isinstance(exc, UnreachableError))

    async def _attempt(self, number: int, size: int, exact_size: bool, scope: anyio.CancelScope) -> RawPage:  # noqa: FBT001 - passed on
        waiting_since_s = anyio.current_time()
        # The page's budget is for the page; what the gate takes is the quota's affair, or the outage's.
        left_s, scope.deadline = scope.deadline - waiting_since_s, float("inf")
        async with self._gate.turn(number) as turn:
            started_s = anyio.current_time()
            try:
                try:
                    came = await self._ask(number, size, left_s)
                finally:
                    fetch_s = anyio.current_time() - started_s
                    self.network_s += fetch_s
                turn.answered(came.rate_limit)
                raw = await self._judge(came, size if exact_size else None)
            except AttemptError as exc:
                turn.failed(exc)
                left_s = self._budget_s if self._gate.is_down else left_s - fetch_s
                scope.deadline = anyio.current_time() + max(0.0, left_s)
                await self._keep_bad(number, exc.body)
                raise
            turn.good(fetch_s)
        self.proven = True
        self._listener(PageFetched(number, len(raw.body), fetch_s, came.rate_limit))
        return raw

    async def _ask(self, number: int, size: int, left_s: float) -> RawPage:
        # Not by the scope around all attempts: nobody would be told that this one failed, and an outage in
        # which nothing is answered would be none.
        with anyio.move_on_after(left_s):
            with naming(f"the source {self._source.origin}"):
                came = await self._source.fetch(number, size)
                if not isinstance(came, RawPage):
                    raise TypeError(f"it gave a {type(came).__name__} where a RawPage was expected")
            return came
        raise AttemptError(f"no answer within {left_s:.3g} s")

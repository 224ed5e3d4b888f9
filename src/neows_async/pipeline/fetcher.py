"""From one page number to one page, checked and decoded: attempts until one succeeds or the retry budget is spent."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import anyio
from anyio.lowlevel import checkpoint
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from neows_async.errors import (
    AttemptError,
    BadPageError,
    RateLimitedError,
    UnavailableError,
    UnreachableError,
    known_name,
)
from neows_async.lake.raw_zone import LATE_S
from neows_async.pages.values import RawPage, StoredPage
from neows_async.pipeline.guards import blaming
from neows_async.protocols import StoredSource
from neows_async.telemetry.events import AttemptFailed, Listener, PageFetched

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from neows_async.lake.raw_zone import RawZone
    from neows_async.pacing.gate import Gate
    from neows_async.pages.values import Page
    from neows_async.pipeline.decoder import DecoderPool
    from neows_async.protocols import Source

_T = TypeVar("_T")
_MAX_BACKOFF_S: Final = 10.0
# A source with a time limit of its own gives a better reason, so it has a second more.
_GRACE_S: Final = 1.0
# The event loop takes this many steps from a permit to the network. The next request is sent before this page is
# decoded, so that the source answers it meanwhile.
_STEPS_TO_SEND: Final = 3
# Full jitter: all waits up to the bound are equally likely, so that fetchers do not retry at the same moment.
_backoff = wait_random_exponential(max=_MAX_BACKOFF_S)


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How long one page is tried.

    :param retry_budget_s: start attempts for this long; waits for quota and outages do not count
    :param request_timeout_s: for one attempt, also the last one
    """

    retry_budget_s: float = 30.0
    request_timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class PageRequest:
    """One page to fetch.

    :param page_size: objects a page, to request
    :param exact_size: reject a page of another size, because the run was planned with ``page_size``
    :param zone: where a bad body, or a page that arrives after the run was cancelled, is stored; None: nowhere
    :param is_near: whether the page is decoded now; else it is only checked, and decoded when it is read
    """

    number: int
    page_size: int
    exact_size: bool = True
    zone: RawZone | None = None
    is_near: Callable[[], bool] = lambda: True

    @property
    def checked_size(self) -> int | None:
        """The size that the page must have; None accepts any."""
        return self.page_size if self.exact_size else None


class _Attempts:
    """The attempts at one page until now."""

    def __init__(self, budget_s: float) -> None:
        self.left_s = budget_s
        self.error = AttemptError("not tried yet")

    def event(self, number: int, attempt: int, wait_s: float | None) -> AttemptFailed:
        exc = self.error
        return AttemptFailed(
            number, attempt, str(exc), wait_s, error=known_name(exc), status=exc.status, rate_limit=exc.rate_limit
        )


class PageFetcher:
    """Fetches single pages of one source; all fetch tasks share it."""

    def __init__(
        self, source: Source, *, gate: Gate, decoder: DecoderPool, limits: FetchLimits, listener: Listener
    ) -> None:
        self._source = source
        self._gate = gate
        self._decoder = decoder
        self._limits = limits
        self._listener = listener
        # Whether the source ever sent a good page: then an unreachable source is down, and not a wrong address.
        self._proven = False
        self.failed: int = 0
        self.network_s: float = 0.0
        """Time in requests, summed over all that were in flight at once."""

    def prove(self) -> None:
        """An earlier run got pages from this source."""
        self._proven = True

    async def fetch(self, request: PageRequest) -> Page | StoredPage:
        """The page, checked and redacted; decoded if it is near.

        :raises UnavailableError: it could not be fetched within the budget; the last reason is its cause
        :raises RefusedError: no attempt can succeed
        :raises PausedError: the next request may not be sent for longer than the run waits
        """
        attempts = _Attempts(self._limits.retry_budget_s)

        def before_sleep(state: RetryCallState) -> None:
            # The wait is charged before it begins, so that the stop decision sees the same figure.
            if not self._gate.is_down:
                attempts.left_s -= state.upcoming_sleep
            wait_s = max(state.upcoming_sleep, self._gate.held_s)
            self._listener(attempts.event(request.number, state.attempt_number, wait_s))

        retrying = AsyncRetrying(
            sleep=self._gate.sleep,
            retry=retry_if_exception(self._may_succeed),
            # The budget is the page's: waits for quota and outages are not charged to it.
            stop=lambda state: self._is_over(state.upcoming_sleep, attempts),
            # After a 429 the gate knows better how long to wait.
            wait=lambda state: 0.0 if isinstance(attempts.error, RateLimitedError) else _backoff(state),
            before_sleep=before_sleep,
            reraise=True,
        )
        try:
            return await retrying(self._attempt, request, attempts)
        except AttemptError as exc:
            if not self._may_succeed(exc):
                # Nothing listens at this address: it is an error now, and not after the whole budget.
                raise UnavailableError(str(exc)) from exc
            self._listener(attempts.event(request.number, retrying.statistics["attempt_number"], None))
            raise UnavailableError(
                f"page {request.number} could not be fetched within {self._limits.retry_budget_s:g} s of retries; last "
                f"error: {exc}. Run the same command again to continue"
            ) from exc

    def _is_over(self, wait_s: float, attempts: _Attempts) -> bool:
        """Whether there is no time for another attempt ``wait_s`` from now."""
        return self._gate.is_closed or (wait_s >= attempts.left_s and not self._gate.is_down)

    def _may_succeed(self, exc: BaseException) -> bool:
        return isinstance(exc, AttemptError) and (self._proven or not isinstance(exc, UnreachableError))

    async def _attempt(self, request: PageRequest, attempts: _Attempts) -> Page | StoredPage:
        raw: RawPage | StoredPage | None = None
        try:
            # Inside: one request is counted. The permit reports it as lost if no outcome is reported.
            async with self._gate.permit(request.number) as permit:
                started_s = anyio.current_time()
                try:
                    try:
                        raw = await self.request(request.number, request.page_size)
                    finally:
                        fetch_s = anyio.current_time() - started_s
                        self.network_s += fetch_s
                    rate_limit = raw.rate_limit if isinstance(raw, RawPage) else None
                    # At once, before the check: the next request need not wait for this page's decoding.
                    permit.response_received(rate_limit)
                    for _ in range(_STEPS_TO_SEND):
                        await checkpoint()
                    # Only a page that passed its checks is returned, so a bad one is never stored as a page.
                    page = await self.receive(raw, request)
                except AttemptError as exc:
                    self.failed += 1
                    permit.failed(exc)
                    attempts.error = exc
                    # During an outage the budget starts anew: the page is not to blame.
                    attempts.left_s = self._limits.retry_budget_s if self._gate.is_down else attempts.left_s - fetch_s
                    if request.zone is not None:
                        # Within the permit and not shielded: inspection is a service, no promise.
                        await request.zone.put_bad(request.number, exc.body)
                    raise
                # Last: only a valid page closes the breaker.
                permit.page_received()
        except anyio.get_cancelled_exc_class():
            # Received, but not yet returned: without this, a request of the quota would be lost.
            if raw is not None:
                await self._store_late(raw, request)
            raise
        # No await from here on: a page that is not handed over would be fetched again.
        self._proven = True
        self._listener(PageFetched(request.number, page.json_bytes, fetch_s, rate_limit))
        return page

    async def _store_late(self, raw: RawPage | StoredPage, request: PageRequest) -> None:
        """Store a page that was received when the run was cancelled: its request is spent."""
        if request.zone is None or not request.zone.stores_late():
            return
        # The check is not skipped: an unchecked page in the raw zone would be trusted for ever.
        with anyio.move_on_after(LATE_S, shield=True), suppress(Exception):
            page = await self._decoder.check(raw, request.checked_size)
            await request.zone.put(page, lingers=False)

    async def receive(self, raw: RawPage | StoredPage, request: PageRequest) -> Page | StoredPage:
        """Check a received page, and decode it if it is near.

        :raises BadPageError: it is not the whole page; of an archive, a :class:`~neows_async.errors.DataError`
        """
        # Far pages are only checked: decoded columns would wait in memory, and the zone has their bytes.
        receive = self._decoder.receive if request.is_near() or request.zone is None else self._decoder.check
        try:
            return await receive(raw, request.checked_size)
        except BadPageError as exc:
            if isinstance(self._source, StoredSource):
                with blaming(f"the source {self._source.origin}"):
                    raise self._source.damaged(request.number, exc) from exc
            raise

    async def request(self, number: int, size: int) -> RawPage | StoredPage:
        """One attempt, not paced; the page is not checked."""
        return await request_page(self._source, number, size, timeout_s=self._limits.request_timeout_s)

    async def request_several(
        self, source: StoredSource, numbers: Sequence[int], size: int
    ) -> Sequence[RawPage | StoredPage]:
        """Several pages of an archive, not paced; they are not checked."""

        async def fetch() -> Sequence[RawPage | StoredPage]:
            raws = await source.fetch_several(tuple(numbers), size)
            return [_checked(raw, number) for raw, number in zip(raws, numbers, strict=True)]

        return await _in_time(self._source, fetch(), self._limits.request_timeout_s)

    def received_unpaced(self, pages: Sequence[Page | StoredPage], fetch_s: float) -> None:
        """Count pages of an archive, which were not paced.

        :param fetch_s: how long all of them took
        """
        self._proven = True
        self._gate.count_unpaced(len(pages))
        self.network_s += fetch_s
        for page in pages:
            self._listener(PageFetched(page.number, page.json_bytes, fetch_s / len(pages), None))


async def request_page(source: Source, number: int, size: int, *, timeout_s: float) -> RawPage | StoredPage:
    """Request one page once; it is not checked.

    :raises AttemptError: the request failed, or took too long
    :raises PartError: the source broke its protocol
    """

    async def fetch() -> RawPage | StoredPage:
        return _checked(await source.fetch(number, size), number)

    return await _in_time(source, fetch(), timeout_s)


async def _in_time(source: Source, response: Awaitable[_T], timeout_s: float) -> _T:
    # A cancel scope, not a timer of the retry library: it ends the request itself, in virtual time, too.
    with anyio.move_on_after(timeout_s + _GRACE_S), blaming(f"the source {source.origin}"):
        return await response
    raise AttemptError(f"no response within {timeout_s:.3g} s")


def _checked(page: object, number: int) -> RawPage | StoredPage:
    if not isinstance(page, RawPage | StoredPage):
        raise TypeError(f"it returned a {type(page).__name__} instead of a RawPage")
    if page.number != number:  # the reader would wait for the requested page forever
        raise ValueError(f"it returned page {page.number} instead of page {number}")
    return page

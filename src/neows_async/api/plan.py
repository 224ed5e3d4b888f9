"""A plan of a run: what the lake holds, what is known of the quota, one request at most, and what follows.

Nothing is written to the lake. The request counts in the quota store like any other, so the next run knows of it. Two
requests some minutes apart also show how fast slots come free.
"""

from __future__ import annotations

import datetime as dt
import math
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import anyio
from anyio import to_thread

from neows_async.api import defaults
from neows_async.api.plan_facts import FirstPage, LakeFacts, PlanFacts, facts_of
from neows_async.endpoints.browse.receive import ReceiveOptions, Receiver
from neows_async.errors import (
    AttemptError,
    BadPageError,
    DataError,
    NotFoundError,
    PausedError,
    RateLimitedError,
    SettingsError,
    UnavailableError,
)
from neows_async.lake import layout
from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.inventory import ObjectNames
from neows_async.lake.lake import AsyncLake
from neows_async.lake.raw_zone import RawZone
from neows_async.lake.receipt import Receipt
from neows_async.lake.resume import SnapshotRequest, find_snapshot
from neows_async.lake.storage import open_storage
from neows_async.outputs import registry
from neows_async.pacing.quota import QuotaModel
from neows_async.pacing.rules import PacingRules
from neows_async.pacing.shared_quota import SharedQuota
from neows_async.pacing.simulation import compare_starts, simulate
from neows_async.pages.values import RawPage
from neows_async.pipeline.fetcher import request_page
from neows_async.settings import identity
from neows_async.sources import nasa
from neows_async.telemetry import events

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from neows_async.lake.storage.interface import Storage
    from neows_async.pacing.quota_store import QuotaStore
    from neows_async.pacing.simulation import SimulatedRun
    from neows_async.pages.values import PageInfo
    from neows_async.protocols import Source
    from neows_async.settings import Settings

_PATIENCE_S: Final = 5.0  # for a slot of the quota; a longer wait belongs into the plan
_POLL_STORE_S: Final = 0.25
_DEFAULT_WAIT_S: Final = 60.0
_MOST_RECEIPTS: Final = 20  # of the newest, until one is from this source


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run would be like. All times are UTC, seconds since 1970.

    :param facts: what is known
    :param now: a run that starts now
    :param best: the shortest of the runs that start at a whole minute of the next hour and end within a minute of the
        earliest end; it may be ``now``
    :param shortest: the shortest of all of them; it may be ``best``
    :param optimistic: a run that starts now, if the used part of the quota comes free as early as possible
    """

    facts: PlanFacts
    now: SimulatedRun
    best: SimulatedRun
    shortest: SimulatedRun
    optimistic: SimulatedRun


async def plan(  # noqa: PLR0913 - each is an independent part, and may be left out
    settings: Settings,
    *,
    source: Source | None = None,
    client: httpx.AsyncClient | None = None,
    storage: Storage | None = None,
    pacing: PacingRules | None = None,
    quota_store: QuotaStore | None = None,
    may_request: bool = True,
) -> RunPlan:
    """Return how :func:`ingest` with the same arguments would go: its requests, its end, and the best minute to start.

    Nothing is written to the lake. ``facts.notes`` has what a person should know.

    :param may_request: request page 0, which counts in the quota; otherwise the plan is made from the lake and the
        quota store alone, and needs no key
    :raises SettingsError: a run with these settings would be refused, or the size of the catalogue is unknown
    :raises PausedError: the quota allows no request now, and the lake has nothing to plan from
    :raises SourceError: there was no response, or it was no valid page
    :raises DataError: the catalogue has no objects
    :raises StorageError: the lake could not be read
    :raises PartError: a source of the caller failed; its exception is the cause
    """
    notes: list[str] = []

    def note(event: events.Event) -> None:
        if isinstance(event, events.QuotaSharingFailed):
            notes.append(f"the quota of other runs is unknown: {event.reason}")
        elif isinstance(event, events.SnapshotPassedOver):
            notes.append(f"snapshot {event.snapshot} would not be resumed: {event.reason}")

    if source is not None and client is not None:
        raise SettingsError("a client is for the default source; a source of your own needs none here")
    origin = nasa.origin_of(settings.base_url) if source is None else source.origin
    if pacing is None:
        pacing = defaults.gateway_rules(settings) if source is None else PacingRules(bursts=())
    async with AsyncExitStack() as stack:
        if storage is None:
            storage = await to_thread.run_sync(open_storage, settings.root)
        if source is None and may_request:
            source = await stack.enter_async_context(defaults.open_nasa(settings, client=client))
        facts = await gather_facts(
            settings,
            AsyncStorage(storage, timeout_s=settings.storage_timeout_s),
            origin=origin,
            source=source if may_request else None,
            rules=pacing,
            quota_store=quota_store,
            clock=time.time,
            listener=note,
        )
    facts = replace(facts, notes=(*notes, *facts.notes))
    # In a thread: the simulation of a long run takes a large part of a second.
    return await to_thread.run_sync(_run_plan, facts)


def _run_plan(facts: PlanFacts) -> RunPlan:
    options = compare_starts(facts.conditions, facts.at_s)
    optimistic = simulate(facts.optimistic, facts.at_s)
    return RunPlan(facts, options.now, options.best, options.shortest, optimistic)


async def gather_facts(  # noqa: PLR0913 - each is an independent part
    settings: Settings,
    lake: AsyncStorage,
    *,
    origin: str,
    source: Source | None,
    rules: PacingRules,
    quota_store: QuotaStore | None,
    clock: Callable[[], float],
    listener: events.Listener,
) -> PlanFacts:
    """Gather everything that can be known with at most one request.

    :param origin: the source's name in receipts
    :param source: gets the request; None sends none
    :param clock: UTC, seconds since 1970
    :raises SettingsError: a run with these settings would be refused, or the size of the catalogue is unknown
    :raises PausedError: the quota allows no request now, and the lake has nothing to plan from
    :raises SourceError: there was no response, or it was no valid page
    :raises StorageError: the lake could not be read
    """
    found = await read_lake(lake, settings, origin, clock(), listener)
    rules = replace(rules, max_rate_per_s=settings.max_rate_per_s)
    quota = SharedQuota(QuotaModel(rules), quota_store, clock=clock, listener=listener)
    response: FirstPage | None = None
    notes: list[str] = []
    # The lake first, the request second: a committed snapshot needs none.
    if source is not None and not found.committed:
        try:
            response = await request_first_page(source, quota, settings, clock)
        except PausedError as exc:
            # Without anything in the lake there is no plan. A 429 means that the quota is used up, which the plan
            # must not hide.
            if (found.first is None and found.receipt is None) or isinstance(exc.__cause__, RateLimitedError):
                raise
            notes.append(f"no request was sent: {exc}")
    else:
        await quota.next_slot_s()  # reads the store
    return facts_of(settings, found, quota.model, rules, response, clock(), notes=tuple(notes))


# -- the lake -----------------------------------------------------------------------------------


async def read_lake(
    lake: AsyncStorage, settings: Settings, origin: str, now_s: float, listener: events.Listener
) -> LakeFacts:
    """Return what the next run would find, and change nothing."""
    request = SnapshotRequest(
        identity=identity(settings, origin),
        derivation={},
        synthetic=False,
        archive=settings.archive,
        parent=None,
        snapshot=settings.snapshot,
        fresh=settings.fresh,
        resume_within_s=settings.resume_within_s,
        now=dt.datetime.fromtimestamp(now_s, dt.UTC),
        names=ObjectNames(registry.file_patterns()),
    )
    found = await find_snapshot(lake, request, listener)
    receipt = await _last_receipt(lake, origin)
    if found is None:
        return LakeFacts(receipt=receipt)
    if isinstance(found, Receipt):
        return LakeFacts(found.snapshot, committed=True, receipt=found)
    holder = await lake.lock_owner(layout.lock_key(found.snapshot))
    if not settings.archive:
        return LakeFacts(found.snapshot, holder=holder, receipt=receipt)
    zone = RawZone(lake, found.snapshot, max_body_bytes=settings.max_body_bytes)
    kept: list[frozenset[int]] = []
    first = await _first_info(zone)
    # A run whose page 0 is damaged requests it again. A later generation exists once it has any page.
    while (stored := await zone.page_numbers()) or not kept:
        kept.append(frozenset(stored if kept or first is not None else stored - {0}))
        zone = zone.next_generation()
    return LakeFacts(found.snapshot, holder=holder, kept=tuple(kept), first=first, receipt=receipt)


async def _first_info(zone: RawZone) -> PageInfo | None:
    try:
        return await zone.info(0)
    except (NotFoundError, BadPageError):
        return None


async def _last_receipt(lake: AsyncStorage, origin: str) -> Receipt | None:
    newest = (await AsyncLake(lake).committed_ids())[: -_MOST_RECEIPTS - 1 : -1]
    for name in ("latest", *newest):
        try:
            receipt = await AsyncLake(lake).find_receipt(name)
        except DataError:
            continue  # `neows-async snapshots` reports it, and a plan works without it
        # The receipt of a rebuild from an archive has no latency and no quota of the source.
        if receipt is not None and receipt.source.origin == origin:
            return receipt
    return None


# -- the request --------------------------------------------------------------------------------


async def request_first_page(
    source: Source, quota: SharedQuota, settings: Settings, clock: Callable[[], float]
) -> FirstPage:
    """Request page 0 once, within the quota.

    :raises PausedError: the quota allows no request now, or the response was 429, which is then the cause
    :raises RefusedError: the source refuses such requests
    :raises UnavailableError: there was no response, or it was no valid page
    :raises PartError: the source broke its protocol
    """
    # Like any request of a run: recorded in the shared quota before it is sent.
    ticket = await _take_slot(quota, clock)
    started_s = anyio.current_time()
    settled = False  # the quota knows the outcome
    try:
        raw = await request_page(source, 0, settings.page_size, timeout_s=settings.request_timeout_s)
        latency_s = anyio.current_time() - started_s
        settled = True
        rate_limit = raw.rate_limit if isinstance(raw, RawPage) else None
        # At once: if the page turns out to be bad, its quota headers are still true.
        quota.response_received(ticket, rate_limit)
        key = settings.api_key.get_secret_value() if settings.api_key else ""
        receiver = Receiver(ReceiveOptions(api_key=key, max_body_bytes=settings.max_body_bytes))
        # In a thread: decompressing and decoding a large page would block the event loop.
        info = (await to_thread.run_sync(receiver.receive, raw, None)).info
    except RateLimitedError as exc:
        settled = True
        quota.rate_limited(ticket, exc.retry_after_s)
        wait_s = _DEFAULT_WAIT_S if exc.retry_after_s is None else exc.retry_after_s
        raise PausedError(str(exc), resume_at_s=clock() + wait_s) from exc
    except AttemptError as exc:
        if exc.status is not None and not settled:
            settled = True
            quota.response_received(ticket, exc.rate_limit)
        raise UnavailableError(f"{exc}; --no-request plans without a request") from exc
    finally:
        if not settled:
            quota.no_response(ticket)
        # Also if cancelled: the next run must know of this request.
        await quota.flush()
    return FirstPage(info, latency_s, rate_limit)


async def _take_slot(quota: SharedQuota, clock: Callable[[], float]) -> int:
    """:raises PausedError: there is no slot within some seconds"""
    give_up_s = clock() + _PATIENCE_S
    while True:
        wait_s, ticket = await quota.take()
        if ticket is not None:
            return ticket
        now_s = clock()
        if now_s >= give_up_s or give_up_s < now_s + wait_s < math.inf:
            wait_s = wait_s if math.isfinite(wait_s) else _DEFAULT_WAIT_S
            raise PausedError(
                f"the next request must wait {wait_s:.0f} s for the quota, or less", resume_at_s=now_s + wait_s
            )
        # Polled: another run's response may free a slot, and the store has no notification.
        await anyio.sleep(min(wait_s, _POLL_STORE_S))

"""What a plan is made of: what lies in the lake, what is known of the quota, and at most one request.

Nothing is written to the lake. The request counts in the ledger like any other, so that whoever runs next knows
of it; and with two of them some minutes apart, pacing knows how fast slots come free.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import anyio

from neows_async.endpoints.browse.page_plan import plan_pages
from neows_async.endpoints.browse.receive import ReceiveOptions, Receiver
from neows_async.errors import (
    AttemptError,
    BadPageError,
    DataError,
    NotFoundError,
    PausedError,
    RateLimit,
    RateLimitedError,
    SettingsError,
    UnavailableError,
)
from neows_async.lake import layout
from neows_async.lake.inventory import ObjectNames
from neows_async.lake.lake import AsyncLake
from neows_async.lake.raw_zone import RawZone
from neows_async.lake.receipt import Receipt
from neows_async.lake.resume import SnapshotRequest, find_snapshot
from neows_async.outputs import registry
from neows_async.pacing.forecast import BURST_RATE_PER_S
from neows_async.pacing.hour import HourCounts
from neows_async.pacing.quota import QuotaModel
from neows_async.pacing.shared_quota import SharedQuota
from neows_async.pacing.simulation import RunConditions
from neows_async.pacing.state import QuotaState
from neows_async.pages import values
from neows_async.pages.values import RawPage
from neows_async.settings import identity

if TYPE_CHECKING:
    from collections.abc import Callable

    from neows_async.endpoints.browse.page_plan import PagePlan
    from neows_async.lake.async_storage import AsyncStorage
    from neows_async.pacing.quota_store import QuotaStore
    from neows_async.pacing.rules import PacingRules
    from neows_async.pages.values import PageInfo
    from neows_async.protocols import Source
    from neows_async.settings import Settings
    from neows_async.telemetry import events

_PATIENCE_S: Final = 5.0  # for a turn; a longer wait is a plan of its own
_LOOK_AGAIN_S: Final = 0.25
_DEFAULT_WAIT_S: Final = 60.0
_RECEIPTS: Final = 20  # so many of the newest are looked at for one of this source
_ENOUGH_ANSWERS: Final = 20  # tell more than the one that was just measured
_UNMEASURED_S: Final = 2.0
_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class LakeFacts:
    """What lies there.

    :param snapshot: which a run would go on with, or that is asked for; None: it would begin one
    :param committed: it is committed: nothing is left to do
    :param holder: the live run that has it
    :param kept: per generation that was begun, which pages lie in the raw zone
    :param first: what page 0 said, if it is kept
    :param receipt: of the last snapshot from this source
    """

    snapshot: str | None = None
    committed: bool = False
    holder: str | None = None
    kept: tuple[frozenset[int], ...] = ()
    first: PageInfo | None = None
    receipt: Receipt | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request said.

    :param answer_s: how long it took
    :param rate_limit: None where nothing is said of a quota
    """

    info: PageInfo
    answer_s: float
    rate_limit: RateLimit | None


@dataclass(frozen=True, slots=True)
class QuotaKnown:
    """What is known of the key's quota.

    :param told_by: answer, ledger or receipt; nobody where there is no quota, or none was told of
    :param limit: requests an hour; None where none was told of
    :param left: of them, surely, now
    :param as_of_s: UTC, seconds since 1970: when it was told
    :param daily_left: of ``daily_limit``, by our own count
    """

    told_by: str
    limit: int | None = None
    left: int | None = None
    as_of_s: float | None = None
    daily_limit: int | None = None
    daily_left: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFacts:
    """All of it.

    :param at_s: UTC, seconds since 1970
    :param pages_kept: of the plan's pages, those that need no request
    :param asked: requests that this took: one or none
    :param answer_from: answer, receipt or nobody: where ``terms.answer_s`` comes from
    :param answers: so many it is the mean of
    :param terms: for a run that starts now
    :param hopeful: the same, if what the key has used was used in the hour before, as far as it can have been.
        Equal to ``terms`` where that is known
    """

    at_s: float
    lake: LakeFacts
    plan: PagePlan
    pages_kept: int
    asked: int
    quota: QuotaKnown
    answer_from: str
    answers: int
    terms: RunConditions
    hopeful: RunConditions
    notes: tuple[str, ...] = field(default=())


async def gather_facts(  # noqa: PLR0913 - each is a seam, and has a name
    settings: Settings,
    lake: AsyncStorage,
    *,
    origin: str,
    source: Source | None,
    rules: PacingRules,
    ledger: QuotaStore | None,
    clock: Callable[[], float],
    listener: events.Listener,
) -> PlanFacts:
    """All that can be known, with at most one request.

    :param origin: what receipts call the source
    :param source: whom to ask; None asks nobody
    :param clock: UTC, seconds since 1970
    :raises SettingsError: nobody is asked and nothing is known, or a run with these settings would be refused
    :raises PausedError: the quota lets no request out, and without one nothing is known
    :raises SourceError: there was no answer, or none that is a page
    :raises StorageError: the lake could not be read
    """
    found = await look_into(lake, settings, origin, clock(), listener)
    rules = replace(rules, max_rate_per_s=settings.max_rate_per_s)
    quota = SharedQuota(QuotaModel(rules), ledger, clock=clock, listener=listener)
    answer: Answer | None = None
    notes: list[str] = []
    if source is not None and not found.committed:
        try:
            answer = await ask(source, quota, settings, clock)
        except PausedError as exc:
            if (found.first is None and found.receipt is None) or isinstance(exc.__cause__, RateLimitedError):
                raise
            notes.append(f"nothing was asked: {exc}")
    else:
        await quota.take(only_look=True)
    return facts_of(settings, found, quota.pacing, rules, answer, clock(), notes=tuple(notes))


# -- the lake -----------------------------------------------------------------------------------


async def look_into(
    lake: AsyncStorage, settings: Settings, origin: str, now_s: float, listener: events.Listener
) -> LakeFacts:
    """What the next run would find, without touching it.

    :raises SettingsError: it would be refused
    :raises StorageError: the lake could not be read
    """
    wanted = SnapshotRequest(
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
    found = await find_snapshot(lake, wanted, listener)
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
    first = await _first(zone)
    # A run without its page 0 asks for it, and whatever lies in a generation that is not the first was begun.
    while (counted := await zone.page_numbers()) or not kept:
        kept.append(frozenset(counted if kept or first is not None else counted - {0}))
        zone = zone.next_generation()
    return LakeFacts(found.snapshot, holder=holder, kept=tuple(kept), first=first, receipt=receipt)


async def _first(zone: RawZone) -> PageInfo | None:
    try:
        await zone.get(0)
        info = await zone.info(0)
    except (NotFoundError, BadPageError):
        return None
    return info


async def _last_receipt(lake: AsyncStorage, origin: str) -> Receipt | None:
    keys = [entry.key for entry in await lake.list(layout.RECEIPTS)]
    names = {key.rpartition("/")[2].removesuffix(".json") for key in keys if key.endswith(".json")}
    others = sorted(names - {"latest"}, reverse=True)[:_RECEIPTS]
    for name in ("latest", *others):
        try:
            receipt = await AsyncLake(lake).find_receipt(name)
        except DataError:
            continue  # `neows-async snapshots` shows it; a plan can do without
        # One that was rebuilt from an archive tells nothing of the source.
        if receipt is not None and receipt.source.origin == origin:
            return receipt
    return None


# -- the request --------------------------------------------------------------------------------


async def ask(source: Source, quota: SharedQuota, settings: Settings, clock: Callable[[], float]) -> Answer:
    """One request for page 0, within the quota; it is never sent twice.

    :raises PausedError: the quota lets none out for now, or it was refused with 429, which is then the cause
    :raises RefusedError: asking again would not help
    :raises UnavailableError: there was no answer, or none that is a page
    """
    ticket = await _turn(quota, clock)
    started_s = anyio.current_time()
    over = False
    try:
        came = await source.fetch(0, settings.page_size)
        answer_s = anyio.current_time() - started_s
        over = True
        rate_limit = came.rate_limit if isinstance(came, RawPage) else None
        quota.answered(ticket, rate_limit)
        key = settings.api_key.get_secret_value() if settings.api_key else ""
        info = Receiver(ReceiveOptions(api_key=key)).receive(came, None).info
    except RateLimitedError as exc:
        over = True
        quota.limited(ticket, exc.retry_after_s)
        wait_s = _DEFAULT_WAIT_S if exc.retry_after_s is None else exc.retry_after_s
        raise PausedError(str(exc), resume_at_s=clock() + wait_s) from exc
    except AttemptError as exc:
        if exc.status is not None and not over:
            over = True
            quota.answered(ticket, exc.rate_limit)
        raise UnavailableError(f"{exc}; --no-request plans without asking") from exc
    finally:
        if not over:
            quota.lost(ticket)
        await quota.settle()
    return Answer(info, answer_s, rate_limit)


async def _turn(quota: SharedQuota, clock: Callable[[], float]) -> int:
    """:raises PausedError: there is none within some seconds"""
    give_up_s = clock() + _PATIENCE_S
    while True:
        wait_s, ticket = await quota.take()
        if ticket is not None:
            return ticket
        now_s = clock()
        if now_s >= give_up_s or give_up_s < now_s + wait_s < math.inf:
            wait_s = wait_s if math.isfinite(wait_s) else _DEFAULT_WAIT_S
            raise PausedError(
                f"the quota lets the next request out in {wait_s:.0f} s, as far as is known", resume_at_s=now_s + wait_s
            )
        await anyio.sleep(min(wait_s, _LOOK_AGAIN_S))


# -- what follows -------------------------------------------------------------------------------


def facts_of(  # noqa: PLR0913 - each is known from elsewhere, and has a name
    settings: Settings,
    found: LakeFacts,
    pacing: QuotaModel,
    rules: PacingRules,
    answer: Answer | None,
    now_s: float,
    *,
    notes: tuple[str, ...] = (),
) -> PlanFacts:
    """What all of it says together. Pure.

    :param pacing: what is known of the quota, the answer included
    :raises SettingsError: nothing says how large the catalogue is
    :raises EmptyCatalogueError: it has no objects
    """
    planned = plan_pages(_envelope(settings, found, answer), settings.limit)
    kept = [sum(number < planned.pages for number in pages) for pages in found.kept]
    left = sum(planned.pages - pages for pages in kept) if kept else planned.pages
    told_by = "answer" if answer is not None and answer.rate_limit is not None else "ledger"
    held_until_s = pacing.state().held_until_s  # which a refusal tells, and no receipt
    if answer is None and found.receipt is not None and _is_newer(found.receipt, pacing):
        told_by, pacing = "receipt", _as_of(found.receipt, rules)
    cautious, hopeful = pacing.counts(now_s), pacing.counts(now_s, hopeful=True)
    answer_from, answers, answer_s = _answers(found.receipt, answer)
    state = pacing.state()
    terms = RunConditions(
        requests=0 if found.committed else left,
        limit=pacing.limit,
        counts=cautious or HourCounts(int(now_s // 3600), 0, 0),
        answer_s=answer_s,
        concurrency=settings.concurrency,
        max_rate_per_s=settings.max_rate_per_s or (BURST_RATE_PER_S if rules.bursts else None),
        daily_limit=rules.daily_limit,
        days=state.days,
        not_before_s=-math.inf if held_until_s is None else held_until_s,
        max_wait_s=settings.max_wait_s,
        budget_requests=settings.budget_requests,
        margin_s=rules.clock_margin_s,
        stale_after_s=rules.stale_after_s,
    )
    return PlanFacts(
        at_s=now_s,
        lake=found,
        plan=planned,
        pages_kept=planned.pages if found.committed else sum(kept),
        asked=int(answer is not None),
        quota=_quota(pacing, rules, now_s, told_by),
        answer_from=answer_from,
        answers=answers,
        terms=terms,
        hopeful=replace(terms, counts=hopeful) if hopeful is not None else terms,
        notes=notes,
    )


def _envelope(settings: Settings, found: LakeFacts, answer: Answer | None) -> PageInfo:
    """What the run will be planned with: the page 0 that it keeps, else the newest that is known."""
    if found.first is not None and not found.committed:
        return found.first
    if answer is not None:
        return answer.info
    receipt = found.receipt
    if receipt is None:
        raise SettingsError(
            "nothing says how large the catalogue is: there is no receipt of this source yet; plan without "
            "--no-request, which costs one request, or run once"
        )
    # Whether the source takes the size that is asked for, the receipt of such a run knows.
    same = receipt.identity.get("page_size") == settings.page_size
    return values.PageInfo(receipt.page_size if same else settings.page_size, receipt.total_elements, 0)


def _is_newer(receipt: Receipt, pacing: QuotaModel) -> bool:
    """Whether the receipt's word on the quota is the last."""
    hour = pacing.state().hour
    told = receipt.requests.limit is not None and receipt.requests.remaining is not None
    return told and (hour is None or hour.answered_s < receipt.committed_at.timestamp())


def _as_of(receipt: Receipt, rules: PacingRules) -> QuotaModel:
    """What a run knew of the quota when it ended, as far as its receipt tells."""
    at_s = receipt.committed_at.timestamp()
    pacing = QuotaModel(rules, QuotaState(days=((int(at_s // _DAY_S), max(0, receipt.requests.sent - 1)),)))
    limit, remaining = receipt.requests.limit, receipt.requests.remaining
    if limit is not None and remaining is not None:
        pacing.answered(pacing.sent(at_s), at_s, RateLimit(limit, remaining))
    return pacing


def _quota(pacing: QuotaModel, rules: PacingRules, now_s: float, told_by: str) -> QuotaKnown:
    state = pacing.state()
    today, days = int(now_s // _DAY_S), dict(state.days)
    daily = rules.daily_limit
    yesterdays = math.floor(days.get(today - 1, 0) * (1 - now_s / _DAY_S % 1))
    return QuotaKnown(
        told_by="nobody" if state.hour is None else told_by,
        limit=pacing.limit,
        left=pacing.remaining,
        as_of_s=None if state.hour is None else state.hour.answered_s,
        daily_limit=daily,
        daily_left=None if daily is None else max(0, daily - days.get(today, 0) - yesterdays),
    )


def _answers(receipt: Receipt | None, answer: Answer | None) -> tuple[str, int, float]:
    """From where, of how many, and the seconds from a request to its answer."""
    sent = receipt.requests.sent if receipt is not None else 0
    if receipt is not None and receipt.requests.answer_s and (answer is None or sent >= _ENOUGH_ANSWERS):
        return "receipt", sent, receipt.requests.answer_s
    if answer is not None:
        return "answer", 1, max(answer.answer_s, 0.001)
    if receipt is not None and sent and (network_s := receipt.time_s.get("network", 0.0)):
        # Of an older version: as if all fetchers had been at work, which is what it takes at most.
        return "receipt", sent, network_s * receipt.operation.get("concurrency", 1) / sent
    return "nobody", 0, _UNMEASURED_S

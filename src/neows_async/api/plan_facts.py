"""What is known before a run, and what follows from it for the run. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from neows_async.endpoints.browse.page_plan import plan_pages
from neows_async.errors import RateLimit, SettingsError
from neows_async.pacing.forecast import BURST_RATE_PER_S, RunConditions
from neows_async.pacing.hour import DAY_S, SlidingWindow
from neows_async.pacing.quota import QuotaModel
from neows_async.pacing.state import QuotaState
from neows_async.pages.values import PageInfo

if TYPE_CHECKING:
    from neows_async.endpoints.browse.page_plan import PagePlan
    from neows_async.lake.receipt import Receipt
    from neows_async.pacing.rules import PacingRules
    from neows_async.settings import Settings

_ENOUGH_RESPONSES: Final = 20  # their mean is better than the latency of one new response
_UNMEASURED_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class LakeFacts:
    """What the lake holds.

    :param snapshot: the snapshot that a run would continue, or that the settings name; None if a run would begin one
    :param committed: the snapshot is committed, so nothing is left to do
    :param holder: the live run that writes the snapshot
    :param kept: per generation, the pages in the raw zone
    :param first: the envelope of page 0, if the raw zone has it
    :param receipt: of the last snapshot from this source
    """

    snapshot: str | None = None
    committed: bool = False
    holder: str | None = None
    kept: tuple[frozenset[int], ...] = ()
    first: PageInfo | None = None
    receipt: Receipt | None = None


@dataclass(frozen=True, slots=True)
class FirstPage:
    """The response to the plan's one request.

    :param latency_s: from the request to the response
    :param rate_limit: None if the response has no quota headers
    """

    info: PageInfo
    latency_s: float
    rate_limit: RateLimit | None


@dataclass(frozen=True, slots=True)
class QuotaFacts:
    """What is known of the key's quota.

    :param known_from: ``answer`` (the plan's response), ``ledger`` (the quota store), ``receipt``, or ``nobody`` if
        there is no quota or none is known
    :param limit: requests an hour; None if not known
    :param left: requests that certainly pass now
    :param as_of_s: UTC, seconds since 1970: when that was known
    :param daily_left: requests left of ``daily_limit``, by our own count
    """

    known_from: str
    limit: int | None = None
    left: int | None = None
    as_of_s: float | None = None
    daily_limit: int | None = None
    daily_left: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFacts:
    """Everything that is known before a run.

    :param at_s: UTC, seconds since 1970
    :param page_plan: the pages of the run
    :param pages_kept: pages of the plan that need no request
    :param requests_sent: requests that the plan itself sent: 1 or 0
    :param latency_from: origin of ``conditions.latency_s``: ``answer`` (the plan's response), ``receipt`` or ``nobody``
    :param responses: the number of responses whose mean it is
    :param conditions: for a run that starts now
    :param optimistic: the same if the used part of the quota was used in the hour before, as far as that is possible.
        Equal to ``conditions`` if that is known
    :param notes: lines for people
    """

    at_s: float
    lake: LakeFacts
    page_plan: PagePlan
    pages_kept: int
    requests_sent: int
    quota: QuotaFacts
    latency_from: str
    responses: int
    conditions: RunConditions
    optimistic: RunConditions
    notes: tuple[str, ...] = ()


def facts_of(  # noqa: PLR0913 - each comes from another place
    settings: Settings,
    lake: LakeFacts,
    model: QuotaModel,
    rules: PacingRules,
    response: FirstPage | None,
    now_s: float,
    *,
    notes: tuple[str, ...] = (),
) -> PlanFacts:
    """Combine what is known."""
    planned = plan_pages(_page_info(settings, lake, response), settings.limit)
    kept = [sum(number < planned.pages for number in pages) for pages in lake.kept]
    left = sum(planned.pages - pages for pages in kept) if kept else planned.pages
    known_from = "answer" if response is not None and response.rate_limit is not None else "ledger"
    held_until_s = model.state().held_until_s  # from a 429; no receipt has it
    if response is None and lake.receipt is not None and _is_newer(lake.receipt, model):
        known_from, model = "receipt", _model_of(lake.receipt, rules)
    cautious, optimistic = model.counts(now_s), model.counts(now_s, optimistic=True)
    latency_from, responses, latency_s = _latency(lake.receipt, response)
    conditions = RunConditions(
        requests=0 if lake.committed else left,
        limit=model.limit,
        counts=cautious or SlidingWindow(0, 0, 0).at(now_s),
        latency_s=latency_s,
        concurrency=settings.concurrency,
        max_rate_per_s=settings.max_rate_per_s or (BURST_RATE_PER_S if rules.bursts else None),
        daily_limit=rules.daily_limit,
        day_counts=model.day_counts(now_s),
        not_before_s=-math.inf if held_until_s is None else held_until_s,
        max_wait_s=settings.max_wait_s,
        budget_requests=settings.budget_requests,
        margin_s=rules.clock_margin_s,
        stale_after_s=rules.stale_after_s,
    )
    return PlanFacts(
        at_s=now_s,
        lake=lake,
        page_plan=planned,
        pages_kept=planned.pages if lake.committed else sum(kept),
        requests_sent=int(response is not None),
        quota=_quota_facts(model, rules, now_s, known_from),
        latency_from=latency_from,
        responses=responses,
        conditions=conditions,
        optimistic=replace(conditions, counts=optimistic) if optimistic is not None else conditions,
        notes=notes,
    )


def _page_info(settings: Settings, lake: LakeFacts, response: FirstPage | None) -> PageInfo:
    """Return the envelope that the run will plan with: of its stored page 0, else the newest one."""
    if lake.first is not None and not lake.committed:
        return lake.first
    if response is not None:
        return response.info
    receipt = lake.receipt
    if receipt is None:
        raise SettingsError(
            "the size of the catalogue is unknown: there is no receipt of this source yet; plan without --no-request, "
            "which costs one request, or run once"
        )
    # The source may not grant the requested page size. The receipt of a run with the same size has the real one.
    same = receipt.identity.get("page_size") == settings.page_size
    return PageInfo(receipt.page_size if same else settings.page_size, receipt.total_elements, 0)


def _is_newer(receipt: Receipt, model: QuotaModel) -> bool:
    hour = model.state().hour
    has_quota = receipt.requests.limit is not None and receipt.requests.remaining is not None
    return has_quota and (hour is None or hour.response_s < receipt.committed_at.timestamp())


def _model_of(receipt: Receipt, rules: PacingRules) -> QuotaModel:
    """Return what a run knew of the quota when it ended, as far as its receipt has it."""
    at_s = receipt.committed_at.timestamp()
    model = QuotaModel(rules, QuotaState(days=((int(at_s // DAY_S), max(0, receipt.requests.sent - 1)),)))
    limit, remaining = receipt.requests.limit, receipt.requests.remaining
    if limit is not None and remaining is not None:
        model.response_received(model.sent(at_s), at_s, RateLimit(limit, remaining))
    return model


def _quota_facts(model: QuotaModel, rules: PacingRules, now_s: float, known_from: str) -> QuotaFacts:
    hour, daily = model.state().hour, rules.daily_limit
    return QuotaFacts(
        known_from="nobody" if hour is None else known_from,
        limit=model.limit,
        left=model.remaining,
        as_of_s=None if hour is None else hour.response_s,
        daily_limit=daily,
        daily_left=None if daily is None else max(0, daily - model.day_counts(now_s).estimate(now_s)),
    )


def _latency(receipt: Receipt | None, response: FirstPage | None) -> tuple[str, int, float]:
    """Return the origin of the latency, the number of responses, and their mean in seconds."""
    sent = receipt.requests.sent if receipt is not None else 0
    if receipt is not None and receipt.requests.answer_s and (response is None or sent >= _ENOUGH_RESPONSES):
        return "receipt", sent, receipt.requests.answer_s
    if response is not None:
        return "answer", 1, max(response.latency_s, 0.001)
    if receipt is not None and sent and (network_s := receipt.time_s.get("network", 0.0)):
        # An older receipt has no mean latency. This is its upper bound: all requests were in flight all the time.
        return "receipt", sent, network_s * receipt.operation.get("concurrency", 1) / sent
    return "nobody", 0, _UNMEASURED_S

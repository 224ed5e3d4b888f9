"""A run's events as Prometheus metrics."""

from __future__ import annotations

import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Gauge, Histogram

from neows_async.telemetry import events

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from neows_async.errors import RateLimit
    from neows_async.telemetry.events import Event, Listener

# NeoWs usually responds within tenths of a second; a request times out after a minute.
_FETCH_BUCKETS_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0)
# From a run against the sandbox to a whole catalogue with a nearly spent quota.
_RUN_BUCKETS_S: Final = (1.0, 10.0, 60.0, 300.0, 900.0, 3_600.0, 7_200.0, 14_400.0, 43_200.0)
_STATUSES: Final = frozenset(int(status) for status in HTTPStatus)


def metrics(registry: CollectorRegistry, *, clock: Callable[[], float] = time.time) -> Listener:
    """A listener that keeps metrics called ``neows_…`` in ``registry``.

    One listener serves any number of runs, also in parallel: counters add up, and gauges show the last event of any
    run. Call this function once for each registry; a second call fails, since the names are taken.

    :param registry: your registry, or :data:`prometheus_client.REGISTRY`, the process's own
    :param clock: UTC, seconds since 1970
    :raises ValueError: the registry has metrics of these names
    """
    runs = _runs(registry, clock)
    pages = _pages(registry)
    source = _source(registry)
    return events.each(runs, pages, source)


def _runs(registry: CollectorRegistry, clock: Callable[[], float]) -> Listener:
    in_progress = Gauge("neows_runs_in_progress", "Runs that have begun and not ended.", registry=registry)
    ended = Counter("neows_runs", "Runs that ended.", ["outcome"], registry=registry)
    for outcome in ("committed", "read", "stopped", "paused", "cancelled", "failed"):
        ended.labels(outcome)  # a rate is right only if its counter starts at zero
    took = Histogram(
        "neows_run_duration_seconds", "How long runs took.", ["outcome"], buckets=_RUN_BUCKETS_S, registry=registry
    )
    size = Gauge("neows_snapshot_size_bytes", "Bytes of the newest snapshot's files.", registry=registry)
    committed = Gauge(
        "neows_snapshot_committed_timestamp_seconds",
        "When the newest snapshot was committed, in seconds since 1970.",
        registry=registry,
    )

    def listen(event: Event) -> None:
        match event:
            case events.RunStarted():
                in_progress.inc()
            case events.Committing(bytes=bytes_):
                size.set(bytes_)
            case events.Committed():
                committed.set(clock())
            case events.RunEnded(outcome=outcome, run_s=run_s):
                in_progress.dec()
                ended.labels(outcome).inc()
                took.labels(outcome).observe(run_s)
            case _:
                pass

    return listen


@dataclass(frozen=True, slots=True)
class _Written:
    pages: Counter
    neos: Counter
    close_approaches: Counter


def _pages(registry: CollectorRegistry) -> Listener:
    def count(name: str, help_text: str) -> Counter:
        return Counter(f"neows_{name}", help_text, registry=registry)

    planned = Gauge("neows_run_planned_pages", "Pages in the newest plan.", registry=registry)
    written = _Written(
        count("pages_written", "Pages that every sink and aggregator has processed."),
        count("neos_written", "Near-Earth objects written."),
        count("close_approaches_written", "Close approaches written."),
    )
    rejected = count("objects_rejected", "Objects that could not be read.")
    failures = {
        events.PageDeferred: count("pages_set_back", "Pages that used up their retry budget and are requested last."),
        events.PageMissing: count("pages_missing", "Pages that could not be read."),
        events.PageDamaged: count("pages_damaged", "Damaged pages in the raw zone."),
    }

    def listen(event: Event) -> None:
        match event:
            case events.Planned(pages=pages):
                planned.set(pages)
            case events.PageWritten(neos=neos, close_approaches=close_approaches):
                written.pages.inc()
                written.neos.inc(neos)
                written.close_approaches.inc(close_approaches)
            case events.ObjectRejected():
                rejected.inc()
            case events.PageDeferred() | events.PageMissing() | events.PageDamaged():
                failures[type(event)].inc()
            case _:
                pass

    return listen


def _source(registry: CollectorRegistry) -> Listener:
    fetched = Histogram(
        "neows_page_fetch_duration_seconds",
        "Time from the request for a page to its last byte, for valid pages.",
        buckets=_FETCH_BUCKETS_S,
        registry=registry,
    )
    fetched_bytes = Counter("neows_fetched_bytes", "Bytes of JSON in the received pages.", registry=registry)
    failed = Counter("neows_page_attempts_failed", "Attempts that failed.", ["error", "status"], registry=registry)
    limit = Gauge("neows_quota_limit_requests", "Requests an hour, from the last response.", registry=registry)
    remaining = Gauge(
        "neows_quota_remaining_requests", "Requests left this hour, from the last response.", registry=registry
    )
    waits = Counter("neows_quota_waits", "Waits for the quota that were reported.", registry=registry)
    until = Gauge(
        "neows_quota_wait_until_timestamp_seconds",
        "End of the newest wait for the quota, in seconds since 1970.",
        registry=registry,
    )
    up = Gauge("neows_source_up", "0 while the source counts as down.", registry=registry)
    # Before the first event: a missing series would look like a source that is down.
    up.set(1)
    outages = Counter("neows_source_outages", "Outages of the source.", registry=registry)

    def set_quota(rate_limit: RateLimit | None) -> None:
        if rate_limit is not None:
            limit.set(rate_limit.limit)
            remaining.set(rate_limit.remaining)

    def listen(event: Event) -> None:
        match event:
            case events.PageFetched(body_bytes=body_bytes, fetch_s=fetch_s, rate_limit=rate_limit):
                fetched.observe(fetch_s)
                fetched_bytes.inc(body_bytes)
                set_quota(rate_limit)
            case events.AttemptFailed(error=error, status=status, rate_limit=rate_limit):
                failed.labels(error, _label(status)).inc()
                set_quota(rate_limit)
            case events.WaitingForQuota(until_s=until_s):
                waits.inc()
                until.set(until_s)
            case events.SourceDown():
                outages.inc()
                up.set(0)
            case events.SourceUp() | events.RunStarted():
                up.set(1)
            case _:
                pass

    return listen


def _label(status: int | None) -> str:
    """A label of bounded variety: a hostile source could otherwise create a time series for each status."""
    if status is None:
        return "none"
    return str(status) if status in _STATUSES else "other"

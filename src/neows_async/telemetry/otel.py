"""A run's events as OpenTelemetry spans and metrics.

Names are ``neows.*`` and units UCUM; ``error.type`` and ``http.response.status_code`` are those of the semantic
conventions. The HTTP client's own metrics (``http.client.request.duration``) come from the instrumentation of httpx:
pass an instrumented client as ``client=``. It works beside this listener.
"""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from opentelemetry import metrics, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from neows_async.telemetry import events

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter, MeterProvider
    from opentelemetry.trace import Span, Tracer, TracerProvider
    from opentelemetry.util.types import AttributeValue

    from neows_async.telemetry.events import Event, Listener

_SCOPE: Final = "neows_async"
_S: Final = 1_000_000_000  # spans count nanoseconds
_MAX_PAGE_SPANS: Final = 128
# By default, an SDK keeps 128 events of a span and drops the oldest.
_MAX_SPAN_EVENTS: Final = 100
_FETCH_BUCKETS_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0)
_RUN_BUCKETS_S: Final = (1.0, 10.0, 60.0, 300.0, 900.0, 3_600.0, 7_200.0, 14_400.0, 43_200.0)
_STATUS: Final = "http.response.status_code"
# Other statuses get no attribute: a hostile source could create a time series for each.
_STATUSES: Final = frozenset(int(status) for status in HTTPStatus)
_ERROR: Final = "error.type"
# The exported fields and their attributes. The text of a rejected object is not exported.
_NAMES: Final = {
    "snapshot": "neows.snapshot.id",
    "resumed": "neows.run.resumed",
    "pages_kept": "neows.run.pages_kept",
    "pages": "neows.run.pages",
    "generation": "neows.run.generation",
    "number": "neows.page.number",
    "page": "neows.page.number",
    "position": "neows.object.position",
    "attempt": "neows.page.attempt",
    "status": _STATUS,
    "error": _ERROR,
    "reason": "neows.reason",
    "wait_s": "neows.wait.duration",
    "down_s": "neows.outage.duration",
    "files": "neows.snapshot.files",
    "bytes": "neows.snapshot.size",
}
# Events of each page, and events that the end of the span repeats.
_NOT_EXPORTED: Final = (events.PageWritten, events.Aggregated, events.Committed)


def telemetry(
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    *,
    max_page_spans: int = _MAX_PAGE_SPANS,
) -> Listener:
    """A listener that exports a span and metrics for each run.

    The span ``neows.run`` is a child of the span that is current when the run begins. The first ``max_page_spans``
    fetched pages are its child spans; the attribute ``neows.page.spans_omitted`` counts the others. Plans, waits,
    outages and failures are events of the span.

    One listener serves one run at a time. Runs in parallel need one each.

    :param tracer_provider: None is the global one
    :param meter_provider: None is the global one
    :param max_page_spans: the most spans of pages in a run
    """
    meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
    spans = _Spans(trace.get_tracer(_SCOPE, tracer_provider=tracer_provider), max_page_spans)
    return events.each(spans, _run_metrics(meter), _source_metrics(meter))


class _Spans:
    def __init__(self, tracer: Tracer, max_page_spans: int) -> None:
        self._tracer = tracer
        self._max_page_spans = max_page_spans
        self._run: Span | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, events.RunStarted):
            self._begin(event)
        # Attached in the middle of a run: without its beginning there is no span to add to.
        elif self._run is None:
            return
        elif isinstance(event, events.RunEnded):
            self._end(self._run, event)
        elif isinstance(event, events.PageFetched):
            self._add_page(self._run, event)
        else:
            self._add_event(self._run, event)

    def _begin(self, event: events.RunStarted) -> None:
        self._pages = self._events = 0
        self._run = self._tracer.start_span(
            "neows.run", attributes={"neows.source.origin": event.origin, "neows.source.synthetic": event.synthetic}
        )

    def _end(self, run: Span, event: events.RunEnded) -> None:
        run.set_attributes(
            {
                "neows.run.outcome": event.outcome,
                "neows.page.spans_omitted": max(0, self._pages - self._max_page_spans),
                "neows.run.events_omitted": max(0, self._events - _MAX_SPAN_EVENTS),
            }
        )
        if event.error is not None:
            # The name alone, on any outcome; only a failure is an error of the span.
            run.set_attribute(_ERROR, event.error)
            if event.outcome == "failed":
                run.set_status(Status(StatusCode.ERROR, event.reason))
        run.end()
        self._run = None

    def _add_page(self, run: Span, event: events.PageFetched) -> None:
        self._pages += 1
        # Bounded: a whole catalogue has thousands of pages.
        if self._pages > self._max_page_spans:
            return
        ended_ns = time.time_ns()
        span = self._tracer.start_span(
            "neows.page.fetch",
            context=trace.set_span_in_context(run),
            kind=SpanKind.CLIENT,
            attributes={"neows.page.number": event.number, "neows.page.size": event.body_bytes},
            start_time=ended_ns - round(event.fetch_s * _S),
        )
        span.end(ended_ns)

    def _add_event(self, run: Span, event: Event) -> None:
        if isinstance(event, events.SnapshotOpened):
            run.set_attributes(_attributes(event))
        elif not isinstance(event, _NOT_EXPORTED):
            self._events += 1
            # The end of a run is exported in any case.
            if self._events <= _MAX_SPAN_EVENTS or isinstance(event, events.Committing):
                run.add_event(f"neows.{events.name_of(event)}", _attributes(event))


def _attributes(event: Event) -> dict[str, AttributeValue]:
    fields = event.rejected if isinstance(event, events.ObjectRejected) else event
    values = {name: getattr(fields, field, None) for field, name in _NAMES.items()}
    return {name: value for name, value in values.items() if value is not None}


def _run_metrics(meter: Meter) -> Listener:
    run_s = meter.create_histogram(
        "neows.run.duration", "s", "Duration of runs.", explicit_bucket_boundaries_advisory=_RUN_BUCKETS_S
    )
    active = meter.create_up_down_counter("neows.run.active", "{run}", "Runs that have begun and not ended.")
    pages = meter.create_counter("neows.page.written", "{page}", "Pages that every sink and aggregator has processed.")
    neos = meter.create_counter("neows.neo.written", "{neo}", "Near-Earth objects written.")
    approaches = meter.create_counter("neows.close_approach.written", "{close_approach}", "Close approaches written.")
    rejected = meter.create_counter("neows.neo.rejected", "{neo}", "Objects that could not be read.")

    def listen(event: Event) -> None:
        match event:
            case events.RunStarted():
                active.add(1)
            case events.RunEnded():
                active.add(-1)
                run_s.record(event.run_s, {"neows.run.outcome": event.outcome})
            case events.PageWritten():
                pages.add(1)
                neos.add(event.neos)
                approaches.add(event.close_approaches)
            case events.ObjectRejected():
                rejected.add(1)
            case _:
                pass

    return listen


def _source_metrics(meter: Meter) -> Listener:
    fetch_s = meter.create_histogram(
        "neows.page.fetch.duration",
        "s",
        "Time from the request for a page to its last byte, for valid pages.",
        explicit_bucket_boundaries_advisory=_FETCH_BUCKETS_S,
    )
    fetched_bytes = meter.create_counter("neows.page.fetch.io", "By", "Bytes of JSON in the received pages.")
    failed = meter.create_counter("neows.page.fetch.failures", "{attempt}", "Attempts that failed.")
    waits = meter.create_counter("neows.quota.waits", "{wait}", "Waits for the quota that were reported.")
    outages = meter.create_counter("neows.source.outages", "{outage}", "Outages of the source.")
    limit = meter.create_gauge("neows.quota.limit", "{request}", "Requests an hour, from the last response.")
    left = meter.create_gauge("neows.quota.remaining", "{request}", "Requests left this hour, from the last response.")

    def set_quota(event: events.PageFetched | events.AttemptFailed) -> None:
        if event.rate_limit is not None:
            limit.set(event.rate_limit.limit)
            left.set(event.rate_limit.remaining)

    def listen(event: Event) -> None:
        match event:
            case events.PageFetched():
                fetch_s.record(event.fetch_s)
                fetched_bytes.add(event.body_bytes)
                set_quota(event)
            case events.AttemptFailed(error=error, status=status):
                failed.add(1, {_ERROR: error, _STATUS: status} if status in _STATUSES else {_ERROR: error})
                set_quota(event)
            case events.WaitingForQuota():
                waits.add(1)
            case events.SourceDown():
                outages.add(1)
            case _:
                pass

    return listen

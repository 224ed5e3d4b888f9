"""A run's events as OpenTelemetry spans and metrics.

Names are ``neows.*`` and units UCUM; ``error.type`` and ``http.response.status_code`` are those of the semantic
conventions. The HTTP client's own names (``http.client.request.duration``) are left to the instrumentation of
httpx, which can stand beside this one.
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
# An SDK keeps 128 events a span by default, and drops the oldest.
_MAX_SPAN_EVENTS: Final = 100
_FETCH_BUCKETS_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0)
_RUN_BUCKETS_S: Final = (1.0, 10.0, 60.0, 300.0, 900.0, 3_600.0, 7_200.0, 14_400.0, 43_200.0)
_STATUS: Final = "http.response.status_code"
# One that a hostile source makes up gets no time series of its own.
_STATUSES: Final = frozenset(int(status) for status in HTTPStatus)
_ERROR: Final = "error.type"
# The fields that are told, and as what. Of a rejected object its text is not.
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
# They come again and again, or say what the span's end says.
_UNTOLD: Final = (events.PageWritten, events.Aggregated, events.Committed)


def telemetry(
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    *,
    max_page_spans: int = _MAX_PAGE_SPANS,
) -> Listener:
    """A listener that makes a span of a run, and metrics of it.

    The span ``neows.run`` is a child of the span that is current where the run begins. The first
    ``max_page_spans`` pages that are fetched are child spans of it; the rest are counted in its attribute
    ``neows.page.spans_omitted``. What befalls a run (a plan, waits, outages, failures) are events of its span.

    One listener is for one run at a time; make one each for runs side by side.

    :param tracer_provider: by default the global one
    :param meter_provider: by default the global one
    """
    meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
    spans = _Spans(trace.get_tracer(_SCOPE, tracer_provider=tracer_provider), max_page_spans)
    return events.each(spans, _of_runs(meter), _of_the_source(meter))


class _Spans:
    def __init__(self, tracer: Tracer, max_page_spans: int) -> None:
        self._tracer = tracer
        self._max_page_spans = max_page_spans
        self._run: Span | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, events.RunStarted):
            self._begin(event)
        elif self._run is None:
            return
        elif isinstance(event, events.RunEnded):
            self._end(self._run, event)
        elif isinstance(event, events.PageFetched):
            self._page(self._run, event)
        else:
            self._note(self._run, event)

    def _begin(self, event: events.RunStarted) -> None:
        self._pages = self._notes = 0
        self._run = self._tracer.start_span(
            "neows.run", attributes={"neows.source.origin": event.origin, "neows.source.synthetic": event.synthetic}
        )

    def _end(self, run: Span, event: events.RunEnded) -> None:
        run.set_attributes(
            {
                "neows.run.outcome": event.outcome,
                "neows.page.spans_omitted": max(0, self._pages - self._max_page_spans),
                "neows.run.events_omitted": max(0, self._notes - _MAX_SPAN_EVENTS),
            }
        )
        if event.error is not None:
            run.set_attribute(_ERROR, event.error)
            if event.outcome == "failed":
                run.set_status(Status(StatusCode.ERROR, event.reason))
        run.end()
        self._run = None

    def _page(self, run: Span, event: events.PageFetched) -> None:
        self._pages += 1
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

    def _note(self, run: Span, event: Event) -> None:
        if isinstance(event, events.SnapshotOpened):
            run.set_attributes(_attributes(event))
        elif not isinstance(event, _UNTOLD):
            self._notes += 1
            # How it ended is told in any case.
            if self._notes <= _MAX_SPAN_EVENTS or isinstance(event, events.Committing):
                run.add_event(f"neows.{events.name_of(event)}", _attributes(event))


def _attributes(event: Event) -> dict[str, AttributeValue]:
    what = event.rejected if isinstance(event, events.ObjectRejected) else event
    values = {name: getattr(what, field, None) for field, name in _NAMES.items()}
    return {name: value for name, value in values.items() if value is not None}


def _of_runs(meter: Meter) -> Listener:
    run_s = meter.create_histogram(
        "neows.run.duration", "s", "How long runs took.", explicit_bucket_boundaries_advisory=_RUN_BUCKETS_S
    )
    active = meter.create_up_down_counter("neows.run.active", "{run}", "Runs that have begun and not ended.")
    pages = meter.create_counter("neows.page.written", "{page}", "Pages that every sink and aggregator has taken.")
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


def _of_the_source(meter: Meter) -> Listener:
    fetch_s = meter.create_histogram(
        "neows.page.fetch.duration",
        "s",
        "From the request of a page to its last byte, where it was whole and right.",
        explicit_bucket_boundaries_advisory=_FETCH_BUCKETS_S,
    )
    came = meter.create_counter("neows.page.fetch.io", "By", "Bytes of JSON in the pages that came.")
    failed = meter.create_counter("neows.page.fetch.failures", "{attempt}", "Attempts that failed.")
    waits = meter.create_counter("neows.quota.waits", "{wait}", "Waits for the quota that were worth telling.")
    outages = meter.create_counter("neows.source.outages", "{outage}", "Times that the source was taken to be down.")
    limit = meter.create_gauge("neows.quota.limit", "{request}", "Requests an hour, as the last answer said.")
    left = meter.create_gauge("neows.quota.remaining", "{request}", "What the last answer said is left of them.")

    def quota(event: events.PageFetched | events.AttemptFailed) -> None:
        if event.rate_limit is not None:
            limit.set(event.rate_limit.limit)
            left.set(event.rate_limit.remaining)

    def listen(event: Event) -> None:
        match event:
            case events.PageFetched():
                fetch_s.record(event.fetch_s)
                came.add(event.body_bytes)
                quota(event)
            case events.AttemptFailed(error=error, status=status):
                failed.add(1, {_ERROR: error, _STATUS: status} if status in _STATUSES else {_ERROR: error})
                quota(event)
            case events.WaitingForQuota():
                waits.add(1)
            case events.SourceDown():
                outages.add(1)
            case _:
                pass

    return listen

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import structlog
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from neows_async.errors import AttemptError, NeowsError, PausedError, RateLimit, TooManyRejectsError
from neows_async.pipeline.run import ingest
from neows_async.settings import Settings
from neows_async.sources.http_pool import open_transport
from neows_async.sources.nasa import NasaSource, open_client
from neows_async.telemetry import events
from neows_async.telemetry.otel import telemetry
from neows_async.telemetry.prometheus import metrics
from neows_async.telemetry.structlog import logs
from neows_async.testing import ListSource
from tests import loopback
from tests.neos import catalogue, neo
from tests.pipeline.test_run import QUICK, parts

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

KEY = "s3cretS3cretS3cretS3cretS3cretS3cret0123"


class Recorded:
    """The output of the three listeners for a run, read as their users read it."""

    def __init__(self) -> None:
        self.events: list[events.Event] = []
        self.registry = CollectorRegistry()
        self.spans = InMemorySpanExporter()
        self.readings = InMemoryMetricReader()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.listener = events.each(
            self.events.append,
            metrics(self.registry, clock=lambda: 1_795_387_500.0),
            telemetry(self.tracer_provider, MeterProvider([self.readings]), max_page_spans=2),
            logs(structlog.get_logger(job="nightly")),
        )

    def prometheus(self) -> dict[str, float]:
        """``name{label="value"}`` → value."""
        found = {}
        for family in text_string_to_metric_families(generate_latest(self.registry).decode()):
            for sample in family.samples:
                labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return found

    def otel(self) -> dict[str, dict[Any, Any]]:
        """Name → attributes → value, or the sum of a histogram's."""
        read = self.readings.get_metrics_data()
        assert read is not None
        found: dict[str, dict[Any, Any]] = {}
        for resource in read.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found[metric.name] = {
                        tuple(sorted((point.attributes or {}).items())): _value(point)
                        for point in metric.data.data_points
                    }
        return found

    def finished(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans.get_finished_spans() if span.name == name]


def _value(point: Any) -> float:
    assert isinstance(point, HistogramDataPoint | NumberDataPoint)
    return point.count if isinstance(point, HistogramDataPoint) else point.value


def of(happened: Iterable[events.Event], kind: type[Any]) -> list[Any]:
    return [event for event in happened if isinstance(event, kind)]


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


def failing(objects: list[dict[str, Any]]) -> Any:
    """A server with quota headers that fails page 1 once, refuses page 2 once, and quotes the key each time."""
    good = loopback.browse(objects)
    times: dict[int, int] = {}

    def response(asked: loopback.Asked) -> loopback.Answer:
        times[asked.page] = times.get(asked.page, 0) + 1
        quota = {"X-RateLimit-Limit": "1000", "X-RateLimit-Remaining": str(990 - sum(times.values()))}
        if asked.page == 1 and times[1] == 1:
            return loopback.Answer(f"no, {KEY}".encode(), 503, {**quota, "X-Said": KEY})
        if asked.page == 2 and times[2] == 1:
            return loopback.Answer(f"not {KEY}".encode(), 429, {**quota, "Retry-After": "0"})
        return dataclasses.replace(good(asked), headers=quota)

    return response


async def test_all_listeners_agree_on_a_run_with_failures_and_hide_the_key(tmp_path: Path, recorded: Recorded) -> None:
    objects = [*catalogue(69), neo(70, name=7)]
    settings = Settings(limit=None, root=str(tmp_path), api_key=KEY, concurrency=1)
    with loopback.serving(failing(objects)) as server, capture_logs() as lines:
        transport = open_transport(connections=1)
        async with open_client(transport, connect_timeout_s=60, timeout_s=60) as client:
            source = NasaSource(client, base_url=server.url, api_key=KEY, transport=transport)
            receipt = await ingest(settings, parts(tmp_path, source, settings=settings), recorded.listener)

    fetched = of(recorded.events, events.PageFetched)
    body_bytes = sum(event.body_bytes for event in fetched)
    last = fetched[-1].rate_limit
    assert len(fetched) == 4
    assert type(recorded.events[0]) is events.RunStarted
    assert type(recorded.events[-1]) is events.RunEnded
    assert (
        recorded.prometheus().items()
        >= {
            "neows_runs_in_progress": 0,
            "neows_runs_total{outcome=committed}": 1,
            "neows_runs_total{outcome=failed}": 0,
            "neows_run_duration_seconds_count{outcome=committed}": 1,
            "neows_run_planned_pages": 4,
            "neows_page_fetch_duration_seconds_count": 4,
            "neows_fetched_bytes_total": body_bytes,
            "neows_page_attempts_failed_total{error=AttemptError,status=503}": 1,
            "neows_page_attempts_failed_total{error=RateLimitedError,status=429}": 1,
            "neows_pages_written_total": 4,
            "neows_neos_written_total": 69,
            "neows_close_approaches_written_total": receipt.close_approaches,
            "neows_objects_rejected_total": 1,
            "neows_quota_limit_requests": 1000,
            "neows_quota_remaining_requests": last.remaining,
            "neows_snapshot_size_bytes": sum(file.bytes for file in receipt.files),
            "neows_snapshot_committed_timestamp_seconds": 1_795_387_500,
            "neows_source_up": 1,
        }.items()
    )
    measured = recorded.otel()
    outcome = (("neows.run.outcome", "committed"),)
    failed = {(("error.type", "AttemptError"), ("http.response.status_code", 503)): 1}
    refused = {(("error.type", "RateLimitedError"), ("http.response.status_code", 429)): 1}
    assert measured["neows.page.fetch.failures"] == failed | refused
    del measured["neows.page.fetch.failures"]
    assert measured == {
        "neows.run.active": {(): 0},
        "neows.run.duration": {outcome: 1},
        "neows.page.fetch.duration": {(): 4},
        "neows.page.fetch.io": {(): body_bytes},
        "neows.page.written": {(): 4},
        "neows.neo.written": {(): 69},
        "neows.neo.rejected": {(): 1},
        "neows.close_approach.written": {(): receipt.close_approaches},
        "neows.quota.limit": {(): 1000},
        "neows.quota.remaining": {(): last.remaining},
    }
    assert [line["event"] for line in lines] == [
        events.name_of(event) for event in recorded.events if not isinstance(event, events.Aggregated)
    ]
    assert {line["job"] for line in lines} == {"nightly"}
    levels = {line["event"]: line["log_level"] for line in lines}
    assert levels["page_fetched"] == "debug"
    assert levels["attempt_failed"] == levels["object_rejected"] == "warning"
    assert levels["run_ended"] == "info"
    assert [line["position"] for line in lines if line["event"] == "object_rejected"] == [69]
    expected_text = [generate_latest(recorded.registry).decode(), str(measured), str(lines)]
    expected_text += [span.to_json() for span in recorded.spans.get_finished_spans()]
    for text in expected_text:
        assert KEY not in text
        assert KEY[:20] not in text


async def test_run_span_is_a_child_of_the_callers_and_parent_of_the_first_pages(
    tmp_path: Path, recorded: Recorded
) -> None:
    def fail(page: int, times: int) -> None:
        if page == 3 and times == 1:
            raise AttemptError("bad luck", status=502)

    tracer = recorded.tracer_provider.get_tracer("a service")
    with tracer.start_as_current_span("nightly refresh") as outer:
        receipt = await ingest(
            Settings(limit=None), parts(tmp_path, ListSource(catalogue(90), fail=fail)), recorded.listener
        )
    [run] = recorded.finished("neows.run")
    assert run.parent is not None
    assert run.parent.span_id == outer.get_span_context().span_id
    assert run.status.status_code is StatusCode.UNSET
    attributes = dict(run.attributes or {})
    assert attributes == {
        "neows.source.origin": "list",
        "neows.source.synthetic": True,
        "neows.snapshot.id": receipt.snapshot,
        "neows.run.resumed": False,
        "neows.run.pages_kept": 0,
        "neows.run.outcome": "committed",
        "neows.run.events_omitted": 0,
        "neows.page.spans_omitted": 3,
    }
    [failed] = [event for event in run.events if event.name == "neows.attempt_failed"]
    assert failed.attributes is not None
    assert failed.attributes["http.response.status_code"] == 502
    assert [event.name for event in run.events if event is not failed] == ["neows.planned", "neows.committing"]
    pages = recorded.finished("neows.page.fetch")
    assert len(pages) == 2
    for page in pages:
        assert page.parent is not None
        assert page.parent.span_id == (run.context and run.context.span_id)
        assert page.start_time is not None
        assert page.end_time is not None
        assert page.start_time <= page.end_time


@pytest.mark.parametrize(
    ("outcome", "error", "level"),
    [("failed", TooManyRejectsError, "error"), ("paused", PausedError, "warning"), ("cancelled", None, "warning")],
)
async def test_end_of_a_run_without_a_commit_is_reported(
    tmp_path: Path, recorded: Recorded, outcome: str, error: type[NeowsError] | None, level: str
) -> None:
    settings = Settings(
        limit=None,
        max_rejects=0 if outcome == "failed" else None,
        budget_requests=2 if outcome == "paused" else None,
        **QUICK,
    )
    scope = anyio.CancelScope()

    def fail(page: int, _: int) -> None:
        if outcome == "cancelled" and page == 2:
            scope.cancel()

    source = ListSource([neo(0, name=7), *catalogue(80)], fail=fail)
    raised = ""
    with capture_logs() as lines, scope:
        try:
            await ingest(settings, parts(tmp_path, source, settings=settings), recorded.listener)
        except NeowsError as exc:
            raised = str(exc)
    ended = recorded.events[-1]
    assert isinstance(ended, events.RunEnded)
    assert ended.outcome == outcome
    assert ended.reason == (raised or None)
    assert ended.error == (error.__name__ if error else ended.error)
    assert recorded.prometheus()[f"neows_runs_total{{outcome={outcome}}}"] == 1
    assert recorded.prometheus()["neows_runs_in_progress"] == 0
    assert lines[-1]["log_level"] == level
    [span] = recorded.finished("neows.run")
    assert (span.status.status_code is StatusCode.ERROR) == (outcome == "failed")
    assert dict(span.attributes or {})["error.type"] == ended.error


def test_unknown_statuses_get_no_time_series(recorded: Recorded) -> None:
    for status in (*range(600, 1000), None, 503):
        recorded.listener(events.AttemptFailed(0, 1, "no", 0.0, "AttemptError", status, RateLimit(5, 4)))
    failed = {name: value for name, value in recorded.prometheus().items() if "attempts_failed_total" in name}
    assert {name.partition("status=")[2].rstrip("}"): value for name, value in failed.items()} == {
        "other": 400,
        "none": 1,
        "503": 1,
    }
    assert sorted(recorded.otel()["neows.page.fetch.failures"].values()) == [1, 401]


async def test_gauges_show_outages_and_waits_for_the_quota(recorded: Recorded) -> None:
    for event, up, waits in (
        (events.RunStarted("nasa", synthetic=False, compiled_scanner=True), 1, 0),
        (events.SourceDown(1.0, 301.0, "503"), 0, 0),
        (events.SourceStillDown(1.0, 601.0, "503"), 0, 0),
        (events.SourceUp(300.0), 1, 0),
        (events.WaitingForQuota(until_s=1_795_400_000.0, wait_s=600.0), 1, 1),
    ):
        recorded.listener(event)
        figures = recorded.prometheus()
        assert (figures["neows_source_up"], figures["neows_quota_waits_total"]) == (up, waits)
    assert recorded.prometheus()["neows_quota_wait_until_timestamp_seconds"] == 1_795_400_000.0
    assert recorded.prometheus()["neows_source_outages_total"] == 1


def test_metrics_are_registered_once_for_each_registry(recorded: Recorded) -> None:
    other = CollectorRegistry()
    metrics(other)
    recorded.listener(events.PageWritten(0, 20, 30))
    assert recorded.prometheus()["neows_pages_written_total"] == 1
    assert other.get_sample_value("neows_pages_written_total") == 0
    with pytest.raises(ValueError, match="neows_runs"):
        metrics(other)

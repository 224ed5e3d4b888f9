"""Figures of a run while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from neows_async import Figures, Progress, RateLimit
from neows_async.telemetry import events

if TYPE_CHECKING:
    from neows_async.telemetry.events import Event


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def figures_after(*happened: Event, elapsed_s: float = 0.0) -> Figures:
    clock = Clock()
    watch = Progress(clock=clock)
    for event in happened:
        watch(event)
    clock.now_s += elapsed_s
    return watch.figures()


OPENED = events.SnapshotOpened("a", resumed=False, pages_kept=0)
PLANNED = events.Planned(total_elements=60, page_size=20, pages=3, positions=60)


def fetched(number: int, remaining: int = 1000) -> events.PageFetched:
    return events.PageFetched(number, 100, 0.1, RateLimit(1000, remaining))


def test_figures_before_the_run_are_unknown() -> None:
    figures = figures_after()
    assert (figures.started_s, figures.snapshot, figures.eta_s, figures.pages_per_s) == (None, None, None, 0)


def test_events_are_counted() -> None:
    figures = figures_after(
        OPENED,
        fetched(0),
        PLANNED,
        fetched(1),
        events.AttemptFailed(2, 1, "502", 0.5),
        events.PageWritten(0, neos=19, close_approaches=200),
        events.Aggregated({"count": {"neos": 19}}),
        elapsed_s=4,
    )
    assert (figures.pages, figures.pages_fetched, figures.pages_written, figures.pages_left) == (3, 2, 1, 1)
    assert (figures.neos, figures.close_approaches, figures.retries, figures.body_bytes) == (19, 200, 1, 200)
    assert figures.rate_limit == RateLimit(1000, 1000)
    assert figures.aggregates == {"count": {"neos": 19}}
    assert (figures.pages_per_s, figures.eta_s) == (0.5, 2.0)
    assert not figures.committed


def test_rate_counts_the_pages_of_this_run_only() -> None:
    kept = events.SnapshotOpened("a", resumed=True, pages_kept=4)
    figures = figures_after(kept, PLANNED, elapsed_s=10)
    # One page more than planned was stored. Nothing was fetched, so there is no rate, and none is needed.
    assert (figures.pages_fetched, figures.pages_kept, figures.pages_per_s, figures.eta_s) == (3, 3, 0, 0)


def test_eta_includes_pages_beyond_the_quota() -> None:
    planned = events.Planned(total_elements=40_000, page_size=20, pages=2000, positions=40_000)
    figures = figures_after(OPENED, fetched(0, remaining=999), planned, elapsed_s=1)
    assert figures.eta_s == pytest.approx((1999 - 999) / 1000 * 3600)


def test_waits_and_outages_begin_and_end() -> None:
    waiting = events.WaitingForQuota(until_s=1060, wait_s=60)
    assert figures_after(OPENED, waiting, elapsed_s=59).waiting_until_s == 1060
    assert figures_after(OPENED, waiting, elapsed_s=60).waiting_until_s is None
    down = events.SourceDown(since_s=990, next_probe_s=1300, reason="503")
    assert (figures_after(OPENED, down).outage_since_s, figures_after(OPENED, down).next_probe_s) == (990, 1300)
    still = events.SourceStillDown(since_s=990, next_probe_s=1600, reason="503")
    assert (figures_after(OPENED, down, still).outage_since_s, figures_after(OPENED, down, still).next_probe_s) == (
        990,
        1600,
    )
    assert figures_after(OPENED, down, still, events.SourceUp(20)).outage_since_s is None


def test_second_generation_adds_its_pages() -> None:
    again = events.Planned(total_elements=61, page_size=20, pages=4, positions=61, generation=1)
    figures = figures_after(OPENED, PLANNED, *(fetched(number) for number in range(3)), again)
    assert (figures.pages, figures.pages_left, figures.generation, figures.total_elements) == (7, 4, 1, 61)


def test_new_run_resets_the_figures() -> None:
    figures = figures_after(
        OPENED,
        PLANNED,
        fetched(0),
        events.Committed("a"),
        events.RunStarted("x", synthetic=False, compiled_scanner=True),
        events.SnapshotOpened("b", False, 0),
    )
    assert (figures.snapshot, figures.pages, figures.pages_fetched, figures.committed) == ("b", 0, 0, False)

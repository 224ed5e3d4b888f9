"""The events of a run as lines for people."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

from neows_async.cli.output import clean, counted, duration
from neows_async.telemetry import events

if TYPE_CHECKING:
    from neows_async.telemetry.progress import Figures

NO_SCANNER: Final = "no compiled page scanner: decoding takes twice as long; install with a C compiler"
_ID_CHARS: Final = 60


def line_of(event: events.Event) -> str | None:
    """The line for ``event``; None for an event that is too frequent or too small for one."""
    if isinstance(event, events.RunStarted):
        return None if event.compiled_scanner else NO_SCANNER
    line = _line_of_page(event)
    if line is None:
        line = _line_of_wait(event)
    # Reasons may quote a source: no control character reaches the terminal.
    return None if line is None else clean(line)


def _line_of_page(event: events.Event) -> str | None:
    match event:
        case events.SnapshotOpened(snapshot, resumed=True, pages_kept=kept):
            return f"resuming snapshot {snapshot}: {counted(kept, 'page')} already stored"
        case events.SnapshotOpened(snapshot):
            return f"snapshot {snapshot}"
        case events.SnapshotPassedOver(snapshot, reason):
            return f"not resuming unfinished snapshot {snapshot}: {reason}"
        case events.Planned():
            return _line_of_plan(event)
        case events.AttemptFailed(number, attempt, reason, wait_s):
            again = "" if wait_s is None else f"; retry in {_precise(wait_s)}"
            return f"page {number}, attempt {attempt}: {reason}{again}"
        case events.PageDeferred(number, reason):
            return f"page {number} is postponed until the others are fetched: {reason}"
        case events.PageMissing(number, reason):
            return f"page {number} could not be read: {reason}; allowed by --max-missing-pages"
        case events.PageDamaged(number, reason):
            return f"raw page {number} is damaged and will be fetched again: {reason}"
        case events.ObjectRejected(rejected):
            what = (rejected.id or "an object")[:_ID_CHARS]
            return f"rejected {what} at {rejected.pointer} of page {rejected.page}: {rejected.reason}"
        case _:
            return None


def _line_of_plan(planned: events.Planned) -> str:
    total, pages = counted(planned.total_elements, "object"), counted(planned.pages, "page")
    if planned.generation:
        return f"the catalogue changed during the run and now has {total}; reading {pages} again"
    return f"the catalogue has {total}; fetching {planned.positions:,} on {pages}"


def _line_of_wait(event: events.Event) -> str | None:
    match event:
        case events.WaitingForQuota(until_s, wait_s):
            return f"waiting for quota, {duration(wait_s)}, until {_utc(until_s)}"
        case events.QuotaSharingFailed(reason):
            return f"the quota is not shared with other runs: {reason}"
        case events.SourceDown(since_s, next_probe_s, reason):
            return f"the source is down since {_utc(since_s)} ({reason}); next probe at {_utc(next_probe_s)}"
        case events.SourceStillDown(since_s, next_probe_s):
            return f"the source is still down, since {_utc(since_s)}; next probe at {_utc(next_probe_s)}"
        case events.SourceUp(down_s):
            return f"the source is up again after {duration(down_s)}"
        case events.Draining(_, requests):
            return f"stopping; {counted(requests, 'request')} in flight"
        case _:
            return None


def current_state(figures: Figures) -> str:
    """What a run does at this moment. During a wait, the remaining time counts down."""
    done = f"{figures.pages_written:,} of {figures.pages:,} pages, " if figures.pages else ""
    if figures.outage_since_s is not None and figures.next_probe_s is not None:
        return f"{done}the source is down, next probe in {duration(max(0.0, figures.next_probe_s - figures.at_s))}"
    if figures.waiting_until_s is not None:
        return f"{done}waiting for quota, {duration(figures.waiting_until_s - figures.at_s)}"
    return progress_line(figures) if figures.pages else "requesting the first page"


def progress_line(figures: Figures) -> str:
    """How many pages are written, how fast, and how long the rest takes."""
    eta = f", {duration(figures.eta_s)} left" if figures.eta_s else ""
    return (
        f"{figures.pages_written:,} of {figures.pages:,} pages, {figures.neos:,} NEOs, "
        f"{figures.pages_per_s:.1f} pages/s{eta}"
    )


def _precise(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else duration(seconds)  # noqa: PLR2004 - a minute


def _utc(at_s: float) -> str:
    return dt.datetime.fromtimestamp(at_s, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""The progress of a run, readable at any time and from any thread: a listener that counts, and its figures."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from neows_async.telemetry import events

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from neows_async.errors import RateLimit

_HOUR_S: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The figures of a run at one moment. Times are UTC, seconds since 1970; None is unknown, or not the case.

    :param at_s: the moment of the figures
    :param started_s: the first event of the run
    :param snapshot: the snapshot's id; None before it is known, and for a stream, which has no snapshot
    :param generation: 0; 1 after the catalogue changed and is read again
    :param total_elements: objects in the catalogue
    :param positions: Browse positions to read
    :param pages: pages to fetch in all generations
    :param pages_kept: pages of these that an earlier run fetched
    :param pages_fetched: fetched pages, including ``pages_kept``
    :param pages_written: pages that every sink and aggregator has processed, or that a stream's consumer received
    :param pages_missing: pages that could not be read
    :param neos: near-Earth objects in ``pages_written``; also ``close_approaches``
    :param rejected: objects that could not be read
    :param retries: failed attempts
    :param body_bytes: bytes of JSON that this run fetched
    :param rate_limit: the quota in the last response: requests an hour, and those left
    :param waiting_until_s: the end of a wait for the quota
    :param outage_since_s: the begin of an outage of the source
    :param next_probe_s: the next request during an outage
    :param aggregates: name → result of each aggregator, at most a second older than the last page
    :param eta_s: seconds until all pages are fetched, at the rate so far, within the quota; 0 when they are
    :param committed: the snapshot exists
    """

    at_s: float = 0.0
    started_s: float | None = None
    snapshot: str | None = None
    generation: int = 0
    total_elements: int | None = None
    positions: int | None = None
    pages: int = 0
    pages_kept: int = 0
    pages_fetched: int = 0
    pages_written: int = 0
    pages_missing: int = 0
    neos: int = 0
    close_approaches: int = 0
    rejected: int = 0
    retries: int = 0
    body_bytes: int = 0
    rate_limit: RateLimit | None = None
    waiting_until_s: float | None = None
    outage_since_s: float | None = None
    next_probe_s: float | None = None
    aggregates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    eta_s: float | None = None
    committed: bool = False

    @property
    def pages_left(self) -> int:
        """Pages still to fetch."""
        return max(0, self.pages - self.pages_fetched - self.pages_missing)

    @property
    def pages_per_s(self) -> float:
        """Pages a second that this run fetched; 0 before the first."""
        if self.started_s is None:
            return 0.0
        return (self.pages_fetched - self.pages_kept) / max(self.at_s - self.started_s, 1e-3)


class Progress:
    """A listener that counts the progress of one run.

    Pass it as ``on_event``, and call :meth:`figures` at any time, also from another thread. An event costs the run a
    few microseconds::

        watch = Progress()
        tasks.start_soon(partial(ingest, settings, on_event=watch))
        …
        watch.figures().neos

    The first event of another run resets the figures.

    :param clock: UTC, seconds since 1970
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        # Replaced as a whole and never changed, so that other threads see all of an event or nothing.
        self._figures = Figures()

    def __call__(self, event: events.Event) -> None:
        """Count the event."""
        now_s = self._clock()
        figures = self._figures
        if figures.started_s is None or isinstance(event, events.RunStarted):
            figures = Figures(started_s=now_s)
        # One assignment: readers in other threads see the figures before or after the event.
        self._figures = replace(figures, at_s=now_s, **_changes(figures, event))

    def figures(self) -> Figures:
        """The figures now."""
        now_s = self._clock()
        figures = self._figures
        # A wait ends without an event, so its end is compared with the clock.
        until_s = figures.waiting_until_s
        figures = replace(figures, at_s=now_s, waiting_until_s=until_s if until_s and until_s > now_s else None)
        return replace(figures, eta_s=_eta_s(figures))


def _changes(figures: Figures, event: events.Event) -> dict[str, Any]:
    match event:
        case events.SnapshotOpened(snapshot, pages_kept=kept):
            return {"snapshot": snapshot, "pages_kept": kept, "pages_fetched": kept}
        case events.Planned():
            return _planned(figures, event)
        case events.PageFetched(body_bytes=size, rate_limit=rate_limit):
            return {
                "pages_fetched": figures.pages_fetched + 1,
                "body_bytes": figures.body_bytes + size,
                "rate_limit": rate_limit or figures.rate_limit,
            }
        case events.PageWritten(neos=neos, close_approaches=approaches):
            return {
                "pages_written": figures.pages_written + 1,
                "neos": figures.neos + neos,
                "close_approaches": figures.close_approaches + approaches,
            }
        case events.PageMissing():
            return {"pages_missing": figures.pages_missing + 1}
        case events.PageDamaged():
            # It is fetched again, and counts then.
            return {"pages_fetched": max(0, figures.pages_fetched - 1), "pages_kept": max(0, figures.pages_kept - 1)}
        case events.ObjectRejected():
            return {"rejected": figures.rejected + 1}
        case events.Aggregated(results):
            return {"aggregates": results}
        case events.Committed(snapshot):
            return {"snapshot": snapshot, "committed": True, "waiting_until_s": None}
        case _:
            return _waits(figures, event)


def _planned(figures: Figures, planned: events.Planned) -> dict[str, Any]:
    changes: dict[str, Any] = {
        "generation": planned.generation,
        "total_elements": planned.total_elements,
        "positions": planned.positions,
    }
    if planned.generation:
        return changes | {"pages": figures.pages + planned.pages}
    # An earlier run may have stored pages beyond this run's plan.
    kept = min(figures.pages_kept, planned.pages)
    fetched = figures.pages_fetched - figures.pages_kept
    return changes | {"pages": planned.pages, "pages_kept": kept, "pages_fetched": kept + fetched}


def _waits(figures: Figures, event: events.Event) -> dict[str, Any]:
    match event:
        case events.AttemptFailed():
            return {"retries": figures.retries + 1}
        case events.WaitingForQuota(until_s):
            return {"waiting_until_s": until_s}
        case events.SourceDown(since_s, next_probe_s) | events.SourceStillDown(since_s, next_probe_s):
            return {"outage_since_s": since_s, "next_probe_s": next_probe_s}
        case events.SourceUp():
            return {"outage_since_s": None, "next_probe_s": None}
        case _:
            return {}


def _eta_s(figures: Figures) -> float | None:
    left = figures.pages_left
    if figures.total_elements is None:
        return None
    if left == 0 or figures.committed:
        return 0.0
    if figures.pages_per_s == 0:
        return None
    eta_s = left / figures.pages_per_s
    if figures.rate_limit is not None and left > figures.rate_limit.remaining:
        # Pages beyond this hour's quota are fetched as old requests leave the window.
        beyond = left - figures.rate_limit.remaining
        eta_s = max(eta_s, beyond / max(1, figures.rate_limit.limit) * _HOUR_S)
    if figures.waiting_until_s is not None:
        eta_s = max(eta_s, figures.waiting_until_s - figures.at_s)
    return eta_s

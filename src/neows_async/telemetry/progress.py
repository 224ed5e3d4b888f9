"""How far a run is, at any time and from any thread: a listener that keeps count, and the figures so far."""

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
    """A run's figures at one moment. Times are UTC, seconds since 1970; None is not known (yet), or not so.

    :param at_s: when it was asked
    :param started_s: the first that was heard of the run
    :param snapshot: its id; None before it is known, and for a stream, which makes none
    :param generation: how often the catalogue had been read before, since it changed meanwhile
    :param total_elements: how many objects the catalogue holds
    :param positions: Browse positions wanted
    :param pages: to be fetched in all generations
    :param pages_kept: of ``pages``, those that an earlier try had fetched
    :param pages_fetched: fetched, ``pages_kept`` among them
    :param pages_written: taken by every sink and aggregator, or given out by a stream
    :param pages_missing: given up, as the settings allow
    :param neos: near-Earth objects in ``pages_written``; also ``close_approaches``
    :param rejected: objects that could not be read
    :param retries: attempts that failed
    :param body_bytes: of JSON, fetched by this try
    :param rate_limit: what the last answer said of the quota: requests an hour, and those left
    :param waiting_until_s: the quota lets no request out before
    :param outage_since_s: the source is taken to be down since
    :param next_probe_s: during an outage, when the source is asked next
    :param aggregates: name → result of each aggregator, a second old at most while pages come
    :param eta_s: seconds until all pages are fetched, at the rate so far, the quota and its wait
        considered; 0 when they are
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
        """Pages still to be fetched."""
        return max(0, self.pages - self.pages_fetched - self.pages_missing)

    @property
    def pages_per_s(self) -> float:
        """Pages fetched a second by this try; 0 before the first."""
        if self.started_s is None:
            return 0.0
        return (self.pages_fetched - self.pages_kept) / max(self.at_s - self.started_s, 1e-3)


class Progress:
    """A listener that knows how far one run is.

    Give it as ``on_event``, and ask it whenever you like, also from another thread. It costs the run
    some microseconds an event, and asking costs it nothing::

        watch = Progress()
        tasks.start_soon(partial(ingest, settings, on_event=watch))
        …
        watch.figures().neos

    When it hears of a new run it begins anew.

    :param clock: UTC, seconds since 1970
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        # One value that is replaced and never changed, so that another thread sees all of it or nothing.
        self._figures = Figures()

    def __call__(self, event: events.Event) -> None:
        """Take in what happened."""
        now_s = self._clock()
        figures = self._figures
        if figures.started_s is None or isinstance(event, events.RunStarted):
            figures = Figures(started_s=now_s)
        self._figures = replace(figures, at_s=now_s, **_changes(figures, event))

    def figures(self) -> Figures:
        """The figures now."""
        now_s = self._clock()
        figures = self._figures
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
    # An earlier try may have kept pages that this one does not want.
    kept = min(figures.pages_kept, planned.pages)
    came = figures.pages_fetched - figures.pages_kept
    return changes | {"pages": planned.pages, "pages_kept": kept, "pages_fetched": kept + came}


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
        # What the hour's quota does not hold comes as old requests leave it.
        beyond = left - figures.rate_limit.remaining
        eta_s = max(eta_s, beyond / max(1, figures.rate_limit.limit) * _HOUR_S)
    if figures.waiting_until_s is not None:
        eta_s = max(eta_s, figures.waiting_until_s - figures.at_s)
    return eta_s

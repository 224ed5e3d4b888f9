"""What people see while a run goes on. A listener each: a bar on a terminal, lines elsewhere, JSON for machines."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO

from neows_async import events
from neows_async.cli.output import clean, counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neows_async.events import Listener

_LINE_EVERY_S: Final = 5.0
_ID_CHARS: Final = 60


@contextmanager
def listening(*, quiet: bool, as_json: bool, stream: TextIO | None = None) -> Iterator[Listener]:
    """A listener that shows a run on ``stream``, by default stderr, if there is one."""
    stream = stream or sys.stderr
    if quiet or stream is None:
        yield events.ignore
    elif as_json:
        yield _until_it_fails(_json_lines(stream))
    elif stream.isatty():
        with _bar(stream) as listener:
            yield _until_it_fails(listener)
    else:
        yield _until_it_fails(_Lines(stream))


def _until_it_fails(listener: Listener) -> Listener:
    """A run goes on when nobody can be told of it any more: a full disk, a reader who has left."""
    telling = True

    def listen(event: events.Event) -> None:
        nonlocal telling
        if telling:
            try:
                listener(event)
            except OSError:
                telling = False

    return listen


def told(event: events.Event) -> str | None:
    """The line that people read of an event; None if it is not worth one."""
    line = _told(event)
    return None if line is None else clean(line)


def _told(event: events.Event) -> str | None:
    match event:
        case events.SnapshotOpened(snapshot, resumed=True, pages_kept=kept):
            return f"resuming snapshot {snapshot}: {counted(kept, 'page')} in already"
        case events.SnapshotOpened(snapshot):
            return f"snapshot {snapshot}"
        case events.SnapshotPassedOver(snapshot, reason):
            return f"not resuming unfinished snapshot {snapshot}: {reason}"
        case events.Planned():
            return _told_of_plan(event)
        case events.AttemptFailed(number, attempt, reason, wait_s):
            return f"page {number}, attempt {attempt}: {reason}; again in {wait_s:.1f} s"
        case events.PageSetBack(number, reason):
            return f"page {number} is set back until the others are in: {reason}"
        case events.PageMissing(number, reason):
            return f"page {number} stays missing: {reason}"
        case events.PageDamaged(number, reason):
            return f"raw page {number} was set aside and is fetched again: {reason}"
        case events.ObjectRejected(rejected):
            what = (rejected.id or "an object")[:_ID_CHARS]
            return f"rejected {what} at {rejected.pointer} of page {rejected.page}: {rejected.reason}"
        case _:
            return _told_of_waits(event)


def _told_of_plan(planned: events.Planned) -> str:
    total, pages = counted(planned.total_elements, "object"), counted(planned.pages, "page")
    if planned.generation:
        return f"the catalogue changed while it was read, and now holds {total}: reading {pages} once more"
    return f"the catalogue holds {total}; fetching {planned.positions:,} on {pages}"


def _told_of_waits(event: events.Event) -> str | None:
    match event:
        case events.WaitingForQuota(until_s, wait_s):
            return f"waiting {_clock(wait_s)} for the quota, until {utc(until_s)}"
        case events.QuotaNotShared(reason):
            return f"other runs with this key are not seen: {reason}"
        case events.SourceDown(since_s, next_probe_s, reason):
            return f"the source is down since {utc(since_s)} ({reason}); asked again at {utc(next_probe_s)}"
        case events.SourceUp(down_s):
            return f"the source is back after {_clock(down_s)}"
        case _:
            return None


class _Lines:
    """Plain lines: every event that is worth one, and now and then how far it is."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._progress = Progressed()
        self._last_s = time.monotonic()

    def __call__(self, event: events.Event) -> None:
        self._progress.take(event)
        if (line := told(event)) is not None:
            print(line, file=self._stream, flush=True)
        elif isinstance(event, events.PageWritten):
            now_s = time.monotonic()
            if now_s - self._last_s >= _LINE_EVERY_S or self._progress.written == self._progress.pages:
                self._last_s = now_s
                print(self._progress.line(now_s), file=self._stream, flush=True)


class Progressed:
    """How far a run is, from its events."""

    def __init__(self) -> None:
        self.pages = self.positions = self.fetched = self.written = self.neos = self._kept = 0
        self._started_s = time.monotonic()

    def take(self, event: events.Event) -> None:
        """Take in what happened."""
        match event:
            case events.SnapshotOpened(pages_kept=kept):
                self._kept = self.fetched = kept
            case events.Planned(pages=pages, generation=generation) if generation > 0:
                self.pages += pages
            case events.Planned(pages=pages, positions=positions):
                self.pages, self.positions = pages, positions
                # An earlier try may have kept pages that this one does not want.
                came, self._kept = self.fetched - self._kept, min(self._kept, pages)
                self.fetched = self._kept + came
            case events.PageFetched():
                self.fetched += 1
            case events.PageWritten(neos=neos):
                self.written += 1
                self.neos += neos
            case _:
                pass

    def rate_per_s(self, now_s: float) -> float:
        """Pages fetched a second by this try."""
        return (self.fetched - self._kept) / max(now_s - self._started_s, 1e-3)

    def eta_s(self, now_s: float) -> float | None:
        """Seconds to go, at the rate so far; None if nothing is known."""
        rate = self.rate_per_s(now_s)
        return (self.pages - self.fetched) / rate if rate and self.pages else None

    def line(self, now_s: float) -> str:
        """All of it, for people."""
        eta_s = self.eta_s(now_s)
        eta = f", {_clock(eta_s)} to go" if eta_s else ""
        return (
            f"{self.written:,} of {self.pages:,} pages, {self.neos:,} NEOs, {self.rate_per_s(now_s):.1f} pages/s{eta}"
        )


def utc(at_s: float) -> str:
    """A moment, for people."""
    return dt.datetime.fromtimestamp(at_s, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


@contextmanager
def _bar(stream: TextIO) -> Iterator[Listener]:
    from rich.console import Console  # noqa: PLC0415 - rich is for terminals
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415 - as above

    progressed = Progressed()
    console = Console(file=stream)
    with Progress(
        TextColumn("[bold]{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"), console=console
    ) as progress:
        task = progress.add_task("NEOs", total=None, told="asking for the first page")

        def listen(event: events.Event) -> None:
            progressed.take(event)
            if (line := told(event)) is not None:
                # Text of the source is text, not markup.
                console.print(line, markup=False, highlight=False, style="dim")
            if progressed.pages:
                progress.update(
                    task,
                    total=progressed.pages * 2,
                    completed=progressed.fetched + progressed.written,
                    told=progressed.line(time.monotonic()),
                )

        yield listen


def _json_lines(stream: TextIO) -> Listener:
    def listen(event: events.Event) -> None:
        line = {"event": _snake(type(event).__name__), "at": round(time.time(), 3), **dataclasses.asdict(event)}
        print(json.dumps(line), file=stream, flush=True)

    return listen


def _snake(name: str) -> str:
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in name).removeprefix("_")

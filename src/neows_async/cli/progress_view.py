"""What people see while a run goes on. A listener each: a bar on a terminal, lines elsewhere, JSON for machines."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO

from neows_async.cli.output import clean, counted
from neows_async.telemetry import events
from neows_async.telemetry.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neows_async.telemetry.events import Listener
    from neows_async.telemetry.progress import Figures

_LINE_EVERY_S: Final = 5.0
_ID_CHARS: Final = 60
_LONG_S: Final = 60.0


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


def _again(wait_s: float | None) -> str:
    if wait_s is None:
        return ""
    return f"; again in {f'{wait_s:.1f} s' if wait_s < _LONG_S else _clock(wait_s)}"


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
            return f"page {number}, attempt {attempt}: {reason}{_again(wait_s)}"
        case events.PageDeferred(number, reason):
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
        case events.QuotaSharingFailed(reason):
            return f"other runs with this key are not seen: {reason}"
        case events.SourceDown(since_s, next_probe_s, reason):
            return f"the source is down since {utc(since_s)} ({reason}); asked again at {utc(next_probe_s)}"
        case events.SourceStillDown(since_s, next_probe_s):
            return f"the source is still down, since {utc(since_s)}; asked again at {utc(next_probe_s)}"
        case events.SourceUp(down_s):
            return f"the source is back after {_clock(down_s)}"
        case events.Draining(_, requests):
            return f"ending; waiting for what comes of {counted(requests, 'request')}"
        case _:
            return None


class _Lines:
    """Plain lines: every event that is worth one, and now and then how far it is."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._progress = Progress()
        self._last_s = time.monotonic()

    def __call__(self, event: events.Event) -> None:
        self._progress(event)
        if (line := told(event)) is not None:
            print(line, file=self._stream, flush=True)
        elif isinstance(event, events.PageWritten):
            now_s = time.monotonic()
            figures = self._progress.figures()
            if now_s - self._last_s >= _LINE_EVERY_S or figures.pages_written == figures.pages:
                self._last_s = now_s
                print(how_far(figures), file=self._stream, flush=True)


def how_far(figures: Figures) -> str:
    """All of it, for people."""
    eta = f", {_clock(figures.eta_s)} to go" if figures.eta_s else ""
    return (
        f"{figures.pages_written:,} of {figures.pages:,} pages, {figures.neos:,} NEOs, "
        f"{figures.pages_per_s:.1f} pages/s{eta}"
    )


def _now(figures: Figures) -> str:
    """What it does at this moment: where nothing can go out, for how long yet."""
    done = f"{figures.pages_written:,} of {figures.pages:,} pages, " if figures.pages else ""
    if figures.outage_since_s is not None and figures.next_probe_s is not None:
        return f"{done}the source is down; asked again in {_clock(max(0.0, figures.next_probe_s - figures.at_s))}"
    if figures.waiting_until_s is not None:
        return f"{done}the quota lets the next request out in {_clock(figures.waiting_until_s - figures.at_s)}"
    return how_far(figures) if figures.pages else "asking for the first page"


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
    from rich.progress import BarColumn, ProgressColumn, Task, TextColumn  # noqa: PLC0415 - as above
    from rich.progress import Progress as Bar  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    progress = Progress()
    console = Console(file=stream)

    class Now(ProgressColumn):
        """Drawn again when nothing happens too: then the time of a wait runs down."""

        def render(self, _: Task) -> Text:
            return Text(_now(progress.figures()))

    with Bar(TextColumn("[bold]{task.description}"), BarColumn(), Now(), console=console, refresh_per_second=4) as bar:
        task = bar.add_task("NEOs", total=None)

        def listen(event: events.Event) -> None:
            progress(event)
            if (line := told(event)) is not None:
                # Text of the source is text, not markup.
                console.print(line, markup=False, highlight=False, style="dim")
            figures = progress.figures()
            if figures.pages:
                bar.update(task, total=figures.pages * 2, completed=figures.pages_fetched + figures.pages_written)

        yield listen


def _json_lines(stream: TextIO) -> Listener:
    def listen(event: events.Event) -> None:
        if isinstance(event, events.Aggregated):
            return  # hundreds of figures each second; the receipt has the last ones
        line = {"event": events.name_of(event), "at": round(time.time(), 3), **dataclasses.asdict(event)}
        print(json.dumps(line), file=stream, flush=True)

    return listen

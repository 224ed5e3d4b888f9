"""Shows a run on stderr while it goes on: a bar on a terminal, plain lines elsewhere, JSON lines for programs."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text
from typing_extensions import override

from neows_async.cli.event_lines import current_state, line_of, progress_line
from neows_async.telemetry import events
from neows_async.telemetry.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neows_async.telemetry.events import Listener

_LINE_EVERY_S: Final = 5.0


@contextmanager
def listening(*, as_json: bool, stream: TextIO | None = None) -> Iterator[Listener]:
    """A listener that shows the events of a run, until the block ends.

    :param stream: by default stderr; None if the program was started without one
    """
    stream = stream or sys.stderr
    if stream is None:
        yield events.ignore
    elif as_json:
        yield _until_it_fails(_json_lines(stream))
    # A bar only where someone looks at it; a log file gets whole lines.
    elif stream.isatty():
        with _bar(stream) as listener:
            yield _until_it_fails(listener)
    else:
        yield _until_it_fails(_ProgressLines(stream))


def _until_it_fails(listener: Listener) -> Listener:
    """A full disk or a reader that went away ends the output, not the run."""
    works = True

    def listen(event: events.Event) -> None:
        nonlocal works
        if works:
            try:
                listener(event)
            # Silent from here on: the next line would fail as well.
            except OSError:
                works = False

    return listen


class _ProgressLines:
    """A line for each event that has one, and the progress every few seconds."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._progress = Progress()
        self._printed_s = time.monotonic()

    def __call__(self, event: events.Event) -> None:
        self._progress(event)
        if (line := line_of(event)) is not None:
            # Flushed: somebody reads along, and a killed run must not lose its last lines.
            print(line, file=self._stream, flush=True)
        elif isinstance(event, events.PageWritten):
            now_s = time.monotonic()
            figures = self._progress.figures()
            if now_s - self._printed_s >= _LINE_EVERY_S or figures.pages_written == figures.pages:
                self._printed_s = now_s
                print(progress_line(figures), file=self._stream, flush=True)


@contextmanager
def _bar(stream: TextIO) -> Iterator[Listener]:
    progress = Progress()
    console = Console(file=stream)

    class StateColumn(ProgressColumn):
        """Rich renders it several times a second, also without an event: a wait counts down."""

        @override
        def render(self, task: Task) -> Text:
            return Text(current_state(progress.figures()))

    columns = (TextColumn("[bold]{task.description}"), BarColumn(), StateColumn())
    with Bar(*columns, console=console, refresh_per_second=4) as bar:
        task = bar.add_task("NEOs", total=None)

        def listen(event: events.Event) -> None:
            progress(event)
            if (line := line_of(event)) is not None:
                # Text of the source may hold what rich takes for markup.
                console.print(line, markup=False, highlight=False, style="dim")
            figures = progress.figures()
            if figures.pages:
                # Fetching is one half of the work, writing the other.
                bar.update(task, total=figures.pages * 2, completed=figures.pages_fetched + figures.pages_written)

        yield listen


def _json_lines(stream: TextIO) -> Listener:
    def listen(event: events.Event) -> None:
        if isinstance(event, events.Aggregated):
            return  # hundreds of figures each second; the receipt has the final ones
        line = {"event": events.name_of(event), "at": round(time.time(), 3), **dataclasses.asdict(event)}
        # One write for each line, so that lines of several processes do not mix.
        print(json.dumps(line), file=stream, flush=True)

    return listen

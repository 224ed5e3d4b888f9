"""One run in the foreground: progress on stderr, the result on stdout, signals handled.

Apart from :mod:`neows_async.cli.run`, since this imports Arrow, which ``run --help`` does without.
"""

from __future__ import annotations

import json
import signal
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import anyio
import click

from neows_async.cli import output
from neows_async.cli.event_lines import NO_SCANNER
from neows_async.cli.exit_codes import ExitCode
from neows_async.cli.foreground import exit_after_grace
from neows_async.cli.parts import PartNames, open_parts
from neows_async.endpoints.browse import approach_scan
from neows_async.errors import most_relevant
from neows_async.lake.storage import open_storage
from neows_async.pipeline.run import ingest
from neows_async.telemetry import events

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neows_async.lake.receipt import Receipt
    from neows_async.settings import Settings


def run_ingest(settings: Settings, names: PartNames, *, quiet: bool, as_json: bool) -> int:
    """Run, print the summary or the receipt; returns the exit code."""
    outcome = anyio.run(partial(_ingest_until_signal, settings, names, quiet=quiet, as_json=as_json))
    if isinstance(outcome, signal.Signals):
        return _announce_stop(outcome, as_json=as_json)
    if not quiet:
        _print_receipt(settings, outcome, as_json=as_json)
    return ExitCode.DONE


async def _ingest_until_signal(
    settings: Settings, names: PartNames, *, quiet: bool, as_json: bool
) -> Receipt | signal.Signals:
    """The receipt, or the signal that ended the run."""
    outcome: Receipt | Exception | signal.Signals | None = None
    async with anyio.create_task_group() as tasks:

        async def cancel_on_signal() -> None:
            nonlocal outcome
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for number in signals:
                    outcome = number
                    # Start the timer before cancelling: from here on, a hanging storage call cannot hold the process.
                    exit_after_grace(128 + number, partial(_announce_stop, number, as_json=as_json))
                    tasks.cancel_scope.cancel()
                    return

        tasks.start_soon(cancel_on_signal)
        try:
            with _listening(quiet=quiet, as_json=as_json) as listener:
                async with open_parts(settings, names) as parts:
                    # A signal that arrives after the commit finds the receipt here, and the run is done.
                    outcome = await ingest(settings, parts, listener)
        except Exception as exc:  # noqa: BLE001 - raised below; in here the task group would wrap it
            outcome = _unwrapped(exc)
        tasks.cancel_scope.cancel()
    if outcome is None:
        raise RuntimeError("the run was cancelled without a signal")
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


@contextmanager
def _listening(*, quiet: bool, as_json: bool) -> Iterator[events.Listener]:
    if quiet:
        yield events.ignore
        return
    from neows_async.cli.progress_view import listening  # noqa: PLC0415 - rich, which --quiet does without

    with listening(as_json=as_json) as listener:
        yield listener


def _unwrapped(exc: Exception) -> Exception:
    """A part with tasks of its own may wrap an exception in a group."""
    the_one = most_relevant(exc) if isinstance(exc, ExceptionGroup) else exc
    return the_one if isinstance(the_one, Exception) else exc


def _announce_stop(number: signal.Signals, *, as_json: bool) -> int:
    message = f"stopped by {number.name}; run the same command again to resume"
    return output.error(message, 128 + number, as_json=as_json)


def _print_receipt(settings: Settings, receipt: Receipt, *, as_json: bool) -> None:
    with output.printing_answer():
        if as_json:
            click.echo(json.dumps(receipt.model_dump(mode="json")))
        else:
            from neows_async.cli import summary  # noqa: PLC0415 - as above

            storage = open_storage(settings.root)
            summary.show(
                receipt,
                root=settings.root,
                limit=settings.limit,
                open_input=storage.open_input,
                timing_notes=() if approach_scan.IS_COMPILED else (NO_SCANNER,),
            )

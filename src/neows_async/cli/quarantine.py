"""``quarantine``: list, show and replay the objects that could not be parsed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from neows_async.cli import output
from neows_async.cli.exit_codes import ExitCode
from neows_async.cli.foreground import run_on_lake
from neows_async.cli.options import Command, Group, log_format_option, number_option, quiet_option, root_option
from neows_async.errors import SettingsError
from neows_async.lake.lake import AsyncLake
from neows_async.lake.raw_zone import find_raw
from neows_async.maintenance.replay import plan_replay, read_rejected, rebuild_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from neows_async.lake.async_storage import AsyncStorage
    from neows_async.lake.receipt import Receipt
    from neows_async.maintenance.replay import Replay
    from neows_async.pages.values import Rejected


def _snapshot_argument() -> click.Argument:
    return click.Argument(["snapshot"], default="latest")


@click.group(
    cls=Group,
    epilog="""Examples:
  neows-async quarantine list
  neows-async quarantine show --position 1234
  neows-async quarantine replay 20261122T224500Z""",
)
def quarantine() -> None:
    """List, show and replay the objects that could not be parsed."""


# -- list and show ------------------------------------------------------------------------------


@quarantine.command(
    "list",
    cls=Command,
    params=[_snapshot_argument(), root_option(), log_format_option()],
    epilog="""Examples:
  neows-async quarantine list                    of the latest snapshot
  neows-async quarantine list 20261122T224500Z --log-format json""",
)
def list_command(snapshot: str, root: str, log_format: str) -> None:
    """List the rejected objects of a SNAPSHOT (default: the latest) with position and reason."""
    as_json = log_format == "json"

    def text_of(entry: Rejected) -> str:
        if as_json:
            return json.dumps({name: value for name, value in entry.as_json().items() if name != "raw"})
        return output.clean(
            f"{entry.position}  {entry.id or '(no id)'}  {entry.reason}  at {entry.pointer or '/'} of page {entry.page}"
        )

    _print_rejected(snapshot, root, text_of, as_json=as_json)


@quarantine.command(
    "show",
    cls=Command,
    params=[
        _snapshot_argument(),
        number_option("--position", "Show only the object at this position of the catalogue.", least=0),
        root_option(),
        log_format_option(),
    ],
    epilog="""Examples:
  neows-async quarantine show                    all of the latest snapshot
  neows-async quarantine show --position 1234 --log-format json | jq -r '.[0].raw'""",
)
def show_command(snapshot: str, position: int | None, root: str, log_format: str) -> None:
    """Show the rejected objects of a SNAPSHOT (default: the latest) with reason, position and JSON."""
    as_json = log_format == "json"

    def text_of(entry: Rejected) -> str:
        return json.dumps(entry.as_json()) if as_json else _in_full(entry)

    _print_rejected(snapshot, root, text_of, position=position, as_json=as_json)


def _in_full(entry: Rejected) -> str:
    lines = [
        f"Position {entry.position} (page {entry.page}), {f'id {entry.id}' if entry.id else 'no id'}",
        f"  reason:  {entry.reason}",
        f"  pointer: {entry.pointer or '/'}",
        *entry.raw.splitlines(),
    ]
    return "\n".join(output.clean(line) for line in lines)


def _print_rejected(
    snapshot: str, root: str, text_of: Callable[[Rejected], str], *, position: int | None = None, as_json: bool
) -> None:
    """Print each object when it is read, so that any number fits into memory.

    :raises SettingsError: objects were rejected, but none at ``position``
    """
    printed = 0

    def print_entry(entry: Rejected) -> None:
        nonlocal printed
        if position is None or entry.position == position:
            text = text_of(entry)
            click.echo(("," if printed else "[") + text if as_json else text)
            printed += 1

    async def read(lake: AsyncStorage) -> Receipt:
        receipt = await AsyncLake(lake).receipt(snapshot)
        await read_rejected(lake, receipt, print_entry)
        return receipt

    # Around the whole reading: text is printed while it is read.
    with output.printing_answer():
        receipt = run_on_lake(read, root)
        if as_json:
            click.echo("]" if printed else "[]")
        elif not receipt.records.rejected:
            click.echo(f"Snapshot {receipt.snapshot} has no rejected objects")
    if not printed and receipt.records.rejected and not as_json:
        name = receipt.snapshot
        raise SettingsError(
            f"snapshot {name} has no rejected object at position {position}; 'neows-async quarantine list {name}' "
            f"lists the {receipt.records.rejected:,} that were rejected"
        )


# -- replay -------------------------------------------------------------------------------------


@quarantine.command(
    cls=Command,
    params=[_snapshot_argument(), root_option(), quiet_option(), log_format_option()],
    epilog="""Examples:
  neows-async quarantine replay                  the latest snapshot
  neows-async quarantine replay 20261122T224500Z --root s3://bucket/neows

If none of the objects can be parsed now, nothing is written.""",
)
@click.pass_context
def replay(ctx: click.Context, snapshot: str, root: str, *, quiet: bool, log_format: str) -> None:
    """Parse the rejected objects of a SNAPSHOT (default: the latest) again, without a request.

    If some can be parsed now, a new snapshot is made from the raw pages, with the settings of the old one.
    """
    as_json = log_format == "json"
    planned = run_on_lake(lambda lake: plan_replay(lake, snapshot), root)
    if not quiet:
        output.notice(_result_of(planned), as_json=as_json)
    ctx.exit(_rebuild(planned, root, quiet=quiet, as_json=as_json) if planned.readable else ExitCode.DONE)


def _result_of(planned: Replay) -> str:
    name = planned.receipt.snapshot
    if not planned.rejected:
        return f"Snapshot {name} has no rejected objects; nothing was written"
    now = f"{len(planned.readable):,} of the {planned.rejected:,} rejected objects of snapshot {name} can be read now"
    return now if planned.readable else f"{now}; nothing was written"


def _rebuild(planned: Replay, root: str, *, quiet: bool, as_json: bool) -> int:
    # Arrow is imported here: `quarantine list` does without.
    from neows_async.cli.ingest import run_ingest  # noqa: PLC0415 - as said
    from neows_async.cli.parts import PartNames  # noqa: PLC0415 - as above

    receipt = planned.receipt
    request = rebuild_request(receipt)
    names = PartNames(
        source="archive",
        raw=run_on_lake(lambda lake: find_raw(lake, receipt.snapshot), root),
        sinks=request.sinks,
        aggregators=request.aggregators,
        aggregate_writer=request.aggregate_writer,
    )
    settings = request.settings.model_copy(update={"root": root})
    return run_ingest(settings, names, quiet=quiet, as_json=as_json)

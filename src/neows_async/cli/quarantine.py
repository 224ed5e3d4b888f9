"""``quarantine``: the objects that could not be read, to look at and to judge anew."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

import click

from neows_async.cli import output
from neows_async.cli.options import Command, Group, log_format_option, option, quiet_option, root_option
from neows_async.errors import NeowsError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from neows_async.lake.async_storage import AsyncStorage
    from neows_async.lake.raw_zone import RawLocation
    from neows_async.lake.receipt import Receipt
    from neows_async.maintenance.replay import Replay
    from neows_async.pages.values import Rejected

_PIECE: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+|"')


@click.group(
    cls=Group,
    epilog="""Examples:
  neows-async quarantine list
  neows-async quarantine show --position 1234
  neows-async quarantine replay 20261122T224500Z""",
)
def quarantine() -> None:
    """Work with the objects that could not be read: look at them, and judge them anew after a fix."""


@quarantine.command(
    "list",
    cls=Command,
    epilog="""Examples:
  neows-async quarantine list                    of the latest snapshot
  neows-async quarantine list 20261122T224500Z --log-format json""",
)
@click.argument("snapshot", default="latest")
@root_option()
@log_format_option()
@click.pass_context
def list_command(ctx: click.Context, snapshot: str, root: str, log_format: str) -> None:
    """List the rejected objects of a SNAPSHOT (default: the latest): where they stood, and why."""
    as_json = log_format == "json"

    def show(entry: Rejected) -> str:
        if as_json:
            return json.dumps({name: value for name, value in entry.as_json().items() if name != "raw"})
        return (
            f"{entry.position}  {entry.id or '(no id)'}  {entry.reason}  at {entry.pointer or '/'} of page {entry.page}"
        )

    ctx.exit(_tell(snapshot, root, show, lambda _: True, as_json=as_json))


@quarantine.command(
    "show",
    cls=Command,
    epilog="""Examples:
  neows-async quarantine show                    all of the latest snapshot
  neows-async quarantine show --position 1234 --log-format json | jq -r '.[0].raw'""",
)
@click.argument("snapshot", default="latest")
@option("--position", type=click.IntRange(min=0), metavar="N", help="The object at this place of the catalogue alone.")
@root_option()
@log_format_option()
@click.pass_context
def show_command(ctx: click.Context, snapshot: str, position: int | None, root: str, log_format: str) -> None:
    """Show the rejected objects of a SNAPSHOT (default: the latest) with reason, place and their own text."""
    as_json = log_format == "json"

    def show(entry: Rejected) -> str:
        if as_json:
            return json.dumps(entry.as_json())
        return "\n".join(_shown(entry))

    code = _tell(snapshot, root, show, lambda entry: position is None or entry.position == position, as_json=as_json)
    ctx.exit(code)


def _shown(entry: Rejected) -> Iterator[str]:
    yield f"Position {entry.position} (page {entry.page}), {f'id {entry.id}' if entry.id else 'without an id'}"
    yield f"  reason:  {output.clean(entry.reason)}"
    yield f"  pointer: {output.clean(entry.pointer or '/')}"
    yield from (output.clean(line) for line in indented(entry.raw))


def _tell(
    snapshot: str,
    root: str,
    show: Callable[[Rejected], str],
    wanted: Callable[[Rejected], bool],
    *,
    as_json: bool,
) -> int:
    """Print the rejected objects as they are read; returns the exit code."""
    from neows_async.cli.output import run_on_lake  # noqa: PLC0415 - heavy, and --help does without
    from neows_async.lake.lake import AsyncLake  # noqa: PLC0415 - as above
    from neows_async.maintenance.replay import read_rejected  # noqa: PLC0415 - as above

    told = 0

    def take(entry: Rejected) -> None:
        nonlocal told
        if wanted(entry):
            text = show(entry)
            click.echo(("," if told else "[") + text if as_json else text)
            told += 1

    async def question(lake: AsyncStorage) -> Receipt:
        receipt = await AsyncLake(lake).receipt(snapshot)
        await read_rejected(lake, receipt, take)
        return receipt

    try:
        with output.answering():
            receipt = run_on_lake(question, root)
            if as_json:
                click.echo("]" if told else "[]")
            elif not told and not receipt.records.rejected:
                click.echo(f"Snapshot {receipt.snapshot} has no rejected objects")
        if not told and receipt.records.rejected and not as_json:
            raise SettingsError(
                f"no object was rejected there in snapshot {receipt.snapshot}; 'neows-async quarantine list "
                f"{receipt.snapshot}' lists the {receipt.records.rejected:,} that were"
            )
    except NeowsError as exc:
        return output.fail(str(exc), output.code_of(exc), as_json=as_json)
    return output.DONE


def indented(raw: str) -> Iterator[str]:
    """JSON text in lines, each piece as it stands: numbers keep their digits, and what is no JSON shows too."""
    depth = 0
    line = before = ""
    for piece in _PIECE.findall(raw):
        closes, empty = piece in ("]", "}"), before in ("[", "{")
        depth -= closes
        # After what opens or parts, and before what closes, but for what is empty.
        if (before in ("[", "{", ",") and not (closes and empty)) or (closes and not empty):
            yield line
            line = "  " * depth
        line += f"{piece} " if piece == ":" else piece
        depth += piece in ("[", "{")
        before = piece
    yield line


@quarantine.command(
    cls=Command,
    epilog="""Examples:
  neows-async quarantine replay                  the latest snapshot
  neows-async quarantine replay 20261122T224500Z --root s3://bucket/neows

If none of the objects can be read now, nothing is written.""",
)
@click.argument("snapshot", default="latest")
@root_option()
@quiet_option()
@log_format_option()
@click.pass_context
def replay(ctx: click.Context, snapshot: str, root: str, *, quiet: bool, log_format: str) -> None:
    """Judge the rejected objects of a SNAPSHOT (default: the latest) again, without a request.

    If some can be read now, a new snapshot is made from the raw pages, with the settings of this one, its parent.
    """
    from neows_async._process import tune_allocators  # noqa: PLC0415 - for those who need it

    tune_allocators()
    from neows_async.cli.output import run_on_lake  # noqa: PLC0415 - heavy, and --help does without
    from neows_async.maintenance.replay import plan_replay  # noqa: PLC0415 - as above

    as_json = log_format == "json"
    try:
        planned = run_on_lake(lambda lake: plan_replay(lake, snapshot), root)
        if not quiet:
            output.notice(_in_words(planned), as_json=as_json)
        ctx.exit(_rebuild(planned, root, quiet=quiet, as_json=as_json) if planned.readable else output.DONE)
    except NeowsError as exc:
        ctx.exit(output.fail(str(exc), output.code_of(exc), as_json=as_json))


def _in_words(planned: Replay) -> str:
    name = planned.receipt.snapshot
    if not planned.rejected:
        return f"Snapshot {name} has no rejected objects; nothing was written"
    now = f"{len(planned.readable):,} of the {planned.rejected:,} rejected objects of snapshot {name} can be read now"
    return now if planned.readable else f"{now}; nothing was written"


def _rebuild(planned: Replay, root: str, *, quiet: bool, as_json: bool) -> int:
    from neows_async.cli.output import run_on_lake  # noqa: PLC0415 - heavy, and --help does without
    from neows_async.cli.parts import Chosen  # noqa: PLC0415 - as above
    from neows_async.cli.run import carry_out  # noqa: PLC0415 - as above
    from neows_async.lake.raw_zone import find_raw  # noqa: PLC0415 - as above
    from neows_async.maintenance.replay import rebuild_request  # noqa: PLC0415 - as above

    receipt = planned.receipt
    request = rebuild_request(receipt)
    settings = request.settings.model_copy(update={"root": root})
    raw: RawLocation = run_on_lake(lambda lake: find_raw(lake, receipt.snapshot), root)
    chosen = Chosen(
        source="archive",
        raw=raw,
        sinks=request.sinks,
        aggregators=request.aggregators,
        aggregate_writer=request.aggregate_writer,
        sandbox_neos=0,
        sandbox_seed=0,
    )
    return carry_out(settings, chosen, quiet=quiet, as_json=as_json)

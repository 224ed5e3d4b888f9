"""``prune``: remove old snapshots."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import click

from neows_async.cli import output
from neows_async.cli.options import Command, Duration, log_format_option, option, quiet_option, root_option
from neows_async.errors import NeowsError

if TYPE_CHECKING:
    from neows_async.lake.async_storage import AsyncStorage
    from neows_async.maintenance.prune import Outcome, Pruned


@click.command(
    cls=Command,
    epilog="""Examples:
  neows-async prune --keep 7 --dry-run           what would go
  neows-async prune --keep 7                     the newest seven stay, and the latest in any case
  neows-async prune --keep 30 --root s3://bucket/neows --log-format json

Killed at any instant it leaves no half snapshot that looks whole, and the next one goes on.""",
)
@option("--keep", type=click.IntRange(min=1), metavar="N", required=True, help="So many of the newest snapshots stay.")
@option("--dry-run", is_flag=True, help="Only show what would be removed.")
@option(
    "--resume-within",
    type=Duration(),
    metavar="TIME",
    default="24h",
    show_default=True,
    help="What dead runs left is removed when it is older than this.",
)
@root_option()
@quiet_option()
@log_format_option()
@click.pass_context
def prune(ctx: click.Context, /, root: str, *, quiet: bool, log_format: str, **options: Any) -> None:
    """Remove all but the newest N snapshots, whole, and what is left of dead runs.

    A snapshot stays if another one that stays is made from its raw pages. What no run wrote is left alone.
    """
    from neows_async.cli.output import run_on_lake  # noqa: PLC0415 - heavy, and --help does without
    from neows_async.maintenance.prune import Rules  # noqa: PLC0415 - as above
    from neows_async.maintenance.prune import prune as remove  # noqa: PLC0415 - as above

    as_json, dry_run = log_format == "json", options["dry_run"]
    rules = Rules(keep=options["keep"], resume_within_s=options["resume_within"], dry_run=dry_run)

    def tell(outcome: Outcome) -> None:
        if not quiet and not as_json:
            with output.answering():
                click.echo(output.clean(_told(outcome, dry_run=dry_run)))

    async def question(lake: AsyncStorage) -> Pruned:
        return await remove(lake, rules, now=dt.datetime.now(dt.UTC), report=tell)

    try:
        pruned = run_on_lake(question, root)
        with output.answering():
            if as_json:
                click.echo(json.dumps(_pruned_as_json(pruned, dry_run=dry_run)))
            elif not quiet:
                click.echo(_in_sum(pruned, dry_run=dry_run))
    except NeowsError as exc:
        ctx.exit(output.fail(str(exc), output.code_of(exc), as_json=as_json))


def _told(outcome: Outcome, *, dry_run: bool) -> str:
    from neows_async.maintenance.prune import Left  # noqa: PLC0415 - heavy, and --help does without

    if isinstance(outcome, Left):
        return f"left {outcome.snapshot} ({outcome.state}): {outcome.reason}"
    foreign = f"; {outcome.foreign:,} that no run wrote stay" if outcome.foreign else ""
    what = f"{outcome.snapshot} ({outcome.state}): {outcome.files:,} files, {output.size(outcome.bytes)}{foreign}"
    return f"would remove {what}" if dry_run else f"removed {what}"


def _in_sum(pruned: Pruned, *, dry_run: bool) -> str:
    from neows_async.lake.inventory import State  # noqa: PLC0415 - heavy, and --help does without
    from neows_async.maintenance.prune import Removed  # noqa: PLC0415 - as above

    gone = [outcome for outcome in pruned.outcomes if isinstance(outcome, Removed)]
    snapshots = sum(outcome.state is State.COMMITTED for outcome in gone)
    verb, stay = ("Would remove", "would stay") if dry_run else ("Removed", "stayed")
    size = output.size(sum(outcome.bytes for outcome in gone))
    swept = f", swept half-written files: {pruned.swept:,}" if pruned.swept else ""
    return (
        f"{verb} snapshots: {snapshots:,}, leftovers: {len(gone) - snapshots:,}, {size}{swept}; snapshots that {stay}: "
        f"{len(pruned.kept):,}"
    )


def _pruned_as_json(pruned: Pruned, *, dry_run: bool) -> dict[str, Any]:
    from neows_async.maintenance.prune import Left  # noqa: PLC0415 - heavy, and --help does without

    removed, left = [], []
    for outcome in pruned.outcomes:
        if isinstance(outcome, Left):
            left.append({"snapshot": outcome.snapshot, "state": str(outcome.state), "reason": outcome.reason})
        else:
            one = {"snapshot": outcome.snapshot, "state": str(outcome.state), "files": outcome.files}
            removed.append({**one, "bytes": outcome.bytes, "foreign_files": outcome.foreign})
    return {"dry_run": dry_run, "removed": removed, "left": left, "kept": list(pruned.kept), "swept": pruned.swept}

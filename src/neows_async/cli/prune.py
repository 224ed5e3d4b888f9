"""``prune``: remove old snapshots."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import click
from rich.filesize import decimal

from neows_async.cli import output
from neows_async.cli.foreground import run_on_lake
from neows_async.cli.options import Command, Duration, log_format_option, option, quiet_option, root_option
from neows_async.lake.inventory import State
from neows_async.maintenance import prune as pruning

if TYPE_CHECKING:
    from neows_async.maintenance.prune import Outcome, Pruned


@click.command(
    cls=Command,
    params=[
        option("--keep", type=click.IntRange(min=1), metavar="N", required=True, help="Keep the newest N snapshots."),
        option("--dry-run", is_flag=True, help="Only show what would be removed."),
        option(
            "--resume-within",
            type=Duration(),
            metavar="TIME",
            default="24h",
            show_default=True,
            help="Remove what dead runs left when it is older than this.",
        ),
        root_option(),
        quiet_option(),
        log_format_option(),
    ],
    epilog="""Examples:
  neows-async prune --keep 7 --dry-run           show what would be removed
  neows-async prune --keep 7                     keep the newest seven, and the latest in any case
  neows-async prune --keep 30 --root s3://bucket/neows --log-format json

It can be killed at any time: no half-removed snapshot looks whole, and the next prune continues.""",
)
def prune(*, root: str, quiet: bool, log_format: str, **options: Any) -> None:
    """Remove all but the newest N snapshots, and what dead runs left.

    A snapshot stays while another one that stays is made from its raw pages. Files that no run wrote stay.
    """
    as_json, dry_run = log_format == "json", options["dry_run"]
    rules = pruning.Rules(keep=options["keep"], resume_within_s=options["resume_within"], dry_run=dry_run)

    def print_outcome(outcome: Outcome) -> None:
        if not quiet and not as_json:
            # For each line: a reader that goes away must not stop the removal.
            with output.printing_answer():
                click.echo(output.clean(_line_of(outcome, dry_run=dry_run)))

    now = dt.datetime.now(dt.UTC)
    pruned = run_on_lake(lambda lake: pruning.prune(lake, rules, now=now, report=print_outcome), root)
    with output.printing_answer():
        if as_json:
            click.echo(json.dumps(_as_json(pruned, dry_run=dry_run)))
        elif not quiet:
            click.echo(_total(pruned, dry_run=dry_run))


def _line_of(outcome: Outcome, *, dry_run: bool) -> str:
    if isinstance(outcome, pruning.Left):
        return f"left {outcome.snapshot} ({outcome.state}): {outcome.reason}"
    foreign = f"; {outcome.foreign:,} files that no run wrote stay" if outcome.foreign else ""
    what = f"{outcome.snapshot} ({outcome.state}): {outcome.files:,} files, {decimal(outcome.bytes)}{foreign}"
    return f"would remove {what}" if dry_run else f"removed {what}"


def _total(pruned: Pruned, *, dry_run: bool) -> str:
    removed = [outcome for outcome in pruned.outcomes if isinstance(outcome, pruning.Removed)]
    snapshots = sum(outcome.state is State.COMMITTED for outcome in removed)
    size = decimal(sum(outcome.bytes for outcome in removed))
    swept = f", half-written files: {pruned.swept:,}" if pruned.swept else ""
    return (
        f"{'Would remove' if dry_run else 'Removed'} snapshots: {snapshots:,}, leftovers: "
        f"{len(removed) - snapshots:,}, {size}{swept}; snapshots that {'would stay' if dry_run else 'stayed'}: "
        f"{len(pruned.kept):,}"
    )


def _as_json(pruned: Pruned, *, dry_run: bool) -> dict[str, Any]:
    removed, left = [], []
    for outcome in pruned.outcomes:
        common = {"snapshot": outcome.snapshot, "state": str(outcome.state)}
        if isinstance(outcome, pruning.Left):
            left.append({**common, "reason": outcome.reason})
        else:
            removed.append({**common, "files": outcome.files, "bytes": outcome.bytes, "foreign_files": outcome.foreign})
    return {"dry_run": dry_run, "removed": removed, "left": left, "kept": list(pruned.kept), "swept": pruned.swept}

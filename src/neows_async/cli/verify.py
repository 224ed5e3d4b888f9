"""``verify``: check a snapshot against its receipt."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Final

import click

from neows_async.cli import output
from neows_async.cli.foreground import run_on_lake
from neows_async.cli.options import Command, log_format_option, quiet_option, root_option
from neows_async.errors import DifferenceError
from neows_async.maintenance import verify as verification

if TYPE_CHECKING:
    from neows_async.maintenance.verify import VerifyReport

_MAX_LINES: Final = 20
_MAX_IN_JSON: Final = 1_000


@click.command(
    cls=Command,
    params=[click.Argument(["snapshot"], default="latest"), root_option(), quiet_option(), log_format_option()],
    epilog="""Examples:
  neows-async verify                            the latest snapshot
  neows-async verify 20261122T224500Z --root s3://bucket/neows
  neows-async verify --quiet || echo "the latest snapshot is damaged"

Exit codes: 0 if the snapshot matches its receipt, 65 if it differs.""",
)
def verify(snapshot: str, root: str, *, quiet: bool, log_format: str) -> None:
    """Check a SNAPSHOT (default: the latest) against its receipt.

    Compares every file's size, digest, columns and rows, computes all figures again from the Parquet files, and reads
    every raw page.
    """
    found = run_on_lake(lambda lake: verification.verify(lake, snapshot), root)
    if log_format == "json":
        with output.printing_answer():
            click.echo(_as_json(found))
    else:
        _print(found, quiet=quiet)
    # After the output, so that the report is complete when the exit code is set.
    if found.differences:
        differences = output.counted(len(found.differences), "difference")
        raise DifferenceError(f"snapshot {found.snapshot} does not match its receipt: {differences}")


def _print(found: VerifyReport, *, quiet: bool) -> None:
    for difference in found.differences[:_MAX_LINES]:
        output.notice(output.clean(str(difference)), as_json=False)
    if len(found.differences) > _MAX_LINES:
        output.notice(f"… and {len(found.differences) - _MAX_LINES:,} more", as_json=False)
    if quiet:
        return
    with output.printing_answer():
        for what in found.skipped:
            click.echo(output.clean(f"Not verified: {what}"))
        if not found.differences:
            click.echo(
                f"Snapshot {found.snapshot} matches its receipt: "
                f"{output.counted(found.files, 'file')}, {output.counted(found.rows, 'row')}, "
                f"{output.counted(found.bytes, 'byte')}, {output.counted(found.pages, 'raw page')}, "
                f"in {found.seconds:.1f} s"
            )


def _as_json(found: VerifyReport) -> str:
    shown = dataclasses.replace(found, differences=found.differences[:_MAX_IN_JSON], seconds=round(found.seconds, 3))
    return json.dumps(dataclasses.asdict(shown) | {"difference_count": len(found.differences)})

"""``verify``: a snapshot against its receipt."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Final

import click

from neows_async.cli import output
from neows_async.cli.options import Command, log_format_option, quiet_option, root_option
from neows_async.errors import DifferenceError, NeowsError

if TYPE_CHECKING:
    from neows_async.maintenance.verify import VerifyReport

_LINES: Final = 20
_IN_JSON: Final = 1_000


@click.command(
    cls=Command,
    epilog="""Examples:
  neows-async verify                            the latest snapshot
  neows-async verify 20261122T224500Z --root s3://bucket/neows
  neows-async verify --quiet || echo "look at it"

Exit codes: 0 when the snapshot is what its receipt says, 65 when it is not.""",
)
@click.argument("snapshot", default="latest")
@root_option()
@quiet_option()
@log_format_option()
@click.pass_context
def verify(ctx: click.Context, snapshot: str, root: str, *, quiet: bool, log_format: str) -> None:
    """Hold a SNAPSHOT (default: the latest) against its receipt, byte by byte.

    Files, sizes, digests, columns, rows, the figures computed again from the Parquet files, and every raw page.
    """
    from neows_async._process import leave_pandas_out, tune_allocators  # noqa: PLC0415 - for those who need it

    tune_allocators()
    leave_pandas_out()
    from neows_async.cli.output import run_on_lake  # noqa: PLC0415 - heavy, and --help does without
    from neows_async.maintenance.verify import verify as hold_against_receipt  # noqa: PLC0415 - as above

    as_json = log_format == "json"
    try:
        found = run_on_lake(lambda lake: hold_against_receipt(lake, snapshot), root)
        _tell(found, quiet=quiet, as_json=as_json)
        if found.differences:
            count = len(found.differences)
            raise DifferenceError(
                f"snapshot {found.snapshot} is not what its receipt says: {count:,} difference{'s' * (count != 1)}"
            )
    except NeowsError as exc:
        ctx.exit(output.fail(str(exc), output.code_of(exc), as_json=as_json))


def _tell(found: VerifyReport, *, quiet: bool, as_json: bool) -> None:
    if as_json:
        with output.answering():
            click.echo(_as_json(found))
        return
    for difference in found.differences[:_LINES]:
        output.notice(output.clean(str(difference)), as_json=False)
    if len(found.differences) > _LINES:
        output.notice(f"… and {len(found.differences) - _LINES:,} more", as_json=False)
    if quiet:
        return
    with output.answering():
        for what in found.skipped:
            click.echo(output.clean(f"Not verified: {what}"))
        if not found.differences:
            click.echo(
                f"Snapshot {found.snapshot} is what its receipt says: "
                f"{output.counted(found.files, 'file')}, {output.counted(found.rows, 'row')}, "
                f"{output.counted(found.bytes, 'byte')}, {output.counted(found.pages, 'raw page')}, "
                f"in {found.seconds:.1f} s"
            )


def _as_json(found: VerifyReport) -> str:
    shown = dataclasses.replace(found, differences=found.differences[:_IN_JSON], seconds=round(found.seconds, 3))
    return json.dumps(dataclasses.asdict(shown) | {"difference_count": len(found.differences)})

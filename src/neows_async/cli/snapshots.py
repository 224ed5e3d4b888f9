"""``snapshots`` and ``prune``: what a lake holds, and what of it may go."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from neows_async.cli import output
from neows_async.cli.options import Command, log_format_option, root_option
from neows_async.errors import NeowsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neows_async.lake.async_storage import AsyncStorage
    from neows_async.lake.inventory import SnapshotEntry

_COLUMNS = ("snapshot", "state", "when", "neos", "size", "raw pages", "complete", "parent", "")
_RIGHT = ("neos", "size", "raw pages")


@click.command(
    cls=Command,
    epilog="""Examples:
  neows-async snapshots
  neows-async snapshots --root s3://bucket/neows
  neows-async snapshots --log-format json | jq -r '.[] | select(.complete == true) | .snapshot'""",
)
@root_option()
@log_format_option()
@click.pass_context
def snapshots(ctx: click.Context, root: str, log_format: str) -> None:
    """List all snapshots, the newest first: committed ones, unfinished ones, and what is left of dead runs."""
    from neows_async.cli.output import run_on_lake  # noqa: PLC0415 - heavy, and --help does without

    as_json = log_format == "json"
    try:
        latest, entries = run_on_lake(_take_stock, root)
        with output.answering():
            if as_json:
                click.echo(json.dumps([_as_json(entry, latest) for entry in entries]))
            elif entries:
                for line in _table([_COLUMNS, *(_row(entry, latest) for entry in entries)]):
                    click.echo(line)
            else:
                click.echo(f"{root} holds no snapshot; 'neows-async run' makes one")
    except NeowsError as exc:
        ctx.exit(output.fail(str(exc), output.code_of(exc), as_json=as_json))


async def _take_stock(lake: AsyncStorage) -> tuple[str | None, list[SnapshotEntry]]:
    from neows_async.lake.inventory import list_snapshots  # noqa: PLC0415 - heavy, and --help does without
    from neows_async.lake.lake import AsyncLake  # noqa: PLC0415 - as above

    latest = await AsyncLake(lake).latest()
    return latest.snapshot if latest else None, await list_snapshots(lake)


def _row(entry: SnapshotEntry, latest: str | None) -> tuple[str, ...]:
    receipt = entry.receipt
    complete = "" if receipt is None else {"True": "yes", "False": "no"}.get(str(receipt.complete), "unknown")
    return (
        entry.snapshot,
        entry.state,
        f"{entry.at:%Y-%m-%d %H:%M}",
        f"{receipt.records.written:,}" if receipt else "",
        output.size(entry.bytes),
        f"{entry.pages:,}",
        complete,
        _parent(entry) or "",
        ", ".join(_notes(entry, latest)),
    )


def _notes(entry: SnapshotEntry, latest: str | None) -> list[str]:
    notes = ["latest"] if entry.snapshot == latest else []
    if _synthetic(entry):
        notes.append("synthetic")
    if entry.lock_owner is not None:
        notes.append(f"held by {output.clean(entry.lock_owner)}")
    return notes


def _parent(entry: SnapshotEntry) -> str | None:
    of = entry.receipt or entry.unfinished
    return of.parent if of else None


def _synthetic(entry: SnapshotEntry) -> bool | None:
    if entry.receipt is not None:
        return entry.receipt.source.synthetic
    return entry.unfinished.synthetic if entry.unfinished else None


def _as_json(entry: SnapshotEntry, latest: str | None) -> dict[str, Any]:
    receipt = entry.receipt
    return {
        "snapshot": entry.snapshot,
        "state": str(entry.state),
        "latest": entry.snapshot == latest,
        "at": entry.at.isoformat(),
        "committed_at": receipt.committed_at.isoformat() if receipt else None,
        "holder": entry.lock_owner,
        "neos": receipt.records.written if receipt else None,
        "close_approaches": receipt.close_approaches if receipt else None,
        "rejected": receipt.records.rejected if receipt else None,
        "bytes": entry.bytes,
        "raw_pages": entry.pages,
        "complete": receipt.complete if receipt else None,
        "parent": _parent(entry),
        "synthetic": _synthetic(entry),
    }


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[index]) for row in rows) for index in range(len(_COLUMNS))]
    return [
        "  ".join(
            cell.rjust(width) if name in _RIGHT else cell.ljust(width)
            for cell, width, name in zip(row, widths, _COLUMNS, strict=True)
        ).rstrip()
        for row in rows
    ]

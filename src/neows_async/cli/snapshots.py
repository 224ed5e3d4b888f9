"""``snapshots``: list what a lake holds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from neows_async.cli import output
from neows_async.cli.foreground import run_on_lake
from neows_async.cli.options import Command, log_format_option, root_option
from neows_async.lake.inventory import ObjectNames, list_snapshots
from neows_async.lake.lake import AsyncLake
from neows_async.outputs import registry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from neows_async.lake.async_storage import AsyncStorage
    from neows_async.lake.inventory import SnapshotEntry

_COLUMNS: Final = ("snapshot", "state", "when", "neos", "size", "raw pages", "complete", "parent", "")
_RIGHT: Final = ("neos", "size", "raw pages")
_ANY_WIDTH: Final = 10_000


@click.command(
    cls=Command,
    params=[root_option(), log_format_option()],
    epilog="""Examples:
  neows-async snapshots
  neows-async snapshots --root s3://bucket/neows
  neows-async snapshots --log-format json | jq -r '.[] | select(.complete == true) | .snapshot'""",
)
def snapshots(root: str, log_format: str) -> None:
    """List all snapshots, newest first: committed, unfinished, and left by dead runs."""
    latest, entries = run_on_lake(_read, root)
    with output.printing_answer():
        if log_format == "json":
            click.echo(json.dumps([_as_json(entry, latest) for entry in entries]))
        elif entries:
            for line in _table(_row(entry, latest) for entry in entries):
                click.echo(line)
        else:
            click.echo(f"{root} holds no snapshot; 'neows-async run' makes one")


async def _read(lake: AsyncStorage) -> tuple[str | None, list[SnapshotEntry]]:
    latest = await AsyncLake(lake).latest()
    return latest.snapshot if latest else None, await list_snapshots(lake, ObjectNames(registry.file_patterns()))


def _table(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """The lines of a plain table. They are never cut: a line that is longer than the terminal wraps there."""
    table = Table(box=None, pad_edge=False, header_style="")
    for name in _COLUMNS:
        table.add_column(name, justify="right" if name in _RIGHT else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # not str, in which rich looks for markup
    console = Console(color_system=None, width=_ANY_WIDTH)
    with console.capture() as captured:
        console.print(table)
    return (line.rstrip() for line in captured.get().splitlines())


def _row(entry: SnapshotEntry, latest: str | None) -> tuple[str, ...]:
    receipt = entry.receipt
    complete = "" if receipt is None else {"True": "yes", "False": "no"}.get(str(receipt.complete), "unknown")
    return (
        entry.snapshot,
        entry.state,
        f"{entry.at:%Y-%m-%d %H:%M}",
        f"{receipt.records.written:,}" if receipt else "",
        decimal(entry.bytes),
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
    written = entry.receipt or entry.unfinished
    return written.parent if written else None


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

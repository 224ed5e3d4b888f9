"""The summary of a committed snapshot, printed when a run is done."""

from __future__ import annotations

import io
import shlex
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from neows_async.cli.config import DEMO_KEY_HINT
from neows_async.cli.output import clean, counted
from neows_async.lake.storage import location

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from neows_async.lake.receipt import Receipt

_BAR_CELLS: Final = 40
_CLOSEST: Final = 5
_LUNAR_DISTANCE_KM: Final = 384_400
_MAX_NAMES: Final = 8
_GAP_YEARS: Final = 30
_SHOWN_ABOVE: Final = ("close_approaches_within", "close_approaches_by_year")
_SHOW_TIME_FROM_S: Final = 2.0
_SHOW_SHARE_FROM: Final = 0.01
_BOUND: Final = 0.5
_ADVICE: Final = {
    "quota": "more parallel requests do not help; a key with a higher limit does",
    "outage": "the source was down; no setting helps",
    "network": "the source responds slowly; a higher --concurrency may help, if the quota allows it",
    "decoding": "the processor is the limit",
    "storage": "the lake is the limit; a faster disk or a nearer bucket helps",
}
# Null in most snapshots: most NEOs have no name beside their designation, and one in ten has no close approach.
_OFTEN_NULL: Final = {
    "neos.name_limited",
    "neos.closest_approach_date",
    "neos.closest_approach_miss_distance_km",
    "neos.closest_approach_relative_velocity_km_s",
}


def show(
    receipt: Receipt,
    *,
    root: str,
    limit: int | None,
    open_input: Callable[[str], BinaryIO],
    timing_notes: Sequence[str] = (),
) -> None:
    """Print the summary.

    :param limit: the number of objects that was requested
    :param open_input: opens a file of the lake, for the closest passes
    :param timing_notes: lines for the part about time: what made the run slower
    :raises BrokenPipeError: the reader went away
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names have letters that some terminals cannot show.
        sys.stdout.reconfigure(errors="replace")
    console = _Console(highlight=False, soft_wrap=True)
    for line in _head(receipt, limit):
        console.print(line)
    _print_chart(console, receipt.aggregates.get("close_approaches_by_year", {}))
    for text in _other_aggregates(receipt):
        console.print(text)
    _print_closest(console, receipt, open_input)
    for text in _tail(receipt, root, timing_notes):
        console.print(text)


class _Console(Console):
    @override
    def on_broken_pipe(self) -> None:
        # Rich would exit the process with code 1.
        raise BrokenPipeError


# -- the head -----------------------------------------------------------------------------------


def _head(receipt: Receipt, limit: int | None) -> Iterator[Text]:
    records = receipt.records
    yield Text()
    yield Text.assemble(
        (counted(records.written, "near-Earth object"), "bold"),
        f" with {counted(receipt.close_approaches, 'close approach', 'es')}, snapshot {receipt.snapshot}",
    )
    if receipt.source.synthetic:
        yield Text(
            f"These objects are SYNTHETIC, made by the built-in sandbox. For NASA's: {DEMO_KEY_HINT}, or a key of "
            "your own",
            style="bold yellow",
        )
    if limit is not None and limit > receipt.total_elements:
        all_of_it = ", and this is all of it" if receipt.complete is True else ""
        yield Text(f"{limit:,} objects were requested; the catalogue has {receipt.total_elements:,}{all_of_it}")
    elif receipt.complete is True:
        yield Text("The whole catalogue, complete")
    elif receipt.complete == "unknown":
        yield Text("The catalogue changed during the run; whether the snapshot is complete is unknown")
    within = receipt.aggregates.get("close_approaches_within")
    if within:
        body = within["orbiting_body"]
        approaches = counted(within["close_approaches"], "close approach", "es")
        yield Text.assemble(
            (f"{within['count']:,}", "bold"),
            f" of {approaches} came within {within['threshold_au']:g} au",
            f" of {body}" if body else "",
        )


# -- the chart and the closest passes -----------------------------------------------------------


def _print_chart(console: Console, by_year: Mapping[str, Any]) -> None:
    decades: Counter[int] = Counter()
    for year, count in by_year.get("count_by_year", {}).items():
        decades[int(year) // 10 * 10] += count
    if not decades:
        return
    unicode = "utf" in (console.encoding or "").lower()
    most = max(decades.values())
    console.print()
    years = len(by_year["count_by_year"])
    console.print(Text(f"Close approaches per decade ({counted(years, 'year')} with data)", style="bold"))
    before = min(decades)
    for decade in range(min(decades), max(decades) + 10, 10):
        count = decades[decade]
        if not count and not any(decades[near] for near in range(decade - _GAP_YEARS, decade + _GAP_YEARS + 10, 10)):
            continue  # one absurd date, e.g. in the year 9999, must not add hundreds of empty lines
        if decade > before + 10:
            console.print("  ...")
        before = decade
        console.print(Text.assemble(f"{decade:04}s ", (_bar(count / most, unicode=unicode), "cyan"), f" {count:,}"))


def _other_aggregates(receipt: Receipt) -> Iterator[Text]:
    """One line for each aggregate that the summary does not show in another form."""
    others = {name: result for name, result in receipt.aggregates.items() if name not in _SHOWN_ABOVE}
    if others:
        yield Text()
        yield Text("Aggregates", style="bold")
    for name, result in others.items():
        figures = ", ".join(f"{clean(key)} {_figure(value)}" for key, value in result.items())
        yield Text(f"  {clean(name)}  {figures}")


def _figure(value: Any) -> str:
    if isinstance(value, dict | list):
        return counted(len(value), "value")
    if isinstance(value, str) or value is None:
        return clean(str(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _bar(share: float, *, unicode: bool) -> str:
    if not unicode:
        return "#" * round(share * _BAR_CELLS)
    eighths = round(share * _BAR_CELLS * 8)
    return "█" * (eighths // 8) + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[eighths % 8]


def _print_closest(console: Console, receipt: Receipt, open_input: Callable[[str], BinaryIO]) -> None:
    rows = _closest_rows(receipt, open_input)
    if not rows:
        return
    table = Table(title="Closest passes", title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("NEO")
    for column in ("date", "km", "lunar distances", "km/s"):
        table.add_column(column, justify="right")
    for row in rows:
        km, speed = row["closest_approach_miss_distance_km"], row["closest_approach_relative_velocity_km_s"]
        table.add_row(
            Text(clean(row["name"])),
            str(row["closest_approach_date"] or "unknown"),
            f"{km:,.0f}",
            f"{km / _LUNAR_DISTANCE_KM:,.2f}",
            "unknown" if speed is None else f"{speed:.1f}",
        )
    console.print()
    console.print(table)


def _closest_rows(receipt: Receipt, open_input: Callable[[str], BinaryIO]) -> Sequence[Mapping[str, Any]]:
    """The NEOs with the least miss distance, read back from the files that the run wrote."""
    columns = [
        "name",
        "closest_approach_date",
        "closest_approach_miss_distance_km",
        "closest_approach_relative_velocity_km_s",
    ]
    parts = []
    for file in receipt.files:
        if file.dataset == "neos" and file.path.endswith(".parquet"):
            with open_input(file.path) as opened:
                # In this thread alone: a thread of Arrow's that drops a Python object while the interpreter exits
                # would crash it.
                parquet = pq.ParquetFile(opened, pre_buffer=False)
                # A partitioned file lacks its own column, and another schema version may lack any.
                if set(columns) <= set(parquet.schema_arrow.names):
                    table = parquet.read(columns=columns, use_threads=False)
                    parts.append(table.filter(table["closest_approach_miss_distance_km"].is_valid()))
    if not parts:
        return []
    order = [("closest_approach_miss_distance_km", "ascending"), ("name", "ascending")]
    rows: list[dict[str, Any]] = pa.concat_tables(parts).sort_by(order).slice(0, _CLOSEST).to_pylist()
    return rows


# -- files, troubles and time -------------------------------------------------------------------


def _tail(receipt: Receipt, root: str, timing_notes: Sequence[str]) -> Iterator[Text]:
    yield Text()
    yield Text("Written", style="bold")
    yield from _files(receipt, root)
    yield from _troubles(receipt)
    if timing_notes or receipt.time_s["total"] >= _SHOW_TIME_FROM_S:
        yield Text()
        yield from _time(receipt)
        for note in timing_notes:
            yield Text(f"  {note}")
    yield Text()
    yield Text("Query it", style="bold")
    yield Text(f"  {duckdb_line(root, receipt)}")


def _files(receipt: Receipt, root: str) -> Iterator[Text]:
    by_dataset: dict[str, tuple[int, int, int | None]] = {}
    for file in receipt.files:
        files, size, rows = by_dataset.get(file.dataset, (0, 0, 0))
        total = None if rows is None or file.rows is None else rows + file.rows
        by_dataset[file.dataset] = (files + 1, size + file.bytes, total)
    for dataset, (files, size, rows) in sorted(by_dataset.items()):
        in_rows = "" if rows is None else f", {counted(rows, 'row')}"
        yield Text(f"  {_folder(root, dataset, receipt)}  {counted(files, 'file')}{in_rows}, {decimal(size)}")


def _troubles(receipt: Receipt) -> Iterator[Text]:
    records = receipt.records
    if records.rejected:
        reasons = "; ".join(f"{count}x {clean(why)}" for why, count in receipt.rejected_because.items())
        yield Text(
            f"Rejected {counted(records.rejected, 'unreadable object')}, kept in "
            f"quarantine/snapshot={receipt.snapshot}/: {reasons}",
            style="yellow",
        )
    if records.duplicates:
        yield Text(f"Dropped {counted(records.duplicates, 'duplicate')}; the first object with an id counts")
    if receipt.pages.missing:
        missing = sorted(set(receipt.pages.missing))  # a page can be missing in each generation
        pages = ", ".join(str(number) for number in missing[:_MAX_NAMES])
        more = "" if len(missing) <= _MAX_NAMES else " …"
        yield Text(
            f"{counted(len(missing), 'page')} could not be read, allowed by --max-missing-pages: {pages}{more}",
            style="yellow",
        )
    if receipt.unknown_fields:
        names = ", ".join(clean(name) for name in list(receipt.unknown_fields)[:_MAX_NAMES])
        yield Text(f"Unknown fields, kept in the raw pages: {names}", style="yellow")
    nulls = {name: count for name, count in receipt.nulls.items() if name not in _OFTEN_NULL}
    if nulls:
        yield Text("No value in the source: " + ", ".join(f"{count}x {name}" for name, count in nulls.items()))


def _time(receipt: Receipt) -> Iterator[Text]:
    """The shares of the time, and advice if one is more than half."""
    total_s = receipt.time_s["total"]
    shares = {name: spent_s / total_s for name, spent_s in receipt.time_s.items() if name in _ADVICE}
    shown = ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share >= _SHOW_SHARE_FROM)
    yield Text.assemble(("Time  ", "bold"), f"{total_s:,.1f} s: {shown}")
    most = max(shares, key=lambda name: shares[name])
    if shares[most] >= _BOUND:
        yield Text(f"  {most}-bound: {_ADVICE[most]}")


def duckdb_line(root: str, receipt: Receipt) -> str:
    """A shell command that shows the closest passes. Run it in the same working directory, if ``root`` is relative."""
    glob = f"{_folder(root, 'neos', receipt)}**/*.parquet".replace("'", "''")
    query = (
        "SELECT name, closest_approach_date, closest_approach_miss_distance_km AS km "  # noqa: S608 - shown, not run
        f"FROM read_parquet('{glob}', hive_partitioning=false) ORDER BY km LIMIT 5"
    )
    return f"duckdb -c {shlex.quote(query)}" if "'" in glob else f'duckdb -c "{query}"'


def _folder(root: str, dataset: str, receipt: Receipt) -> str:
    return f"{location(root)}/{dataset}/snapshot={receipt.snapshot}/"

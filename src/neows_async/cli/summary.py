"""The answers, when a run is done: for people who would rather look than read."""

from __future__ import annotations

import io
import shlex
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from neows_async.cli.output import clean, counted
from neows_async.cli.output import size as in_words
from neows_async.lake.storage import location

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from neows_async.lake.receipt import Receipt

_BAR_CELLS: Final = 40
_CLOSEST: Final = 5
_LUNAR_DISTANCE_KM: Final = 384_400
_NAMED: Final = 8
_GAP_YEARS: Final = 30


def show(receipt: Receipt, *, root: str, limit: int | None, open_input: Callable[[str], BinaryIO]) -> None:
    """Print the summary of a committed snapshot.

    :param limit: what was asked for
    :param open_input: opens a file of the lake, for the closest passes
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names have letters that not every terminal has.
        sys.stdout.reconfigure(errors="replace")
    console = _Console(highlight=False, soft_wrap=True)
    for line in _head(receipt, limit):
        console.print(line)
    _chart(console, receipt.aggregates.get("close_approaches_by_year", {}))
    for text in _other_aggregates(receipt):
        console.print(text)
    _closest(console, receipt, open_input)
    for text in _tail(receipt, root):
        console.print(text)


class _Console(Console):
    """One that leaves a reader who has gone to its caller, instead of ending the process."""

    @override
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _head(receipt: Receipt, limit: int | None) -> Iterator[Text]:
    records = receipt.records
    yield Text()
    yield Text.assemble(
        (counted(records.written, "near-Earth object"), "bold"),
        f" with {counted(receipt.close_approaches, 'close approach', 'es')}, snapshot {receipt.snapshot}",
    )
    if receipt.source.synthetic:
        yield Text(
            "These objects are SYNTHETIC, made up by the built-in sandbox. For NASA's: NASA_API_KEY=DEMO_KEY "
            "(enough for 200), or a key of your own",
            style="bold yellow",
        )
    if limit is not None and limit > receipt.total_elements and receipt.complete is True:
        yield Text(f"{limit:,} were asked for; these are all there are in the catalogue")
    elif limit is not None and limit > receipt.total_elements:
        yield Text(f"{limit:,} were asked for; the catalogue holds {receipt.total_elements:,}")
    elif receipt.complete is True:
        yield Text("The whole catalogue, complete")
    elif receipt.complete == "unknown":
        yield Text("The catalogue changed while it was read; whether this is all of it is unknown")
    within = receipt.aggregates.get("close_approaches_within")
    if within:
        body = within["orbiting_body"]
        yield Text.assemble(
            (counted(within["count"], "time"), "bold"),
            f" closer than {within['threshold_au']:g} au{f' to {body}' if body else ''}",
        )


def _chart(console: Console, by_year: Mapping[str, Any]) -> None:
    decades: Counter[int] = Counter()
    for year, count in by_year.get("count_by_year", {}).items():
        decades[int(year) // 10 * 10] += count
    if not decades:
        return
    fine = _can_draw(console)
    most = max(decades.values())
    console.print()
    years = len(by_year["count_by_year"])
    console.print(Text(f"Close approaches a decade ({counted(years, 'year')} present)", style="bold"))
    before = min(decades)
    for decade in range(min(decades), max(decades) + 10, 10):
        count = decades[decade]
        if not count and not any(decades[near] for near in range(decade - _GAP_YEARS, decade + _GAP_YEARS + 10, 10)):
            continue  # one absurd date must not scroll all others away
        if decade > before + 10:
            console.print("  ...")
        before = decade
        console.print(Text.assemble(f"{decade:04}s ", (_bar(count / most, fine=fine), "cyan"), f" {count:,}"))


def _other_aggregates(receipt: Receipt) -> Iterator[Text]:
    """One line for each aggregate that has no view of its own above."""
    others = {name: result for name, result in receipt.aggregates.items() if name not in _SHOWN}
    if others:
        yield Text()
        yield Text("Aggregates", style="bold")
    for name, result in others.items():
        figures = ", ".join(f"{clean(key)} {_figure(value)}" for key, value in result.items())
        yield Text(f"  {clean(name)}  {figures}")


_SHOWN: Final = ("close_approaches_within", "close_approaches_by_year")


def _figure(value: Any) -> str:
    if isinstance(value, dict | list):
        return counted(len(value), "value")
    if isinstance(value, str) or value is None:
        return clean(str(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _can_draw(console: Console) -> bool:
    return "utf" in (console.encoding or "").lower()


def _bar(share: float, *, fine: bool) -> str:
    if not fine:
        return "#" * round(share * _BAR_CELLS)
    eighths = round(share * _BAR_CELLS * 8)
    return "█" * (eighths // 8) + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[eighths % 8]


def _closest(console: Console, receipt: Receipt, open_input: Callable[[str], BinaryIO]) -> None:
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
    """The NEOs with the least miss distance, from the files as they were written."""
    import pyarrow as pa  # noqa: PLC0415 - the run has loaded it, other commands need not
    import pyarrow.parquet as pq  # noqa: PLC0415 - as above

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
                # In this thread alone: one of Arrow's own that lets go of a Python object while the
                # program ends would take it down.
                parquet = pq.ParquetFile(opened, pre_buffer=False)
                if set(columns) <= set(parquet.schema_arrow.names):
                    table = parquet.read(columns=columns, use_threads=False)
                    parts.append(table.filter(table["closest_approach_miss_distance_km"].is_valid()))
    if not parts:
        return []
    order = [("closest_approach_miss_distance_km", "ascending"), ("name", "ascending")]
    rows: list[dict[str, Any]] = pa.concat_tables(parts).sort_by(order).slice(0, _CLOSEST).to_pylist()
    return rows


def _tail(receipt: Receipt, root: str) -> Iterator[Text]:
    yield Text()
    yield Text("Written", style="bold")
    by_dataset: dict[str, tuple[int, int, int | None]] = {}
    for file in receipt.files:
        files, size, rows = by_dataset.get(file.dataset, (0, 0, 0))
        total = None if rows is None or file.rows is None else rows + file.rows
        by_dataset[file.dataset] = (files + 1, size + file.bytes, total)
    for dataset, (files, size, rows) in sorted(by_dataset.items()):
        told = "" if rows is None else f", {counted(rows, 'row')}"
        yield Text(f"  {_folder(root, dataset, receipt)}  {counted(files, 'file')}{told}, {in_words(size)}")
    yield from _troubles(receipt)
    if receipt.time_s["total"] >= _WORTH_TELLING_S:
        yield Text()
        yield from _time(receipt)
    yield Text()
    yield Text("Look at it", style="bold")
    yield Text(f"  {duckdb_line(root, receipt)}")


def _time(receipt: Receipt) -> Iterator[Text]:
    """Where the time went, and what would help."""
    total_s = receipt.time_s["total"]
    shares = {name: spent_s / total_s for name, spent_s in receipt.time_s.items() if name in _ADVICE}
    told = ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share >= _WORTH_TELLING)
    yield Text.assemble(("Time  ", "bold"), f"{total_s:,.1f} s: {told}")
    most = max(shares, key=lambda name: shares[name])
    if shares[most] >= _BOUND:
        yield Text(f"  {most}-bound: {_ADVICE[most]}")


_WORTH_TELLING_S: Final = 2.0
_WORTH_TELLING: Final = 0.01
_BOUND: Final = 0.5
_ADVICE: Final = {
    "quota": "more fetchers won't help; a key with a higher limit would",
    "outage": "the source was away; nothing here would have helped",
    "network": "the source answers slowly; a higher --concurrency may help, if the quota lasts",
    "decoding": "the processor is the limit",
    "storage": "the lake is the limit; a faster disk or a nearer bucket would help",
}


def _troubles(receipt: Receipt) -> Iterator[Text]:
    records = receipt.records
    if records.rejected:
        reasons = "; ".join(f"{count}x {clean(why)}" for why, count in receipt.rejected_because.items())
        yield Text(
            f"Rejected {records.rejected} unreadable objects, kept in quarantine/snapshot={receipt.snapshot}/: "
            f"{reasons}",
            style="yellow",
        )
    if records.duplicates:
        yield Text(f"Dropped {records.duplicates} objects that had been read already; the first one counts")
    if receipt.pages.missing:
        missing = sorted(set(receipt.pages.missing))  # one may be, each time that the catalogue was read
        pages = ", ".join(str(number) for number in missing[:_NAMED])
        more = "" if len(missing) <= _NAMED else " …"
        yield Text(f"Missing {counted(len(missing), 'page')}, as was allowed: {pages}{more}", style="yellow")
    if receipt.unknown_fields:
        names = ", ".join(clean(name) for name in list(receipt.unknown_fields)[:_NAMED])
        yield Text(f"Fields not known so far, kept in the raw pages: {names}", style="yellow")
    nulls = {name: count for name, count in receipt.nulls.items() if name not in _OFTEN_NULL}
    if nulls:
        yield Text(
            "Null, as the source gave no value: " + ", ".join(f"{count}x {name}" for name, count in nulls.items())
        )


# Most NEOs have no name of their own, and a tenth no approach: no news.
_OFTEN_NULL: Final = {
    "neos.name_limited",
    "neos.closest_approach_date",
    "neos.closest_approach_miss_distance_km",
    "neos.closest_approach_relative_velocity_km_s",
}


def duckdb_line(root: str, receipt: Receipt) -> str:
    """A shell command that shows the closest passes; it works where ``root`` means the same."""
    glob = f"{_folder(root, 'neos', receipt)}**/*.parquet".replace("'", "''")
    query = (
        "SELECT name, closest_approach_date, closest_approach_miss_distance_km AS km "  # noqa: S608 - shown, not run
        f"FROM read_parquet('{glob}', hive_partitioning=false) ORDER BY km LIMIT 5"
    )
    return f"duckdb -c {shlex.quote(query)}" if "'" in glob else f'duckdb -c "{query}"'


def _folder(root: str, dataset: str, receipt: Receipt) -> str:
    return f"{location(root)}/{dataset}/snapshot={receipt.snapshot}/"

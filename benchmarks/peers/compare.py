"""Ours against peers, in their own pinned environments, and every row they wrote against ours.

    python benchmarks/peers/compare.py [PAGES]    200 by default; make bench-peers

The environments are made beside the project's own, as .venv-peer-NAME, when they are missing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).parents[2]))

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from benchmarks.measured import programs
from benchmarks.measured.programs import PYTHON, Rounds, Took, fresh, measure, pages_server, run

if TYPE_CHECKING:
    from collections.abc import Callable

HERE: Final = Path(__file__).parent
PEERS: Final = {"sequential": "requests, pydantic", "with_dlt": "dlt, rows flattened"}
ROUNDS: Final = 3
NEOS: Final = {"id": "id", "name": "name", "km": "closest_approach_miss_distance_km"}
APPROACHES: Final = {
    "neo_id": "neo_id",
    "date": "close_approach_date",
    "au": "miss_distance_au",
    "km": "miss_distance_km",
    "km_s": "relative_velocity_km_s",
}


def main() -> None:
    pages = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    # Neither tells its makers of us, nor keeps its state in a home.
    os.environ.update({"RUNTIME__DLTHUB_TELEMETRY": "false"})
    with tempfile.TemporaryDirectory(prefix="neows-peers-") as folder, pages_server() as url_of:
        url, out = url_of(pages), Path(folder)
        os.environ["DLT_DATA_DIR"] = str(out / "dlt-state")
        ways: dict[str, Callable[[], Took]] = {
            "fetch alone, httpx": lambda: measure([PYTHON, str(programs.HERE / "fetch_httpx.py"), url, str(pages)]),
            "neows-async, no archive": lambda: measure(run(url, fresh(out / "ours"), "--no-archive")),
            "neows-async": lambda: measure(run(url, fresh(out / "ours"))),
        }
        for name, what in PEERS.items():
            python = _environment(name)
            command = [python, str(HERE / f"{name}.py"), url, str(pages)]
            ways[what] = lambda command=command, name=name: measure([*command, str(fresh(out / name))])  # type: ignore[misc]
        rounds = Rounds(ways)
        rounds.go(ROUNDS)
        print(f"{programs.machine()}\n{pages:,} pages, {20 * pages:,} NEOs; medians of {ROUNDS} rounds in turn")
        print(f"{'':26}{'ratio':>8}{'s':>9}{'CPU s':>9}{'peak MB':>9}")
        for way in ways:
            ratio = rounds.ratio(way, "fetch alone, httpx")
            print(f"{way:26}{ratio:8.2f}{rounds.wall_s(way):9.2f}{rounds.cpu_s(way):9.2f}{rounds.peak_mb(way):9.0f}")
        for name, what in PEERS.items():
            _hold(out / "ours", out / name, what)


def _environment(name: str) -> str:
    folder = HERE.parents[1] / f".venv-peer-{name}"
    python = str(folder / "bin" / "python")
    if not (folder / ".made").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", str(HERE / f"{name}.txt")], check=True)
        (folder / ".made").touch()
    return python


def _hold(ours: Path, theirs: Path, what: str) -> None:
    """Every row of theirs against ours.

    :raises SystemExit: they differ
    """
    for dataset, columns in (("neos", NEOS), ("close_approaches", APPROACHES)):
        # Names of columns may come back in another spelling: dlt's own begin with an underscore.
        mine = _sorted(ds.dataset(ours / dataset, partitioning=None).to_table(list(columns.values())), list(columns))
        files = [path for path in theirs.rglob("*.parquet") if "state" not in path.parts and dataset in str(path)]
        other = _sorted(ds.dataset(files).to_table(list(columns)), list(columns))
        if mine != other:
            raise SystemExit(f"{what}: {dataset} has other rows than ours")
        print(f"{what}: all {mine.num_rows:,} rows of {dataset} are equal to ours")


def _sorted(table: pa.Table, names: list[str]) -> pa.Table:
    table = table.rename_columns(names)
    plain = [
        table[name].cast(pa.float64() if pa.types.is_floating(table.schema.field(name).type) else pa.string())
        for name in names
    ]
    made = pa.table(plain, names=names)
    return made.take(pc.sort_indices(made, [(name, "ascending") for name in names])).combine_chunks()


if __name__ == "__main__":
    main()

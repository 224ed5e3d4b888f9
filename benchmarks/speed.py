"""How fast and how flat: a run against fetching alone, rebuilding, memory, start, latency, lag, and each stage.

    python benchmarks/speed.py            a quick form, of some minutes
    python benchmarks/speed.py --full     what stands in benchmarks/README.md; half an hour
    python benchmarks/speed.py run lag    these sections alone

Everything is a whole process, from its start to its exit. The server of pages is one of its own and shares
the machine, for the floor as for us. Ways that are compared run in turn, and a ratio is the median of
the rounds' own ratios.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.measured import programs
from benchmarks.measured.programs import PYTHON, Rounds, Took, fresh, measure, neows_async, pages_server, rebuild, run

if TYPE_CHECKING:
    from collections.abc import Callable

MB_A_PAGE: Final = 0.93


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    :param pages: of the runs that are compared
    :param small_pages: and of those against which growth is seen
    :param long_rounds: of what takes long
    """

    rounds: int
    pages: int
    small_pages: int
    large_pages: int
    latency_pages: dict[float, int]
    long_rounds: int


QUICK: Final = Size(rounds=3, pages=300, small_pages=100, large_pages=600, latency_pages={0.05: 400}, long_rounds=1)
FULL: Final = Size(
    rounds=5,
    pages=1000,
    small_pages=100,
    large_pages=10_000,
    latency_pages={0.05: 2000, 1.0: 1000},
    long_rounds=3,
)
_LONG_S: Final = 0.5  # of answers that take so long one run is as good as three, and three would take ten minutes


def main() -> None:
    size = FULL if "--full" in sys.argv else QUICK
    wanted = [name for name in sys.argv[1:] if not name.startswith("--")]
    unknown = set(wanted) - set(SECTIONS)
    if unknown:
        sys.exit(f"There is no {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}.")
    print(f"{programs.machine()}\n")
    with tempfile.TemporaryDirectory(prefix="neows-speed-") as folder:
        for name in wanted or SECTIONS:
            SECTIONS[name](size, Path(folder))
            print(flush=True)


def _run_over(url: str, folder: Path, *more: str) -> Took:
    return measure(run(url, fresh(folder / "run"), *more))


def _run(size: Size, folder: Path) -> None:
    pages = size.pages
    with pages_server() as url_of:
        url = url_of(pages)
        ways: dict[str, Callable[[], Took]] = {
            "fetch alone, httpx": lambda: measure([PYTHON, str(programs.HERE / "fetch_httpx.py"), url, str(pages)]),
            "run, no archive": lambda: _run_over(url, folder, "--no-archive"),
            "run, archive": lambda: _run_over(url, folder),
        }
        rounds = Rounds(ways)
        rounds.go(size.rounds)
    print(f"{pages:,} pages, {20 * pages:,} NEOs, {MB_A_PAGE * pages:.0f} MB; medians of {size.rounds} rounds in turn")
    _table(rounds, "fetch alone, httpx", pages)


def _table(rounds: Rounds, floor: str, pages: int) -> None:
    print(f"{'':26}{'ratio':>8}{'s':>9}{'CPU s':>9}{'CPU ms a page':>15}{'peak MB':>9}")
    for way in rounds.took:
        print(
            f"{way:26}{rounds.ratio(way, floor):8.2f}{rounds.wall_s(way):9.2f}{rounds.cpu_s(way):9.2f}"
            f"{1000 * rounds.cpu_s(way) / pages:15.2f}{rounds.peak_mb(way):9.0f}"
        )


def _rebuild(size: Size, folder: Path) -> None:
    pages = size.pages
    root = fresh(folder / "rebuilt")
    with pages_server() as url_of:
        measure(run(url_of(pages), root))
    ways: dict[str, Callable[[], Took]] = {"as many as there are": lambda: measure(rebuild(root))}
    if hasattr(os, "sched_setaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        ways = {"1 core": lambda: measure(rebuild(root), cpus={cpus[0]})}
        if len(cpus) > 1:
            ways["2 cores"] = lambda: measure(rebuild(root), cpus=set(cpus[:2]))
    rounds = Rounds(ways)
    rounds.go(size.rounds)
    first = next(iter(ways))
    print(f"rebuild from the raw zone, {pages:,} pages, {MB_A_PAGE * pages:.0f} MB of JSON")
    print(f"{'':26}{'ratio':>8}{'s':>9}{'CPU s':>9}{'MB/s':>9}{'peak MB':>9}")
    for way in ways:
        print(
            f"{way:26}{1 / rounds.ratio(way, first):8.2f}{rounds.wall_s(way):9.2f}{rounds.cpu_s(way):9.2f}"
            f"{MB_A_PAGE * pages / rounds.wall_s(way):9.0f}{rounds.peak_mb(way):9.0f}"
        )


def _memory(size: Size, folder: Path) -> None:
    counts = [size.small_pages, size.pages, size.large_pages]
    print(f"peak MB by NEOs, medians of {size.rounds} runs, of the largest one run; and as multiples of the smallest")
    print(f"{'':20}" + "".join(f"{20 * pages:>12,}" for pages in counts))
    with pages_server() as url_of:
        for name, more in (("no archive", ["--no-archive"]), ("archive", [])):
            peaks = [
                statistics.median(
                    _run_over(url_of(pages), folder, *more).peak_mb
                    for _ in range(size.rounds if pages <= size.pages else 1)
                )
                for pages in counts
            ]
            print(
                f"{name:20}"
                + "".join(f"{peak:12.0f}" for peak in peaks)
                + "".join(f"{peak / peaks[0]:10.3f}" for peak in peaks[1:]),
                flush=True,
            )
        fresh(folder / "run")  # ten thousand raw pages


def _linear(size: Size, folder: Path) -> None:
    counts = [size.small_pages, size.pages, size.large_pages]
    with pages_server() as url_of:
        rounds = Rounds({f"{pages:,}": partial(_run_over, url_of(pages), folder, "--no-archive") for pages in counts})
        rounds.go(size.long_rounds)
    print(f"what one more page costs, without archive; medians of {size.long_rounds}")
    for less, more in itertools.pairwise(counts):
        wall_s, cpu_s = (of(f"{more:,}") - of(f"{less:,}") for of in (rounds.wall_s, rounds.cpu_s))
        print(
            f"{less:8,} to {more:6,} pages: {1000 * wall_s / (more - less):6.2f} ms, "
            f"{1000 * cpu_s / (more - less):6.2f} ms of CPU"
        )


def _start(size: Size, folder: Path) -> None:
    ways: dict[str, Callable[[], Took]] = {
        "--help": lambda: measure(neows_async("--help")),
        "run --limit 200, sandbox": lambda: measure(
            neows_async("run", "--limit", "200", "--source", "sandbox", "--root", str(fresh(folder / "s")), "--quiet")
        ),
    }
    rounds = Rounds(ways)
    rounds.go(size.rounds + 1)
    for way in ways:
        print(f"{way:26}{rounds.wall_s(way):8.2f} s, {rounds.cpu_s(way):.2f} s of CPU")


def _latency(size: Size, folder: Path) -> None:
    print("concurrency 8, no archive; the least is pages x latency / 8")
    for latency_s, pages in size.latency_pages.items():
        half = pages // 2
        with pages_server(latency_s) as url_of:
            rounds = Rounds(
                {f"{count}": partial(_run_over, url_of(count), folder, "--no-archive") for count in (half, pages)}
            )
            rounds.go(1 if latency_s >= _LONG_S else size.long_rounds)
        least_s = pages * latency_s / 8
        took_s = rounds.wall_s(f"{pages}")
        slope_s = (took_s - rounds.wall_s(f"{half}")) / (pages - half)
        print(
            f"{1000 * latency_s:6.0f} ms a page, {pages:,} pages: {took_s:.2f} s, {took_s / least_s:.3f} of "
            f"the least; each page after the first {half:,}: {slope_s / (latency_s / 8):.3f} of the least"
        )


def _lag(size: Size, folder: Path) -> None:
    with pages_server() as url_of:
        for more in ([], ["--no-archive"]):
            root = fresh(folder / "lag")
            command = [PYTHON, str(programs.HERE / "watched.py"), url_of(size.pages), str(size.pages), str(root), *more]
            seen = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            print(
                f"{'no archive' if more else 'archive'}: the event loop's lag: p99 {seen['lag_p99_ms']:.1f} ms, "
                f"p99.9 {seen['lag_p999_ms']:.1f} ms, worst {seen['lag_max_ms']:.1f} ms"
            )
            stages = ", ".join(f"{stage} {ms:.2f}" for stage, ms in seen["ms_a_page"].items())
            print(f"  ms a page, several at once: {stages}; all in {1000 * seen['took_s'] / size.pages:.2f}")


def _stages(size: Size, folder: Path) -> None:  # noqa: ARG001 - as all sections
    pages = min(size.pages, 300)
    command = [PYTHON, str(programs.HERE / "stages.py"), str(pages)]
    taken = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    print("CPU of each stage by itself")
    for stage, ms in taken.items():
        print(f"{stage:26}{ms:8.2f} ms a page")
    print(f"{'sum':26}{sum(taken.values()):8.2f}")


SECTIONS: Final[dict[str, Callable[[Size, Path], None]]] = {
    "run": _run,
    "rebuild": _rebuild,
    "stages": _stages,
    "lag": _lag,
    "start": _start,
    "memory": _memory,
    "linear": _linear,
    "latency": _latency,
}


if __name__ == "__main__":
    main()

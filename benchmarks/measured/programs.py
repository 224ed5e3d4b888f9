"""Whole processes, measured: wall time, processor time and the most memory they ever held."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HERE: Final = Path(__file__).parent
PYTHON: Final = sys.executable
KEY: Final = "benchmark-key-of-forty-characters-000000"


@dataclass(frozen=True, slots=True)
class Took:
    """What one process took, its children included.

    :param peak_mb: the most memory of its largest process, in MB of 1,000,000 bytes
    """

    wall_s: float
    cpu_s: float
    peak_mb: float


def measure(command: Sequence[str], *, cpus: set[int] | None = None) -> Took:
    """Run ``command`` to its end.

    :param cpus: the processors it may use; None is all
    :raises RuntimeError: it failed; what it printed goes to stderr
    """
    environment = {**os.environ, "NASA_API_KEY": KEY}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody's start is measured with a compiler in it
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if cpus is not None:
        os.sched_setaffinity(0, cpus)  # the child inherits it
    try:
        began_s = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    finally:
        if cpus is not None:
            os.sched_setaffinity(0, allowed)
    # `wait4` alone tells what this child took, and not all children until now.
    _, status, used = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - began_s
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Took(wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss * unit / 1e6)


def neows_async(*arguments: str) -> list[str]:
    """The command line of our program."""
    return [PYTHON, "-m", "neows_async", *arguments]


def run(url: str, root: Path, *more: str) -> list[str]:
    """``run`` over the whole catalogue at ``url``, eight requests at once."""
    return neows_async("run", "--all", "--base-url", url, "--root", str(root), "--concurrency", "8", "--quiet", *more)


def rebuild(root: Path) -> list[str]:
    """A rebuild of the latest snapshot under ``root`` from its raw pages."""
    return neows_async("run", "--from-snapshot", "latest", "--root", str(root), "--fresh", "--quiet")


@contextmanager
def pages_server(latency_s: float = 0.0) -> Iterator[Callable[[int], str]]:
    """Our server in a process of its own; gives the base URL of a catalogue of so many pages."""
    command = [PYTHON, str(HERE / "server.py"), str(latency_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line.strip().isdigit():
                raise RuntimeError("the server of pages did not start")
            port = int(line)
            yield lambda pages: f"http://127.0.0.1:{port}/pages/{pages}"
        finally:
            process.terminate()


class Rounds:
    """Several ways, each once a round, in turn: what disturbs the machine disturbs all of them."""

    def __init__(self, ways: dict[str, Callable[[], Took]]) -> None:
        self._ways = ways
        self.took: dict[str, list[Took]] = {way: [] for way in ways}

    def go(self, rounds: int) -> None:
        """Run each way so many times more."""
        for _ in range(rounds):
            for way, once in self._ways.items():
                self.took[way].append(once())

    def wall_s(self, way: str) -> float:
        """The median, in seconds."""
        return statistics.median(one.wall_s for one in self.took[way])

    def cpu_s(self, way: str) -> float:
        """The median of user and system time together, in seconds."""
        return statistics.median(one.cpu_s for one in self.took[way])

    def peak_mb(self, way: str) -> float:
        """The median of the most memory, in MB."""
        return statistics.median(one.peak_mb for one in self.took[way])

    def ratio(self, way: str, to: str) -> float:
        """The median of the ratios of wall times, each within its round."""
        pairs = zip(self.took[way], self.took[to], strict=True)
        return statistics.median(one.wall_s / other.wall_s for one, other in pairs)


def fresh(root: Path) -> Path:
    """``root``, empty."""
    shutil.rmtree(root, ignore_errors=True)
    return root


def machine() -> str:
    """What it was measured on."""
    name = "unknown processor"
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    system = os.uname()
    version = ".".join(map(str, sys.version_info[:3]))
    return f"{name}, {os.cpu_count()} processors, {system.sysname} {system.machine}, Python {version}"

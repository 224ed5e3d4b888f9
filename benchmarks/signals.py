"""How long a run lives on after SIGTERM or SIGINT, at random instants: while it works, and while its storage hangs.

Each run is the program itself. One that works is signalled at any instant from its start to its end; one over S3,
after a request picked at random was left without an answer; one on a disk, after it began to read a raw page that is
a pipe nobody writes to. Then the same run is done again, and must come to its end. S3 is SeaweedFS, if it is installed.
``python benchmarks/signals.py [TIMES [SEED]]``: so many times for each line of the table; 50 say something, and take
some minutes.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests import program
from tests.lake.storage import seaweedfs
from tests.torture.driver import KEY, Job
from tests.torture.harness import Driver, serving, synthetic
from tests.torture.line import Line, line_to
from tests.torture.test_signals import hanging

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMES: Final = 5
LIMIT_S: Final = 60.0
GOAL_S: Final = 2.0
PAGES: Final = synthetic(20, 3)
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_FIRST_PAGE: Final = "put page=00000.json.zst"


@dataclass
class Row:
    """What was measured of one way and one signal."""

    way: str
    number: signal.Signals
    took_s: list[float] = field(default_factory=list)
    codes: Counter[int] = field(default_factory=Counter)
    finished: int = 0

    def told(self) -> str:
        """One line of the table."""
        codes = ", ".join(f"{code} ({count})" for code, count in sorted(self.codes.items()))
        p50_s, max_s = statistics.median(self.took_s), max(self.took_s)
        times = f"{len(self.took_s):7}{p50_s:9.3f}{max_s:9.3f}{self.finished:10}"
        return f"{self.way:34}{self.number.name:9}{times}   {codes}"


class Measured:
    """Runs over one catalogue, wherever they write."""

    def __init__(self, folder: Path, url: str, chance: random.Random, times: int) -> None:
        self._folder = folder
        self._url = url
        self._chance = chance
        self._times = times
        self._lakes = itertools.count()
        self.failed = False

    def working(self, driver: Driver) -> None:
        """Signalled at any instant; those that were over by then do not count."""
        began_s = time.perf_counter()
        with self._started(str(self._folder / "whole")) as process:
            process.wait(LIMIT_S)
        longest_s = time.perf_counter() - began_s
        for number in SIGNALS:
            row = Row("at work", number)
            while len(row.took_s) < self._times:
                lake = str(self._folder / f"working-{next(self._lakes)}")
                with self._started(lake) as process:
                    try:
                        process.wait(self._chance.uniform(0, longest_s))
                    except subprocess.TimeoutExpired:
                        self._stop(process, row)
                        self._finish(driver, row, lake)
            self._tell(row)

    def on_a_disk_that_hangs(self, driver: Driver) -> None:
        """At a raw page that somebody else put among those of a dead run, and that never ends."""
        for number in SIGNALS:
            row = Row("while a disk hangs", number)
            while len(row.took_s) < self._times:
                lake = self._folder / f"disk-{next(self._lakes)}"
                page = self._chance.randrange(len(PAGES.bodies))
                fifo = lake / f"raw/snapshot=a/gen=0/page={page:05}.json.zst"
                begun = Job(str(lake), self._url, settings=PAGES.settings, kill_at=0, count_from=_FIRST_PAGE)
                driver.run(begun)
                fifo.parent.mkdir(parents=True, exist_ok=True)
                os.mkfifo(fifo)
                with self._started(str(lake)) as process, hanging(fifo):
                    threading.Event().wait(self._chance.uniform(0, 0.3))
                    self._stop(process, row)
                fifo.unlink()
                self._finish(driver, row, str(lake))
            self._tell(row)

    def on_a_store_that_hangs(self, driver: Driver, s3: seaweedfs.SeaweedFS, line: Line) -> None:
        """At any request of an undisturbed run."""
        over_line = seaweedfs.SeaweedFS(line.port)
        with self._started(over_line.uri("signals/whole"), **s3.environment) as process:
            process.wait(LIMIT_S)
        requests = sorted({(one.verb, one.path.partition("?")[0].rpartition("signals/whole")[2]) for one in line.seen})
        for number in SIGNALS:
            row = Row("while an object store hangs", number)
            while len(row.took_s) < self._times:
                name = f"signals/{next(self._lakes)}"
                verb, path = self._chance.choice([request for request in requests if request[1]])
                line.arm(die_at=(verb, f"{name}{path}"))
                with self._started(over_line.uri(name), **s3.environment) as process:
                    if not line.dead.wait(5):
                        continue  # not every run makes the same requests
                    threading.Event().wait(self._chance.uniform(0, 0.3))
                    self._stop(process, row)
                line.arm()
                self._finish(driver, row, s3.uri(name))
            self._tell(row)

    @contextmanager
    def _started(self, root: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-m", "neows_async", "run", "--all", "--page-size", "3", "--snapshot", "a"]
        with subprocess.Popen(
            [*command, "--quiet", "--root", root, "--base-url", self._url],
            env=program.clean_environment(NASA_API_KEY=KEY, **environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def _stop(self, process: subprocess.Popen[bytes], row: Row) -> None:
        began_s = time.perf_counter()
        process.send_signal(row.number)
        code = process.wait(LIMIT_S)
        row.took_s.append(time.perf_counter() - began_s)
        # A process that a signal ended has its negative number here, and 128 more than it in a shell.
        row.codes[128 - code if code < 0 else code] += 1

    def _finish(self, driver: Driver, row: Row, root: str) -> None:
        row.finished += driver.run(Job(root, self._url, settings=PAGES.settings)).code == 0

    def _tell(self, row: Row) -> None:
        print(row.told(), flush=True)
        # A run whose signal came when all was done has nothing to stop for.
        codes = set(row.codes) - {128 + row.number, 0}
        self.failed |= bool(codes) or max(row.took_s) >= GOAL_S or row.finished < len(row.took_s)


def main() -> int:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else TIMES
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else os.getpid()  # noqa: PLR2004 - the second argument
    chance = random.Random(seed)  # noqa: S311 - of instants, that can be repeated
    # Who is started in the background may be deaf to SIGINT, and so would be whom it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print(f"seed {seed}; seconds from the signal to the end of the process\n")
    print(f"{'':34}{'signal':9}{'times':>7}{'p50 s':>9}{'max s':>9}{'resumed':>10}   exit codes", flush=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="signals-")))
        server = stack.enter_context(serving(PAGES))
        measured = Measured(folder, server.url, chance, times)
        driver = stack.enter_context(Driver(**seaweedfs.SeaweedFS(0).environment))
        measured.working(driver)
        measured.on_a_disk_that_hangs(driver)
        if (weed := seaweedfs.weed_program()) is None:
            print("SeaweedFS is not on the PATH: no object store was made to hang.")
        else:
            s3 = stack.enter_context(seaweedfs.running(weed, folder))
            measured.on_a_store_that_hangs(driver, s3, stack.enter_context(line_to(s3.port)))
    print(
        f"\nGone within {GOAL_S:g} s with the right code, and resumed: {'not always' if measured.failed else 'always'}."
    )
    return int(measured.failed)


if __name__ == "__main__":
    sys.exit(main())

"""What we cost the program around us: importing, the event loop's lag, cancelling, memory between refreshes.

    python benchmarks/guest.py            a quick form, of a minute or two
    python benchmarks/guest.py --full     what stands in README.md
    python benchmarks/guest.py lag        these sections alone: import lag cancel idle

The pages, of 0.93 MB, come from a process of its own. `idle` lags are those of a loop that does nothing
beside the probe, on this machine at this moment: what is below them is not ours.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import pyarrow as pa
import uvloop

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.measured.programs import KEY, PYTHON, fresh, machine, pages_server
from neows_async import Settings, ingest, open_batches, open_neos

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Url = Callable[[int], str]

FULL: Final = "--full" in sys.argv
PROBE_EVERY_S: Final = 0.001
IMPORTS: Final = {
    "import neows_async": "import neows_async",
    "… and use ingest": "from neows_async import ingest, Settings",
    "… and all public names": "from neows_async import *",
}
_LINE: Final = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|\s+(\S+)")


def _import(_: Url, __: Path) -> None:
    print(f"{'':26}{'ours':>9}{'dependencies':>15}   (ms, the best of some runs)")
    # Nobody's start is measured with a compiler in it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for name, statement in IMPORTS.items():
        ours, theirs = [], []
        for _round in range(15 if FULL else 5):
            said = subprocess.run(
                [PYTHON, "-X", "importtime", "-c", statement],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            ).stderr
            self_us = [(module, int(us)) for us, _, module in _LINE.findall(said)]
            start = next(at for at, (module, _) in enumerate(self_us) if module == "site")
            mine = [us for module, us in self_us[start + 1 :] if module.partition(".")[0] == "neows_async"]
            ours.append(sum(mine) / 1000)
            theirs.append(sum(us for _, us in self_us[start + 1 :]) / 1000 - ours[-1])
        print(f"{name:26}{min(ours):9.1f}{min(theirs):15.1f}")


# -- lag --------------------------------------------------------------------------------------------


async def _probed(work: Callable[[], Awaitable[object]]) -> tuple[list[float], float]:
    """How late a timer of a millisecond is, again and again, while ``work`` goes on."""
    lags_s: list[float] = []

    async def probe() -> None:
        while True:
            due_s = time.perf_counter() + PROBE_EVERY_S
            await asyncio.sleep(PROBE_EVERY_S)
            lags_s.append(max(0.0, time.perf_counter() - due_s))

    began_s = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(probe)
        await work()
        tasks.cancel_scope.cancel()
    return sorted(lags_s), time.perf_counter() - began_s


def _settings(url: str, root: Path, **more: Any) -> Settings:
    return Settings(**{"root": str(root), "base_url": url, "api_key": KEY, "limit": None, "concurrency": 8} | more)


def _lag(url: Url, folder: Path) -> None:
    pa.array([0])  # it may import pandas, which docs/embedding.md tells of and which is not ours
    pages = 1000 if FULL else 200
    root = folder / "lag"

    async def neos() -> None:
        async with open_neos(_settings(url(pages // 4), root)) as stream:
            async for _ in stream:
                pass

    async def batches() -> None:
        async with open_batches(_settings(url(pages), root)) as stream:
            async for _ in stream:
                pass

    works: dict[str, Callable[[], Awaitable[object]]] = {
        "idle": lambda: anyio.sleep(3),
        "ingest": lambda: ingest(_settings(url(pages), fresh(root))),
        "ingest, no archive": lambda: ingest(_settings(url(pages), fresh(root), archive=False)),
        "open_batches": batches,
        "open_neos": neos,
    }
    print(f"{'ms':22}{'probes':>8}{'p50':>8}{'p99':>8}{'p99.9':>8}{'max':>8}{'> 10 ms':>9}{'seconds':>9}")
    for loop, factory in (("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop)):
        for name, work in works.items():
            with asyncio.Runner(loop_factory=factory) as runner:
                lags_s, took_s = runner.run(_probed(work))
            at = [1000 * lags_s[min(len(lags_s) - 1, int(share * len(lags_s)))] for share in (0.5, 0.99, 0.999, 1)]
            late = sum(lag_s > 0.01 for lag_s in lags_s)  # noqa: PLR2004 - the aim
            figures = "".join(f"{ms:8.1f}" for ms in at)
            print(f"{loop} {name:<{21 - len(loop)}}{len(lags_s):8}{figures}{late:9}{took_s:9.1f}")


# -- cancelling -------------------------------------------------------------------------------------


async def _cancelled(settings: Settings, after_s: float) -> float | None:
    """How long a run lives on after it is cancelled; None if it was done before."""
    scope = anyio.CancelScope()
    asked_s = 0.0

    async def cancel() -> None:
        nonlocal asked_s
        await anyio.sleep(after_s)
        asked_s = time.perf_counter()
        scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancel)
        with scope:
            await ingest(settings)
        ended_s = time.perf_counter()
        tasks.cancel_scope.cancel()
    return ended_s - asked_s if scope.cancelled_caught else None


def _cancel(url: Url, folder: Path) -> None:
    instants, pages = (200 if FULL else 30), 30
    draws = random.Random(7)  # noqa: S311 - repeatable, not secret
    for backend in ("asyncio", "trio"):
        root = fresh(folder / "cancel")
        began_s = time.perf_counter()
        anyio.run(partial(ingest, _settings(url(pages), root)), backend=backend)
        whole_s = time.perf_counter() - began_s
        lives_s: list[float] = []
        resumed = 0
        while len(lives_s) < instants:
            root = fresh(folder / "cancel")
            settings = _settings(url(pages), root)
            lived_s = anyio.run(_cancelled, settings, draws.uniform(0, whole_s), backend=backend)
            if lived_s is None:
                continue
            lives_s.append(lived_s)
            if len(lives_s) % 10 == 0:
                receipt = anyio.run(partial(ingest, settings), backend=backend)
                resumed += receipt.complete is True and receipt.pages.fetched == pages
        print(
            f"{backend:8} {instants} instants of a run of {whole_s:.1f} s: over after "
            f"{1000 * statistics.median(lives_s):.1f} ms (median), {1000 * max(lives_s):.1f} ms (max); "
            f"{resumed} of {instants // 10} resumed to the end"
        )


# -- memory -----------------------------------------------------------------------------------------


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _idle(url: Url, folder: Path) -> None:
    if not Path("/proc/self/statm").exists():
        print("only where there is /proc")
        return
    command = [PYTHON, __file__, "--refreshes", url(300 if FULL else 100), str(fresh(folder / "idle"))]
    print(subprocess.run(command, capture_output=True, text=True, check=True).stdout, end="")


async def _refreshes(url: str, root: Path) -> None:
    print(f"before the first refresh: {_rss_mb():.0f} MB")
    for number in range(1, 6):
        receipt = await ingest(_settings(url, root, fresh=True))
        await anyio.sleep(11)  # anyio's idle threads end after ten seconds
        gc.collect()
        megabytes = receipt.raw.bytes / 1e6
        print(f"idle after refresh {number} of {megabytes:.0f} MB: {_rss_mb():.0f} MB, {len(asyncio.all_tasks())} task")


SECTIONS: Final = {"import": _import, "lag": _lag, "cancel": _cancel, "idle": _idle}


def main() -> None:
    if sys.argv[1:2] == ["--refreshes"]:
        asyncio.run(_refreshes(sys.argv[2], Path(sys.argv[3])))
        return
    wanted = [name for name in sys.argv[1:] if not name.startswith("--")]
    if unknown := set(wanted) - set(SECTIONS):
        sys.exit(f"There is no {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}.")
    print(machine())
    with tempfile.TemporaryDirectory(prefix="neows-guest-") as folder, pages_server() as url:
        for name, section in SECTIONS.items():
            if not wanted or name in wanted:
                print(f"\n-- {name}")
                section(url, Path(folder))


if __name__ == "__main__":
    main()

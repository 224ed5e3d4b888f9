"""What the example service answers while it refreshes: requests a second and latency, against the same service idle.

Three states in turn, so that what disturbs the machine disturbs all: idle; a refresh at NASA's pace (0.4 s a page,
which is some ten pages of 0.93 MB a second); and a refresh as fast as pages come from loopback. In each, requests of
a mix of routes over 4,000 objects with 424,000 approaches: first as many as four connections get answered, then
20 a second, whatever became of the earlier ones, where latency counts from when a request was due. The client is
a process's own thread beside the service, on the same processors.
``python benchmarks/service.py [ROUNDS [SECONDS]]``.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.measured.programs import KEY, machine, pages_server
from tests.service.site import Site, running

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUNDS: Final = 3
SECONDS: Final = 4.0
CONNECTIONS: Final = 4
RATE_PER_S: Final = 20
NASA_S: Final = 0.4
LOADED_PAGES: Final = 200
MANY_PAGES: Final = 5_000
NEVER_S: Final = "86400"
AT_ONCE_S: Final = "0.001"
STATES: Final = ("idle", "refresh at NASA's pace", "refresh at full speed")


@dataclass(frozen=True, slots=True)
class Answered:
    """One state in one round."""

    per_s: float
    busy_p99_s: float
    calm_p50_s: float
    calm_p99_s: float
    pages_per_s: float


def paths(ids: Sequence[str]) -> list[str]:
    """What is asked for, again and again."""
    return [
        "/neos",
        f"/neos/{ids[0]}",
        "/neos?hazardous=true&sort=-diameter&limit=20",
        "/aggregates",
        "/neos?min_h=18&max_h=22&sort=-velocity&offset=100",
        "/health",
        f"/neos/{ids[-1]}",
        "/neos?q=dun&sort=name",
    ]


class Connection:
    """One HTTP connection, as cheap as Python can: what it costs is taken from the service."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def get(self, path: str) -> None:
        """Ask, and read the answer to its end."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(f"{path}: {head[:80]!r}")
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await self._reader.readexactly(length)

    def close(self) -> None:
        """Leave."""
        self._writer.close()


async def load(port: int, asked: Sequence[str], seconds: float) -> tuple[float, float, list[float]]:
    """Answers a second and their p99 on busy connections, and the latencies at a calm rate; in seconds."""
    connections = [Connection(*await asyncio.open_connection("127.0.0.1", port)) for _ in range(CONNECTIONS)]
    for connection, path in itertools.product(connections, asked):
        await connection.get(path)
    busy: list[float] = []
    end_s = time.perf_counter() + seconds

    async def hammer(connection: Connection) -> None:
        for path in itertools.cycle(asked):
            began_s = time.perf_counter()
            if began_s >= end_s:
                return
            await connection.get(path)
            busy.append(time.perf_counter() - began_s)

    await asyncio.gather(*map(hammer, connections))
    calm: list[float] = []
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for connection in connections:
        free.put_nowait(connection)

    async def ask(path: str, due_s: float) -> None:
        connection = await free.get()
        await connection.get(path)
        free.put_nowait(connection)
        calm.append(time.perf_counter() - due_s)

    first_s = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number, path in zip(range(int(RATE_PER_S * seconds)), itertools.cycle(asked), strict=False):
            due_s = first_s + number / RATE_PER_S
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            tasks.create_task(ask(path, due_s))
    for connection in connections:
        connection.close()
    return len(busy) / seconds, percentile(busy, 99), calm


def percentile(values: Sequence[float], percent: int) -> float:
    """By rank."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, len(ranked) * percent // 100)]


def measure(site: Site, seconds: float) -> Answered:
    """A site that has its catalogue."""
    ids = [neo["id"] for neo in site.get("/neos", limit=50)["neos"]]
    port = int(site.url.rpartition(":")[2])
    before, began_s = fetched(site), time.perf_counter()
    per_s, busy_p99_s, calm = asyncio.run(load(port, paths(ids), seconds))
    pages_per_s = (fetched(site) - before) / (time.perf_counter() - began_s)
    return Answered(per_s, busy_p99_s, percentile(calm, 50), percentile(calm, 99), pages_per_s)


def fetched(site: Site) -> int:
    """Pages, by the refresh under way or the last one."""
    with urllib.request.urlopen(f"{site.url}/health") as answer:  # noqa: S310 - loopback
        found: int = json.load(answer)["refresh"]["pages_fetched"]
    return found


def main(rounds: int, seconds: float) -> None:
    found: dict[str, list[Answered]] = {state: [] for state in STATES}
    with tempfile.TemporaryDirectory() as folder, pages_server() as fast, pages_server(NASA_S) as slow:
        root = Path(folder)
        variables = {"NASA_API_KEY": KEY, "REFRESH_EVERY_S": NEVER_S}
        with running(root, BASE_URL=fast(LOADED_PAGES), **variables) as site:
            site.until("serving snapshot")
            site.stop()
        # A run that is not to be resumed by the next round has a catalogue of its own size.
        sizes = itertools.count(MANY_PAGES)
        for _ in range(rounds):
            for state, server, every_s in zip(STATES, (fast, slow, fast), (NEVER_S, AT_ONCE_S, AT_ONCE_S), strict=True):
                given = {**variables, "REFRESH_EVERY_S": every_s, "BASE_URL": server(next(sizes))}
                with running(root, **given) as site:
                    site.until("serving snapshot")
                    found[state].append(measure(site, seconds))
                    site.stop()
    print(machine())
    show(found)


def show(found: dict[str, list[Answered]]) -> None:
    """The medians of the rounds, and the medians of their ratios."""
    heads = ("requests/s", "p99 busy, ms", "p50 calm, ms", "p99 calm, ms", "pages/s fetched")
    fields = ("per_s", "busy_p99_s", "calm_p50_s", "calm_p99_s", "pages_per_s")
    print(f"{'':24}" + "".join(f"{head:>22}" for head in heads))
    for state, rounds in found.items():
        line = f"{state:24}"
        for field in fields:
            median = statistics.median(getattr(one, field) for one in rounds)
            ratio = statistics.median(
                getattr(one, field) / (getattr(idle, field) or 1.0)
                for one, idle in zip(rounds, found["idle"], strict=True)
            )
            shown = median * 1000 if field.endswith("_s") and "per_s" not in field else median
            line += f"{shown:>14.1f}" + (f"{ratio:>6.2f} x" if field != "pages_per_s" else " " * 8)
        print(line)
    print(f"{CONNECTIONS} connections busy; calm is {RATE_PER_S} requests/s. x is against idle in the same round.")


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS,
        float(sys.argv[2]) if len(sys.argv) > 2 else SECONDS,  # noqa: PLR2004 - the second argument
    )

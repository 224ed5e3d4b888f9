"""A run that waits for the quota for an hour, seen from outside its process."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests import loopback, program
from tests.loopback import Answer, Asked
from tests.neos import catalogue

MOST_BYTES = 150_000_000
RETRY_AFTER_S = 2870
_ESTABLISHED = "01"


def connections(pid: int) -> list[str]:
    """Return the established TCP connections of the process."""
    ours = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was just closed
            ours.add(str(fd.readlink()))
    tables = [Path(f"/proc/{pid}/net/{name}") for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    return [row[2] for row in rows if f"socket:[{row[9]}]" in ours and row[3] == _ESTABLISHED]


def rss_bytes(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="it reads /proc")
def test_run_holds_no_connection_and_little_memory_during_a_long_wait(tmp_path: Path) -> None:
    held: list[list[str]] = []
    objects = loopback.browse(catalogue(200))

    def answer(asked: Asked) -> Answer:
        held.append(connections(process.pid))
        good = objects(asked)
        # The server keeps the connection open, so only the client closes it.
        headers = {"X-RateLimit-Limit": "1000", "X-RateLimit-Remaining": "500", "Connection": "keep-alive"}
        if len(held) == 1:
            return Answer(good.body, headers=headers)
        # With Retry-After the wait is long at any minute of the hour.
        refused = {"X-RateLimit-Remaining": "0", "Retry-After": str(RETRY_AFTER_S)}
        return Answer(b"{}", status=429, headers=headers | refused)

    with loopback.serving(answer) as server:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "neows_async", "run", "--base-url", server.url, "--root", "lake"),
                *("--concurrency", "1", "--log-format", "json", "--no-shared-quota"),
            ],
            cwd=tmp_path,
            env=program.clean_environment(NASA_API_KEY=secrets.token_hex(20)),
            stderr=subprocess.PIPE,
            text=True,
        )
        watchdog = threading.Timer(program.LIMIT_S, process.kill)
        watchdog.start()
        try:
            assert process.stderr is not None
            lines = (json.loads(line) for line in process.stderr)
            waiting = next(line for line in lines if line["event"] == "waiting_for_quota")
            assert RETRY_AFTER_S - 10 < waiting["wait_s"] < RETRY_AFTER_S + 10
            # The event comes first; the connections are closed right after it.
            until_s = time.monotonic() + program.LIMIT_S / 2
            while (open_ones := connections(process.pid)) and time.monotonic() < until_s:
                threading.Event().wait(0.02)  # the system has no event for a closed connection
            held_bytes = rss_bytes(process.pid)
            process.send_signal(signal.SIGTERM)
            process.communicate()  # the watchdog kills one that waits for the quota
        finally:
            watchdog.cancel()
            process.kill()
            process.wait()
    assert held
    assert all(held), "during a request its connection is visible"
    assert not open_ones
    assert held_bytes < MOST_BYTES, f"{held_bytes / 1e6:.0f} MB"
    assert process.returncode == 143

"""SIGTERM and SIGINT while a storage call hangs: exit within two seconds, and the same command finishes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pytest

from tests import program
from tests.lake.storage import seaweedfs
from tests.torture.driver import KEY
from tests.torture.harness import serving, synthetic
from tests.torture.line import line_to

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMIT_S: Final = 60.0
GONE_S: Final = 2.0
ATTEMPTS: Final = 5
PAGES: Final = synthetic(4, 3)


@contextmanager
def started(root: str, url: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "neows_async", "run", "--all", "--page-size", "3", "--snapshot", "a", "--quiet"]
    with subprocess.Popen(
        [*command, "--root", root, "--base-url", url],
        env=program.clean_environment(NASA_API_KEY=KEY, **environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def stop(process: subprocess.Popen[str], number: signal.Signals) -> float:
    """Send the signal; seconds until the process exited, with one line."""
    began_s = time.perf_counter()
    process.send_signal(number)
    code = process.wait(LIMIT_S)
    took_s = time.perf_counter() - began_s
    assert code == 128 + number
    assert process.stderr is not None
    said = process.stderr.read().splitlines()
    assert said[-1:] == [f"neows-async: stopped by {number.name}; run the same command again to resume"]
    assert "Traceback" not in "".join(said)
    return took_s


def in_time(attempts: Iterator[float]) -> bool:
    """Whether one attempt exits in time. A busy machine delays some of them, a program that waits too long all."""
    return any(took_s < GONE_S for took_s in attempts)


def finish(root: str, url: str, **environment: str) -> None:
    with started(root, url, **environment) as process:
        assert process.wait(LIMIT_S) == 0, process.stderr and process.stderr.read()


@pytest.mark.parametrize(
    ("hang", "number"),
    [
        (("GET", "/_runs/latest.json"), signal.SIGTERM),
        (("PUT", "/page=00002.json.zst"), signal.SIGINT),
        (("PUT", "/_staging/a/commit.json"), signal.SIGTERM),
        (("COPY", "/neos/snapshot=a/part-00000.parquet"), signal.SIGINT),
        (("PUT", "/_runs/a.json"), signal.SIGTERM),
        (("DELETE", "/_staging/a/commit.json"), signal.SIGINT),
    ],
    ids=["reading latest", "storing a page", "writing the intent", "moving", "the commit", "cleaning up"],
)
def test_a_stopped_run_exits_in_time_although_the_object_store_hangs(
    s3: seaweedfs.SeaweedFS, tmp_path: Path, hang: tuple[str, str], number: signal.Signals
) -> None:
    prefix = f"signals/{tmp_path.name}"

    def stopped_s(prefix: str) -> float:
        with serving(PAGES) as server, line_to(s3.port) as line:
            line.arm(die_at=hang)
            over_line = seaweedfs.SeaweedFS(line.port).uri(prefix)
            with started(over_line, server.url, **s3.environment) as process:
                assert line.dead.wait(LIMIT_S), [f"{request.verb} {request.path}" for request in line.seen]
                took_s = stop(process, number)
            finish(s3.uri(prefix), server.url, **s3.environment)
            # Pages whose put hung may be stored or not; the others are never requested again.
            assert len(server.asked) <= len(PAGES.bodies) + 4 * (hang[1] == "/page=00002.json.zst")
        return took_s

    assert in_time(stopped_s(f"{prefix}/{attempt}") for attempt in range(ATTEMPTS))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_stopped_run_exits_in_time_although_the_disk_hangs(tmp_path: Path, number: signal.Signals) -> None:
    def stopped_s(lake: Path) -> float:
        fifo = lake / "raw/snapshot=a/gen=0/page=00003.json.zst"
        with serving(PAGES) as server:
            with started(str(lake), server.url, NEOWS_BUDGET="1") as process:
                assert process.wait(LIMIT_S) == 75
            os.mkfifo(fifo)  # a reader that opens it blocks until a writer does
            with started(str(lake), server.url) as process, hanging(fifo):
                took_s = stop(process, number)
            fifo.unlink()
            finish(str(lake), server.url)
        return took_s

    assert in_time(stopped_s(tmp_path / str(attempt)) for attempt in range(ATTEMPTS))


@contextmanager
def hanging(fifo: Path) -> Iterator[None]:
    """Wait until the run opens ``fifo``, and let it block until the block ends."""
    until_s = time.monotonic() + LIMIT_S
    while True:
        try:
            writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as exc:
            if exc.errno != errno.ENXIO or time.monotonic() > until_s:
                raise
            threading.Event().wait(0.01)
        else:
            break
    try:
        yield
    finally:
        os.close(writer)


def test_an_abandoned_call_does_not_keep_the_process_alive() -> None:
    code = (
        "import threading; from neows_async.__main__ import _leave\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        "print('done')\n"
        "_leave(74)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=False, timeout=LIMIT_S)
    assert (done.returncode, done.stdout) == (74, b"done\n")

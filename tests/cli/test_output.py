"""Output to readers that go away, full disks, ASCII terminals, and programs."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from neows_async.cli.output import clean
from tests import loopback, program
from tests.neos import approach, catalogue, neo

RUN = ("run", "--source", "sandbox", "--root", "lake", "--limit", "30")


def shell(cwd: Path, redirections: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = shlex.join([sys.executable, "-m", "neows_async", *arguments])
    return subprocess.run(
        ["/bin/sh", "-c", f"{command} {redirections}"],
        cwd=cwd,
        env=program.clean_environment(**variables),
        capture_output=True,
        text=True,
        timeout=program.LIMIT_S,
        check=False,
    )


def is_committed(cwd: Path) -> bool:
    return (cwd / "lake/_runs/latest.json").exists()


@pytest.mark.parametrize("arguments", [RUN, (*RUN, "--log-format", "json")])
def test_closed_stdout_pipe_is_not_an_error(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "neows_async", *arguments],
            cwd=tmp_path,
            env=program.clean_environment(),
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=program.LIMIT_S,
            check=False,
        )
    finally:
        os.close(writing)
    assert ended.returncode == 0, ended.stderr
    assert "neows-async:" not in ended.stderr
    assert is_committed(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_full_disk_behind_stdout_exits_with_storage_error(tmp_path: Path) -> None:
    ended = shell(tmp_path, "> /dev/full", *RUN)
    assert ended.returncode == 74
    line = ended.stderr.splitlines()[-1]
    assert line.startswith("neows-async: standard output cannot be written: No space left on device")
    assert is_committed(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("redirections", ["2> /dev/full", "2>&-", ">&-", "<&- >&- 2>&-"])
def test_run_commits_when_its_streams_are_full_or_closed(tmp_path: Path, redirections: str) -> None:
    ended = shell(tmp_path, redirections, *RUN)
    assert ended.returncode == 0, ended.stderr
    assert is_committed(tmp_path)


def test_summary_is_ascii_on_an_ascii_terminal(tmp_path: Path) -> None:
    ended = program.run(tmp_path, *RUN, LC_ALL="C", PYTHONIOENCODING="ascii")
    assert ended.code == 0, ended.err
    assert "30 near-Earth objects" in ended.out
    assert "####" in ended.out


REFUSED = {"X-RateLimit-Limit": "1000", "X-RateLimit-Remaining": "0", "Retry-After": "2870"}


@pytest.mark.parametrize(
    ("answer", "arguments", "shown_as"),
    [
        (loopback.Answer(b"{}", status=429, headers=REFUSED), (), r"waiting for quota, (\d+) min (\d+) s"),
        (loopback.Answer(b"{}", status=503), ("--retry-budget", "5s"), r"next probe in (\d+) min (\d+) s"),
    ],
    ids=["quota", "outage"],
)
def test_terminal_shows_remaining_wait_counting_down(
    tmp_path: Path, answer: loopback.Answer, arguments: tuple[str, ...], shown_as: str
) -> None:
    objects = loopback.browse(catalogue(200))
    terminal, theirs = pty.openpty()
    with loopback.serving(lambda asked: objects(asked) if asked.page == 0 else answer) as server:
        process = subprocess.Popen(
            [*(sys.executable, "-m", "neows_async", "run", "--base-url", server.url, "--root", "lake"), *arguments],
            cwd=tmp_path,
            env=program.clean_environment(NASA_API_KEY="k" * 20, TERM="xterm", COLUMNS="200"),
            stderr=theirs,
        )
        os.close(theirs)
        watchdog = threading.Timer(program.LIMIT_S, process.kill)
        watchdog.start()
        try:
            shown = ""
            while len(left := list(dict.fromkeys(re.findall(shown_as, shown)))) < 3:
                shown += os.read(terminal, 4096).decode(errors="replace")
        finally:
            watchdog.cancel()
            process.kill()
            process.wait()
            os.close(terminal)
    left_s = [60 * int(minutes) + int(seconds) for minutes, seconds in left]
    assert left_s == sorted(left_s, reverse=True)


def test_log_format_json_makes_every_line_json(tmp_path: Path) -> None:
    ended = program.run(tmp_path, "run", "--limit", "5", "--no-archive", "--log-format", "json")
    lines = [json.loads(line) for line in ended.err.splitlines()]
    assert [line["event"] for line in lines[:4]] == ["notice", "notice", "run_started", "snapshot_opened"]
    assert json.loads(ended.out)["records"]["written"] == 5
    ended = program.run(tmp_path, "run", "--limit", "0", "--log-format", "json")
    assert json.loads(ended.err) == {
        "event": "error",
        "exit_code": 2,
        "message": "--limit: 0 is too small; it must be at least 1",
    }


def test_quiet_overrides_log_format_json(tmp_path: Path) -> None:
    ended = program.run(tmp_path, *RUN, "--quiet", "--log-format", "json")
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_clean_replaces_control_characters() -> None:
    assert clean("a\x1b[31mb\x07c\u202ed\ud800é") == "a?[31mb?c?d?é"


def test_chart_skips_empty_decades_beside_an_absurd_date(tmp_path: Path) -> None:
    days = ("0001-01-01", "1990-01-01", "9999-12-31")
    with loopback.serving(loopback.browse([neo(1, [approach(close_approach_date=day) for day in days])])) as server:
        arguments = ("run", "--base-url", server.url, "--root", "lake")
        ended = program.run(tmp_path, *arguments, NASA_API_KEY="k" * 20)
    assert ended.code == 0, ended.err
    assert [line for line in ended.out.splitlines() if line.endswith(" 1")] == [
        line for line in ended.out.splitlines() if line.startswith(("0000s", "1990s", "9990s"))
    ]
    assert len(ended.out.splitlines()) < 50


def test_one_object_is_singular(tmp_path: Path) -> None:
    with loopback.serving(loopback.browse(catalogue(1))) as server:
        arguments = ("run", "--base-url", server.url, "--root", "lake")
        ended = program.run(tmp_path, *arguments, NASA_API_KEY="k" * 20)
    assert "the catalogue has 1 object; fetching 1 on 1 page\n" in ended.err
    assert "1 near-Earth object with 0 close approaches" in ended.out


def test_summary_claims_completeness_only_when_complete(tmp_path: Path) -> None:
    with loopback.serving(loopback.browse([*catalogue(30), neo(31, name=5)])) as server:
        arguments = ("run", "--base-url", server.url, "--root", "lake", "--limit", "50")
        ended = program.run(tmp_path, *arguments, NASA_API_KEY="k" * 20)
    assert "50 objects were requested; the catalogue has 31" in ended.out
    assert "this is all of it" not in ended.out

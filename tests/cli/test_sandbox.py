"""``sandbox``, and ``run`` against it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from tests import program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def sandbox(cwd: Path, *arguments: str) -> Iterator[str]:
    """Run `neows-async sandbox` on a free port; yields its URL."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "neows_async", "sandbox", "--port", "0", *arguments],
        cwd=cwd,
        env=program.clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found is not None
        yield found[0]
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")


def test_bare_run_uses_the_sandbox_and_marks_objects_synthetic(tmp_path: Path) -> None:
    ended = program.run(tmp_path, "run", "--limit", "200")
    assert ended.code == 0, ended.err
    assert "Its objects are SYNTHETIC" in ended.err
    assert "200 near-Earth objects" in ended.out
    assert "These objects are SYNTHETIC" in ended.out
    receipt = json.loads((tmp_path / "data/sandbox/_runs/latest.json").read_bytes())
    assert receipt["source"]["synthetic"] is True
    assert receipt["records"]["written"] == 200
    again = program.run(tmp_path, "run", "--source", "archive", "--from-snapshot", "latest", "--root", "data/sandbox")
    assert again.code == 0, again.err
    rebuilt = json.loads((tmp_path / "data/sandbox/_runs/latest.json").read_bytes())
    assert rebuilt["parent"] == receipt["snapshot"]
    digests = [{file["path"].split("/")[-1]: file["sha256"] for file in one["files"]} for one in (receipt, rebuilt)]
    assert digests[0] == digests[1]
    assert rebuilt["requests"]["sent"] == 10, "pages read from the archive count as its requests"


def test_run_all_fetches_the_whole_sandbox_catalogue(tmp_path: Path) -> None:
    with sandbox(tmp_path, "--neos", "45") as url:
        key = "0123456789" * 4
        ended = program.run(tmp_path, "run", "--all", "--base-url", url, "--root", "lake", NASA_API_KEY=key)
    assert ended.code == 0, ended.err
    assert "The whole catalogue, complete" in ended.out
    folder = program.run(tmp_path, "path", "neos", "--root", "lake").out.strip()
    names = pq.read_table(tmp_path / folder, partitioning=None)["name"].to_pylist()
    assert len(names) == 45
    assert all("SANDBOX" in name for name in names)


def test_sandbox_serves_recorded_pages(tmp_path: Path, recorded_pages: Path) -> None:
    with sandbox(tmp_path, "--pages", str(recorded_pages)) as url:
        key = "0123456789" * 4
        arguments = ("run", "--limit", "200", "--base-url", url, "--root", "lake", "--log-format", "json")
        ended = program.run(tmp_path, *arguments, NASA_API_KEY=key)
    assert ended.code == 0, ended.err
    receipt = json.loads(ended.out)
    assert (receipt["records"]["written"], receipt["close_approaches"]) == (200, 4_677)
    assert receipt["aggregates"]["close_approaches_within"]["count"] == 3_159
    years = receipt["aggregates"]["close_approaches_by_year"]["count_by_year"]
    assert (len(years), years["1900"]) == (301, 23)

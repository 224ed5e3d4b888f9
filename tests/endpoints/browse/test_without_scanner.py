"""A package without the compiled scanner, as after a build without a C compiler: same rows, and a note."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

import neows_async
from neows_async.testing import SandboxApp, SyntheticCatalogue, serving
from tests import program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.program import Ended

NOTE = "no compiled page scanner: decoding takes twice as long"


@pytest.fixture(scope="module")
def without_scanner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package, but without its binary."""
    folder = tmp_path_factory.mktemp("installed")
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(neows_async.__path__[0], folder / "neows_async", ignore=ignored)
    return folder


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(SandboxApp(SyntheticCatalogue(60))) as url:
        yield url


def run(folder: Path, url: str, *arguments: str, **variables: str) -> Ended:
    ended = program.run(folder, "run", "--base-url", url, "--root", "lake", *arguments, NASA_API_KEY="k", **variables)
    assert ended.code == 0, ended.err
    return ended


def test_run_without_the_scanner_writes_the_same_rows_and_shows_a_note(
    tmp_path: Path, without_scanner: Path, url: str
) -> None:
    folders = tmp_path / "with", tmp_path / "without"
    for folder in folders:
        folder.mkdir()
    run(folders[0], url)
    ended = run(folders[1], url, PYTHONPATH=str(without_scanner))
    assert ended.err.startswith(NOTE)
    timing = ended.out[ended.out.index("Time ") :]
    assert timing.count(NOTE) == 1
    for dataset in ("neos", "close_approaches"):
        tables = [pq.read_table(next((folder / "lake" / dataset).rglob("*.parquet"))) for folder in folders]
        assert tables[0].num_rows > 0
        assert tables[0].equals(tables[1])


def test_json_log_of_a_run_without_the_scanner_shows_it_in_the_first_line(
    tmp_path: Path, without_scanner: Path, url: str
) -> None:
    ended = run(tmp_path, url, "--log-format", "json", PYTHONPATH=str(without_scanner))
    first = json.loads(ended.err.splitlines()[0])
    assert (first["event"], first["compiled_scanner"]) == ("run_started", False)

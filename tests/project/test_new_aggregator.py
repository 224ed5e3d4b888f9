"""A new aggregator is one file and one line: the run, the summary, `verify` and the help find it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import neows_async
from tests import lakes, program

FILE = '''
"""The mean absolute magnitude."""

from fractions import Fraction


class MeanMagnitude:
    name = "mean_magnitude"

    def __init__(self):
        self._sum, self._count = Fraction(0), 0

    def update(self, batches):
        known = batches["neos"]["absolute_magnitude_h"].drop_null().to_pylist()
        self._sum += sum(map(Fraction, known))
        self._count += len(known)

    def merge(self, other):
        self._sum += other._sum
        self._count += other._count

    def result(self):
        return {"mean_h": float(self._sum / self._count) if self._count else None, "neos": self._count}
'''
BEFORE = "AGGREGATORS: Final = (\n"
LINE = '    RegisteredPart("mean_magnitude", "mean_magnitude:MeanMagnitude", "the mean absolute magnitude"),\n'


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A copy of the package with one more aggregator."""
    folder = tmp_path_factory.mktemp("copy")
    package = folder / "neows_async"
    shutil.copytree(Path(neows_async.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "outputs/mean_magnitude.py").write_text(FILE)
    registry = package / "outputs/registry.py"
    text = registry.read_text()
    assert text.count(BEFORE) == 1
    registry.write_text(text.replace(BEFORE, BEFORE + LINE))
    return str(folder)


def run(copy: str, cwd: Path, *arguments: str) -> program.Ended:
    ended = program.run(cwd, *arguments, PYTHONPATH=copy)
    assert ended.code in {0, 65}, ended.err
    return ended


def test_the_help_lists_a_new_aggregator(copy: str, tmp_path: Path) -> None:
    shown = " ".join(run(copy, tmp_path, "run", "--help").out.split())
    assert "mean_magnitude (the mean absolute magnitude)" in shown
    assert "default: mean_magnitude, " in shown


def test_a_run_computes_a_new_aggregator_and_verify_computes_it_again(copy: str, tmp_path: Path) -> None:
    command = ("run", "--source", "sandbox", "--root", "lake", "--snapshot", "a", "--limit", "40")
    ended = run(copy, tmp_path, *command, "--partition-by", "close_approaches:orbiting_body")
    root = tmp_path / "lake"
    figures = json.loads((root / "aggregates/snapshot=a/mean_magnitude.json").read_bytes())
    assert figures["neos"] == 40
    assert f"mean_magnitude  mean_h {figures['mean_h']:g}, neos 40" in ended.out
    assert "mean_magnitude" in json.loads((root / "_runs/a.json").read_bytes())["derivation"]["aggregators"]

    good = run(copy, tmp_path, "verify", "--root", "lake")
    assert good.code == 0
    assert "Not verified" not in good.out
    lakes.rewrite_receipt(root, "a", lambda receipt: receipt["aggregates"]["mean_magnitude"].update(neos=41))
    bad = run(copy, tmp_path, "verify", "--root", "lake")
    assert bad.code == 65
    assert "_runs/a.json: mean_magnitude.neos: expected 41, found 40" in bad.err


def test_the_lake_knows_the_files_of_a_new_aggregator(copy: str, tmp_path: Path) -> None:
    # A run died, and only this file is left of it: by its name it is ours, so prune may remove it.
    for name in ("mean_magnitude.json", "mine.json"):
        file = tmp_path / f"lake/aggregates/snapshot={name.partition('.')[0]}/{name}"
        file.parent.mkdir(parents=True)
        file.write_text("{}")
    listed = run(copy, tmp_path, "snapshots", "--root", "lake").out
    assert "leftover" in listed
    assert ("mean_magnitude" in listed, "mine" in listed) == (True, False)


def test_a_new_aggregator_can_be_named(copy: str, tmp_path: Path) -> None:
    command = (
        "run",
        "--source",
        "sandbox",
        "--root",
        "lake",
        "--snapshot",
        "a",
        "--limit",
        "20",
        "--log-format",
        "json",
    )
    ended = run(copy, tmp_path, *command, "--aggregator", "mean_magnitude", "--aggregate-writer", "csv")
    assert list(json.loads(ended.out)["aggregates"]) == ["mean_magnitude"]
    assert (tmp_path / "lake/aggregates/snapshot=a/mean_magnitude.csv").exists()

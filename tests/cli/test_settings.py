"""Settings of every type, from arguments, environment, ``.env`` and file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests import program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.program import Ended


def run(cwd: Path, *arguments: str, **variables: str) -> Ended:
    fixed = ("run", "--source", "sandbox", "--sandbox-neos", "230", "--root", "lake", "--snapshot", "a", "--quiet")
    return program.run(cwd, *fixed, *arguments, **variables)


def receipt(cwd: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((cwd / "lake/_runs/a.json").read_bytes())
    return read


@pytest.mark.parametrize("place", ["environment", ".env", "file"])
def test_all_can_be_set_in_environment_dotenv_and_file(tmp_path: Path, place: str) -> None:
    (tmp_path / ".env").write_text("NEOWS_ALL=1\n" if place == ".env" else "")
    (tmp_path / "neows.toml").write_text("all = true\n" if place == "file" else "")
    ended = run(tmp_path, "--config", "neows.toml", **({"NEOWS_ALL": "1"} if place == "environment" else {}))
    assert ended.code == 0, ended.err
    assert receipt(tmp_path)["identity"]["limit"] is None
    assert receipt(tmp_path)["records"]["written"] == 230


def test_file_sets_lists_switches_and_durations(tmp_path: Path) -> None:
    (tmp_path / "neows.toml").write_text(
        'partition_by = ["close_approaches:orbiting_body", "neos:is_potentially_hazardous_asteroid"]\n'
        'retry_budget = "2m"\nresume_within = 60\nno_archive = true\nmax_rate = 1000\n'
        'aggregator = "close_approaches_within"\n'
    )
    ended = run(tmp_path, "--config", "neows.toml", "--limit", "20")
    assert ended.code == 0, ended.err
    read = receipt(tmp_path)
    assert len(read["derivation"]["partition_by"]) == 2
    assert read["derivation"]["aggregators"] == ["close_approaches_within"]
    assert read["operation"]["retry_budget_s"] == 120
    assert read["operation"]["archive"] is False


def test_dotenv_accepts_empty_quoted_and_exported_values(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "NEOWS_LIMIT=\n"  # as in the environment, an empty value is none
        "NEOWS_NO_ARCHIVE=false\n"
        'export NEOWS_RETRY_BUDGET="1 m"\n'
        "NEOWS_PARTITION_BY='close_approaches:orbiting_body  neos:is_potentially_hazardous_asteroid'\n"
        "SOMEBODY_ELSES=${HOME}\n"
    )
    ended = run(tmp_path)
    assert ended.code == 0, ended.err
    read = receipt(tmp_path)
    assert read["identity"]["limit"] == 200
    assert read["operation"]["archive"] is True
    assert read["operation"]["retry_budget_s"] == 60
    assert len(read["derivation"]["partition_by"]) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limit = 5.5", "limit = 5.5 is invalid; it must be a whole number"),
        ("limit = true", "limit = True is invalid; it must be a whole number"),
        ("limit = [1]", "limit = [1] is invalid; it must be a whole number"),
        ("max_rate = true", "max_rate = True is invalid; it must be a number"),
        ("all = 1", "all = 1 is invalid; it must be true or false"),
        ("snapshot = 20261122", "snapshot = 20261122 is invalid; it must be a string in quotes"),
        ("sink = [1]", "sink = [1] is invalid; it must be a list of strings"),
        ("retry_budget = -5", "--retry-budget: -5.0 is too small"),
        ("resume_within = inf", "--resume-within"),
        ("retry_budget = 0", "--retry-budget: 0.0 is too small; it must be more than 0"),
        ("probe_every = inf", "--probe-every: inf is invalid"),
        ('max_outage = "99999999999999999999d"', "--max-outage: 8.64e+24 is too large"),
        ("max_rate = 1e-300", "--max-rate: 1e-300 is too small; it must be at least 1e-05"),
        ("all_ = true", "there is no setting 'all_'; did you mean 'all'?"),
    ],
)
def test_file_value_of_wrong_type_is_rejected_not_converted(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "neows.toml").write_text(text)
    ended = program.run(tmp_path, "run", "--source", "sandbox", "--config", "neows.toml")
    assert ended.code == 2
    assert message in ended.last_line
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("run", "--base-url", "http://127.0.0.1:99999"), 2, "a port is 1 to 65535"),
        (("run", "--base-url", "https://example.org/%00"), 2, "is not a URL"),
        (("run", "--source", "archive", "--root", "lake", "--from-snapshot", "../x"), 2, "is not a snapshot id"),
        (("path", "--snapshot", "a/b"), 2, "has no committed snapshot a/b"),
        (("run", "--source", "sandbox", "--root", "x" * 300), 74, "the name is too long for this file system"),
    ],
)
def test_invalid_url_id_and_root_are_rejected(
    tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    ended = program.run(tmp_path, *arguments, NASA_API_KEY="k")
    assert ended.code == code, ended.err
    assert message in ended.last_line
    assert ended.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_incomplete_part_is_rejected_before_the_first_request(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "class Half:\n    name = 'half'\n    async def open(self, stage): pass\n"
        "class Nameless:\n    name = 'not usable'\n    update = merge = result = None\n"
    )
    ended = program.run(tmp_path, "run", "--source", "sandbox", "--root", "lake", "--sink", "own:Half")
    assert ended.code == 2
    assert "--sink own:Half has no write, finish, commit; a sink has name, open" in ended.last_line
    ended = program.run(tmp_path, "run", "--source", "sandbox", "--root", "lake", "--aggregator", "own:Nameless")
    assert ended.code == 2
    assert "'not usable' is not a valid name" in ended.last_line
    assert not (tmp_path / "lake").exists()

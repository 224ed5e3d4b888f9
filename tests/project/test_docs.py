"""What the program can do is written down, and what is written down is so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import duckdb
import pytest

from neows_async.cli import output
from neows_async.cli.app import neows_async
from neows_async.cli.config import SETTING_OF
from neows_async.endpoints.browse import schema
from neows_async.sandbox.scenario import parse_scenario
from neows_async.settings import Settings
from tests import program

PROJECT = Path(__file__).parents[2]
README = (PROJECT / "README.md").read_text()
LAKE = (PROJECT / "data/README.md").read_text()


def commands() -> list[tuple[str, click.Command]]:
    """All of them, also those beneath others: ``quarantine list``."""
    found: list[tuple[str, click.Command]] = []
    for name, command in neows_async.commands.items():
        found.append((name, command))
        if isinstance(command, click.Group):
            found += [(f"{name} {beneath}", one) for beneath, one in command.commands.items()]
    return sorted(found)


@pytest.mark.parametrize(("name", "command"), commands())
def test_every_command_is_in_the_readme_and_explains_itself(name: str, command: click.Command) -> None:
    assert re.search(rf"(`|\$ )neows-async {name}\b", README)
    assert command.help
    assert "Examples:" in (command.epilog or "")


def test_the_readme_names_no_command_that_is_not_there() -> None:
    named = set(re.findall(r"neows-async ([a-z]+)", README))
    assert named <= {name for name, _ in commands()}


def options() -> list[tuple[str, click.Option]]:
    return [
        (name, parameter)
        for name, command in commands()
        for parameter in command.params
        if isinstance(parameter, click.Option)
    ]


@pytest.mark.parametrize(("command", "option"), options())
def test_every_option_has_a_help_and_a_variable(command: str, option: click.Option) -> None:
    assert option.help
    assert option.help.endswith((".", "]")), command
    flag = max(option.opts, key=len)
    assert option.envvar == f"NEOWS_{flag.removeprefix('--').replace('-', '_').upper()}"
    assert option.show_envvar


@pytest.mark.parametrize("option", [option for command, option in options() if command == "run"])
def test_the_defaults_that_help_tells_are_those_of_the_settings(option: click.Option) -> None:
    setting = Settings.model_fields.get(SETTING_OF.get(str(option.name), str(option.name)))
    if setting is None:
        return
    told: Any = option.default
    if isinstance(told, str) and isinstance(setting.default, float):
        told = option.type.convert(told, option, None)
    if option.show_default:
        assert told == setting.default
    elif option.is_flag:
        assert setting.default is False
    else:
        assert "[default:" in (option.help or "") or option.multiple


def test_help_is_worth_reading(tmp_path: Path) -> None:
    ended = program.run(tmp_path, "run", "--help")
    assert ended.code == 0
    assert "NASA_API_KEY=DEMO_KEY neows-async run" in ended.out
    assert "NEOWS_LIMIT" in ended.out
    for code, meaning in output.MEANINGS.items():
        assert f"{code:>3}  {meaning}" in ended.out
        if code:
            assert f"{code} " in README


@pytest.mark.parametrize(("dataset", "columns"), sorted(schema.DATASETS.items()))
def test_every_column_is_described(dataset: str, columns: Any) -> None:
    section = LAKE.split(f"### `{dataset}`")[1].split("###")[0]
    assert re.findall(r"^\| `(\w+)`", section, flags=re.MULTILINE) == columns.names


def test_the_files_of_a_run_are_those_of_the_layout(tmp_path: Path) -> None:
    assert program.run(tmp_path, "run", "--limit", "3").code == 0
    root = tmp_path / "data/sandbox"
    receipt = json.loads((root / "_runs/latest.json").read_bytes())
    layout = re.search(r"```\n(<root>/.*?)```", LAKE, flags=re.DOTALL)
    assert layout is not None
    promised = [line.split()[0] for line in layout[1].splitlines()[1:]]
    patterns = [re.escape(path).replace("<id>", "[^/]+").replace("<name>", r"\w+") for path in promised]
    for file in (file for file in root.rglob("*") if file.is_file()):
        path = str(file.relative_to(root))
        assert any(re.fullmatch(re.sub(r"0{5}", r"\\d{5}", pattern), path) for pattern in patterns), path
    assert {file["path"] for file in receipt["files"]} <= {str(file.relative_to(root)) for file in root.rglob("*")}


def test_the_readmes_own_part_works(tmp_path: Path) -> None:
    part = re.search(r"```python\n# eccentricity\.py\n(.*?)```", README, flags=re.DOTALL)
    assert part is not None
    (tmp_path / "eccentricity.py").write_text(part[1])
    ended = program.run(tmp_path, "run", "--limit", "20", "--aggregator", "eccentricity:Eccentricity")
    assert ended.code == 0, ended.err
    [file] = (tmp_path / "data/sandbox/aggregates").rglob("*.json")
    figures = json.loads(file.read_bytes())
    assert figures["neos"] == 20
    assert 0 < figures["mean"] < 1


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose ``data/`` is a lake of 40 synthetic objects, its snapshot's id one that looks like a date."""
    folder = tmp_path_factory.mktemp("readers")
    ended = program.run(
        folder, "run", "--source", "sandbox", "--limit", "40", "--root", "data", "--snapshot", "2026-11-22"
    )
    assert ended.code == 0, ended.err
    return folder


def test_the_readmes_query_for_duckdb_reads_the_lake(lake: Path) -> None:
    block = re.search(r"```sh\n(duckdb -c .*?)```", README, flags=re.DOTALL)
    assert block is not None
    query = program.query_for_duckdb(lake, block[1])
    with duckdb.connect() as connection:
        connection.execute(f"SET file_search_path = '{lake}'")
        rows = connection.execute(query).fetchall()
    assert len(rows) == 5
    assert [row[2] for row in rows] == sorted(row[2] for row in rows)


def test_the_readmes_lines_for_polars_and_pandas_read_the_lake(lake: Path) -> None:
    block = re.search(r"```python\n(import subprocess, polars, pandas\n.*?)```", README, flags=re.DOTALL)
    assert block is not None
    lines = [f"print({line}.shape)" if ".read_parquet(" in line else line for line in block[1].splitlines()]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=lake,
        env=program.installed(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split("\n")[:-1] == [str((40, len(schema.NEOS.names)))] * 2, done.stderr


def test_the_readmes_own_scenario_can_be_played() -> None:
    scenario = re.search(r"```toml\n(seed = 7.*?)```", README, flags=re.DOTALL)
    assert scenario is not None
    assert parse_scenario(scenario[1]).latency is not None

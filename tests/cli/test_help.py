"""``--help``: made from the settings' fields, and fast, since a command's module is imported only for that command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
import pytest

from neows_async.cli.app import neows_async
from neows_async.cli.options import Duration, setting
from neows_async.cli.run import run
from neows_async.settings import Kind, Settings
from tests import program

if TYPE_CHECKING:
    from pathlib import Path

OPTIONS = [name for name in Settings.model_fields if Settings.option(name)]
SLOW = {"anyio", "httpx", "numpy", "pyarrow", "pydantic", "rich"}


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (("--version",), SLOW),
        (("--help",), SLOW),
        (("run", "--help"), {"httpx", "pyarrow", "rich"}),
        (("plan", "--help"), {"httpx", "pyarrow", "rich"}),
        (("path", "--help"), {"httpx", "pyarrow", "rich"}),
    ],
)
def test_help_imports_no_slow_library(tmp_path: Path, arguments: tuple[str, ...], unwanted: set[str]) -> None:
    imported = program.imported_by(tmp_path, *arguments)
    assert "click" in imported
    assert not unwanted & imported


@pytest.mark.parametrize("name", neows_async.list_commands(click.Context(neows_async)))
def test_summary_of_a_command_is_the_first_line_of_its_help(name: str) -> None:
    ctx = click.Context(neows_async)
    command = neows_async.get_command(ctx, name)
    assert command is not None
    assert command.name == name
    formatter = click.HelpFormatter(width=500)
    neows_async.format_commands(ctx, formatter)
    [line] = [line for line in formatter.getvalue().splitlines() if line.split()[:1] == [name]]
    assert line.split(maxsplit=1)[1] == (command.help or "").splitlines()[0]


def test_unknown_command_is_wrong_usage(tmp_path: Path) -> None:
    ended = program.run(tmp_path, "fetch")
    assert ended.code == 2
    assert "No such command 'fetch'" in ended.last_line


@pytest.mark.parametrize("name", OPTIONS)
def test_each_setting_with_an_option_is_an_option_of_run(name: str) -> None:
    described, field = Settings.option(name), Settings.model_fields[name]
    assert described is not None
    [option] = [one for one in run.params if described.flag in one.opts]
    assert isinstance(option, click.Option)
    text = str(field.description).lower()
    assert text in (option.help or "").lower()
    if option.show_default:
        shown: Any = option.default
        assert (Duration().convert(shown, option, None) if described.unit == "s" else shown) == field.default


@pytest.mark.parametrize("name", Settings.model_fields)
def test_each_setting_has_one_kind_and_a_description(name: str) -> None:
    field = Settings.model_fields[name]
    assert len([entry for entry in field.metadata if isinstance(entry, Kind)]) == 1
    assert (field.description or "").endswith(".")


def test_setting_without_an_option_is_refused() -> None:
    with pytest.raises(LookupError, match="api_key"):
        setting("api_key")


def test_help_lists_each_option_once_in_a_section(tmp_path: Path) -> None:
    shown = program.run(tmp_path, "run", "--help").out
    for title in ("What to fetch", "Where to store", "Quota and waiting", "Outputs", "Technical"):
        assert f"\n{title}:\n" in shown
    for option in run.params:
        assert sum(line.split()[:1] == [max(option.opts, key=len)] for line in shown.splitlines()) == 1


def test_flags_set_their_settings(tmp_path: Path) -> None:
    arguments = (
        "--limit 40 --page-size 20 --root lake --snapshot a --source sandbox --no-archive --quiet "
        "--max-rate 50 --retry-budget 2m --max-missing-pages 3 --workers 0 --concurrency 2 --max-wait 1h --budget 50 "
        "--within-au 0.1 --orbiting-body earth --max-rejects 7 --partition-by close_approaches:orbiting_body"
    )
    ended = program.run(tmp_path, "run", *arguments.split())
    assert ended.code == 0, ended.err
    receipt = json.loads((tmp_path / "lake/_runs/a.json").read_bytes())
    assert (receipt["identity"]["limit"], receipt["identity"]["page_size"]) == (40, 20)
    for name, value in {"within_au": 0.1, "orbiting_body": "Earth", "max_rejects": 7}.items():
        assert receipt["derivation"][name] == value
    assert receipt["derivation"]["partition_by"] == ["close_approaches:orbiting_body"]
    expected = {
        "concurrency": 2, "max_rate_per_s": 50, "max_missing_pages": 3, "archive": False, "queue_neos": 200,
        "workers": 0, "retry_budget_s": 120,
    }  # fmt: skip
    assert receipt["operation"] == expected

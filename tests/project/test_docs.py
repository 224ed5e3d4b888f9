"""The documentation covers the whole program, and its examples, output and links are real."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import anyio
import click
import duckdb
import pytest

from neows_async import CLOSE_APPROACHES, NEOS, Settings, events
from neows_async import testing as public_fakes
from neows_async.cli.app import neows_async
from neows_async.testing import AggregatorConformance, GatewayRules, SandboxApp, Scenario, SyntheticCatalogue, serving
from tests import program

PROJECT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
PAGES = sorted(
    file
    for pattern in ("*.md", "docs/**/*.md", "data/README.md", "benchmarks/README.md", "examples/*/README.md")
    for file in PROJECT.glob(pattern)
)


def page(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def code(name: str, language: str, begins: str) -> str:
    """The one block of a page that begins with these characters."""
    [block] = re.findall(rf"```{language}\n({re.escape(begins)}.*?)```", page(name), flags=re.DOTALL)
    return str(block)


# Commands and options


def commands() -> list[tuple[str, click.Command]]:
    """All commands, with those of groups: ``quarantine list``."""
    found: list[tuple[str, click.Command]] = []
    ctx = click.Context(neows_async)
    for name in neows_async.list_commands(ctx):
        command = neows_async.get_command(ctx, name)
        assert command is not None
        found.append((name, command))
        if isinstance(command, click.Group):
            found += [(f"{name} {inner}", one) for inner, one in command.commands.items()]
    return sorted(found)


@pytest.mark.parametrize(("name", "command"), commands())
def test_every_command_is_documented_and_has_examples(name: str, command: click.Command) -> None:
    assert re.search(rf"(`|\$ )neows-async {name}\b", page("docs/README.md"))
    assert command.help
    assert "Examples:" in (command.epilog or "")


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(PROJECT)))
def test_documentation_names_only_commands_that_exist(file: Path) -> None:
    named = set(re.findall(r"(?:`|\$ |/)neows-async ([a-z]+)", file.read_text(encoding="utf-8")))
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
def test_help_shows_the_defaults_of_the_settings(option: click.Option) -> None:
    names = (f"{option.name}{unit}" for unit in ("", "_s", "_per_s", "_requests"))
    setting = next((Settings.model_fields[name] for name in names if name in Settings.model_fields), None)
    if setting is None:
        return
    shown: Any = option.default
    if isinstance(shown, str) and isinstance(setting.default, float):
        shown = option.type.convert(shown, option, None)
    if option.show_default:
        assert shown == setting.default
    elif option.is_flag:
        assert setting.default is False
    else:
        assert "[default:" in (option.help or "") or option.multiple


OPTIONS = {flag for _, option in options() for flag in (*option.opts, *option.secondary_opts)}


@pytest.mark.parametrize(
    "name", ["README.md", "data/README.md", *(f"docs/{p.name}" for p in PROJECT.glob("docs/*.md"))]
)
def test_documentation_names_only_options_that_exist(name: str) -> None:
    text = re.sub(r"<!--.*?-->", "", page(name), flags=re.DOTALL)
    assert set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", text)) <= OPTIONS | {"--help", "--version"}


def test_help_of_run_and_the_page_of_exit_codes_list_the_same_codes(tmp_path: Path) -> None:
    ended = program.run(tmp_path, "run", "--help")
    assert ended.code == 0
    assert "NASA_API_KEY=DEMO_KEY neows-async run" in ended.out
    assert "NEOWS_LIMIT" in ended.out
    in_help = re.findall(r"^ +(\d+)  \S", ended.out.partition("Exit codes:")[2], flags=re.MULTILINE)
    assert len(in_help) > 10
    assert re.findall(r"^\| (\d+) \|", page("docs/exit-codes.md"), flags=re.MULTILINE) == in_help


# Links


def anchors(file: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(PROJECT)))
def test_links_between_files_lead_somewhere(file: Path) -> None:
    text = re.sub(r"```.*?```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for link in (link for link in links if not link.startswith("http")):
        path, _, anchor = link.partition("#")
        target = file.parent / path if path else file
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_index() -> None:
    index = page("docs/README.md")
    assert [file.name for file in PROJECT.glob("docs/*.md") if f"({file.name})" not in index] == ["README.md"]
    decisions = page("docs/decisions/README.md")
    assert [file.name for file in PROJECT.glob("docs/decisions/*.md") if f"({file.name})" not in decisions] == [
        "README.md"
    ]


# The lake


@pytest.mark.parametrize(("dataset", "schema"), [("neos", NEOS), ("close_approaches", CLOSE_APPROACHES)])
def test_every_column_is_described(dataset: str, schema: Any) -> None:
    section = page("data/README.md").split(f"### `{dataset}`")[1].split("###")[0]
    assert re.findall(r"^\| `(\w+)`", section, flags=re.MULTILINE) == schema.names


def test_a_run_writes_only_files_of_the_documented_layout(tmp_path: Path) -> None:
    assert program.run(tmp_path, "run", "--limit", "3").code == 0
    root = tmp_path / "data/sandbox"
    receipt = json.loads((root / "_runs/latest.json").read_bytes())
    layout = re.search(r"```\n(<root>/.*?)```", page("data/README.md"), flags=re.DOTALL)
    assert layout is not None
    documented = [line.split()[0] for line in layout[1].splitlines()[1:]]
    patterns = [re.escape(path).replace("<id>", "[^/]+").replace("<name>", r"\w+") for path in documented]
    for file in (file for file in root.rglob("*") if file.is_file()):
        path = str(file.relative_to(root))
        assert any(re.fullmatch(re.sub(r"0{5}", r"\\d{5}", pattern), path) for pattern in patterns), path
    assert {file["path"] for file in receipt["files"]} <= {str(file.relative_to(root)) for file in root.rglob("*")}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose ``data/`` is a lake of 40 synthetic objects. The id of its snapshot looks like a date."""
    folder = tmp_path_factory.mktemp("readers")
    ended = program.run(
        folder, "run", "--source", "sandbox", "--limit", "40", "--root", "data", "--snapshot", "2026-11-22"
    )
    assert ended.code == 0, ended.err
    return folder


def test_the_query_for_duckdb_reads_the_lake(lake: Path) -> None:
    query = program.query_for_duckdb(lake, code("docs/lake.md", "sh", "duckdb -c "))
    with duckdb.connect() as connection:
        connection.execute(f"SET file_search_path = '{lake}'")
        rows = connection.execute(query).fetchall()
    assert len(rows) == 5
    assert [row[2] for row in rows] == sorted(row[2] for row in rows)


def test_the_lines_for_polars_and_pandas_read_the_lake(lake: Path) -> None:
    block = code("docs/lake.md", "python", "import subprocess, polars, pandas\n")
    lines = [f"print({line}.shape)" if ".read_parquet(" in line else line for line in block.splitlines()]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=lake,
        env=program.installed(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split("\n")[:-1] == [str((40, len(NEOS.names)))] * 2, done.stderr


def test_the_lines_for_receipts_read_the_lake(lake: Path) -> None:
    block = code("docs/lake.md", "python", "from neows_async import open_lake\n")
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=lake, env=program.installed(), capture_output=True, text=True, check=False
    )
    assert done.stdout == "2026-11-22 40 data/neos/snapshot=2026-11-22\n", done.stderr


# The house


def imports() -> dict[str, set[str]]:
    """For each file and folder of the package: those that it imports, late imports and imports for types included."""
    found: dict[str, set[str]] = {}
    for path in (PROJECT / "src/neows_async").rglob("*.py"):
        name = path.relative_to(PROJECT / "src/neows_async").parts[0].removesuffix(".py")
        text = path.read_text(encoding="utf-8")
        imported = re.findall(r"^ *(?:from|import) neows_async\.(\w+)", text, flags=re.MULTILINE)
        imported += re.findall(r"^ *from neows_async import (errors)$", text, flags=re.MULTILINE)
        found.setdefault(name, set()).update(imported)
    return {name: imported - {name} for name, imported in found.items()}


def house() -> list[tuple[int, set[str], str]]:
    """The rows of the house's table: floor, names, the text about imports."""
    rows = re.findall(r"^\| (\d) \| (.+?) \| .* \|(.*) \|$", page("CONTRIBUTING.md"), flags=re.MULTILINE)
    return [(int(floor), {n.removesuffix(".py") for n in re.findall(r"`(\w+(?:\.py)?)`", names)}, below)
            for floor, names, below in rows]  # fmt: skip


def test_the_house_has_the_layers_of_the_import_contract() -> None:
    contracts = tomllib.loads(page("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["id"] == "layers"]
    floors: dict[int, set[str]] = {}
    for floor, names, _ in house():
        floors.setdefault(floor, set()).update(names)
    assert [floors[floor] for floor in sorted(floors, reverse=True)] == [set(layer.split(" | ")) for layer in layers]


def test_the_house_names_what_each_package_imports() -> None:
    ground = next(names for floor, names, _ in house() if floor == 1)
    for _, names, below in house():
        listed = set(re.findall(r"`(\w+)(?:\.py)?`", below))
        for name in names - ground:
            used = imports()[name] - ground
            if below.strip().startswith("everything"):
                assert used & listed == set()
            else:
                assert used == listed, name


# Output and examples


def masked(line: str) -> str:
    """Without what differs from run to run: ids of snapshots, times and speeds."""
    line = re.sub(r"\d{8}T\d{6}Z", "<id>", line)
    return re.sub(r"\d+\.\d (s|pages/s)\b", r"<n> \1", line).strip()


def test_the_readme_shows_the_output_of_the_program(tmp_path: Path) -> None:
    block = code("README.md", "console", "$ make run\n")
    ran = program.run(tmp_path, "run", "--limit", "200")
    verified = program.run(tmp_path, "verify", "--root", "data/sandbox")
    printed = {masked(line) for line in (ran.err + ran.out + verified.out).splitlines()}
    shown = {masked(line) for line in block.splitlines() if not line.startswith(("$", "…"))}
    assert len(shown) == 4
    assert shown <= printed


def test_the_picture_shows_the_output_of_the_program(tmp_path: Path) -> None:
    svg = page("docs/pictures/run.svg").replace("&#160;", " ")
    ran = program.run(tmp_path, "run", "--limit", "200")
    [head] = [line for line in ran.out.splitlines() if "near-Earth objects with" in line]
    assert head.partition(", snapshot")[0] in re.sub(r"<[^>]*>", "", svg)


@pytest.fixture(scope="module")
def url() -> Any:
    with serving(SandboxApp(SyntheticCatalogue(60, 1), scenario=Scenario(gateway=GatewayRules()))) as found:
        yield found


def run_at(url: str, root: Path, example: str) -> dict[str, Any]:
    """Run an example against the sandbox; only address, key and folder are replaced."""
    settings = 'Settings(api_key=SecretStr("DEMO_KEY")'
    assert example.count(settings) == 1
    example = example.replace(settings, f'Settings(api_key=SecretStr("any"), base_url="{url}", root="{root}"')
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(compile(example, "documentation", "exec"), namespace)  # noqa: S102 - it is from our own pages
    return namespace


def test_the_program_of_the_readme_prints_every_object(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_at(url, tmp_path, code("README.md", "python", "import anyio\n"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 60
    assert all("SANDBOX" in line for line in lines)


def test_the_program_on_the_page_of_planning_prints_a_plan(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_at(url, tmp_path, code("docs/planning.md", "python", "import datetime as dt\n"))
    assert re.fullmatch(r"3 requests; best started at \d\d:\d\d, \d+ s\n", capsys.readouterr().out)


def test_the_listeners_on_the_page_of_telemetry_count_objects(url: str, tmp_path: Path) -> None:
    found = run_at(url, tmp_path, code("docs/telemetry.md", "python", "import structlog\n"))
    anyio.run(found["refresh"])
    assert found["registry"].get_sample_value("neows_neos_written_total") == 60


def test_the_listener_on_the_page_of_telemetry_prints_a_wait(capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, Any] = {}
    exec(code("docs/telemetry.md", "python", "from neows_async import events\n"), namespace)  # noqa: S102 - our own page
    namespace["on_event"](events.WaitingForQuota(until_s=0.0, wait_s=12.0))
    assert capsys.readouterr().out == "waiting 12 s for quota\n"


def aggregate(tmp_path: Path, name: str, begins: str, part: str) -> Any:
    """The figures of a documented aggregator over 20 objects."""
    (tmp_path / f"{part.partition(':')[0]}.py").write_text(code(name, "python", begins))
    ended = program.run(tmp_path, "run", "--limit", "20", "--aggregator", part)
    assert ended.code == 0, ended.err
    [file] = (tmp_path / "data/sandbox/aggregates").rglob("*.json")
    return json.loads(file.read_bytes())


def test_the_aggregator_of_the_readme_works(tmp_path: Path) -> None:
    figures = aggregate(tmp_path, "README.md", "# magnitude.py\n", "magnitude:MeanMagnitude")
    assert figures["count"] == 20
    assert 5 < figures["mean_h"] < 35


def test_the_aggregator_of_contributing_works(tmp_path: Path) -> None:
    figures = aggregate(tmp_path, "CONTRIBUTING.md", "# outputs/nearest.py\n", "nearest:Nearest")
    assert 0 < figures["miss_distance_km"] < 100_000_000


def test_the_aggregator_over_the_json_works(tmp_path: Path) -> None:
    figures = aggregate(tmp_path, "docs/embedding.md", "# eccentricity.py\n", "eccentricity:Eccentricity")
    assert figures["neos"] == 20
    assert 0 < figures["mean"] < 1


@pytest.mark.parametrize(
    ("name", "begins", "attribute"),
    [
        ("README.md", "# magnitude.py\n", "MeanMagnitude"),
        ("CONTRIBUTING.md", "# outputs/nearest.py\n", "Nearest"),
        ("docs/embedding.md", "# eccentricity.py\n", "Eccentricity"),
    ],
)
def test_documented_aggregators_pass_the_conformance_tests(name: str, begins: str, attribute: str) -> None:
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(code(name, "python", begins), namespace)  # noqa: S102 - it is from our own pages
    suite = AggregatorConformance()
    suite.make = namespace[attribute]
    for test in (test for test in dir(suite) if test.startswith("test_")):
        getattr(suite, test)()


def test_the_scenario_on_the_page_of_the_sandbox_can_be_served(tmp_path: Path) -> None:
    (tmp_path / "bad-day.toml").write_text(code("docs/sandbox.md", "toml", "seed = 7\n"))
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "neows_async", "sandbox", "--port", "0", "--scenario", "bad-day.toml"],
        cwd=tmp_path,
        env=program.clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        assert server.stdout is not None
        first_line = server.stdout.readline()
        server.send_signal(signal.SIGINT)
        try:
            assert server.wait(program.LIMIT_S) in (0, 130)
        finally:
            server.kill()
        assert "synthetic objects at http://127.0.0.1:" in first_line


def test_the_page_of_the_sandbox_names_every_fault() -> None:
    structs = (getattr(getattr(public_fakes, name), "__struct_config__", None) for name in public_fakes.__all__)
    kinds = {str(struct.tag) for struct in structs if struct is not None and struct.tag}
    assert len(kinds) > 10
    text = page("docs/sandbox.md")
    assert {kind for kind in kinds if f"`{kind}`" not in text} == set()


async def test_the_test_on_the_page_of_the_sandbox_passes(tmp_path: Path) -> None:
    namespace: dict[str, Any] = {}
    exec(code("docs/sandbox.md", "python", "from pathlib import Path\n"), namespace)  # noqa: S102 - our own page
    await namespace["test_my_lake_survives_a_broken_connection"](tmp_path)

"""The page for embedders: each program on it runs unchanged, except for its settings."""

from __future__ import annotations

import ast
import datetime as dt
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from neows_async.testing import GatewayRules, SandboxApp, Scenario, SyntheticCatalogue, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

README = (Path(__file__).parents[2] / "README.md").read_text()
PAGE = (Path(__file__).parents[2] / "docs/embedding.md").read_text()
SETTINGS = 'Settings(api_key=SecretStr("DEMO_KEY"), root="data/"'


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(SandboxApp(SyntheticCatalogue(60, 1), scenario=Scenario(gateway=GatewayRules()))) as found:
        yield found


def program(heading: str, url: str, root: Path) -> str:
    [section] = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    [code] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    if heading == "Your own parts":
        return str(code)
    assert code.count(SETTINGS) == 1
    return str(code.replace(SETTINGS, f'Settings(api_key=SecretStr("any"), base_url="{url}", root="{root}"'))


def run(code: str, name: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": name}
    exec(compile(code, "docs/embedding.md", "exec"), namespace)  # noqa: S102 - it is our own page
    return namespace


def test_the_script_reads_all_objects(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(program("A script", url, tmp_path), "__main__")
    assert capsys.readouterr().out.splitlines()[-1] == "60 read, complete: True"


@pytest.mark.asyncio_only
async def test_the_fastapi_lifespan_commits_a_snapshot_and_shows_it(url: str, tmp_path: Path) -> None:
    app = run(program("A FastAPI lifespan", url, tmp_path), "app")["app"]
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://app") as client,
    ):
        with anyio.fail_after(60):
            while not (answer := (await client.get("/progress")).json())["committed"]:
                await anyio.wait_all_tasks_blocked()
    assert answer["pages"] == "3 of 3"
    assert answer["aggregates"]["close_approaches_within"]["neos"] == 60
    assert (tmp_path / "_runs" / f"{answer['snapshot']}.json").exists()


def test_the_trio_program_commits_a_snapshot(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(program("A trio program", url, tmp_path), "__main__")
    assert re.fullmatch(r"snapshot \S+: 60 objects in 4 files\n", capsys.readouterr().out)


def test_the_scheduled_job_runs_once_a_day_and_returns_1_if_it_fails(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = run(program("A scheduled job", url, tmp_path), "job")["main"]
    for _ in range(2):
        assert anyio.run(main, dt.date(2026, 11, 23)) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    assert (tmp_path / "_runs" / "2026-11-23.json").exists()
    (tmp_path / "file").write_text("in the way")
    main = run(program("A scheduled job", url, tmp_path / "file"), "job")["main"]
    assert anyio.run(main, dt.date(2026, 11, 23)) == 1


@pytest.mark.asyncio_only
async def test_the_notebook_makes_a_table_of_all_objects(url: str, tmp_path: Path) -> None:
    code = compile(program("A notebook", url, tmp_path), "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    namespace: dict[str, Any] = {}
    cell = eval(code, namespace)  # noqa: S307 - as notebooks do
    assert inspect.iscoroutine(cell)
    await cell
    assert namespace["table"].num_rows == 60


def test_the_conformance_suite_on_the_page_passes(tmp_path: Path) -> None:
    suite = run(program("Your own parts", "", tmp_path), "test_mine")["TestMySink"]()
    suite.test_sink_has_a_valid_name_and_coroutine_methods()
    suite.test_run_writes_the_files_of_its_receipt()


def test_the_readme_links_to_the_page() -> None:
    assert "docs/embedding.md" in README

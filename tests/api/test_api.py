"""The library as embedders use it: everything from ``neows_async`` itself."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import httpx
import pytest
from pydantic import BaseModel

import neows_async
from neows_async import Figures, KeyRefusedError, Progress, Settings, SettingsError, ingest, open_neos
from neows_async.lake.receipt import PageCounts, RawInfo, RecordCounts, Requests, SourceInfo
from neows_async.sandbox.app import SandboxApp
from neows_async.sandbox.catalogue import SyntheticCatalogue
from neows_async.sandbox.rate_limits import Gateway, GatewayRules
from neows_async.sandbox.server import serving
from neows_async.telemetry import events
from neows_async.testing import ListSink, ListSource
from tests.neos import catalogue

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

pytestmark = pytest.mark.uvloop


def sandbox(neos: int = 60) -> SandboxApp:
    return SandboxApp(SyntheticCatalogue(neos, 7), gateway=Gateway(GatewayRules(hourly_limit=100_000)))


def names_in_the_stub() -> list[str]:
    stub = ast.parse(Path(neows_async.__file__).with_suffix(".pyi").read_text())
    for statement in stub.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            return list(ast.literal_eval(statement.value))
    raise AssertionError("the stub has no __all__")


def test_every_public_name_is_there_and_documented() -> None:
    assert sorted(neows_async.__all__) == sorted(names_in_the_stub())
    assert len(neows_async.__all__) == len(set(neows_async.__all__))
    for name in neows_async.__all__:
        value = getattr(neows_async, name)
        assert name in dir(neows_async)
        if callable(value) and name not in {"Event", "Listener"}:
            assert value.__doc__, f"{name} has no docstring"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        importlib.import_module("neows_async").nothing  # noqa: B018 - that is what is tried


def public_values() -> list[type]:
    """Public classes with fields, and those that such fields hold."""
    found = [getattr(neows_async, name) for name in neows_async.__all__]
    found += [*get_args(events.Event), SourceInfo, PageCounts, RecordCounts, RawInfo, Requests]
    classes = {one for one in found if isinstance(one, type)}
    fields = [one for one in classes if is_dataclass(one) or issubclass(one, BaseModel) or hasattr(one, "_fields")]
    return sorted(fields, key=lambda one: one.__name__)


@pytest.mark.parametrize("value", public_values(), ids=lambda value: value.__name__)
def test_every_field_of_a_public_value_is_explained(value: type) -> None:
    [body] = [node for node in ast.parse(inspect.getsource(value)).body if isinstance(node, ast.ClassDef)]
    described = f"{value.__doc__}\n{inspect.getmodule(value).__doc__}"
    after = [*body.body[1:], None]
    for field, following in zip(body.body, after, strict=True):
        if not isinstance(field, ast.AnnAssign) or "ClassVar" in ast.unparse(field.annotation):
            continue
        name = ast.unparse(field.target)
        its_class = getattr(inspect.getmodule(value), ast.unparse(field.annotation), None)
        assert (
            re.search(rf":param {name}:|``{name}``", described)
            or (isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant))
            or (field.value is not None and "description=" in ast.unparse(field.value))
            or its_class in public_values()
        ), f"{value.__name__}.{name}: what is it, in which unit?"


async def test_a_whole_run_with_the_default_parts(tmp_path: Path) -> None:
    with serving(sandbox()) as url:
        receipt = await ingest(Settings(root=str(tmp_path), base_url=url, api_key="k", limit=50))
    assert (receipt.records.written, receipt.source.name, receipt.source.origin) == (50, "nasa", url)
    assert {file.dataset for file in receipt.files} == {"neos", "close_approaches", "aggregates"}
    assert json.loads((tmp_path / "_runs" / "latest.json").read_text())["snapshot"] == receipt.snapshot


async def test_a_run_with_parts_of_ones_own(tmp_path: Path) -> None:
    class Count:
        name = "count"

        def __init__(self) -> None:
            self.neos = 0

        def update(self, batches: Mapping[str, pa.RecordBatch]) -> None:
            self.neos += batches["neos"].num_rows

        def merge(self, other: Count) -> None:
            self.neos += other.neos

        def result(self) -> dict[str, Any]:
            return {"neos": self.neos}

    sink = ListSink()
    heard: list[object] = []
    receipt = await ingest(
        Settings(root=str(tmp_path)),
        source=ListSource(catalogue(30)),
        sinks=[sink],
        aggregators=[Count()],
        on_event=heard.append,
    )
    assert receipt.aggregates == {"count": {"neos": 30}}
    assert receipt.source.name == "ListSource"
    assert (len(sink.rows), sink.commits) == (30, 1)
    assert heard[-2] == neows_async.telemetry.events.Committed(receipt.snapshot)


async def test_without_a_key_nothing_is_done(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="needs a key"):
        await ingest(Settings(root=str(tmp_path / "lake")))
    assert not (tmp_path / "lake").exists()


async def test_a_client_goes_with_the_default_source_only(tmp_path: Path) -> None:
    async with httpx.AsyncClient() as client:
        with pytest.raises(SettingsError, match="a client is for the default source"):
            await ingest(Settings(root=str(tmp_path)), source=ListSource([]), client=client)


async def test_a_refused_key_is_one_exception(tmp_path: Path) -> None:
    app = SandboxApp(SyntheticCatalogue(60, 7), gateway=Gateway(GatewayRules(known_keys=frozenset({"right"}))))
    with serving(app) as url, pytest.raises(KeyRefusedError):
        await ingest(Settings(root=str(tmp_path), base_url=url, api_key="wrong-key-of-someone"))


async def test_figures_at_any_time_without_stopping_the_run(tmp_path: Path) -> None:
    watch = Progress()
    seen: list[Figures] = []
    receipt = await ingest(
        Settings(root=str(tmp_path), limit=200),
        source=ListSource(catalogue(200)),
        on_event=events.each(watch, lambda _: seen.append(watch.figures())),
    )
    last = watch.figures()
    assert last.committed
    assert (last.snapshot, last.pages_written, last.neos) == (receipt.snapshot, 10, 200)
    assert last.aggregates == receipt.aggregates
    # While pages came, the aggregates were those of the pages until then.
    first = next(figures for figures in seen if figures.aggregates)
    assert set(first.aggregates) == {"close_approaches_within", "close_approaches_by_year"}
    assert first.aggregates["close_approaches_within"]["neos"] in range(20, 201, 20)
    assert not first.committed


@pytest.mark.may_block  # a traceback shows lines, which are read from files
async def test_a_listener_that_fails_is_logged_and_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[events.Event] = []

    def fail(event: events.Event) -> None:
        heard.append(event)
        raise ValueError("no room")

    receipt = await ingest(Settings(root=str(tmp_path)), source=ListSource(catalogue(5)), on_event=fail)
    assert receipt.records.written == 5
    assert len(heard) == 1
    [record] = caplog.records
    assert (record.name, record.levelname) == ("neows_async", "ERROR")
    assert "RunStarted" in record.message


async def test_a_listener_that_would_have_to_be_awaited_is_refused(tmp_path: Path) -> None:
    async def tell(event: events.Event) -> None:
        raise AssertionError(event)

    class Telling:
        async def __call__(self, event: events.Event) -> None:
            await tell(event)

    for listener in (tell, Telling()):
        with pytest.raises(SettingsError, match="on_event must be a plain function"):
            await ingest(Settings(root=str(tmp_path)), source=ListSource([]), on_event=listener)  # type: ignore[arg-type]  # as people do
        with pytest.raises(SettingsError, match="on_event must be a plain function"):
            async with open_neos(Settings(), source=ListSource([]), on_event=listener):  # type: ignore[arg-type]  # as above
                pass

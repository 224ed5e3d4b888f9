"""Never run, only type-checked, by mypy and by pyright: what users of the library can rely on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, assert_type

from pydantic import SecretStr

import neows_async
from neows_async import (
    Batches,
    BatchStream,
    CloseApproach,
    CloseApproachesWithin,
    DatasetFile,
    Figures,
    Lake,
    MemoryQuotaStore,
    NasaSource,
    Neo,
    NeoStream,
    NeowsError,
    PacingRules,
    Page,
    ParquetSink,
    PausedError,
    Progress,
    RateLimit,
    RawPage,
    Receipt,
    Settings,
    SqliteQuotaStore,
    Stage,
    Storage,
    ingest,
    objects,
    open_batches,
    open_lake,
    open_neos,
    open_storage,
)
from neows_async.telemetry import events
from neows_async.testing import SandboxClient, SinkConformance, sandbox_client

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import httpx


class MySource:
    """Fits without inheriting from anything."""

    origin = "mine"
    synthetic = False

    async def fetch(self, number: int, size: int) -> RawPage:
        return RawPage(number, b"{}", rate_limit=RateLimit(size, 1))


class MySink:
    name = "mine"

    async def open(self, stage: Stage) -> None:
        file = await stage.open(stage.snapshot, "part.json")
        assert_type(await file.finish(1), DatasetFile)

    async def write(self, page: Page) -> None:
        for neo in objects(page):
            assert_type(neo, Neo)

    async def finish(self) -> Sequence[DatasetFile]:
        return ()

    async def commit(self) -> None: ...


class MyAggregator:
    name = "mine"

    def update(self, batches: Mapping[str, Any]) -> None: ...  # Any: Arrow ships no types

    def merge(self, other: MyAggregator) -> None: ...

    def result(self) -> Mapping[str, int]:
        return {"neos": 1}


class MyJsonAggregator:
    name = "mine_too"
    needs_json: Literal[True] = True

    def update_json(self, batches: Mapping[str, Any], objects: Iterable[Mapping[str, Any]]) -> None: ...

    def merge(self, other: MyJsonAggregator) -> None: ...

    def result(self) -> Mapping[str, int]:
        return {"neos": 1}


class MyWriter:
    async def write(self, stage: Stage, results: Mapping[str, Mapping[str, Any]]) -> Sequence[DatasetFile]:
        return [DatasetFile(stage.snapshot, name, len(result), 0, "") for name, result in results.items()]


class TestMySink(SinkConformance):
    make = staticmethod(lambda: MySink())  # noqa: PLW0108 - as users write it


async def a_run(client: httpx.AsyncClient, settings: Settings) -> None:
    assert_type(await ingest(settings), Receipt)
    watch = Progress()

    def listen(event: events.Event) -> None:
        match event:
            case events.PageFetched(number=number, rate_limit=rate_limit):
                assert_type(number, int)
                assert_type(rate_limit, RateLimit | None)
            case events.RunEnded():
                assert_type(event.outcome, Literal["committed", "read", "stopped", "paused", "cancelled", "failed"])
            case _:
                pass

    receipt = await ingest(
        settings,
        source=MySource(),
        storage=open_storage("data/"),
        sinks=[MySink(), ParquetSink("neos")],
        aggregators=[MyAggregator(), MyJsonAggregator(), CloseApproachesWithin(0.2, None)],
        aggregate_writer=MyWriter(),
        pacing=PacingRules(bursts=()),
        quota_store=MemoryQuotaStore(),
        on_event=events.each(watch, listen),
    )
    assert_type(receipt.complete, bool | Literal["unknown"])
    assert_type(receipt.records.written, int)
    assert_type(receipt.files, tuple[DatasetFile, ...])
    await ingest(settings, client=client, on_event=watch)
    figures = watch.figures()
    assert_type(figures, Figures)
    assert_type(figures.eta_s, float | None)
    assert_type(figures.pages_left, int)


async def streams(settings: Settings) -> None:
    async with open_neos(settings) as neos:
        assert_type(neos, NeoStream)
        async for neo in neos:
            assert_type(neo, Neo)
            assert_type(neo.closest_approach("Earth"), CloseApproach | None)
            assert_type(neo.absolute_magnitude_h, float | None)
        assert_type(neos.complete, bool | Literal["unknown"] | None)
        assert_type(neos.records.rejected, int)
    async with open_batches(settings, source=MySource()) as batches:
        assert_type(batches, BatchStream)
        async for objects, close_approaches in batches:
            del objects, close_approaches  # pyarrow ships no types
        assert_type(await anext(batches), Batches)


async def errors(settings: Settings) -> None:
    try:
        await ingest(settings)
    except PausedError as exc:
        assert_type(exc.resume_at_s, float)
    except neows_async.KeyRefusedError as exc:
        assert_type(exc.status, int | None)
    except NeowsError as exc:
        assert_type(exc, NeowsError)


async def tests(settings: Settings) -> None:
    async with sandbox_client(neos=20) as client:
        assert_type(client, SandboxClient)
        assert_type(client.app.attempts[0], int)
        source = NasaSource(client, base_url="https://sandbox.invalid", api_key="any")
        assert_type(await source.fetch(0, 20), RawPage)
    async with SqliteQuotaStore(Path("quota"), host="api.nasa.gov", api_key="any") as quota_store:
        await ingest(settings, quota_store=quota_store)


def storages() -> Storage:
    return open_storage("s3://bucket/prefix")


def a_lake() -> None:
    lake = open_lake("data/")
    assert_type(lake, Lake)
    assert_type(lake.uri, str)
    assert_type(lake.latest(), Receipt | None)
    assert_type(lake.receipt("2026-11-22"), Receipt)
    assert_type(lake.snapshots(), list[str])
    assert_type(lake.path("neos", snapshot="latest"), str)
    assert_type(Lake(open_storage("data/")), Lake)


def values() -> Settings:
    return Settings(api_key=SecretStr("any"), limit=None, root="data/", within_au=0.05)

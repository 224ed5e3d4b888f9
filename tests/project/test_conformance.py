"""Our own parts pass the conformance tests, and the conformance tests find the faults of bad parts."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import httpx
import pyarrow.compute as pc
import pytest

from neows_async import (
    CloseApproachesByYear,
    CloseApproachesWithin,
    KeyRefusedError,
    NasaSource,
    NeowsError,
    ParquetSink,
    Settings,
    ingest,
)
from neows_async.lake.storage.local import LocalStorage
from neows_async.sandbox.transport import AsgiTransport
from neows_async.telemetry import events
from neows_async.testing import (
    AggregatorConformance,
    GatewayRules,
    ListSink,
    ListSource,
    Outage,
    SandboxApp,
    Scenario,
    SinkConformance,
    SourceConformance,
    StorageConformance,
    SyntheticCatalogue,
    sandbox_client,
)
from tests.neos import catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

    from neows_async import DatasetFile, Page, RawPage, Stage


class TestNeos(SinkConformance):
    make = staticmethod(lambda: ParquetSink("neos"))


class TestPartitioned(SinkConformance):
    make = staticmethod(lambda: ParquetSink("close_approaches", "orbiting_body"))


class TestListSource(SourceConformance):
    make = staticmethod(lambda: ListSource(catalogue(70)))


class Sandboxed:
    """The default source, with a new client for each fetch: nothing else would close it."""

    origin = "sandbox"
    synthetic = True

    async def fetch(self, number: int, size: int) -> RawPage:
        app = SandboxApp(SyntheticCatalogue(70, 1))
        async with httpx.AsyncClient(transport=AsgiTransport(app)) as client:
            source = NasaSource(client, base_url="https://sandbox.invalid", api_key="k")
            return await source.fetch(number, size)


class TestNasaSource(SourceConformance):
    make = staticmethod(Sandboxed)


class TestWithin(AggregatorConformance):
    make = staticmethod(lambda: CloseApproachesWithin(0.2, "Earth"))


class TestByYear(AggregatorConformance):
    make = staticmethod(lambda: CloseApproachesByYear(None))


class DiameterUnits:
    """Counts objects by the unit that NASA gives for their diameter, which is in no column."""

    name = "units_of_diameter"
    needs_json = True

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def update_json(self, batches: Mapping[str, Any], objects: Iterable[Mapping[str, Any]]) -> None:
        found = list(objects)
        assert [neo["id"] for neo in found] == batches["neos"]["id"].to_pylist()
        for neo in found:
            self._counts.update(neo["estimated_diameter"].keys())

    def merge(self, other: DiameterUnits) -> None:
        self._counts.update(other._counts)

    def result(self) -> Mapping[str, int]:
        return dict(sorted(self._counts.items()))


class TestJsonAggregator(AggregatorConformance):
    make = staticmethod(DiameterUnits)


class TestLocalStorage(StorageConformance):
    make = staticmethod(lambda folder: LocalStorage(folder))  # noqa: PLW0108 - as users write it


# -- bad parts ----------------------------------------------------------------------------------


class Table:
    """A database that sinks publish to: rows by snapshot."""

    def __init__(self) -> None:
        self.rows: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return sum(map(len, self.rows.values()))


class TableSink:
    """Publishes at the commit, and replaces what an earlier run published for the same snapshot."""

    name = "table"

    def __init__(self, table: Table) -> None:
        self._table = table
        self._ids: list[str] = []

    async def open(self, stage: Stage) -> None:
        self._snapshot = stage.snapshot

    async def write(self, page: Page) -> None:
        self._ids += page.batches["neos"]["id"].to_pylist()

    async def finish(self) -> Sequence[DatasetFile]:
        return ()

    async def commit(self) -> None:
        self._table.rows[self._snapshot] = self._ids


class TestTableSink(SinkConformance):
    table = Table()

    def make(self) -> TableSink:  # a method will do as well
        return TableSink(self.table)

    def visible(self) -> int:
        return len(self.table)


class Doubling(TableSink):
    async def commit(self) -> None:
        self._table.rows.setdefault(self._snapshot, []).extend(self._ids)


class Early(TableSink):
    async def write(self, page: Page) -> None:
        await super().write(page)
        await self.commit()


class Counting(ListSink):
    made = 0

    def __init__(self) -> None:
        Counting.made += 1
        super().__init__(f"list{Counting.made}")


class Swallowing(ListSink):
    async def write(self, page: Page) -> None:
        with anyio.CancelScope(shield=True):
            await super().write(page)
        try:
            await anyio.lowlevel.checkpoint()
        except BaseException as exc:
            raise ValueError("cancelled?") from exc


class Stamped(ListSink):
    """Writes random bytes into its file."""

    async def finish(self) -> Sequence[DatasetFile]:
        file = await self._stage.open("stamped", "part.json")
        await file.write(json.dumps([secrets.token_hex(8), len(self.rows)]).encode())
        return [await file.finish(1)]

    async def open(self, stage: Stage) -> None:
        self._stage = stage


def suite(base: type[Any], make: Callable[[], Any], **more: Any) -> Any:
    return type("Suite", (base,), {"make": staticmethod(make), **more})()


def tables(kind: type[TableSink]) -> Any:
    table = Table()
    return suite(SinkConformance, lambda: kind(table), visible=lambda _: len(table))


class FloatSum:
    """A sum of floats, which depends on their order."""

    name = "float_sum"

    def __init__(self) -> None:
        self._sum = 0.0

    def update(self, batches: Mapping[str, pa.RecordBatch]) -> None:
        self._sum += pc.sum(batches["close_approaches"]["miss_distance_au"]).as_py() or 0.0

    def merge(self, other: FloatSum) -> None:
        self._sum += other._sum

    def result(self) -> dict[str, float]:
        return {"sum": self._sum}


class Mean:
    """The mean of means, which cannot be merged."""

    name = "mean"

    def __init__(self) -> None:
        self._mean, self._rows = 0.0, 0

    def update(self, batches: Mapping[str, pa.RecordBatch]) -> None:
        neos = batches["neos"]
        rows = neos.num_rows
        self._mean = (self._mean * self._rows + sum(map(len, neos["name"].to_pylist()))) / max(1, self._rows + rows)
        self._rows += rows

    def merge(self, other: Mean) -> None:
        self._mean = (self._mean + other._mean) / 2
        self._rows += other._rows

    def result(self) -> Mapping[str, Any]:
        return {"mean": self._mean}


class Emptying(Mean):
    def result(self) -> Mapping[str, Any]:
        rows, self._rows = self._rows, 0
        return {"rows": rows}


class Infinite(Mean):
    def result(self) -> Mapping[str, Any]:
        return {"least": float("inf")}


class Off(ListSource):
    """Counts pages from 1."""

    async def fetch(self, number: int, size: int) -> RawPage:
        return await super().fetch(number + 1, size)


class OneAtATime(ListSource):
    """Returns the page that was requested last."""

    async def fetch(self, number: int, size: int) -> RawPage:
        self.number = number
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        return await super().fetch(self.number, size)


@pytest.mark.parametrize(
    ("conformance", "test", "said"),
    [
        (tables(Doubling), "test_second_commit_of_a_snapshot_changes_nothing", "a second commit doubled"),
        (
            tables(Early),
            "test_cancelled_run_shows_nothing_and_the_next_run_finishes",
            "rows are visible without a commit",
        ),
        (
            suite(SinkConformance, Counting),
            "test_sink_has_a_valid_name_and_coroutine_methods",
            "two instances have two names",
        ),
        (
            suite(SinkConformance, Swallowing),
            "test_cancelled_run_shows_nothing_and_the_next_run_finishes",
            "list failed: ValueError: cancelled",
        ),
        (suite(SinkConformance, Stamped), "test_equal_pages_give_equal_files", "files depend on more than the pages"),
        (suite(AggregatorConformance, Mean), "test_merge_in_any_order_gives_the_result_of_one", "result differs"),
        (
            suite(AggregatorConformance, Emptying),
            "test_result_is_json_and_has_no_side_effect",
            "two calls of result differ",
        ),
        (suite(AggregatorConformance, Infinite), "test_result_is_json_and_has_no_side_effect", "Out of range float"),
        (
            suite(SourceConformance, lambda: Off(catalogue(70))),
            "test_first_and_last_page_are_whole",
            "requested page 0, but received page 1",
        ),
        (
            suite(SourceConformance, lambda: OneAtATime(catalogue(70))),
            "test_concurrent_fetches_return_the_same_pages",
            "differ",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_conformance_finds_the_fault(conformance: Any, test: str, said: str) -> None:
    with pytest.raises((AssertionError, ValueError, NeowsError), match=said):
        getattr(conformance, test)()


# -- the sandbox behind a client ------------------------------------------------------------------


async def test_run_through_the_sandbox_client_retries_after_an_outage(tmp_path: Path) -> None:
    scenario = Scenario(
        gateway=GatewayRules(known_keys=frozenset({"mine"})),
        faults=(Outage(pages=frozenset({1}), attempts=frozenset({1})),),
    )
    seen: list[events.Event] = []
    async with sandbox_client(scenario=scenario, neos=60) as client:
        receipt = await ingest(Settings(api_key="mine", root=str(tmp_path)), client=client, on_event=seen.append)
        assert client.app.attempts == {0: 1, 1: 2, 2: 1}
        assert [served.status for served in client.app.served].count(503) == 1
        with pytest.raises(KeyRefusedError):
            await ingest(Settings(api_key="another", root=str(tmp_path / "other")), client=client)
    assert (receipt.records.written, receipt.requests.failed) == (60, 1)
    assert sum(isinstance(event, events.AttemptFailed) for event in seen) == 1

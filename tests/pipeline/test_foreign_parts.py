"""Parts of others that break their promise: one error that names the part, and nothing visible."""

from __future__ import annotations

import asyncio
import copy
import pickle
import re
from typing import TYPE_CHECKING, Any

import pytest

import neows_async
from neows_async import CloseApproachesWithin, open_neos
from neows_async.endpoints.browse.envelope import raw_objects
from neows_async.errors import AttemptError, PartError, SettingsError
from neows_async.lake.storage.local import LocalStorage
from neows_async.outputs.aggregate_files import JsonAggregates
from neows_async.outputs.parquet import ParquetSink
from neows_async.pages.redact import Redactor
from neows_async.pages.values import RawPage, SpentPage
from neows_async.pipeline.run import Parts, ingest
from neows_async.settings import Settings
from neows_async.testing import ListSink, ListSource
from tests.neos import catalogue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from neows_async import NeoStream
    from neows_async.pages.values import DatasetFile, Json, Page
    from neows_async.protocols import Stage


class Writing(ListSink):
    """A sink that writes one file to ``dataset``."""

    def __init__(self, dataset: str) -> None:
        super().__init__("writing")
        self._dataset = dataset

    async def open(self, stage: Stage) -> None:
        self._stage = stage

    async def finish(self) -> Sequence[DatasetFile]:
        file = await self._stage.open(self._dataset, "part-00000.parquet")
        await file.write(b"not Parquet")
        return [await file.finish(1)]


class Grouping(ListSink):
    async def write(self, page: Page) -> None:
        raise ExceptionGroup("two", [KeyError(page.number), ValueError()])


class Forgetful(ListSink):
    async def finish(self) -> Sequence[DatasetFile]:
        return None  # type: ignore[return-value]  # as people do


class Inventive(ListSink):
    async def finish(self) -> Sequence[DatasetFile]:
        return ["part-00000.parquet"]  # type: ignore[list-item]  # as above


class Columnar(ListSink):
    """Says that it looks at columns alone, and keeps what it was given."""

    columns_only = True

    def __init__(self, name: str = "columnar") -> None:
        super().__init__(name)
        self.given: list[Page] = []

    async def write(self, page: Page) -> None:
        self.given.append(page)
        await super().write(page)


class Lying(Columnar):
    columns_only = True

    async def write(self, page: Page) -> None:
        assert next(raw_objects(page))


class Curious(Columnar):
    """One that says so says nothing of those who are made from it."""


class Behind:
    """A proxy: what it asks for itself, the one behind it does not know."""

    def __init__(self, sink: Columnar) -> None:
        self._sink = sink

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)


class Method(ListSink):
    def columns_only(self) -> bool:
        return False


class Result:
    """An aggregator of a given result."""

    name = "result"

    def __init__(self, result: Any) -> None:
        self._result = result

    def update(self, page: Page) -> None:
        pass

    def merge(self, other: Result) -> None:
        pass

    def result(self) -> Mapping[str, Json]:
        return self._result  # type: ignore[no-any-return]  # that is what is tried


class BrokenWriter:
    async def write(
        self,
        stage: Stage,  # noqa: ARG002 - the protocol's signature
        results: Mapping[str, Mapping[str, Json]],
    ) -> Sequence[DatasetFile]:
        raise ValueError(f"no room for {len(results)} results")


class BrokenSource(ListSource):
    async def fetch(self, number: int, size: int) -> RawPage:
        if number == 1:
            raise ValueError("out of tape")
        return await super().fetch(number, size)


class BytesSource(ListSource):
    async def fetch(self, number: int, size: int) -> RawPage:
        return (await super().fetch(number, size)).body  # type: ignore[return-value]  # as people do


class GroupingSource(ListSource):
    """Fetches with tasks of its own, and so raises groups: once for each page."""

    async def fetch(self, number: int, size: int) -> RawPage:
        raw = await super().fetch(number, size)
        if self.asked.count(number) == 1:
            raise ExceptionGroup("tasks", [ValueError(), ExceptionGroup("more", [AttemptError("not yet")])])
        return raw


async def wait_for_what_was_cancelled() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


class CancelledSource(ListSource):
    async def fetch(self, number: int, size: int) -> RawPage:
        if number == self.objects[0]["cancelled"]:
            await wait_for_what_was_cancelled()
        return await super().fetch(number, size)


class CancelledSink(ListSink):
    async def write(self, page: Page) -> None:
        if page.number == 1:
            await wait_for_what_was_cancelled()


class CancelledAtTheEnd(ListSink):
    async def finish(self) -> Sequence[DatasetFile]:
        await wait_for_what_was_cancelled()
        return ()


class CancelledInAThread(Result):
    def update(self, page: Page) -> None:
        raise asyncio.CancelledError(page.number)


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize(
    "also",
    [
        {},
        {"sinks": [ListSink()]},
        {"sinks": [Curious("curious")]},
        {"sinks": [Behind(Columnar("behind"))]},
        {"sinks": [Method("method")]},
        {"aggregators": [Result({})]},
    ],
    ids=["nobody", "a sink", "a subclass", "a proxy", "a method", "an aggregator"],
)
async def test_bodies_are_let_go_unless_somebody_may_ask_for_them(
    tmp_path: Path, also: dict[str, Any], archive: bool
) -> None:
    columnar, source = Columnar(), ListSource(catalogue(90))
    parts = Parts(
        storage=LocalStorage(tmp_path),
        source=source,
        source_name="test",
        sinks=[columnar, ParquetSink("neos"), *also.get("sinks", ())],
        aggregators=[CloseApproachesWithin(), *also.get("aggregators", ())],
        aggregate_writer=JsonAggregates(),
    )
    receipt = await ingest(Settings(snapshot="a", limit=None, archive=archive), parts)
    assert receipt.records.written == len(columnar.rows) == 90
    bodies = [Redactor()((await source.fetch(number, 20)).body) for number in range(5)]
    assert [page.raw.size for page in columnar.given] == [len(body) for body in bodies]
    if also:
        assert [page.body for page in columnar.given] == bodies
        return
    for page in columnar.given:
        for again in (page, copy.copy(page), pickle.loads(pickle.dumps(page))):  # noqa: S301 - our own
            assert isinstance(again.raw, SpentPage)
            assert (again.raw.number, again.raw.size) == (page.number, page.raw.size)
            assert again.raw == page.raw
            assert again.raw != RawPage(page.number, b"")
            assert len({again.raw, page.raw}) == 1
            with pytest.raises(LookupError, match=f"the body of page {page.number} was let go"):
                _ = again.body
            with pytest.raises(LookupError):
                again.raw.sha256()


def visible(root: Path) -> set[str]:
    files = {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()}
    return {name for name in files if not name.startswith(("_staging/", "raw/snapshot=a/gen=0/"))}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sinks": [Grouping("mine")]}, "mine failed: KeyError"),
        ({"sinks": [Forgetful("mine")]}, "mine failed: TypeError: 'NoneType' object is not iterable"),
        ({"sinks": [Inventive("mine")]}, "mine failed: TypeError: it gave a str where a DatasetFile was expected"),
        ({"sinks": [Lying("mine")]}, "mine failed: LookupError: the body of page 0 was let go"),
        ({"sinks": [ParquetSink("neos"), Writing("neos")]}, "two parts wrote neos/snapshot=a/part-00000.parquet"),
        ({"sinks": [Writing("raw")]}, "raw/ is the lake's own"),
        ({"aggregators": [Result({"figure": float("nan")})]}, "result failed: ValueError"),
        ({"aggregators": [Result({"figure": {1, 2}})]}, "result failed: TypeError"),
        ({"aggregators": [Result(None)]}, "result failed: TypeError"),
        ({"aggregate_writer": BrokenWriter()}, "BrokenWriter failed: ValueError: no room for 0 results"),
        ({"source": BrokenSource(catalogue(50))}, "the source list failed: ValueError: out of tape"),
        ({"source": BytesSource(catalogue(50))}, "it gave a bytes where a RawPage was expected"),
    ],
)
async def test_a_part_that_breaks_its_promise_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    whole: dict[str, Any] = {
        "storage": LocalStorage(tmp_path),
        "source": ListSource(catalogue(50)),
        "source_name": "test",
        "sinks": [Columnar()],
        "aggregators": [],
        "aggregate_writer": JsonAggregates(),
    }
    with pytest.raises(PartError, match=re.escape(said)):
        await ingest(Settings(snapshot="a", retry_budget_s=0.2), Parts(**whole | changes))
    assert visible(tmp_path) == set()


@pytest.mark.asyncio_only
@pytest.mark.uvloop
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"source": CancelledSource([{"cancelled": 0}, *catalogue(50)])}, "the source list"),
        ({"source": CancelledSource([{"cancelled": 2}, *catalogue(50)])}, "the source list"),
        ({"sinks": [CancelledSink("mine"), ListSink()]}, "mine"),
        ({"sinks": [ListSink(), CancelledAtTheEnd("mine")]}, "mine"),
        ({"aggregators": [CancelledInAThread({})]}, "result"),
    ],
)
async def test_what_a_part_waits_for_being_cancelled_is_not_the_end_of_the_pages(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    whole: dict[str, Any] = {
        "storage": LocalStorage(tmp_path),
        "source": ListSource(catalogue(50)),
        "source_name": "test",
        "sinks": [ListSink()],
        "aggregators": [],
        "aggregate_writer": JsonAggregates(),
    }
    with pytest.raises(PartError, match=f"{named} failed: something that it waited for was cancelled"):
        await ingest(Settings(snapshot="a"), Parts(**whole | changes))
    assert visible(tmp_path) == set()


@pytest.mark.asyncio_only
@pytest.mark.uvloop
async def test_nor_is_it_that_of_a_stream() -> None:
    source = CancelledSource([{"cancelled": 2} | catalogue(1)[0], *catalogue(60)[1:]])
    found: list[str] = []

    async def read(neos: NeoStream) -> None:
        async for neo in neos:
            found.append(neo.id)  # noqa: PERF401 - a comprehension would lose them

    async with open_neos(Settings(), source=source) as neos:
        with pytest.raises(PartError, match="the source list failed"):
            await read(neos)
        assert neos.complete is None
    assert len(found) in (20, 40), "those of whole pages that came before"


async def test_what_a_source_raises_in_a_group_is_judged_as_if_it_came_alone(tmp_path: Path) -> None:
    source = GroupingSource(catalogue(50))
    parts = Parts(
        storage=LocalStorage(tmp_path),
        source=source,
        source_name="test",
        sinks=[ListSink()],
        aggregators=[],
        aggregate_writer=JsonAggregates(),
    )
    receipt = await ingest(Settings(snapshot="a"), parts)
    assert (receipt.records.written, receipt.requests.failed) == (50, 3)


class Nameless:
    """A part of every kind that does not say what it is called."""


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        (
            {"aggregators": [CloseApproachesWithin(0.2), CloseApproachesWithin(0.05)]},
            SettingsError,
            "two aggregators are",
        ),
        (
            {"sinks": [ListSink("mine"), ListSink("other"), ListSink("mine")]},
            SettingsError,
            "two sinks are called 'mine'",
        ),
        ({"source": Nameless()}, PartError, "the source Nameless failed: AttributeError"),
        ({"sinks": [Nameless()]}, PartError, "Nameless failed: AttributeError"),
        ({"aggregators": [Nameless()]}, PartError, "Nameless failed: AttributeError"),
    ],
)
async def test_parts_say_what_they_are_called_before_anything_is_done(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    source = ListSource(catalogue(5))
    with pytest.raises(error, match=re.escape(said)):
        await neows_async.ingest(Settings(root=str(tmp_path)), **{"source": source} | changes)
    assert not source.asked
    assert visible(tmp_path) == set()


async def test_a_stream_asks_its_source_too() -> None:
    with pytest.raises(PartError, match="the source Nameless failed"):
        async with open_neos(Settings(), source=Nameless()):  # type: ignore[arg-type]  # as people do
            pass


async def test_keys_of_a_result_are_text_in_the_receipt_as_in_the_file(tmp_path: Path) -> None:
    parts = Parts(
        storage=LocalStorage(tmp_path),
        source=ListSource(catalogue(5)),
        source_name="test",
        sinks=[ListSink()],
        aggregators=[Result({"b": {1900: 1}, "a": 2})],
        aggregate_writer=JsonAggregates(),
    )
    receipt = await ingest(Settings(snapshot="a"), parts)
    assert receipt.aggregates == {"result": {"b": {"1900": 1}, "a": 2}}
    assert list(receipt.aggregates["result"]) == ["b", "a"]

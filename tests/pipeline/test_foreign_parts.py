"""Parts of a user that break their protocol: one error that names the part, and nothing visible."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from typing import TYPE_CHECKING, Any, Literal

import pytest

import neows_async
from neows_async import CloseApproachesWithin, open_neos
from neows_async.endpoints.browse.envelope import raw_objects
from neows_async.errors import AttemptError, BadPageError, DataError, PartError, RateLimitedError, SettingsError
from neows_async.lake.storage.local import LocalStorage
from neows_async.outputs.aggregate_files import JsonAggregates
from neows_async.outputs.parquet import ParquetSink
from neows_async.pages.redact import Redactor
from neows_async.pages.stored import json_of
from neows_async.pipeline.run import Parts, ingest
from neows_async.settings import Settings
from neows_async.testing import ListSink, ListSource
from tests.neos import catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

    from neows_async import NeoStream
    from neows_async.pages.values import DatasetFile, Json, Page, RawPage
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


class NotAsync(ListSink):
    def write(self, page: Page) -> None:  # type: ignore[override]  # as above
        raise KeyError(page.number)


class WithoutMethods:
    """A sink without methods."""

    name = "mine"


class BrokenArchive(ListSource):
    """A source of stored pages that cannot say whether there are more."""

    async def fetch_several(self, numbers: Sequence[int], size: int) -> Sequence[RawPage]:
        return [await self.fetch(number, size) for number in numbers]

    async def next_generation(self) -> bool:
        raise ValueError("no next generation")

    def damaged(self, number: int, exc: BadPageError) -> DataError:
        return DataError(f"page {number}: {exc}")


class Damaging(BrokenArchive):
    """A source of stored pages, all bad, that cannot describe the damage."""

    async def fetch(self, number: int, size: int) -> RawPage:
        return dataclasses.replace(await super().fetch(number, size), body=b"not a page")

    def damaged(self, number: int, exc: BadPageError) -> DataError:
        raise KeyError(number) from exc


class Restless(ListSource):
    """A source that cannot close its connections before a long wait."""

    async def on_idle(self) -> None:
        raise OSError("cannot close")


def refuse(number: int, attempt: int) -> None:  # noqa: ARG001 - the seam's signature
    raise RateLimitedError("429", retry_after_s=900)


class Keeping(ListSink):
    """Keeps the pages that it is given."""

    def __init__(self, name: str = "keeping") -> None:
        super().__init__(name)
        self.given: list[Page] = []

    async def write(self, page: Page) -> None:
        self.given.append(page)
        await super().write(page)


class KeepingJson(Keeping):
    needs_json = True


class Undeclared(Keeping):
    """Reads the JSON, and does not say that it needs it."""

    async def write(self, page: Page) -> None:
        assert next(raw_objects(page))


class Result:
    """An aggregator of a given result."""

    name = "result"

    def __init__(self, result: Any) -> None:
        self._result = result

    def update(self, batches: Mapping[str, pa.RecordBatch]) -> None:
        pass

    def merge(self, other: Result) -> None:
        pass

    def result(self) -> Mapping[str, Json]:
        return self._result  # type: ignore[no-any-return]  # that is what is tried


class Names:
    """An aggregator that reads the JSON."""

    name = "names"
    needs_json: Literal[True] = True

    def __init__(self) -> None:
        self.names: list[str] = []
        self.rows = 0

    def update_json(self, batches: Mapping[str, pa.RecordBatch], objects: Iterator[Mapping[str, Any]]) -> None:
        self.rows += batches["neos"].num_rows
        self.names += [known["name"] for known in objects]

    def merge(self, other: Names) -> None:
        self.names += other.names

    def result(self) -> Mapping[str, Json]:
        return {"names": len(set(self.names)), "rows": self.rows}


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


class FirstPageSource(ListSource):
    async def fetch(self, number: int, size: int) -> RawPage:  # noqa: ARG002 - as people do
        return await super().fetch(0, size)


class GroupingSource(ListSource):
    """Fetches in a task group, so it raises groups: once for each page."""

    async def fetch(self, number: int, size: int) -> RawPage:
        raw = await super().fetch(number, size)
        if self.asked.count(number) == 1:
            raise ExceptionGroup("tasks", [ValueError(), ExceptionGroup("more", [AttemptError("not yet")])])
        return raw


async def await_cancelled_future() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


class CancelledSource(ListSource):
    async def fetch(self, number: int, size: int) -> RawPage:
        if number == self.objects[0]["cancelled"]:
            await await_cancelled_future()
        return await super().fetch(number, size)


class CancelledSink(ListSink):
    async def write(self, page: Page) -> None:
        if page.number == 1:
            await await_cancelled_future()


class CancelledAtTheEnd(ListSink):
    async def finish(self) -> Sequence[DatasetFile]:
        await await_cancelled_future()
        return ()


class CancelledInAThread(Result):
    def update(self, batches: Mapping[str, pa.RecordBatch]) -> None:
        raise asyncio.CancelledError(batches["neos"].num_rows)


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("window_pages", [1, 16])
@pytest.mark.parametrize("needed_by", ["nobody", "a sink", "an aggregator"])
async def test_pages_have_their_json_if_one_part_needs_it(
    tmp_path: Path, needed_by: str, archive: bool, window_pages: int
) -> None:
    keeping, source = KeepingJson() if needed_by == "a sink" else Keeping(), ListSource(catalogue(90))
    aggregators: list[Any] = [CloseApproachesWithin(), *([Names()] if needed_by == "an aggregator" else [])]
    parts = Parts(
        storage=LocalStorage(tmp_path),
        source=source,
        source_name="test",
        sinks=[keeping, ParquetSink("neos")],
        aggregators=aggregators,
        aggregate_writer=JsonAggregates(),
    )
    settings = Settings(snapshot="a", limit=None, archive=archive, window_pages=window_pages)
    receipt = await ingest(settings, parts)
    assert receipt.records.written == len(keeping.rows) == 90
    bodies = [Redactor()((await source.fetch(number, 20)).body) for number in range(5)]
    assert [page.json_bytes for page in keeping.given] == [len(body) for body in bodies]
    if needed_by == "nobody":
        assert [page.source for page in keeping.given] == [None] * 5
        for page in keeping.given:
            with pytest.raises(LookupError, match=f"page {page.number} has no JSON; .* must say `needs_json = True`"):
                raw_objects(page)
    else:
        assert [page.source and json_of(page.source) for page in keeping.given] == bodies
    if needed_by == "an aggregator":
        assert receipt.aggregates["names"] == {"names": 90, "rows": 90}


def visible(root: Path) -> set[str]:
    files = {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()}
    return {name for name in files if not name.startswith(("_staging/", "raw/snapshot=a/gen=0/"))}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sinks": [Grouping("mine")]}, "mine failed: KeyError"),
        ({"sinks": [Forgetful("mine")]}, "mine failed: TypeError: 'NoneType' object is not iterable"),
        ({"sinks": [Inventive("mine")]}, "mine failed: TypeError: it returned a str instead of a DatasetFile"),
        ({"sinks": [NotAsync("mine")]}, "mine failed: KeyError"),
        ({"sinks": [WithoutMethods()]}, "mine failed: AttributeError: 'WithoutMethods' object has no attribute 'open'"),
        ({"sinks": [Undeclared("mine")]}, "mine failed: LookupError: page 0 has no JSON"),
        ({"sinks": [ParquetSink("neos"), Writing("neos")]}, "two parts wrote neos/snapshot=a/part-00000.parquet"),
        ({"sinks": [Writing("raw")]}, "raw/ belongs to the lake"),
        ({"aggregators": [Result({"figure": float("nan")})]}, "result failed: ValueError"),
        ({"aggregators": [Result({"figure": {1, 2}})]}, "result failed: TypeError"),
        ({"aggregators": [Result(None)]}, "result failed: TypeError"),
        ({"aggregate_writer": BrokenWriter()}, "BrokenWriter failed: ValueError: no room for 0 results"),
        ({"source": BrokenSource(catalogue(50))}, "the source list failed: ValueError: out of tape"),
        ({"source": BrokenArchive(catalogue(50))}, "the source list failed: ValueError: no next generation"),
        ({"source": Damaging([{"page": 0}])}, "the source list failed: KeyError: 0"),
        ({"source": Restless(catalogue(50), fail=refuse)}, "the source list failed: OSError: cannot close"),
        ({"source": BytesSource(catalogue(50))}, "it returned a bytes instead of a RawPage"),
        ({"source": FirstPageSource(catalogue(50))}, "ValueError: it returned page 0 instead of page "),
    ],
)
async def test_a_part_that_breaks_its_protocol_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    whole: dict[str, Any] = {
        "storage": LocalStorage(tmp_path),
        "source": ListSource(catalogue(50)),
        "source_name": "test",
        "sinks": [ListSink()],
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
async def test_a_cancelled_future_in_a_part_fails_the_run_and_does_not_end_it_early(
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
    with pytest.raises(PartError, match=f"{named} failed: a task that it awaited was cancelled"):
        await ingest(Settings(snapshot="a"), Parts(**whole | changes))
    assert visible(tmp_path) == set()


@pytest.mark.asyncio_only
@pytest.mark.uvloop
async def test_a_cancelled_future_in_a_source_fails_a_stream_and_does_not_end_it_early() -> None:
    source = CancelledSource([{"cancelled": 2} | catalogue(1)[0], *catalogue(60)[1:]])
    found: list[str] = []

    async def read(neos: NeoStream) -> None:
        async for neo in neos:
            found.append(neo.id)  # noqa: PERF401 - a comprehension would lose them

    async with open_neos(Settings(), source=source) as neos:
        with pytest.raises(PartError, match="the source list failed"):
            await read(neos)
        assert neos.complete is None
    assert len(found) in (20, 40), "the objects of the pages before it"


async def test_an_error_in_a_group_from_a_source_counts_as_that_error(tmp_path: Path) -> None:
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
    """A part of every kind without a name."""


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        (
            {"aggregators": [CloseApproachesWithin(0.2), CloseApproachesWithin(0.05)]},
            SettingsError,
            "two aggregators have the name",
        ),
        (
            {"sinks": [ListSink("mine"), ListSink("other"), ListSink("mine")]},
            SettingsError,
            "two sinks have the name 'mine'",
        ),
        ({"source": Nameless()}, PartError, "the source Nameless failed: AttributeError"),
        ({"sinks": [Nameless()]}, PartError, "Nameless failed: AttributeError"),
        ({"aggregators": [Nameless()]}, PartError, "Nameless failed: AttributeError"),
    ],
)
async def test_names_of_parts_are_checked_before_any_request(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    source = ListSource(catalogue(5))
    with pytest.raises(error, match=re.escape(said)):
        await neows_async.ingest(Settings(root=str(tmp_path)), **{"source": source} | changes)
    assert not source.asked
    assert visible(tmp_path) == set()


async def test_a_stream_checks_its_source_before_any_request() -> None:
    with pytest.raises(PartError, match="the source Nameless failed"):
        async with open_neos(Settings(), source=Nameless()):  # type: ignore[arg-type]  # as people do
            pass


async def test_keys_of_an_aggregate_are_text_in_the_receipt_as_in_the_file(tmp_path: Path) -> None:
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

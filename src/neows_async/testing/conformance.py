"""Conformance tests for sinks, sources and aggregators: classes of pytest tests to subclass. They need no plugin."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import inspect
import json
import random
import re
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import pyarrow as pa
from anyio.lowlevel import checkpoint

from neows_async.endpoints.browse.envelope import raw_objects
from neows_async.endpoints.browse.receive import ReceiveOptions, Receiver
from neows_async.lake.storage.local import LocalStorage
from neows_async.outputs.aggregate_files import JsonAggregates
from neows_async.pages.values import RawPage, StoredPage
from neows_async.pipeline import run
from neows_async.sandbox.catalogue import SyntheticCatalogue
from neows_async.settings import Settings
from neows_async.testing.fakes import ListSink, ListSource, browse_page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from neows_async.lake.receipt import Receipt
    from neows_async.pages.values import Page
    from neows_async.protocols import Aggregator, Sink, Source

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_NEOS: Final = 50
_LIMIT_S: Final = 30.0


def _on_every_loop(test: Callable[[], Awaitable[object]]) -> None:
    """Run ``test`` on asyncio, and on trio if it is installed."""

    async def within_time() -> None:
        # A part that hangs fails its test instead of stopping the whole session.
        with anyio.fail_after(_LIMIT_S):
            await test()

    anyio.run(within_time, backend="asyncio")
    if importlib.util.find_spec("trio") is not None:
        anyio.run(within_time, backend="trio")


def _objects() -> list[dict[str, Any]]:
    """Synthetic objects with NASA's irregularities: one without approaches, a null, a rejected object, a duplicate."""
    catalogue = SyntheticCatalogue(_NEOS, seed=3)
    objects: list[dict[str, Any]] = [json.loads(entry.body) for entry in catalogue.entries(0, _NEOS)]
    objects[2]["close_approach_data"] = []
    objects[3]["absolute_magnitude_h"] = None
    objects[4]["name"] = ""
    objects[25] = objects[24]
    return objects


def _decode(page: RawPage | StoredPage) -> Page:
    return Receiver(ReceiveOptions(keeps_json=True)).receive(page, None)


def _update(aggregator: Any, page: Page) -> None:
    if getattr(aggregator, "needs_json", False):
        aggregator.update_json(page.batches, raw_objects(page))
    else:
        aggregator.update(page.batches)


def _pages() -> list[Page]:
    objects = _objects()
    return [_decode(RawPage(number, browse_page(objects, number, 20))) for number in range(-(-_NEOS // 20))]


class SinkConformance:
    """Tests that a sink does what :class:`neows_async.Sink` promises.

    In a test file::

        class TestMySink(SinkConformance):
            make = staticmethod(lambda: MySink())

    Each test makes whole runs into lakes in temporary folders.
    """

    make: Callable[[], Any]
    """Returns a new sink. All sinks of one test write to the same place."""

    def visible(self) -> int | None:
        """The number of objects that a reader sees where the sinks publish.

        Override it for a sink that publishes outside the stage; None checks the files alone.
        """
        return None

    def test_sink_has_a_valid_name_and_coroutine_methods(self) -> None:
        """A name for the receipt, the same for every instance, and four coroutine functions."""
        sink = self.make()
        assert _NAME.fullmatch(sink.name), f"{sink.name!r} is not a valid name"
        assert sink.name == self.make().name, "two instances have two names; receipts name it"
        for method in (sink.open, sink.write, sink.finish, sink.commit):
            assert inspect.iscoroutinefunction(method), f"{method} is not a coroutine function"

    def test_run_writes_the_files_of_its_receipt(self) -> None:
        """Each file of the receipt has its size and digest, and is in the snapshot's folder."""
        _on_every_loop(self._whole_run)

    async def _whole_run(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            before = self.visible()
            receipt = await _run(folder, sinks=[self.make()], snapshot=_new_id())
            for file in receipt.files:
                data = await anyio.Path(folder, file.path).read_bytes()
                assert (len(data), hashlib.sha256(data).hexdigest()) == (file.bytes, file.sha256), file
                assert f"snapshot={receipt.snapshot}/" in file.path, f"{file.path} is outside its snapshot"
            if before is not None:
                assert self.visible() == before + receipt.records.written, "some rows of the run are not visible"

    def test_equal_pages_give_equal_files(self) -> None:
        """The bytes do not depend on the snapshot's id or the concurrency."""
        _on_every_loop(self._equal_pages)

    async def _equal_pages(self) -> None:
        found = []
        for concurrency in (1, 4):
            snapshot = _new_id()
            with tempfile.TemporaryDirectory() as folder:
                receipt = await _run(folder, sinks=[self.make()], snapshot=snapshot, concurrency=concurrency)
                found.append(
                    {file.path.replace(f"snapshot={snapshot}", "snapshot="): file.sha256 for file in receipt.files}
                )
        assert found[0] == found[1], "files depend on more than the pages"

    def test_cancelled_run_shows_nothing_and_the_next_run_finishes(self) -> None:
        """Cancelled at each page. The next run makes a new sink, as a new process would."""
        _on_every_loop(self._cancelled_anywhere)

    async def _cancelled_anywhere(self) -> None:
        for at in range(-(-_NEOS // 20)):
            with tempfile.TemporaryDirectory() as folder:
                before, snapshot = self.visible(), _new_id()
                with anyio.CancelScope() as scope:
                    await _run(folder, sinks=[_Cancelling(self.make(), at, scope)], snapshot=snapshot)
                assert scope.cancelled_caught, "the sink swallowed a cancellation"
                assert self.visible() == before, "rows are visible without a commit"
                # A new sink with the same snapshot, as after a crash.
                receipt = await _run(folder, sinks=[self.make()], snapshot=snapshot)
                if before is not None:
                    assert self.visible() == before + receipt.records.written

    def test_second_commit_of_a_snapshot_changes_nothing(self) -> None:
        """If a run dies after the sink's commit, a new sink gets the same pages for the same snapshot."""
        _on_every_loop(self._commit_twice)

    async def _commit_twice(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            before, snapshot = self.visible(), _new_id()
            with anyio.CancelScope() as scope:
                await _run(folder, sinks=[_Cancelling(self.make(), None, scope)], snapshot=snapshot)
            receipt = await _run(folder, sinks=[self.make()], snapshot=snapshot)
            if before is not None:
                assert self.visible() == before + receipt.records.written, "a second commit doubled or lost rows"


class _Cancelling:
    """Forwards every call, and cancels the run before page ``at``, or after the commit if it is None."""

    def __init__(self, sink: Sink, at: int | None, scope: anyio.CancelScope) -> None:
        self.name = sink.name
        self.open = sink.open
        self.finish = sink.finish
        self._sink, self._at, self._scope = sink, at, scope

    async def write(self, page: Page) -> None:
        if page.number == self._at:
            self._scope.cancel()
        await self._sink.write(page)
        # The sink may not await anything; the cancellation needs a point at which it takes effect.
        await checkpoint()

    async def commit(self) -> None:
        await self._sink.commit()
        if self._at is None:
            self._scope.cancel()
            await checkpoint()


def _new_id() -> str:
    """A new id for each lake: a sink may write those of one test to the same place."""
    return f"conformance-{secrets.token_hex(8)}"


async def _run(
    root: str,
    source: Source | None = None,
    *,
    sinks: Sequence[Sink] = (),
    aggregators: Sequence[Any] = (),
    **more: Any,
) -> Receipt:
    parts = run.Parts(
        storage=LocalStorage(Path(root), durable=False),
        source=source or ListSource(_objects()),
        source_name="conformance",
        sinks=sinks,
        aggregators=aggregators,
        aggregate_writer=JsonAggregates(),
    )
    return await run.ingest(Settings(**{"limit": None, **more}), parts)


class SourceConformance:
    """Tests that a source does what :class:`neows_async.Source` promises.

    In a test file::

        class TestMySource(SourceConformance):
            make = staticmethod(lambda: MySource())

    The source's catalogue must have at least one object, and must not change during a test.
    """

    make: Callable[[], Any]
    """Returns a new source. It is called inside an event loop."""

    page_size = 20
    """Objects in a page."""

    def test_source_has_an_origin_a_flag_and_a_coroutine_method(self) -> None:
        """An origin without a key, whether it is synthetic, and a coroutine function."""

        async def test() -> None:
            source = self.make()
            assert isinstance(source.origin, str)
            assert source.origin, "its origin is empty; a resumed run compares it"
            assert "api_key" not in source.origin, "its origin has a key in it; receipts show the origin"
            assert isinstance(source.synthetic, bool)
            assert inspect.iscoroutinefunction(source.fetch)

        _on_every_loop(test)

    def test_first_and_last_page_are_whole(self) -> None:
        """Page 0 and the last page are the pages that were requested, and can be decoded."""
        _on_every_loop(self._whole_pages)

    async def _whole_pages(self) -> None:
        source = self.make()
        first = await source.fetch(0, self.page_size)
        assert isinstance(first, RawPage | StoredPage), f"it returned a {type(first).__name__} instead of a RawPage"
        assert first.number == 0, f"requested page 0, but received page {first.number}"
        info = _decode(first).info
        last = -(-info.total_elements // info.size) - 1
        raw = await source.fetch(last, self.page_size)
        assert raw.number == last
        assert _decode(raw).info.size == info.size

    def test_concurrent_fetches_return_the_same_pages(self) -> None:
        """Several pages at once, in another order, are the same as one after the other."""
        _on_every_loop(self._concurrent)

    async def _concurrent(self) -> None:
        source = self.make()
        info = _decode(await source.fetch(0, self.page_size)).info
        numbers = list(range(min(4, -(-info.total_elements // info.size))))
        sequential = {number: await self._ids(source, number) for number in numbers}
        concurrent: dict[int, list[str | None]] = {}

        async def fetch(number: int) -> None:
            concurrent[number] = await self._ids(source, number)

        async with anyio.create_task_group() as tasks:
            for number in reversed(numbers):
                tasks.start_soon(fetch, number)
        assert concurrent == sequential, "pages fetched concurrently differ from those fetched one after the other"

    async def _ids(self, source: Source, number: int) -> list[str | None]:
        page = _decode(await source.fetch(number, self.page_size))
        ids: list[str | None] = page.batches["neos"]["id"].to_pylist()
        return ids

    def test_fetch_succeeds_after_a_cancelled_one(self) -> None:
        """Cancelling requests in flight leaves the source usable."""
        _on_every_loop(self._cancelled)

    async def _cancelled(self) -> None:
        source = self.make()
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(source.fetch, 0, self.page_size)
            await checkpoint()
            tasks.cancel_scope.cancel()
        _decode(await source.fetch(0, self.page_size))

    def test_run_commits_two_pages(self) -> None:
        """A run over two pages commits a snapshot."""
        _on_every_loop(self._whole_run)

    async def _whole_run(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            asked: dict[str, Any] = {"limit": 2 * self.page_size, "page_size": self.page_size, "max_rejects": None}
            receipt = await _run(folder, self.make(), sinks=[ListSink()], **asked)
            assert receipt.records.seen > 0


class AggregatorConformance:
    """Tests that an aggregator does what :class:`neows_async.Aggregator`, or ``JsonAggregator``, promises.

    In a test file::

        class TestMyAggregator(AggregatorConformance):
            make = staticmethod(lambda: MyAggregator())
    """

    make: Callable[[], Any]
    """Returns a new aggregator, without rows."""

    def test_aggregator_has_a_valid_name_and_plain_methods(self) -> None:
        """A name for a file, and three plain methods; ``update_json`` instead of ``update`` if it ``needs_json``."""
        aggregator = self.make()
        assert _NAME.fullmatch(aggregator.name), f"{aggregator.name!r} is not a valid name"
        add = aggregator.update_json if getattr(aggregator, "needs_json", False) else aggregator.update
        for method in (add, aggregator.merge, aggregator.result):
            assert not inspect.iscoroutinefunction(method), f"{method} is a coroutine function; it must be a plain one"

    def test_result_is_json_and_has_no_side_effect(self) -> None:
        """At any time, also before the first page: finite numbers, and keys that are text."""
        observed, unobserved = self.make(), self.make()
        for page in _pages():
            _json(observed)
            _update(observed, page)
            _update(unobserved, page)
            assert _json(observed) == _json(observed), "two calls of result differ"
        assert _json(observed) == _json(unobserved), "a call of result changes later results"

    def test_equal_pages_give_an_equal_result(self) -> None:
        """Byte for byte, including the order of keys."""
        assert _json(self._of(_pages())) == _json(self._of(_pages()))

    def test_update_does_not_change_the_page(self) -> None:
        """Other parts get the same page."""
        for page in _pages():
            before = copy.deepcopy((page.batches, page.indices))
            _update(self.make(), page)
            assert (page.batches, page.indices) == before

    def test_merge_in_any_order_gives_the_result_of_one(self) -> None:
        """Three aggregators over disjoint pages, merged in any order, equal one aggregator over all pages."""
        pages = _pages()
        whole = _json(self._of(pages))
        for seed in range(12):
            draws = random.Random(seed)
            cut = sorted(draws.choices(range(len(pages) + 1), k=2))
            parts = [self._of(pages[: cut[0]]), self._of(pages[cut[0] : cut[1]]), self._of(pages[cut[1] :])]
            draws.shuffle(parts)
            first, *others = parts
            for other in others:
                first.merge(other)
            assert _json(first) == whole, f"merged from pages split at {cut}, the result differs"

    def test_result_does_not_depend_on_how_rows_are_grouped(self) -> None:
        """All rows in one call, and one row in each call. Not for an aggregator that reads the JSON."""
        pages = _pages()
        if getattr(self.make(), "needs_json", False):
            return
        whole = _json(self._of(pages))
        tables = {name: pa.Table.from_batches([page.batches[name] for page in pages]) for name in pages[0].batches}
        at_once, one_by_one = self.make(), self.make()
        none = {name: pa.RecordBatch.from_pylist([], schema=table.schema) for name, table in tables.items()}
        for name, table in tables.items():
            at_once.update(none | {name: table.combine_chunks().to_batches()[0]})
            for row in range(table.num_rows):
                one_by_one.update(none | {name: table.slice(row, 1).combine_chunks().to_batches()[0]})
        assert _json(at_once) == whole, "all rows in one call give another result"
        assert _json(one_by_one) == whole, "one row in each call gives another result"

    def test_run_has_its_result_in_the_receipt(self) -> None:
        """A whole run with this aggregator alone."""
        _on_every_loop(self._whole_run)

    async def _whole_run(self) -> None:
        aggregator = self.make()
        with tempfile.TemporaryDirectory() as folder:
            # No sink that needs the JSON: an aggregator that reads it must say so itself.
            receipt = await _run(folder, aggregators=[aggregator])
        assert set(receipt.aggregates) == {aggregator.name}

    def _of(self, pages: list[Page]) -> Any:
        aggregator = self.make()
        for page in pages:
            _update(aggregator, page)
        return aggregator


def _json(aggregator: Aggregator) -> str:
    return json.dumps(dict(aggregator.result()), allow_nan=False)

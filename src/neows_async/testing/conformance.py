"""What every sink, source and aggregator promises. Plain classes of test methods, for pytest; no plugin is needed."""

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
    from collections.abc import Awaitable, Callable

    from neows_async.lake.receipt import Receipt
    from neows_async.pages.values import Page
    from neows_async.protocols import Aggregator, Sink, Source

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_NEOS: Final = 50
_LIMIT_S: Final = 30.0


def _on_every_loop(test: Callable[[], Awaitable[object]]) -> None:
    """Run ``test`` on asyncio, and on trio if it is installed."""

    async def within_time() -> None:
        with anyio.fail_after(_LIMIT_S):
            await test()

    anyio.run(within_time, backend="asyncio")
    if importlib.util.find_spec("trio") is not None:
        anyio.run(within_time, backend="trio")


def _objects() -> list[dict[str, Any]]:
    """Made-up objects, with the warts of the source's: without approaches, with nulls, and one that is unreadable."""
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
    """Holds a sink to :class:`neows_async.Sink`.

    In a test file::

        class TestMySink(SinkConformance):
            make = staticmethod(lambda: MySink())

    It makes whole runs into lakes in temporary folders.
    """

    make: Callable[[], Any]
    """Makes a new sink. All of a test's sinks write to one place."""

    def visible(self) -> int | None:
        """How many near-Earth objects a reader sees in the place that the sinks write to, besides the lake's files.
        Override it for a sink that publishes elsewhere; None checks the files alone.
        """
        return None

    def test_it_has_what_a_sink_has(self) -> None:
        """A name that can stand in a receipt, and four coroutines."""
        sink = self.make()
        assert _NAME.fullmatch(sink.name), f"{sink.name!r} is no usable name"
        assert sink.name == self.make().name, "two of them have two names, so a receipt would not know them again"
        for method in (sink.open, sink.write, sink.finish, sink.commit):
            assert inspect.iscoroutinefunction(method), f"{method} is no coroutine function"

    def test_a_whole_run(self) -> None:
        """Its files are those that it names, and nothing is visible before the commit."""
        _on_every_loop(self._a_whole_run)

    async def _a_whole_run(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            before = self.visible()
            receipt = await _run(Path(folder), self.make(), _new_id())
            for file in receipt.files:
                data = await anyio.Path(folder, file.path).read_bytes()
                assert (len(data), hashlib.sha256(data).hexdigest()) == (file.bytes, file.sha256), file
                assert f"snapshot={receipt.snapshot}/" in file.path, f"{file.path} is outside its snapshot"
            if before is not None:
                assert self.visible() == before + receipt.records.written, "not all it was given can be seen"

    def test_equal_pages_give_equal_files(self) -> None:
        """Under another snapshot's id, with other concurrency, the bytes are the same."""
        _on_every_loop(self._equal_pages)

    async def _equal_pages(self) -> None:
        found = []
        for concurrency in (1, 4):
            snapshot = _new_id()
            with tempfile.TemporaryDirectory() as folder:
                receipt = await _run(Path(folder), self.make(), snapshot, concurrency=concurrency)
                found.append(
                    {file.path.replace(f"snapshot={snapshot}", "snapshot="): file.sha256 for file in receipt.files}
                )
        assert found[0] == found[1], "files depend on more than the pages"

    def test_cancelled_anywhere_it_shows_nothing_and_the_next_run_finishes(self) -> None:
        """At each page in turn; the next run makes new sinks, as a new process would."""
        _on_every_loop(self._cancelled_anywhere)

    async def _cancelled_anywhere(self) -> None:
        for at in range(-(-_NEOS // 20)):
            with tempfile.TemporaryDirectory() as folder:
                before, snapshot = self.visible(), _new_id()
                with anyio.CancelScope() as scope:
                    await _run(Path(folder), _Cancelling(self.make(), at, scope), snapshot)
                assert scope.cancelled_caught, "the sink swallowed a cancellation"
                assert self.visible() == before, "something can be seen without a commit"
                receipt = await _run(Path(folder), self.make(), snapshot)
                if before is not None:
                    assert self.visible() == before + receipt.records.written

    def test_a_commit_may_come_twice(self) -> None:
        """A run that dies right after it delivers again: the same pages, by a new sink, under the same snapshot."""
        _on_every_loop(self._commit_twice)

    async def _commit_twice(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            before, snapshot = self.visible(), _new_id()
            with anyio.CancelScope() as scope:
                await _run(Path(folder), _Cancelling(self.make(), None, scope), snapshot)
            receipt = await _run(Path(folder), self.make(), snapshot)
            if before is not None:
                assert self.visible() == before + receipt.records.written, "a second commit doubled or lost something"


class _Cancelling:
    """Passes everything on, and cancels the run before page ``at``, or right after the commit."""

    def __init__(self, sink: Sink, at: int | None, scope: anyio.CancelScope) -> None:
        self.name = sink.name
        self.open = sink.open
        self.finish = sink.finish
        self._sink, self._at, self._scope = sink, at, scope

    async def write(self, page: Page) -> None:
        if page.number == self._at:
            self._scope.cancel()
        await self._sink.write(page)
        await checkpoint()

    async def commit(self) -> None:
        await self._sink.commit()
        if self._at is None:
            self._scope.cancel()
            await checkpoint()


def _new_id() -> str:
    """For a place that counts by snapshot, each lake's must differ."""
    return f"conformance-{secrets.token_hex(8)}"


class _Columns(ListSink):
    columns_only = True


async def _run(root: Path, sink: Sink, snapshot: str, **settings: Any) -> Receipt:
    parts = run.Parts(
        storage=LocalStorage(root, durable=False),
        source=ListSource(_objects()),
        source_name="conformance",
        sinks=[sink],
        aggregators=[],
        aggregate_writer=JsonAggregates(),
    )
    return await run.ingest(Settings(limit=None, snapshot=snapshot, **settings), parts)


class SourceConformance:
    """Holds a source to :class:`neows_async.Source`.

    In a test file::

        class TestMySource(SourceConformance):
            make = staticmethod(lambda: MySource())

    Its catalogue must have at least one object, and stay as it is meanwhile.
    """

    make: Callable[[], Any]
    """Makes a new source, inside an event loop."""

    page_size = 20
    """What to ask for, in objects."""

    def test_it_has_what_a_source_has(self) -> None:
        """An origin that holds no secret's name, a flag, and a coroutine."""

        async def test() -> None:
            source = self.make()
            assert isinstance(source.origin, str)
            assert source.origin, "its origin is empty, so nothing could be resumed"
            assert "api_key" not in source.origin, "its origin must hold no key: receipts show it"
            assert isinstance(source.synthetic, bool)
            assert inspect.iscoroutinefunction(source.fetch)

        _on_every_loop(test)

    def test_its_pages_are_whole_and_right(self) -> None:
        """Page 0 and the last one are what their envelopes say, and can be decoded."""
        _on_every_loop(self._pages_are_right)

    async def _pages_are_right(self) -> None:
        source = self.make()
        first = await source.fetch(0, self.page_size)
        assert isinstance(first, RawPage | StoredPage), f"it returned a {type(first).__name__} instead of a RawPage"
        assert first.number == 0, f"requested page 0, but received page {first.number}"
        info = _decode(first).info
        last = -(-info.total_elements // info.size) - 1
        raw = await source.fetch(last, self.page_size)
        assert raw.number == last
        assert _decode(raw).info.size == info.size

    def test_any_page_comes_at_any_time_several_at_once(self) -> None:
        """The same pages as one after the other."""
        _on_every_loop(self._at_once)

    async def _at_once(self) -> None:
        source = self.make()
        info = _decode(await source.fetch(0, self.page_size)).info
        numbers = list(range(min(4, -(-info.total_elements // info.size))))
        in_turn = {number: await self._ids(source, number) for number in numbers}
        at_once: dict[int, list[str | None]] = {}

        async def fetch(number: int) -> None:
            at_once[number] = await self._ids(source, number)

        async with anyio.create_task_group() as tasks:
            for number in reversed(numbers):
                tasks.start_soon(fetch, number)
        assert at_once == in_turn, "pages that are asked for at once differ from those asked for in turn"

    async def _ids(self, source: Source, number: int) -> list[str | None]:
        page = _decode(await source.fetch(number, self.page_size))
        ids: list[str | None] = page.batches["neos"]["id"].to_pylist()
        return ids

    def test_a_cancelled_fetch_does_no_harm(self) -> None:
        """The next one succeeds."""
        _on_every_loop(self._cancelled)

    async def _cancelled(self) -> None:
        source = self.make()
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(source.fetch, 0, self.page_size)
            await checkpoint()
            tasks.cancel_scope.cancel()
        _decode(await source.fetch(0, self.page_size))

    def test_a_whole_run(self) -> None:
        """Two pages of it become a snapshot."""
        _on_every_loop(self._a_whole_run)

    async def _a_whole_run(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            parts = run.Parts(
                storage=LocalStorage(Path(folder), durable=False),
                source=self.make(),
                source_name="conformance",
                sinks=[ListSink()],
                aggregators=[],
                aggregate_writer=JsonAggregates(),
            )
            limit = 2 * self.page_size
            receipt = await run.ingest(Settings(limit=limit, page_size=self.page_size, max_rejects=None), parts)
            assert receipt.records.seen > 0


class AggregatorConformance:
    """Holds an aggregator to :class:`neows_async.Aggregator`.

    In a test file::

    class TestMyAggregator(AggregatorConformance):
        make = staticmethod(lambda: MyAggregator())
    """

    make: Callable[[], Any]
    """Makes a new aggregator, which has seen nothing."""

    def test_it_has_what_an_aggregator_has(self) -> None:
        """A name that can be a file's, and three plain methods."""
        aggregator = self.make()
        assert _NAME.fullmatch(aggregator.name), f"{aggregator.name!r} is no usable name"
        for method in (aggregator.update, aggregator.merge, aggregator.result):
            assert not inspect.iscoroutinefunction(method), f"{method} is a coroutine function; it must be a plain one"

    def test_its_result_is_json_at_any_time(self) -> None:
        """Also before the first page; finite numbers, keys that are text, and asking changes nothing."""
        asked, unasked = self.make(), self.make()
        for page in _pages():
            _json(asked)
            _update(asked, page)
            _update(unasked, page)
            assert _json(asked) == _json(asked), "asking twice gives two results"
        assert _json(asked) == _json(unasked), "asking in between changes the result"

    def test_equal_pages_give_an_equal_result(self) -> None:
        """Byte for byte, the order of keys included."""
        assert _json(self._of(_pages())) == _json(self._of(_pages()))

    def test_a_page_is_left_as_it_is(self) -> None:
        """Others see it, too."""
        for page in _pages():
            before = copy.deepcopy((page.batches, page.indices))
            _update(self.make(), page)
            assert (page.batches, page.indices) == before

    def test_parts_can_be_merged_in_any_order(self) -> None:
        """What several processes folded of disjoint pages is what one would have folded of all."""
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
            assert _json(first) == whole, f"merged from the pages cut at {cut} it is another result"

    def test_it_works_in_a_run(self) -> None:
        """Its result stands in the receipt."""
        _on_every_loop(self._in_a_run)

    async def _in_a_run(self) -> None:
        aggregator = self.make()
        with tempfile.TemporaryDirectory() as folder:
            parts = run.Parts(
                storage=LocalStorage(Path(folder), durable=False),
                source=ListSource(_objects()),
                source_name="conformance",
                sinks=[_Columns()],  # so that one that says the same is given what it says
                aggregators=[aggregator],
                aggregate_writer=JsonAggregates(),
            )
            receipt = await run.ingest(Settings(limit=None), parts)
        assert set(receipt.aggregates) == {aggregator.name}

    def _of(self, pages: list[Page]) -> Any:
        aggregator = self.make()
        for page in pages:
            _update(aggregator, page)
        return aggregator


def _json(aggregator: Aggregator) -> str:
    return json.dumps(dict(aggregator.result()), allow_nan=False)

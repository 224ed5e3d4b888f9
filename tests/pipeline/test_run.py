from __future__ import annotations

import functools
import hashlib
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

import anyio
import pyarrow.parquet as pq
import pytest
import zstandard

from neows_async.errors import (
    AttemptError,
    DataError,
    EmptyCatalogueError,
    KeyRefusedError,
    NeowsError,
    OutageError,
    PartError,
    PausedError,
    SettingsError,
    TooManyRejectsError,
    UnavailableError,
    UnreachableError,
)
from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.raw_zone import RawZone
from neows_async.lake.storage.local import LocalStorage
from neows_async.maintenance.verify import verify
from neows_async.outputs.aggregate_files import CsvAggregates, JsonAggregates
from neows_async.outputs.close_approaches import CloseApproachesByYear, CloseApproachesWithin
from neows_async.outputs.parquet import ParquetSink
from neows_async.pages.stored import json_of
from neows_async.pages.values import StoredPage
from neows_async.pipeline.run import Parts, ingest
from neows_async.settings import Settings
from neows_async.sources.archive import ArchiveSource
from neows_async.telemetry import events
from neows_async.testing import ListSink, ListSource, browse_page
from tests.decoded_pages import stored_page
from tests.neos import approach, catalogue, neo

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pyarrow as pa

    from neows_async.lake.receipt import Receipt
    from neows_async.pages.values import Json, Page, RawPage
    from neows_async.protocols import Aggregator, Sink, Source

# Sources of these tests respond at once, so short retries are enough.
QUICK: dict[str, Any] = {"retry_budget_s": 0.2}


def parts(root: Path, source: Source, *sinks: Sink, settings: Settings | None = None, **overrides: Any) -> Parts:
    settings = settings or Settings()
    aggregators: list[Aggregator] = [
        CloseApproachesWithin(settings.within_au, settings.orbiting_body),
        CloseApproachesByYear(settings.orbiting_body),
    ]
    layouts = settings.partitions
    chosen = sinks or [ParquetSink(name, layouts.get(name)) for name in ("neos", "close_approaches")]
    return Parts(
        storage=LocalStorage(root),
        source=source,
        source_name="test",
        sinks=chosen,
        aggregators=overrides.pop("aggregators", aggregators),
        aggregate_writer=overrides.pop("aggregate_writer", JsonAggregates()),
        **overrides,
    )


async def run(
    root: Path, source: Source, *sinks: Sink, listener: events.Listener = events.ignore, **settings: Any
) -> Receipt:
    chosen = Settings(**settings)
    return await ingest(chosen, parts(root, source, *sinks, settings=chosen), listener)


def derived(root: Path, snapshot: str) -> dict[str, str]:
    """Path beneath the snapshot's folder → digest, of everything that is made from raw pages."""
    return {
        f"{dataset}/{file.relative_to(folder)}": hashlib.sha256(file.read_bytes()).hexdigest()
        for dataset in ("neos", "close_approaches", "aggregates", "quarantine")
        if (folder := root / dataset / f"snapshot={snapshot}").exists()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def everything(root: Path) -> set[str]:
    return {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()}


async def test_rows_are_in_browse_order_and_no_other_file_is_left(tmp_path: Path) -> None:
    receipt = await run(tmp_path, ListSource(catalogue(50)), snapshot="one", limit=None)
    assert receipt.complete is True
    names = pq.read_table(tmp_path / "neos/snapshot=one/part-00000.parquet").column("name").to_pylist()
    assert names == [f"({number} TEST)" for number in range(50)]
    assert everything(tmp_path) == {
        "_runs/latest.json",
        "_runs/one.json",
        "aggregates/snapshot=one/close_approaches_by_year.json",
        "aggregates/snapshot=one/close_approaches_within.json",
        "close_approaches/snapshot=one/part-00000.parquet",
        "neos/snapshot=one/part-00000.parquet",
        "raw/snapshot=one/gen=0/page=00000.json.zst",
        "raw/snapshot=one/gen=0/page=00001.json.zst",
        "raw/snapshot=one/gen=0/page=00002.json.zst",
    }
    assert not (tmp_path / "_staging").exists()


@pytest.mark.parametrize(
    ("limit", "rows", "pages"),
    [(1, 1, 1), (7, 7, 1), (20, 20, 1), (21, 21, 2), (45, 45, 3), (50, 45, 3), (None, 45, 3)],
)
async def test_the_limit_counts_positions_and_no_page_beyond_is_requested(
    tmp_path: Path, limit: int | None, rows: int, pages: int
) -> None:
    source = ListSource(catalogue(45))
    receipt = await run(tmp_path, source, limit=limit)
    assert receipt.records.written == rows
    assert sorted(source.asked) == list(range(pages))
    assert receipt.complete is (rows == 45)


async def test_duplicates_and_rejects_are_not_replaced_by_other_objects(tmp_path: Path) -> None:
    objects = catalogue(40)
    objects[25] = objects[3]
    objects[7] = neo(7, absolute_magnitude_h="bright")
    receipt = await run(tmp_path, ListSource(objects), limit=30)
    records = receipt.records
    assert (records.seen, records.written, records.duplicates, records.rejected) == (30, 28, 1, 1)
    assert receipt.rejected_because == {"not a number: 'bright'": 1}
    assert receipt.complete is False


async def test_equal_pages_give_equal_bytes_at_any_speed_and_from_the_raw_zone(tmp_path: Path) -> None:
    objects = catalogue(130)
    objects[77] = neo(77, name=None)
    slow = tmp_path / "slow"
    await run(slow, ListSource(objects), snapshot="a", limit=None, concurrency=1)
    expected = derived(slow, "a")
    assert "quarantine/rejected.jsonl" in expected
    fast = tmp_path / "fast"
    await run(fast, ListSource(objects), snapshot="20200101", limit=None, concurrency=16, queue_neos=1)
    assert derived(fast, "20200101") == expected
    loose = tmp_path / "loose"
    await run(loose, ListSource(objects), snapshot="b", limit=None, concurrency=16, archive=False, window_pages=1)
    assert derived(loose, "b") == expected
    assert not (loose / "raw").exists()

    lake = AsyncStorage(LocalStorage(fast))
    zone = RawZone(lake, "20200101", max_body_bytes=1 << 20)
    archive = ArchiveSource(zone, snapshot="20200101", synthetic=True)
    rebuilt = Settings(snapshot="again", limit=None)
    receipt = await ingest(rebuilt, parts(fast, archive, settings=rebuilt, parent="20200101"))
    assert derived(fast, "again") == expected
    assert (receipt.parent, receipt.raw.snapshot) == ("20200101", "20200101")
    assert not (fast / "raw/snapshot=again").exists()


async def test_a_page_that_fails_at_first_delays_no_other(tmp_path: Path) -> None:
    def fail(number: int, times: int) -> None:
        if number == 1 and times <= 2:
            raise AttemptError("broken for now")

    source = ListSource(catalogue(100), fail=fail)
    receipt = await run(tmp_path, source, limit=None, concurrency=2)
    assert receipt.records.written == 100
    assert receipt.requests.failed == 2


async def test_a_page_that_keeps_failing_ends_the_run_and_the_other_pages_are_stored(tmp_path: Path) -> None:
    def fail(number: int, _: int) -> None:
        if number == 1:
            raise AttemptError("gone for good")

    seen: list[events.Event] = []
    source = ListSource(catalogue(100), fail=fail)
    with pytest.raises(UnavailableError, match=r"page 1 .*gone for good") as caught:
        await run(tmp_path, source, limit=None, listener=seen.append, **QUICK)
    assert isinstance(caught.value.__cause__, AttemptError)
    [set_back] = [event for event in seen if isinstance(event, events.PageDeferred)]
    assert (set_back.number, set_back.reason) == (1, "gone for good")
    assert not (tmp_path / "neos").exists()
    assert not (tmp_path / "_runs").exists()

    again = ListSource(catalogue(100))
    receipt = await run(tmp_path, again, limit=None)
    assert again.asked == [1]
    assert (receipt.pages.kept, receipt.pages.planned, receipt.records.written) == (4, 5, 100)
    assert not (tmp_path / "_staging").exists()


async def test_requests_in_flight_are_completed_and_stored_when_a_run_gives_up(tmp_path: Path) -> None:
    class Slow(ListSource):
        """The last page is received after page 1 was given up; its request was in flight before that."""

        def __init__(self) -> None:
            super().__init__(catalogue(400))
            self.under_way, self.given_up = anyio.Event(), anyio.Event()

        async def fetch(self, number: int, size: int) -> RawPage:
            came = await super().fetch(number, size)
            if number == 1:
                if self.asked.count(1) == 2:
                    await self.under_way.wait()
                raise AttemptError("gone for good")
            if number == 19:
                self.under_way.set()
                await self.given_up.wait()
            return came

    source = Slow()

    def listener(event: events.Event) -> None:
        if isinstance(event, events.AttemptFailed) and source.asked.count(1) == 2:
            source.given_up.set()

    with pytest.raises(UnavailableError, match=r"page 1 .*gone for good"):
        await run(tmp_path, source, limit=None, listener=listener, retry_budget_s=0.001)
    again = ListSource(catalogue(400))
    await run(tmp_path, again, limit=None)
    assert again.asked == [1]


async def test_fetching_goes_on_while_a_sink_waits(tmp_path: Path) -> None:
    class Standing(ListSink):
        async def write(self, page: Page) -> None:
            if page.number == 3:
                with anyio.fail_after(60):
                    await all_kept.wait()
            await super().write(page)

    def listener(event: events.Event) -> None:
        fetched.update([event.number] if isinstance(event, events.PageFetched) else [])
        if len(fetched) == 100:
            all_kept.set()

    fetched: set[int] = set()
    all_kept = anyio.Event()
    receipt = await run(tmp_path, ListSource(catalogue(2_000)), Standing(), limit=None, listener=listener)
    assert receipt.records.written == 2_000


async def test_an_outage_that_lasts_too_long_leaves_no_page_missing(tmp_path: Path) -> None:
    def fail(number: int, _: int) -> None:
        if number > 1:
            raise AttemptError("503 of the platform", status=503)

    settings: dict[str, Any] = {"max_missing_pages": 100, "max_outage_s": 0, "probe_every_s": 60}
    with pytest.raises(OutageError, match="longer than --max-outage"):
        await run(tmp_path, ListSource(catalogue(400), fail=fail), limit=None, retry_budget_s=20, **settings)
    assert not (tmp_path / "_runs").exists()
    again = ListSource(catalogue(400))
    receipt = await run(tmp_path, again, limit=None)
    assert sorted(again.asked) == list(range(2, 20))
    assert receipt.complete is True


async def test_a_source_that_sent_pages_to_an_earlier_run_is_down_and_not_a_wrong_address(tmp_path: Path) -> None:
    def fail(_: int, times: int) -> None:
        if times == 1:
            raise UnreachableError("nothing listens")

    with pytest.raises(UnavailableError, match="nothing listens"):
        await run(tmp_path, ListSource(catalogue(100), fail=fail), limit=None)
    with pytest.raises(PausedError):
        await run(tmp_path, ListSource(catalogue(100)), limit=None, budget_requests=2)

    seen: list[events.Event] = []
    again = ListSource(catalogue(100), fail=fail)
    # The first failures in a row are an outage, which is short here.
    receipt = await run(tmp_path, again, limit=None, listener=seen.append, concurrency=2, probe_every_s=0.1)
    assert (receipt.pages.kept, receipt.records.written) == (2, 100)
    assert sorted(again.asked) == [2, 2, 3, 3, 4, 4]
    assert not any(isinstance(event, events.PageDeferred) for event in seen), "page 0 may still be deferred"


@pytest.mark.parametrize("archive", [True, False])
async def test_a_page_that_may_be_missing_is_recorded(tmp_path: Path, archive: bool) -> None:
    def fail(number: int, _: int) -> None:
        if number == 1:
            raise AttemptError("gone for good")

    receipt = await run(
        tmp_path,
        ListSource(catalogue(60), fail=fail),
        limit=None,
        max_missing_pages=1,
        archive=archive,
        window_pages=1,
        **QUICK,
    )
    assert receipt.pages.missing == (1,)
    assert (receipt.records.written, receipt.complete) == (40, False)


async def test_a_bad_page_is_requested_again_and_never_stored(tmp_path: Path) -> None:
    class Flaky(ListSource):
        async def fetch(self, number: int, size: int) -> Any:
            page = await super().fetch(number, size)
            if self.asked.count(number) == 1:
                return type(page)(number, page.body[:-30] + b"?api_key=TOPSECRET")
            return page

    source = Flaky(catalogue(40))
    receipt = await run(tmp_path, source, limit=None, retry_budget_s=20)
    assert Counter(source.asked) == {0: 2, 1: 2}
    assert (receipt.requests.sent, receipt.requests.failed) == (4, 2)


async def test_a_refused_key_ends_the_run_at_once(tmp_path: Path) -> None:
    def fail(number: int, _: int) -> None:
        raise KeyRefusedError(f"no, not for page {number}")

    source = ListSource(catalogue(40), fail=fail)
    with pytest.raises(KeyRefusedError):
        await run(tmp_path, source)
    assert source.asked == [0]


async def test_an_empty_catalogue_makes_no_snapshot(tmp_path: Path) -> None:
    with pytest.raises(EmptyCatalogueError, match="empty"):
        await run(tmp_path, ListSource([]))


async def test_too_many_rejected_objects_end_the_run_and_nothing_is_visible(tmp_path: Path) -> None:
    objects = [neo(number, name="") for number in range(40)]
    with pytest.raises(TooManyRejectsError, match=r"40 objects .*--max-rejects 20.*/name: empty"):
        await run(tmp_path, ListSource(objects))
    assert not (tmp_path / "neos").exists()
    receipt = await run(tmp_path, ListSource(objects), max_rejects=None)
    assert (receipt.records.rejected, receipt.records.written) == (40, 0)
    lines = (tmp_path / f"quarantine/snapshot={receipt.snapshot}/rejected.jsonl").read_text().splitlines()
    assert len(lines) == 40


async def test_a_page_damaged_in_the_raw_zone_is_set_aside_and_fetched_again(tmp_path: Path) -> None:
    with pytest.raises(NeowsError):
        await run(tmp_path, ListSource(catalogue(60)), ListSink(fail_after_pages=2), limit=None, snapshot="a")
    page = tmp_path / "raw/snapshot=a/gen=0/page=00002.json.zst"
    page.write_bytes(page.read_bytes()[:-3] if page.exists() else b"")
    first = tmp_path / "raw/snapshot=a/gen=0/page=00000.json.zst"
    first.write_bytes(zstandard.compress(b'{"page":'))
    seen: list[events.Event] = []
    source = ListSource(catalogue(60))
    receipt = await run(tmp_path, source, limit=None, snapshot="a", listener=seen.append)
    assert sorted(event.number for event in seen if isinstance(event, events.PageDamaged)) == [0, 2]
    assert sorted(source.asked) in ([0, 2], [0, 1, 2])
    assert receipt.records.written == 60


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"rubbish", "damaged: "),
        (zstandard.compress(browse_page(catalogue(40), 0, 20)), "expected page 1, but this is page 0"),
        (zstandard.compress(browse_page(catalogue(40), 1, 20)[:-1]), "not JSON"),
        (zstandard.compress(browse_page(catalogue(40), 1, 10)), "size 10, but the run was planned with 20"),
    ],
)
async def test_a_damaged_archive_is_named_at_once(tmp_path: Path, data: bytes, said: str) -> None:
    await run(tmp_path, ListSource(catalogue(40)), limit=None, snapshot="a")
    (tmp_path / "raw/snapshot=a/gen=0/page=00001.json.zst").write_bytes(data)
    zone = RawZone(AsyncStorage(LocalStorage(tmp_path)), "a", max_body_bytes=1 << 20)
    with pytest.raises(DataError, match=rf"raw page 1 of snapshot a is damaged \(.*{said}"):
        await ingest(
            Settings(limit=None), parts(tmp_path, ArchiveSource(zone, snapshot="a", synthetic=True), parent="a")
        )


async def test_a_run_resumes_from_the_raw_zone_after_any_cancellation(tmp_path: Path) -> None:
    expected_root = tmp_path / "undisturbed"
    await run(expected_root, ListSource(catalogue(100)), snapshot="a", limit=None)
    root = tmp_path / "disturbed"
    asked: Counter[int] = Counter()
    for after in range(1, 40):
        source = ListSource(catalogue(100))
        with anyio.CancelScope() as scope:
            count = 0

            def listen(_: events.Event, scope: anyio.CancelScope = scope, after: int = after) -> None:
                nonlocal count
                count += 1
                if count == after:
                    scope.cancel()

            await run(root, source, snapshot="a", limit=None, listener=listen, concurrency=3)
        asked.update(source.asked)
        if (root / "_runs/a.json").exists():
            break
    assert derived(root, "a") == derived(expected_root, "a")
    assert everything(root) == everything(expected_root)


class Small(ListSource):
    """Has ten objects a page, whichever size is requested, and cancels the run at its ``last`` request."""

    def __init__(self, last: int, scope: anyio.CancelScope) -> None:
        super().__init__(catalogue(300))
        self._last, self._scope = last, scope

    async def fetch(self, number: int, size: int) -> RawPage:  # noqa: ARG002 - that is the point
        if len(self.asked) == self._last:
            self._scope.cancel()
        return await super().fetch(number, 10)


class Cancelling(ListSource):
    """Cancels the run at the moment in which its ``last`` response is here."""

    def __init__(self, last: int, scope: anyio.CancelScope) -> None:
        super().__init__(catalogue(300))
        self._last, self._scope = last, scope
        self.answered: set[int] = set()

    async def fetch(self, number: int, size: int) -> RawPage:
        raw = await super().fetch(number, size)
        self.answered.add(number)
        if len(self.answered) == self._last:
            self._scope.cancel()
        return raw


async def test_pages_of_another_size_do_not_belong_to_a_page_0_that_was_stored_late(tmp_path: Path) -> None:
    """The source changed its page size, page 0 was lost, and the run that fetched it again was cancelled."""
    with anyio.CancelScope() as scope:
        await run(tmp_path, Small(8, scope), limit=None, snapshot="a", concurrency=1)
    (tmp_path / "raw/snapshot=a/gen=0/page=00000.json.zst").unlink()
    with anyio.CancelScope() as scope:
        await run(tmp_path, Cancelling(1, scope), limit=None, snapshot="a")
    receipt = await run(tmp_path, ListSource(catalogue(300)), limit=None, snapshot="a")
    assert (receipt.records.seen, receipt.records.written, receipt.complete) == (300, 300, True)
    assert (await verify(AsyncStorage(LocalStorage(tmp_path)), "a")).differences == ()


class Sealing(ListSource):
    """Returns stored pages. Their seals hold, and the keys in their links are not redacted."""

    async def fetch(self, number: int, size: int) -> Any:
        page = stored_page((await super().fetch(number, size)).body, number)
        return replace(page, sha256=bytes(32)) if self.asked.count(number) % 2 else page


async def test_a_stored_page_of_a_users_source_is_used_as_far_as_its_seal_agrees(tmp_path: Path) -> None:
    expected = await run(tmp_path / "a", ListSource(catalogue(300)), limit=None, snapshot="a", window_pages=1)
    receipt = await run(tmp_path / "b", Sealing(catalogue(300)), limit=None, snapshot="a", window_pages=1)
    assert (receipt.aggregates, receipt.raw) == (expected.aggregates, expected.raw)
    assert derived(tmp_path / "b", "a") == derived(tmp_path / "a", "a")
    zone = RawZone(AsyncStorage(LocalStorage(tmp_path / "b")), "a", max_body_bytes=1 << 20)
    for number in range(15):
        page = await zone.get(number)
        assert isinstance(page, StoredPage)
        assert b"SOMEBODYS" not in json_of(page)


class Theirs(LocalStorage):
    """Fails with an error of its own once it is broken."""

    broken = False

    def put(self, key: str, data: bytes) -> None:
        if self.broken:
            raise RuntimeError("a fault of theirs")
        super().put(key, data)


async def test_an_error_of_a_storage_does_not_replace_a_cancellation(tmp_path: Path) -> None:
    storage = Theirs(tmp_path)
    zone = RawZone(AsyncStorage(storage), "a", max_body_bytes=1 << 20)
    storage.broken = True
    with anyio.CancelScope() as scope:
        scope.cancel()
        await zone.put(stored_page(browse_page(catalogue(40), 1, 20), 1))
    assert scope.cancelled_caught


@pytest.mark.held_time
async def test_no_page_is_stored_late_once_another_run_owns_the_snapshot(tmp_path: Path) -> None:
    for held in (True, False):
        zone = RawZone(
            AsyncStorage(LocalStorage(tmp_path)), "a", max_body_bytes=1 << 20, stores_late=functools.partial(bool, held)
        )
        with anyio.CancelScope() as scope:
            scope.cancel()
            await zone.put(stored_page(browse_page(catalogue(40), int(held), 20), int(held)))
    assert await zone.page_numbers() == {1}


@pytest.mark.held_time
@pytest.mark.parametrize("workers", [0, 1])
async def test_every_received_page_is_stored_when_a_run_is_cancelled(tmp_path: Path, workers: int) -> None:
    for last in range(1, 15):
        zone = RawZone(AsyncStorage(LocalStorage(tmp_path)), f"s{last}", max_body_bytes=1 << 20)
        with anyio.CancelScope() as scope:
            source = Cancelling(last, scope)
            await run(*(tmp_path, source), limit=None, snapshot=f"s{last}", concurrency=4, workers=workers)
        assert scope.cancelled_caught
        assert source.answered <= await zone.page_numbers(), last


async def test_requests_are_never_further_ahead_than_the_window_and_the_queue(tmp_path: Path) -> None:
    source = ListSource(catalogue(400))
    most = 0

    class Slow(ListSink):
        async def write(self, page: Page) -> None:
            nonlocal most
            await anyio.wait_all_tasks_blocked()
            most = max(most, len(source.asked) - len(self.pages))
            await super().write(page)

    sink = Slow()
    await run(tmp_path, source, sink, limit=None, archive=False, window_pages=2, queue_neos=40, concurrency=8)
    assert sink.pages == list(range(20))
    # In the window, with the reader, in the queue, with the sink.
    assert most <= 2 + 1 + 2 + 1


class Eccentricities:
    """An aggregator of a user, of a field that is in no column."""

    name = "eccentricity"
    needs_json: Literal[True] = True

    def __init__(self) -> None:
        self.values: list[float] = []

    def update_json(self, _: Mapping[str, pa.RecordBatch], objects: Iterator[Mapping[str, Any]]) -> None:
        self.values += [float(record["orbital_data"]["eccentricity"]) for record in objects]

    def merge(self, other: Self) -> None:
        self.values += other.values

    def result(self) -> Mapping[str, Json]:
        return {"neos": len(self.values), "mean": sum(self.values) / len(self.values)}


async def test_parts_of_a_user_run(tmp_path: Path) -> None:
    sink = ListSink()
    handed = parts(
        tmp_path,
        ListSource(catalogue(30)),
        sink,
        aggregators=[Eccentricities()],
        aggregate_writer=CsvAggregates(),
    )
    receipt = await ingest(Settings(limit=25, snapshot="a"), handed)
    assert [row["id"] for row in sink.rows] == [f"{9_000_000 + number}" for number in range(25)]
    assert sink.commits == 1
    assert receipt.aggregates["eccentricity"]["neos"] == 25
    text = (tmp_path / "aggregates/snapshot=a/eccentricity.csv").read_text()
    assert text.startswith("figure,value\nneos,25\nmean,0.")


async def test_a_part_that_fails_is_named_in_one_exception(tmp_path: Path) -> None:
    class Broken(ListSink):
        async def write(self, page: Page) -> None:
            raise ZeroDivisionError(page.number)

    with pytest.raises(PartError, match="mine failed: ZeroDivisionError: 0"):
        await run(tmp_path, ListSource(catalogue(30)), Broken("mine"))


async def test_the_closest_approach_and_the_aggregates_follow_the_orbiting_body(tmp_path: Path) -> None:
    objects = [neo(1, [approach(km="5", au="0.1"), approach(km="9", au="0.15", orbiting_body="Mars")])]
    receipt = await run(tmp_path, ListSource(objects), snapshot="a", orbiting_body="mars")
    assert receipt.aggregates["close_approaches_within"] == {
        "threshold_au": 0.2,
        "orbiting_body": "Mars",
        "neos": 1,
        "close_approaches": 1,
        "count": 1,
    }
    row = pq.read_table(tmp_path / "neos/snapshot=a").to_pylist()[0]
    assert row["closest_approach_miss_distance_km"] == 9.0
    assert pq.read_table(tmp_path / "close_approaches/snapshot=a").num_rows == 2


async def test_too_many_partitions_are_refused_with_the_count(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="neos:observations_used has 65 different values"):
        await run(tmp_path, ListSource(catalogue(100)), limit=None, partition_by=("neos:observations_used",))


async def test_synthetic_and_real_objects_never_share_a_lake(tmp_path: Path) -> None:
    await run(tmp_path, ListSource(catalogue(3)), snapshot="a")
    real = ListSource(catalogue(3))
    real.synthetic = False
    with pytest.raises(SettingsError, match="holds synthetic objects; real ones need a --root of their own"):
        await run(tmp_path, real, snapshot="b")

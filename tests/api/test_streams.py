"""Objects and batches as they come, without a lake: in order, bounded, and nothing left behind."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from anyio.lowlevel import checkpoint

from neows_async import (
    CLOSE_APPROACHES,
    NEOS,
    KeyRefusedError,
    Neo,
    NeowsError,
    PausedError,
    Progress,
    RefusedError,
    Settings,
    SettingsError,
    TooManyRejectsError,
    UnavailableError,
    open_batches,
    open_neos,
)
from neows_async.telemetry import events
from neows_async.testing import ListSource
from tests import loopback
from tests.neos import approach, catalogue, neo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from neows_async import RawPage

pytestmark = pytest.mark.uvloop

ALL = Settings(limit=None, api_key="k")


async def ids(source: ListSource, **settings: Any) -> list[str]:
    async with open_neos(Settings(**{"limit": None} | settings), source=source) as neos:
        return [known.id async for known in neos]


async def test_objects_come_in_browse_order() -> None:
    objects = [neo(number, [approach(), approach(au="0.1")]) for number in range(1, 71)]
    source = ListSource(objects)
    watch = Progress()
    heard: list[events.Event] = []
    async with open_neos(Settings(limit=65), source=source, on_event=events.each(watch, heard.append)) as neos:
        found = [known async for known in neos]
        assert neos.complete is False, "the limit left some out"
    assert [known.id for known in found] == [entry["id"] for entry in objects[:65]]
    assert {(type(known), len(known.close_approaches)) for known in found} == {(Neo, 2)}
    assert neos.records.written == watch.figures().neos == 65
    assert sorted(source.asked) == [0, 1, 2, 3]
    assert isinstance(heard[0], events.RunStarted)
    assert isinstance(heard[-1], events.RunEnded)
    assert heard[-1].outcome == "read"


async def test_batches_have_the_columns_of_the_lake() -> None:
    async with open_batches(ALL, source=ListSource([neo(1, [approach()]), neo(2, [])])) as batches:
        [(neos, close_approaches)] = [batch async for batch in batches]
        assert batches.complete is True
    assert (neos.schema, close_approaches.schema) == (NEOS, CLOSE_APPROACHES)
    assert (neos["name"].to_pylist(), close_approaches.num_rows) == (["(1 TEST)", "(2 TEST)"], 1)


async def test_a_real_gateway_and_a_client_of_ones_own() -> None:
    with loopback.serving(loopback.browse(catalogue(45))) as server:
        settings = Settings(base_url=server.url, api_key="k", limit=None)
        async with httpx.AsyncClient(trust_env=False) as client:
            async with open_neos(settings, client=client) as neos:
                found = [known.id async for known in neos]
            assert not client.is_closed
        async with open_neos(settings) as neos:
            assert [known.id async for known in neos] == found
    assert len(found) == 45
    assert {asked.key for asked in server.asked} == {"k"}


async def test_it_is_never_further_ahead_than_the_window_and_the_queue_allow() -> None:
    source = ListSource(catalogue(160))
    most = taken = 0
    settings = ALL.model_copy(update={"window_pages": 2, "queue_neos": 20, "concurrency": 8})
    async with open_batches(settings, source=source) as batches:
        async for _ in batches:
            await anyio.wait_all_tasks_blocked()
            most = max(most, len(source.asked) - taken)
            taken += 1
    assert taken == 8
    # In the window, in the reader's hand, in the queue, in ours.
    assert most <= 2 + 1 + 1 + 1


class Stop(Exception):  # noqa: N818 - for a test
    pass


class Counting(ListSource):
    """Knows how many requests are under way, and takes its time."""

    under_way = 0

    async def fetch(self, number: int, size: int) -> RawPage:
        self.under_way += 1
        try:
            for _ in range(20 * (number % 3)):
                await checkpoint()
            return await super().fetch(number, size)
        finally:
            self.under_way -= 1


@pytest.mark.parametrize("how", ["break", "raise", "cancel", "time out"])
async def test_stopping_early_leaves_nothing_behind(how: str) -> None:
    source = Counting(catalogue(600))
    tasks, threads = len(anyio.get_running_tasks()), threading.active_count()
    taken = 0
    heard: list[events.Event] = []

    async def use() -> None:
        nonlocal taken
        with anyio.fail_after(None) as limit:
            async with open_neos(ALL, source=source, on_event=heard.append) as neos:
                async for _ in neos:
                    taken += 1
                    if taken == 30 and how == "break":
                        break
                    if taken == 30 and how == "raise":
                        raise Stop
                    if taken == 30 and how == "cancel":
                        scope.cancel()
                    if taken == 30 and how == "time out":
                        limit.deadline = anyio.current_time()

    with anyio.CancelScope() as scope:
        if how in {"break", "cancel"}:
            await use()
        elif how == "raise":
            with pytest.raises(Stop):
                await use()
        else:
            with pytest.raises(TimeoutError):
                await use()
    assert scope.cancelled_caught == (how == "cancel")
    assert isinstance(heard[-1], events.RunEnded)
    outcomes = {"break": "stopped", "raise": "failed", "cancel": "cancelled", "time out": "cancelled"}
    assert heard[-1].outcome == outcomes[how]
    assert source.under_way == 0
    assert len(anyio.get_running_tasks()) == tasks
    asked = len(source.asked)
    await anyio.wait_all_tasks_blocked()
    assert len(source.asked) == asked < 30
    # The event loop keeps its idle worker threads for the next call; there are never more than it needed at once.
    assert threading.active_count() <= threads + 2
    assert taken


async def test_a_connection_is_given_back_when_one_stops_early() -> None:
    with loopback.serving(loopback.browse(catalogue(600))) as server:
        async with httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=2)) as client:
            settings = Settings(base_url=server.url, api_key="k", limit=None, concurrency=2)
            for _ in range(3):
                async with open_neos(settings, client=client) as neos:
                    async for _ in neos:
                        break
            # Both connections would be taken for good if only one were lost each time.
            answer = await client.get(f"{server.url}/neo/rest/v1/neo/browse", timeout=5)
            assert answer.status_code == 200


async def test_a_cancelled_wait_loses_nothing() -> None:
    source = Counting(catalogue(60))
    found: list[str] = []
    async with open_neos(ALL.model_copy(update={"concurrency": 1}), source=source) as neos:
        while True:
            with anyio.move_on_after(0.002):
                try:
                    found.append((await anext(neos)).id)
                except StopAsyncIteration:
                    break
    assert found == [entry["id"] for entry in source.objects]


class Refusing(ListSource):
    """Refuses the key from page 3 on."""

    async def fetch(self, number: int, size: int) -> RawPage:
        if number >= 3:
            raise KeyRefusedError("the key was disabled")
        return await super().fetch(number, size)


async def failing(source: ListSource, error: type[NeowsError], **settings: Any) -> tuple[NeowsError, list[str]]:
    found: list[str] = []

    async def use() -> None:
        async with open_neos(Settings(**{"limit": None} | settings), source=source) as neos:
            async for known in neos:
                assert neos.complete is None
                found.append(known.id)

    with pytest.raises(error) as caught:
        await use()
    return caught.value, found


async def test_an_error_comes_after_all_that_came_before_it() -> None:
    source = Refusing(catalogue(100))
    exc, found = await failing(source, KeyRefusedError)
    assert str(exc) == "the key was disabled"
    assert found == [entry["id"] for entry in source.objects[:60]]


async def test_a_spent_budget_pauses_after_all_that_was_paid_for() -> None:
    exc, found = await failing(ListSource(catalogue(200)), PausedError, budget_requests=4)
    assert isinstance(exc, PausedError)
    assert exc.resume_at_s > 0
    assert len(found) == 80


async def test_the_error_of_an_unreadable_page_has_its_number() -> None:
    def fail(number: int, times: int) -> None:
        if number == 2:
            raise UnavailableError(f"page 2 is gone, asked {times} times")

    exc, found = await failing(ListSource(catalogue(100), fail=fail), UnavailableError)
    assert "page 2" in str(exc)
    assert len(found) == 40
    assert len(await ids(ListSource(catalogue(100), fail=fail), max_missing_pages=1)) == 80


async def test_the_first_request_may_fail() -> None:
    def refuse(number: int, _: int) -> None:
        raise RefusedError(f"no page {number}")

    exc, found = await failing(ListSource(catalogue(5), fail=refuse), RefusedError)
    assert (str(exc), found) == ("no page 0", [])


async def test_rejected_objects_are_reported_and_counted() -> None:
    objects = [*catalogue(3), neo(4, [approach(close_approach_date="31 May")]), *catalogue(6)[3:]]
    heard: list[events.Event] = []
    async with open_neos(ALL, source=ListSource(objects), on_event=heard.append) as neos:
        found = [known.id async for known in neos]
    assert len(found) == 6
    assert (neos.records.seen, neos.records.rejected) == (7, 1)
    assert [event.rejected.id for event in heard if isinstance(event, events.ObjectRejected)] == [objects[3]["id"]]
    await failing(ListSource(objects), TooManyRejectsError, max_rejects=0)


class Growing(ListSource):
    """A new object comes in, in front, before the third answer."""

    async def fetch(self, number: int, size: int) -> RawPage:
        if len(self.asked) == 2:
            self.objects.insert(0, neo(5_000))
        return await super().fetch(number, size)


async def test_a_catalogue_that_grows_is_read_once_more_and_nothing_comes_twice() -> None:
    source = Growing(catalogue(100))
    async with open_neos(ALL.model_copy(update={"concurrency": 1}), source=source) as neos:
        found = [known.id async for known in neos]
        assert neos.complete is True
    assert len(found) == len(set(found)) == 101
    assert set(found) == {entry["id"] for entry in source.objects}
    source = Growing(catalogue(100))
    once = ALL.model_copy(update={"concurrency": 1, "max_generations": 1})
    async with open_neos(once, source=source) as neos:
        assert len([known async for known in neos]) == 99, "the new one and the last are missed, one comes twice"
        assert neos.complete is False


async def test_nothing_comes_when_the_block_has_ended() -> None:
    async with open_neos(ALL, source=ListSource(catalogue(60))) as neos:
        assert (await anext(neos)).name
    with pytest.raises(anyio.ClosedResourceError):
        await anext(neos)


async def test_one_task_iterates_at_a_time() -> None:
    class Silent(ListSource):
        async def fetch(self, number: int, size: int) -> RawPage:
            await anyio.sleep_forever()
            return await super().fetch(number, size)

    async with open_batches(ALL, source=Silent([])) as batches, anyio.create_task_group() as tasks:
        tasks.start_soon(anext, batches)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await anext(batches)
        tasks.cancel_scope.cancel()


async def test_without_a_key_nothing_is_asked_for() -> None:
    with pytest.raises(SettingsError, match="needs a key"):
        async with open_neos(Settings()):
            raise AssertionError("unreachable")


async def test_what_the_block_raises_comes_out_as_it_is() -> None:
    raised = Stop("mine")

    async def through_a_generator() -> AsyncIterator[str]:
        async with open_neos(ALL, source=ListSource(catalogue(60))) as neos:
            async for known in neos:
                yield known.id

    with pytest.raises(Stop) as caught:
        async with open_neos(ALL, source=ListSource(catalogue(60))):
            raise raised
    assert caught.value is raised
    # As frameworks use it: an asynchronous generator that is closed in its middle.
    generator = through_a_generator()
    assert await anext(generator)
    await generator.aclose()  # type: ignore[attr-defined]  # it is a generator

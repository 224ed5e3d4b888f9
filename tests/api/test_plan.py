"""What a plan finds in the lake and the quota store, its one request, and what it stores."""

from __future__ import annotations

import dataclasses
import gzip
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from neows_async import plan
from neows_async.api.plan import gather_facts
from neows_async.errors import PartError, PausedError, RateLimit, RateLimitedError, SettingsError, UnavailableError
from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.storage.local import LocalStorage
from neows_async.pacing.quota_store import MemoryQuotaStore
from neows_async.pacing.rules import PacingRules
from neows_async.pacing.simulation import simulate
from neows_async.pages.values import RawPage
from neows_async.settings import Settings
from neows_async.telemetry import events
from neows_async.testing import ListSource
from tests import lakes
from tests.neos import catalogue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from neows_async.api.plan_facts import PlanFacts

NOW_S = 1_800_014_400.0 + 37 * 60


class Nasa(ListSource):
    """A source with a quota whose objects are not synthetic."""

    synthetic = False

    async def fetch(self, number: int, size: int) -> RawPage:
        return dataclasses.replace(await super().fetch(number, size), rate_limit=RateLimit(1_000, 640))


def refuse(number: int, attempt: int) -> None:  # noqa: ARG001 - the seam's signature
    raise RateLimitedError("429", retry_after_s=900)


class Answering(Nasa):
    """A source that calls ``answer`` for each page."""

    def __init__(self, answer: Callable[[int], Any]) -> None:
        super().__init__([])
        self._answer = answer

    async def fetch(self, number: int, size: int) -> RawPage:
        del size
        answer: RawPage = self._answer(number)
        return answer


class Hanging(Nasa):
    async def fetch(self, number: int, size: int) -> RawPage:
        await anyio.sleep_forever()
        return await super().fetch(number, size)


def fail(number: int) -> RawPage:
    raise ValueError(f"no tape {number}")


async def facts_of(
    root: Path, source: Nasa | None, store: MemoryQuotaStore, now_s: float = NOW_S, **settings: Any
) -> PlanFacts:
    return await gather_facts(
        Settings(**({"limit": None} | settings)),
        AsyncStorage(LocalStorage(root)),
        origin="list",
        source=source,
        rules=PacingRules(bursts=()),
        quota_store=store,
        clock=lambda: now_s,
        listener=events.ignore,
    )


async def test_request_of_a_plan_counts_for_the_next_run(tmp_path: Path) -> None:
    source, store = Nasa(catalogue(60)), MemoryQuotaStore()
    first = await facts_of(tmp_path, source, store)
    assert (first.requests_sent, first.quota.known_from, first.quota.left) == (1, "answer", 640)
    assert first.optimistic != first.conditions, "one response does not show when the 360 were used"
    await lakes.write(LocalStorage(tmp_path), source, Settings(snapshot="a", limit=None))
    source.asked.clear()
    later = await facts_of(tmp_path, None, store, NOW_S + 60)
    assert (later.requests_sent, later.quota.known_from, later.quota.left, source.asked) == (0, "ledger", 640, [])


async def test_refused_request_is_not_sent_again(tmp_path: Path) -> None:
    good, store = Nasa(catalogue(60)), MemoryQuotaStore()
    refusing = Nasa(catalogue(60), fail=refuse)
    with pytest.raises(PausedError):
        await facts_of(tmp_path, refusing, store)
    with pytest.raises(PausedError, match="run the same command again"):
        await facts_of(tmp_path, refusing, store)
    assert refusing.asked == [0]
    await lakes.write(LocalStorage(tmp_path), good, Settings(snapshot="a", limit=None))
    # The last receipt has the size of the catalogue, so a plan needs no request.
    late = await facts_of(tmp_path, refusing, store)
    assert (late.requests_sent, refusing.asked, len(late.notes)) == (0, [0], 1)
    assert late.page_plan.pages == 3
    assert simulate(late.conditions, NOW_S).sent_s[0] >= NOW_S + 900


async def test_run_that_would_be_refused_is_not_planned(tmp_path: Path) -> None:
    await lakes.write(LocalStorage(tmp_path), Nasa(catalogue(60)), Settings(snapshot="a", limit=40))
    with pytest.raises(SettingsError, match="committed with another limit"):
        await facts_of(tmp_path, None, MemoryQuotaStore(), snapshot="a")
    with pytest.raises(SettingsError, match="--fresh needs another"):
        await facts_of(tmp_path, None, MemoryQuotaStore(), snapshot="a", limit=40, fresh=True)
    done = await facts_of(tmp_path, None, MemoryQuotaStore(), snapshot="a", limit=40)
    assert (done.lake.committed, done.conditions.requests) == (True, 0)


async def test_public_plan_returns_facts_and_simulated_runs_and_writes_nothing(tmp_path: Path) -> None:
    source, storage = Nasa(catalogue(60)), LocalStorage(tmp_path / "lake")
    found = await plan(Settings(limit=None), source=source, storage=storage, quota_store=MemoryQuotaStore())
    assert source.asked == [0]
    assert (found.facts.page_plan.pages, found.facts.conditions.requests) == (3, 3)
    assert (found.facts.quota.limit, found.facts.quota.left) == (1_000, 640)
    assert (found.now.done, len(found.now.sent_s), found.best) == (True, 3, found.now)
    assert found.optimistic.end_s <= found.now.end_s
    assert list(storage.list("")) == []


async def test_public_plan_without_a_request_needs_no_key(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    settings = Settings(limit=None, base_url="https://list.invalid")
    with pytest.raises(SettingsError, match="size of the catalogue is unknown"):
        await plan(settings, storage=storage, may_request=False)
    source = Nasa(catalogue(60))
    await lakes.write(storage, source, Settings(snapshot="a", limit=None))
    source.asked.clear()
    found = await plan(settings, source=source, storage=storage, may_request=False)
    assert source.asked == []
    assert (found.facts.requests_sent, found.facts.page_plan.pages, found.now.done) == (0, 3, True)


async def test_public_plan_notes_that_the_quota_of_other_runs_is_unknown(tmp_path: Path) -> None:
    store = MemoryQuotaStore()
    await store.change(lambda _: "damaged")
    found = await plan(Settings(), source=Nasa(catalogue(60)), storage=LocalStorage(tmp_path), quota_store=store)
    [note] = found.facts.notes
    assert note.startswith("the quota of other runs is unknown: ")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (fail, "the source list failed: ValueError: no tape 0"),
        (lambda _: b"a page", "the source list failed: TypeError: it returned a bytes instead of a RawPage"),
        (lambda _: RawPage(3, b"{}"), "the source list failed: ValueError: it returned page 3 instead of page 0"),
    ],
)
async def test_a_source_that_breaks_its_protocol_is_named(
    tmp_path: Path, answer: Callable[[int], Any], said: str
) -> None:
    with pytest.raises(PartError) as caught:
        await plan(Settings(limit=None), source=Answering(answer), storage=LocalStorage(tmp_path))
    assert str(caught.value) == said


async def test_a_source_that_never_responds_ends_the_plan(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"no response within 0\.1 s"):
        await plan(Settings(request_timeout_s=0.1), source=Hanging([]), storage=LocalStorage(tmp_path))


async def test_the_limit_holds_for_the_decompressed_page(tmp_path: Path) -> None:
    raw = await ListSource(catalogue(60)).fetch(0, 20)
    source = Answering(lambda _: RawPage(0, gzip.compress(raw.body), "gzip"))
    settings = Settings(limit=None, max_body_bytes=len(raw.body))
    assert (await plan(settings, source=source, storage=LocalStorage(tmp_path))).facts.page_plan.pages == 3
    smaller = settings.model_copy(update={"max_body_bytes": len(raw.body) - 1})
    with pytest.raises(UnavailableError, match=f"the body is larger than {len(raw.body) - 1} bytes"):
        await plan(smaller, source=source, storage=LocalStorage(tmp_path))

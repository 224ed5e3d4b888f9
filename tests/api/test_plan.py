"""What a plan learns from the lake, the ledger and one request, and what it leaves there."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from neows_async.api.plan import PlanFacts, gather_facts
from neows_async.errors import PausedError, RateLimit, RateLimitedError, SettingsError
from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.storage.local import LocalStorage
from neows_async.pacing.quota_store import MemoryQuotaStore
from neows_async.pacing.rules import PacingRules
from neows_async.pacing.simulation import simulate
from neows_async.settings import Settings
from neows_async.telemetry import events
from neows_async.testing import ListSource
from tests import lakes
from tests.neos import catalogue

if TYPE_CHECKING:
    from pathlib import Path

    from neows_async.pages.values import RawPage

NOW_S = 1_800_014_400.0 + 37 * 60


class Nasa(ListSource):
    """A list that is no synthetic one, behind a gateway."""

    synthetic = False

    async def fetch(self, number: int, size: int) -> RawPage:
        return dataclasses.replace(await super().fetch(number, size), rate_limit=RateLimit(1_000, 640))


def refuse(number: int, attempt: int) -> None:  # noqa: ARG001 - the seam's signature
    raise RateLimitedError("429", retry_after_s=900)


async def known(
    root: Path, source: Nasa | None, ledger: MemoryQuotaStore, now_s: float = NOW_S, **settings: Any
) -> PlanFacts:
    return await gather_facts(
        Settings(**({"limit": None} | settings)),
        AsyncStorage(LocalStorage(root)),
        origin="list",
        source=source,
        rules=PacingRules(bursts=()),
        ledger=ledger,
        clock=lambda: now_s,
        listener=events.ignore,
    )


async def test_the_one_request_counts_for_whoever_comes_next(tmp_path: Path) -> None:
    source, ledger = Nasa(catalogue(60)), MemoryQuotaStore()
    first = await known(tmp_path, source, ledger)
    assert (first.asked, first.quota.told_by, first.quota.left) == (1, "answer", 640)
    assert first.hopeful != first.terms, "one answer does not tell when the 360 were used"
    await lakes.write(LocalStorage(tmp_path), source, Settings(snapshot="a", limit=None))
    source.asked.clear()
    later = await known(tmp_path, None, ledger, NOW_S + 60)
    assert (later.asked, later.quota.told_by, later.quota.left, source.asked) == (0, "ledger", 640, [])


async def test_what_is_refused_is_not_asked_again(tmp_path: Path) -> None:
    good, ledger = Nasa(catalogue(60)), MemoryQuotaStore()
    refusing = Nasa(catalogue(60), fail=refuse)
    with pytest.raises(PausedError):
        await known(tmp_path, refusing, ledger)
    with pytest.raises(PausedError, match="run the same command again"):
        await known(tmp_path, refusing, ledger)
    assert refusing.asked == [0]
    await lakes.write(LocalStorage(tmp_path), good, Settings(snapshot="a", limit=None))
    # Now that the last receipt knows how large the catalogue is, there is a plan all the same.
    late = await known(tmp_path, refusing, ledger)
    assert (late.asked, refusing.asked, len(late.notes)) == (0, [0], 1)
    assert late.plan.pages == 3
    assert simulate(late.terms, NOW_S).sent_s[0] >= NOW_S + 900


async def test_a_run_that_would_be_refused_is_not_planned(tmp_path: Path) -> None:
    await lakes.write(LocalStorage(tmp_path), Nasa(catalogue(60)), Settings(snapshot="a", limit=40))
    with pytest.raises(SettingsError, match="committed with another limit"):
        await known(tmp_path, None, MemoryQuotaStore(), snapshot="a")
    with pytest.raises(SettingsError, match="--fresh needs another"):
        await known(tmp_path, None, MemoryQuotaStore(), snapshot="a", limit=40, fresh=True)
    done = await known(tmp_path, None, MemoryQuotaStore(), snapshot="a", limit=40)
    assert (done.lake.committed, done.terms.requests) == (True, 0)

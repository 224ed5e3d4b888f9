"""Runs with one key share its quota, in one program and between processes. A store that fails ends no run."""

from __future__ import annotations

import json
import math
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from neows_async.errors import RateLimit, StorageError
from neows_async.pacing.quota import QuotaModel
from neows_async.pacing.quota_store import MemoryQuotaStore, SqliteQuotaStore
from neows_async.pacing.rules import PacingRules
from neows_async.pacing.shared_quota import SharedQuota
from neows_async.sandbox.app import SandboxApp
from neows_async.sandbox.catalogue import SyntheticCatalogue
from neows_async.sandbox.rate_limits import Gateway
from neows_async.sandbox.server import serving as sandbox
from neows_async.telemetry.events import Event, QuotaSharingFailed
from tests import neos, program
from tests.loopback import Answer, Asked, browse, serving
from tests.pipeline.test_whole_catalogue import FULL_HOUR_S, Fetching

if TYPE_CHECKING:
    from pathlib import Path

    from neows_async.pacing.quota_store import QuotaStore

KEY, OTHER_KEY = "0123456789abcdef" * 2, "fedcba9876543210" * 2
NOW_S = FULL_HOUR_S + 1_000


def quota(store: QuotaStore, *, now_s: float = NOW_S, heard: list[Event] | None = None) -> SharedQuota:
    listener = (lambda _: None) if heard is None else heard.append
    return SharedQuota(QuotaModel(PacingRules(bursts=())), store, clock=lambda: now_s, listener=listener)


async def request(one: SharedQuota, limit: int = 100, remaining: int = 50) -> None:
    """Send one request and receive its response."""
    _, ticket = await one.take()
    assert ticket is not None
    one.response_received(ticket, RateLimit(limit, remaining))
    await one.flush()


# -- in one program -------------------------------------------------------------------------------


@pytest.mark.virtual_time
async def test_two_runs_share_the_quota_without_a_429_and_are_as_fast_as_one() -> None:
    hundred = "[gateway]\nhourly_limit = 100\n[latency]\nmedian_s = 1.4\nspread = 1.7\nmost_s = 4.0\n"
    starts_s, store = FULL_HOUR_S + 55 * 60, MemoryQuotaStore()
    runs = [Fetching(100, hundred, starts_s=starts_s, quota_store=store) for _ in range(2)]
    for run in runs:
        run.app = runs[0].app
    async with anyio.create_task_group() as tasks:
        for run in runs:
            tasks.start_soon(run.run)
    assert runs[0].statuses() == {200: 200}
    assert all(run.arrived == Counter(range(100)) for run in runs)
    # The quota is 100 an hour. If both start at five to, the last of 200 requests can be sent a minute to two.
    assert (runs[0].clock() - starts_s) / 60 < 65 * 1.02


async def test_response_to_one_run_is_known_to_the_other() -> None:
    store = MemoryQuotaStore()
    one, two = quota(store), quota(store)
    await request(one, limit=100, remaining=0)
    wait_s, ticket = await two.take()
    assert ticket is None
    assert wait_s > 60


async def test_429_holds_both_runs_back_and_one_probe_goes_first() -> None:
    store = MemoryQuotaStore()
    one, two = quota(store), quota(store)
    await request(one)
    _, ticket = await one.take()
    assert ticket is not None
    one.rate_limited(ticket, 500)
    await one.flush()
    assert (await two.take())[0] == pytest.approx(500)
    later, too = quota(store, now_s=NOW_S + 501), quota(store, now_s=NOW_S + 501)
    assert (await later.take())[1] is not None
    assert await too.take() == (math.inf, None)


async def test_gateway_without_a_quota_needs_no_store() -> None:
    one = quota(MemoryQuotaStore())
    await request(one, limit=1_000_000, remaining=999_999)
    assert not one.shared


class StoreWithDeadOwner(MemoryQuotaStore):
    """A store with one owner that has ended."""

    gone = ""

    def is_gone(self, owner: str) -> bool:
        return owner == self.gone


@pytest.mark.parametrize("lasting", [True, False])
async def test_request_of_a_dead_process_does_not_block_others(lasting: bool) -> None:
    store = StoreWithDeadOwner()
    store.lasting = lasting
    assert (await quota(store).take())[1] is not None
    store.owner = "another"
    two = quota(store)
    assert await two.take() == (math.inf, None), "nothing is known of the quota before the first response"
    store.gone = MemoryQuotaStore.owner
    assert (await two.take())[1] is not None


async def test_quota_of_a_sandbox_is_forgotten_after_its_last_process() -> None:
    store = StoreWithDeadOwner()
    store.lasting = False
    await request(quota(store), remaining=0)
    store.owner, store.gone = "another", MemoryQuotaStore.owner
    assert (await quota(store).take())[1] is not None


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ("nonsense", "damaged"),
        ("[]", "damaged"),
        (json.dumps({"format": 99, "written_s": NOW_S}), "another version"),
        (json.dumps({"format": 2, "written_s": NOW_S, "owners": {}, "members": {}, "quota": {"hour": {}}}), "damaged"),
        (
            json.dumps(
                {"format": 2, "written_s": NOW_S, "owners": {}, "members": {}, "quota": {"hour": None, "sent_s": "x"}}
            ),
            "cannot be used",
        ),
    ],
)
async def test_unreadable_state_is_reported_once_and_ignored(kept: str, said: str) -> None:
    store, heard = MemoryQuotaStore(), list[Event]()
    await store.change(lambda _: kept)
    rules = PacingRules(bursts=(), max_rate_per_s=10)
    one = SharedQuota(QuotaModel(rules), store, clock=lambda: NOW_S, listener=heard.append)
    await request(one)
    assert one.model.limit == 100
    [event] = heard
    assert isinstance(event, QuotaSharingFailed)
    assert said in event.reason


@pytest.mark.parametrize("written_s", [NOW_S - 3 * 86_400, NOW_S + 3_600])
async def test_state_of_another_time_is_ignored(written_s: float) -> None:
    store, heard = MemoryQuotaStore(), list[Event]()
    await request(quota(store, now_s=written_s), remaining=0)
    one = quota(store, heard=heard)
    assert (await one.take())[1] is not None
    assert not heard
    assert one.shared


# -- in a file ------------------------------------------------------------------------------------


def database(folder: Path, key: str = KEY, host: str = "api.nasa.gov") -> SqliteQuotaStore:
    return SqliteQuotaStore(folder / "deep/er/quota.sqlite3", host=host, api_key=key)


async def test_keys_and_hosts_are_separate_and_not_in_the_file(tmp_path: Path) -> None:
    async with (
        database(tmp_path) as one,
        database(tmp_path, OTHER_KEY) as two,
        database(tmp_path, host="b") as three,
    ):
        await request(quota(one), remaining=0)
        for other in (two, three):
            assert (await quota(other).take())[1] is not None
        async with database(tmp_path) as again:
            assert (await quota(again).take())[1] is None
        written = b"".join([file.read_bytes() for file in await paths(tmp_path)])
    assert b"in_flight" in written
    for secret in (KEY, OTHER_KEY, "api.nasa.gov"):
        assert secret.encode() not in written
    [file] = [file for file in await paths(tmp_path) if file.suffix == ".sqlite3"]
    assert file.stat().st_mode & 0o777 == 0o600


async def paths(folder: Path) -> list[Path]:
    return await anyio.to_thread.run_sync(lambda: [path for path in folder.rglob("*") if path.is_file()])


def spoil(path: Path, how: str) -> None:
    if how == "no folder":
        path.parent.parent.mkdir(parents=True)
        path.parent.write_text("a file")
        return
    path.parent.mkdir(parents=True)
    if how == "a folder":
        path.mkdir()
    elif how == "no database":
        path.write_bytes(b"Something else altogether. " * 100)
    elif how == "of the future":
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version = 7")
        connection.close()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("no folder", "deep/er/quota.sqlite3: File exists: "),
        ("a folder", "unable to open"),
        ("no database", "it is damaged (file is not a database); remove it"),
        ("of the future", "it has version 7"),
    ],
)
async def test_unusable_file_is_reported_once_and_ignored(tmp_path: Path, how: str, said: str) -> None:
    heard: list[Event] = []
    await anyio.to_thread.run_sync(spoil, tmp_path / "deep/er/quota.sqlite3", how)
    async with database(tmp_path) as store:
        one = quota(store, heard=heard)
        for _ in range(3):
            await request(one)
    [event] = heard
    assert isinstance(event, QuotaSharingFailed)
    assert event.reason.count("quota.sqlite3") == 1
    assert said in event.reason


async def test_error_of_the_file_system_is_reported_without_repetition(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 100)
    async with SqliteQuotaStore(path, host="h", api_key=KEY) as store:
        with pytest.raises(StorageError) as caught:
            await store.change(lambda _: "")
    assert str(caught.value) == f"{path}: File name too long"


# -- between processes ----------------------------------------------------------------------------


def begin(cwd: Path, url: str, root: str, *arguments: str, key: str = KEY) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "neows_async", "run", "--base-url", url, "--root", root, "--quiet", *arguments],
        cwd=cwd,
        env=program.clean_environment(NASA_API_KEY=key, XDG_STATE_HOME=str(cwd / "state")),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_together_stay_within_the_quota(tmp_path: Path) -> None:
    app = SandboxApp(SyntheticCatalogue(2_000, approaches=0), gateway=Gateway(hourly_limit=60))
    with sandbox(app) as url:
        runs = [begin(tmp_path, url, root, "--all", "--max-wait", "5") for root in ("one", "two")]
        ended = [(run.communicate(timeout=60), run.returncode)[1] for run in runs]
    assert ended == [75, 75]
    assert {served.status for served in app.served} == {200}
    # The last few are kept back while it is unknown when slots come free.
    assert 50 <= len(app.served) <= 60
    kept = [len(list((tmp_path / root / "raw").rglob("*.zst"))) for root in ("one", "two")]
    assert sum(kept) == len(app.served)


def test_process_that_is_killed_during_its_request_does_not_block_another(tmp_path: Path) -> None:
    came, go = threading.Event(), threading.Event()
    pages = browse(neos.catalogue(30))

    def answer(asked: Asked) -> Answer:
        if not came.is_set():
            came.set()
            go.wait(60)
        return pages(asked)

    with serving(answer) as server:
        dying = begin(tmp_path, server.url, "one")
        assert came.wait(30)
        dying.kill()
        dying.communicate()
        living = begin(tmp_path, server.url, "two")
        _, err = living.communicate(timeout=60)
        go.set()
    assert (living.returncode, err) == (0, "")
    assert len(server.asked) == 3


def test_run_without_a_shared_quota_creates_no_store(tmp_path: Path) -> None:
    with serving(browse(neos.catalogue(5))) as server:
        alone = begin(tmp_path, server.url, "one", "--no-shared-quota")
        alone.communicate(timeout=60)
    assert alone.returncode == 0
    assert not (tmp_path / "state").exists()


def test_run_succeeds_if_the_store_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with serving(browse(neos.catalogue(5))) as server:
        options: dict[str, Any] = {"NASA_API_KEY": KEY, "XDG_STATE_HOME": str(tmp_path / "state")}
        ended = program.run(tmp_path, "run", "--base-url", server.url, "--root", "lake", **options)
    assert ended.code == 0
    assert ended.err.count("the quota is not shared with other runs") == 1

"""Two runs on one snapshot: the second is refused, and can run as soon as the first is dead."""

from __future__ import annotations

import itertools
import os
import signal
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio import from_thread

from neows_async.errors import SnapshotHeldError
from neows_async.lake.storage.local import LocalStorage
from neows_async.settings import Settings
from neows_async.testing import ListSource
from tests import lakes
from tests.lake.storage import seaweedfs
from tests.neos import catalogue
from tests.torture.driver import Job
from tests.torture.harness import KILLED, Driver, serving, synthetic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from neows_async.pages.values import RawPage


class Renewed:
    """A lock that must be checked every millisecond.

    :ivar often: set at the fifth check
    """

    check_every_s = 0.001

    def __init__(self, *, lost: bool) -> None:
        self.often = anyio.Event()
        self._lost = lost
        self._checks = itertools.count(1)

    def check(self) -> None:
        if next(self._checks) == 5:
            if self._lost:
                raise SnapshotHeldError("lost to another run")
            from_thread.run_sync(self.often.set)

    def release(self) -> None:
        pass


class Locking(LocalStorage):
    """A folder whose lock is ``renewed``."""

    renewed: Renewed

    def lock(self, key: str, owner: str) -> Renewed:  # type: ignore[override]  # noqa: ARG002 - one lock for every key
        return self.renewed


class Waiting(ListSource):
    """A source that returns its second page only after five checks of the lock."""

    def __init__(self, lock: Renewed) -> None:
        super().__init__(catalogue(40))
        self._lock = lock

    async def fetch(self, number: int, size: int) -> RawPage:
        if number == 1:
            await self._lock.often.wait()
        return await super().fetch(number, size)


async def test_a_lock_is_renewed_while_a_run_lasts(tmp_path: Path) -> None:
    storage = Locking(tmp_path)
    storage.renewed = Renewed(lost=False)
    receipt = await lakes.write(storage, Waiting(storage.renewed), Settings(snapshot="a", limit=None))
    assert receipt.records.written == 40


async def test_a_run_that_lost_its_lock_commits_nothing(tmp_path: Path) -> None:
    storage = Locking(tmp_path)
    storage.renewed = Renewed(lost=True)
    with pytest.raises(SnapshotHeldError, match="lost to another run"):
        await lakes.write(storage, Waiting(storage.renewed), Settings(snapshot="a", limit=None))
    assert not (tmp_path / "_runs").exists()
    assert not (tmp_path / "neos").exists()
    receipt = await lakes.make(LocalStorage(tmp_path), catalogue(40), "a")
    # Page 0 may or may not be durable when the lock is lost. In the end every page must be there.
    assert receipt.records.written == 40


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "lake")
    s3: seaweedfs.SeaweedFS = request.getfixturevalue("s3")
    return s3.uri(f"two/{tmp_path.name}")


@contextmanager
def drivers() -> Iterator[tuple[Driver, Driver]]:
    keys = {"AWS_ACCESS_KEY_ID": seaweedfs.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": seaweedfs.SECRET_KEY}
    with Driver(**keys) as first, Driver(**keys) as second:
        yield first, second


@pytest.mark.parametrize("verb", ["put page=00002.json.zst", "put done commit.json"])
def test_a_second_run_is_refused_until_the_first_is_dead(root: str, verb: str) -> None:
    pages = synthetic(4, 3)
    with serving(pages) as server, drivers() as (first, second):
        job = Job(root, server.url, settings=pages.settings)
        pid = first.start(Job(root, server.url, settings=pages.settings, hang_at=0, count_from=verb))
        first.hung()
        refused = second.run(job)
        assert refused.code == 73
        assert f"held by process {pid} on {socket.gethostname()}" in refused.said
        before = len(server.asked)
        os.kill(pid, signal.SIGKILL)
        assert first.end().code == KILLED
        assert second.run(job).code == 0
        assert set(server.pages[before:]) <= {1, 2, 3}

"""Real faults of a disk and an object store: the run ends with 74 and one line, and the same command finishes it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from neows_async.pipeline.fetch_loop import SPARE_TASKS
from tests import loopback
from tests.lake.storage import seaweedfs
from tests.torture.driver import Job
from tests.torture.harness import Campaign, Driver, Tally, serving, synthetic
from tests.torture.line import line_to

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.torture.driver import End

PAGES: Final = synthetic(12)


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    with Driver(AWS_ACCESS_KEY_ID=seaweedfs.ACCESS_KEY, AWS_SECRET_ACCESS_KEY=seaweedfs.SECRET_KEY) as driver:
        yield driver


@pytest.fixture
def campaign(driver: Driver, tmp_path: Path) -> Iterator[Campaign]:
    tally = Tally()
    with serving(PAGES) as server:
        yield Campaign(driver, server, PAGES, str(tmp_path), tally)
    assert tally.violations == []


def refused(end: End, *what: str) -> None:
    assert end.code == 74
    assert "\n" not in end.said
    for text in what:
        assert text in end.said


@contextmanager
def disk(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A small disk at ``folder``; yields a function that remounts it."""

    def mount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)

    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, check=False
    )
    if not mounted or mounted.returncode != 0:
        pytest.skip("this user may not mount a small disk")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_or_read_only_disk_ends_the_run_with_one_line(campaign: Campaign, tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "64k") as mount:
        torture = campaign.torture("a small disk", root=str(tmp_path / "disk" / "lake"))
        refused(campaign.driver.run(torture.job), "lake/", "the disk is full; free some space")
        mount("ro,size=64m")
        refused(campaign.driver.run(torture.job), "lake/", "the file system is read-only")
        mount("rw,size=64m")
        torture.finish(campaign.expected)


def test_a_lake_that_is_removed_during_the_run_ends_it_with_one_line(driver: Driver, tmp_path: Path) -> None:
    lake = tmp_path / "lake"

    def answer(asked: loopback.Asked) -> loopback.Answer:
        if asked.page == 7:
            with suppress(OSError):  # the run writes during the removal
                shutil.rmtree(lake)
            shutil.rmtree(lake, ignore_errors=True)
        return loopback.Answer(PAGES.bodies[asked.page], headers={"Content-Encoding": "gzip"})

    with loopback.serving(answer) as server:
        refused(driver.run(Job(str(lake), server.url, settings=PAGES.settings)), f"{lake}", "was removed")
    with serving(PAGES) as server:
        assert driver.run(Job(str(lake), server.url, settings=PAGES.settings)).code == 0


def test_a_folder_without_write_permission_ends_the_run_with_one_line(driver: Driver) -> None:
    if os.geteuid() != 0:
        pytest.skip("only the superuser can run as another")
    with tempfile.TemporaryDirectory(prefix="neows-") as folder, serving(PAGES) as server:
        Path(folder).chmod(0o755)
        lake = Path(folder, "lake")
        job = Job(str(lake), server.url, settings=PAGES.settings, uid=65_534)
        refused(driver.run(job), f"{lake}/_staging/a.lock: permission denied for uid 65534")
        lake.mkdir()
        os.chown(lake, 65_534, 65_534)
        driver.run(replace(job, kill_at=0, count_from="put page=00003.json.zst"))
        raw = lake / "raw/snapshot=a/gen=0"
        os.chown(raw, 0, 0)
        refused(driver.run(job), f"{lake}/raw/snapshot=a", "permission denied for uid 65534")
        os.chown(raw, 65_534, 65_534)
        assert driver.run(job).code == 0


# Object stores


def test_a_paused_object_store_only_costs_time(driver: Driver, s3: seaweedfs.SeaweedFS) -> None:
    for hang in (("PUT", "/page=00003.json.zst"), ("COPY", "/part-00000.parquet"), ("PUT", "/_runs/a.json")):
        with serving(PAGES) as server, line_to(s3.port) as line:
            line.arm(die_at=hang)
            root = seaweedfs.SeaweedFS(line.port).uri(f"stopped{hang[1]}")
            driver.start(Job(root, server.url, settings=PAGES.settings))
            assert line.dead.wait(60)
            line.arm()
            assert driver.end().code == 0
            assert sorted(server.pages) == list(range(12))


def test_a_run_resumes_after_its_object_store_was_unreachable(driver: Driver, s3: seaweedfs.SeaweedFS) -> None:
    with serving(PAGES) as server:
        with line_to(s3.port) as line:
            line.arm(die_at=("PUT", "/page=00003.json.zst"))
            over_line = seaweedfs.SeaweedFS(line.port).uri("away")
            driver.start(Job(over_line, server.url, settings=PAGES.settings))
            assert line.dead.wait(60)
            line.close()
        refused(driver.end(), "s3://lake/away/", "check the network")
        assert driver.run(Job(s3.uri("away"), server.url, settings=PAGES.settings)).code == 0
        again = [page for page in set(server.pages) if server.pages.count(page) > 1]
        assert len(again) <= 4 + SPARE_TASKS, "only pages in flight, or whose put was in flight"


def test_a_run_ends_with_one_line_if_its_rights_are_withdrawn(s3: seaweedfs.SeaweedFS) -> None:
    reader = Driver(AWS_ACCESS_KEY_ID=seaweedfs.READER_ACCESS_KEY, AWS_SECRET_ACCESS_KEY=seaweedfs.READER_SECRET_KEY)
    writer = Driver(AWS_ACCESS_KEY_ID=seaweedfs.ACCESS_KEY, AWS_SECRET_ACCESS_KEY=seaweedfs.SECRET_KEY)
    with serving(PAGES) as server, reader, writer:
        job = Job(s3.uri("rights"), server.url, settings=PAGES.settings)
        writer.run(Job(job.root, job.url, settings=job.settings, kill_at=0, count_from="put page=00003.json.zst"))
        refused(reader.run(job), "s3://lake/rights/_staging/a.lock", "access denied")
        assert writer.run(job).code == 0

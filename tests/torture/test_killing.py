"""The short form of ``make torture``: a kill at any step loses nothing."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.lake.storage import seaweedfs
from tests.torture import campaigns
from tests.torture.harness import Campaign, Driver, Tally, recorded, serving, synthetic
from tests.torture.line import line_to

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    with Driver(AWS_ACCESS_KEY_ID=seaweedfs.ACCESS_KEY, AWS_SECRET_ACCESS_KEY=seaweedfs.SECRET_KEY) as driver:
        yield driver


@pytest.fixture
def tally() -> Iterator[Tally]:
    tally = Tally()
    yield tally
    assert tally.kills + tally.faults > 0
    assert tally.violations == [], tally.table()


@pytest.fixture
def small(driver: Driver, tally: Tally, tmp_path: Path) -> Iterator[Campaign]:
    pages = synthetic(4, 3)
    with serving(pages) as server:
        yield Campaign(driver, server, pages, str(tmp_path), tally)


@pytest.mark.parametrize(
    "torture",
    [
        lambda campaign: campaigns.every_step(campaign, stride=3),
        lambda campaign: campaigns.growing_steps(campaign, stride=3),
        lambda campaign: campaigns.every_call(campaign, stride=7),
        lambda campaign: campaigns.within_the_commit(campaign, stride=13),
        lambda campaign: campaigns.random_instants(campaign, 10, random.Random(4)),
        lambda campaign: campaigns.rebuilds(campaign, stride=13),
        lambda campaign: campaigns.replays(campaign, stride=17),
        lambda campaign: campaigns.prunes(campaign, stride=9),
        lambda campaign: campaigns.without_an_archive(campaign, stride=13),
        lambda campaign: campaigns.unnamed(campaign, stride=13),
    ],
    ids=[
        "each step", "each time a step later", "each system call", "in the commit", "any instant", "a rebuild",
        "a replay", "a prune", "without an archive", "unnamed",
    ],
)  # fmt: skip
def test_a_killed_run_is_finished_by_the_next_one(small: Campaign, torture: Callable[[Campaign], None]) -> None:
    torture(small)


def test_a_full_disk_ends_the_run_with_one_line_and_the_next_one_finishes_it(small: Campaign, tally: Tally) -> None:
    campaigns.every_fault(small, stride=3)
    assert tally.faults > 0


def test_a_run_over_recorded_pages_survives_a_kill_at_any_step(
    driver: Driver, tally: Tally, tmp_path: Path, recorded_pages: Path
) -> None:
    pages = recorded(recorded_pages)
    with serving(pages) as server:
        campaigns.growing_steps(Campaign(driver, server, pages, str(tmp_path), tally), stride=5)


def test_a_run_over_a_hundred_pages_survives_a_kill_at_any_step(driver: Driver, tally: Tally, tmp_path: Path) -> None:
    pages = synthetic(100)
    with serving(pages) as server:
        campaigns.growing_steps(Campaign(driver, server, pages, str(tmp_path), tally), stride=40)


def test_a_run_on_s3_survives_a_kill(driver: Driver, tally: Tally, s3: seaweedfs.SeaweedFS) -> None:
    pages = synthetic(4, 3)
    with serving(pages) as server, line_to(s3.port) as line:
        campaign = Campaign(driver, server, pages, "torture", tally, s3=s3, line=line)
        campaigns.every_request(campaign, stride=13)
        campaigns.prunes(campaign, stride=67)

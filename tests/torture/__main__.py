"""The long form: ``make torture``. Hundreds of kills, a table of them, and a failure if a page was lost or doubled.

``python -m tests.torture [SEED]``; the seed of a failed run repeats its random instants.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.lake.storage import seaweedfs
from tests.torture import campaigns
from tests.torture.harness import Campaign, Driver, Pages, Tally, recorded, serving, synthetic
from tests.torture.line import line_to

if TYPE_CHECKING:
    from collections.abc import Callable

RECORDED: Final = Path(__file__).parents[3] / "shared" / "data" / "neows-2026-03-01"
LEAST_LOCAL: Final = 500
LEAST_S3: Final = 100


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description="Kill runs, and check their lakes.")
    parser.add_argument("seed", type=int, nargs="?", help="the seed of a failed run repeats its random instants")
    given: int | None = parser.parse_args().seed
    seed = random.randrange(10**6) if given is None else given
    print(f"seed {seed}", flush=True)
    catalogues = [synthetic(4, 3), synthetic(100)]
    if RECORDED.is_dir():
        catalogues.append(recorded(RECORDED))
    else:
        print(f"The recorded pages are not here: {RECORDED}")
    passed = [_local(catalogues, random.Random(seed))]
    program = seaweedfs.weed_program()
    if program is None:
        print("SeaweedFS is not installed: no runs on S3.")
    else:
        passed.append(_s3(program, catalogues, random.Random(seed)))
    return 0 if all(passed) else 1


def _local(catalogues: list[Pages], chance: random.Random) -> bool:
    tally = Tally()
    for pages in catalogues:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="torture-"))
            server = stack.enter_context(serving(pages))
            driver = stack.enter_context(Driver())
            campaign = Campaign(driver, server, pages, folder, tally, durable=True)
            small = len(pages.bodies) < 10
            large = len(pages.bodies) > 10
            _do(campaign, campaigns.every_step, stride=7 if large else 1)
            _do(campaign, campaigns.growing_steps)
            _do(campaign, campaigns.random_instants, kills=60, chance=chance)
            if large:
                continue
            _do(campaign, campaigns.every_call)
            _do(campaign, campaigns.every_fault)
            _do(campaign, campaigns.rebuilds)
            _do(campaign, campaigns.without_an_archive)
            _do(campaign, campaigns.unnamed)
            if small:
                _do(campaign, campaigns.within_the_commit)
                _do(campaign, campaigns.replays)
                _do(campaign, campaigns.prunes)
                _do(campaign, campaigns.faults_of_prunes, stride=3)
            else:
                _do(campaign, campaigns.the_program, kills=20, chance=chance)
    return _report("On a disk", tally, LEAST_LOCAL)


def _s3(program: str, catalogues: list[Pages], chance: random.Random) -> bool:
    tally = Tally()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="torture-"))
        s3 = stack.enter_context(seaweedfs.running(program, Path(folder)))
        driver = stack.enter_context(Driver(**s3.environment))
        for number, pages in enumerate(catalogues):
            with serving(pages) as server, line_to(s3.port) as line:
                campaign = Campaign(driver, server, pages, f"c{number}", tally, s3=s3, line=line)
                large = len(pages.bodies) > 10
                _do(campaign, campaigns.every_request, stride=11 if large else 1)
                _do(campaign, campaigns.every_step, stride=29 if large else 3)
                _do(campaign, campaigns.random_instants, kills=15, chance=chance)
                if len(pages.bodies) < 10:
                    _do(campaign, campaigns.replays, stride=3)
                    _do(campaign, campaigns.prunes, stride=3)
                    _do(campaign, campaigns.faults_of_prunes, stride=11)
                if not large:
                    _do(campaign, campaigns.rebuilds, stride=3)
                    _do(campaign, campaigns.every_fault, stride=3)
    return _report("On S3", tally, LEAST_S3)


def _do(campaign: Campaign, kind: Callable[..., None], **how: Any) -> None:
    kills, began_s = campaign.tally.kills, time.perf_counter()
    kind(campaign, **how)
    took_s = time.perf_counter() - began_s
    name = kind.__name__.replace("_", " ")
    print(f"  {campaign.pages.name}, {name}: {campaign.tally.kills - kills} kills in {took_s:.0f} s", flush=True)


def _report(place: str, tally: Tally, least: int) -> bool:
    print(
        f"\n{place}: {tally.kills} kills and {tally.faults} faults on {tally.lakes} lakes, "
        f"{tally.looks} passes of the reader beside them"
    )
    print(f"\n{tally.table()}\n")
    for violation in tally.violations:
        print(f"VIOLATION: {violation}")
    print(f"{place}: {len(tally.violations)} violations")
    if tally.kills < least:
        print(f"{place}: {tally.kills} kills are fewer than {least}")
    return not tally.violations and tally.kills >= least


if __name__ == "__main__":
    sys.exit(main())

"""The ways in which runs are killed, for any catalogue and any storage."""

from __future__ import annotations

import hashlib
import itertools
import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from neows_async.lake.layout import LATEST
from neows_async.pages.stored import compress, expand
from tests import program
from tests.torture.driver import KEY, End
from tests.torture.harness import LIMIT_S, content

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from neows_async.lake.storage.interface import Storage
    from tests.torture.harness import Campaign, Content, Torture

_COMMIT: Final = "put commit.json"


def every_step(campaign: Campaign, *, stride: int = 1, mode: str = "each step", **more: Any) -> None:
    """A kill at each input and output, each on a new lake."""
    for step in itertools.count(0, stride):
        if not campaign.one(mode, {"kill_at": step}, **more):
            break


def every_fault(campaign: Campaign, *, stride: int = 1) -> None:
    """A failure at each step as on a full disk, before or after the step was done."""
    for step in itertools.count(0, stride):
        if not campaign.one("a fault at each step", {"fail_at": step}):
            break


def growing_steps(campaign: Campaign, *, stride: int = 1) -> None:
    """On one lake: each run is killed one stride later than the run before it, until one is done."""
    campaign.until_done("each time a step later", ({"kill_at": step} for step in itertools.count(0, stride)))


def every_call(campaign: Campaign, *, stride: int = 1) -> None:
    """A kill at each system call that touches the folder, which is also within a step."""
    for call in itertools.count(0, stride):
        if not campaign.one("each system call", {"kill_at_call": call}):
            break


def within_the_commit(campaign: Campaign, *, stride: int = 1) -> None:
    """A kill at each step of the commit, then a kill of the next run at each of its steps."""
    for step in itertools.count(0, stride):
        first = {"kill_at": step, "count_from": _COMMIT}
        if not campaign.one("in the commit", first):
            break
        for again in itertools.count(0, stride):
            if not campaign.one("in the commit, then in the recovery", first, {"kill_at": again}):
                break


def random_instants(campaign: Campaign, kills: int, chance: random.Random) -> None:
    """Kills from outside at random instants; each lake until it is done."""

    def instants() -> Iterator[dict[str, Any]]:
        while True:
            yield {"kill_after_s": chance.uniform(0, 1.2 * campaign.took_s)}

    until = campaign.tally.kills + kills
    while campaign.tally.kills < until:
        campaign.until_done("any instant", instants())


def rebuilds(campaign: Campaign, *, stride: int = 1) -> None:
    """A kill at each step of a rebuild; the parent must stay unchanged."""
    rebuilt: Content | None = None
    for step in itertools.count(-1, stride):  # at -1 without a fault: the expected contents
        parent = campaign.torture("each step of a rebuild")
        parent.run()
        child = campaign.sibling(parent, snapshot="b", from_snapshot="a", settings={"max_missing_pages": None})
        with campaign.watched(child):
            end = child.run(kill_at=step)
            found = child.finish(rebuilt)
        if rebuilt is not None and end.code == 0:
            break
        rebuilt = rebuilt or found


def replays(campaign: Campaign, *, stride: int = 1) -> None:
    """A kill at each step of ``quarantine replay``: in the end there is one new snapshot."""
    parent = campaign.torture("a parent")
    parent.run()
    _as_an_older_program_left_it(parent.storage)
    before = content(parent.storage)
    expected: Content | None = None
    for step in itertools.count(-1, stride):  # as above
        torture = campaign.copy(parent, "each step of a replay", snapshot=None, replay=True)
        with campaign.watched(torture) as reader:
            end = torture.run(kill_at=step)
            if expected is None:
                found = torture.finish(None)
                [child] = {str(receipt["snapshot"]) for receipt in found.receipts.values()} - {"a"}
                expected = found.calling(child, "b")
                assert before.files.items() <= expected.files.items()  # the parent is unchanged
            else:
                torture.finish_unnamed_child(expected)
            reader.verify(but="a")  # the raw pages of "a" were changed above
        if step >= 0 and end.code == 0:
            break


def _as_an_older_program_left_it(storage: Storage) -> None:
    """Make the rejected object readable, as if an older program with stricter rules had rejected it."""

    def mend(data: bytes) -> bytes:
        assert b"bright" in data
        return data.replace(b"bright", b"20.5")

    page, lines = "raw/snapshot=a/gen=0/page=00000.json.zst", "quarantine/snapshot=a/rejected.jsonl"
    storage.put(page, compress(mend(expand(storage.get(page), 1 << 24))))
    storage.put(lines, mend(storage.get(lines)))
    for key in ("_runs/a.json", LATEST):
        receipt = json.loads(storage.get(key))
        [file] = [file for file in receipt["files"] if file["path"] == lines]
        file.update(bytes=len(storage.get(lines)), sha256=hashlib.sha256(storage.get(lines)).hexdigest())
        storage.put(key, json.dumps(receipt).encode())


def prunes(campaign: Campaign, *, stride: int = 1) -> None:
    """A kill at each step of a prune: every snapshot with a receipt is whole, and the next prune finishes."""
    old, expected = _old_lake(campaign)
    for step in itertools.count(0, stride):
        torture = campaign.copy(old, "each step of a prune", keep=1)
        with campaign.watched(torture) as reader:
            end = torture.run(kill_at=step)
            reader.look()
            reader.verify()
            torture.finish(expected)
        if end.code == 0:
            break


def faults_of_prunes(campaign: Campaign, *, stride: int = 1) -> None:
    """As :func:`every_fault`, for a prune."""
    old, expected = _old_lake(campaign)
    for step in itertools.count(0, stride):
        torture = campaign.copy(old, "a fault at each step of a prune", keep=1)
        with campaign.watched(torture) as reader:
            end = torture.run(fail_at=step)
            reader.look()
            reader.verify()
            torture.finish(expected)
        if end.code == 0 and end.step is None:
            break


def _old_lake(campaign: Campaign) -> tuple[Torture, Content]:
    """A lake with the snapshot ``a``, its rebuild ``b``, the latest ``c``, an unfinished ``u`` and foreign files.

    :returns: the lake, and what a prune must keep
    """
    first = campaign.torture("an old lake")
    first.run()
    campaign.sibling(first, snapshot="b", from_snapshot="a", settings={"max_missing_pages": None}).run()
    campaign.sibling(first, snapshot="c").run()
    campaign.sibling(first, snapshot="u").run(kill_at=0, count_from="put page=00002.json.zst")
    for key in _FOREIGN:
        first.storage.put(key, b"mine")
    found = content(first.storage)
    receipts = {"_runs/c.json", LATEST}
    stays = [key for key in found.files.keys() | receipts if "/snapshot=c/" in key or key in {*receipts, *_FOREIGN}]
    return first, found.only(stays)


_FOREIGN: Final = (
    "neos/mine",
    "neos/snapshot=u/mine.csv",
    "raw/snapshot=u/gen=0/notes",
    "_runs/mine.txt",
    "_staging/b/mine",
)


def the_program(campaign: Campaign, kills: int, chance: random.Random) -> None:
    """Kills of ``neows-async run`` at random instants from its start on."""
    until, longest_s = campaign.tally.kills + kills, float(LIMIT_S)
    while campaign.tally.kills < until:
        torture = campaign.torture("any instant of neows-async run")
        settings = torture.job.settings
        arguments = ["--root", torture.job.root, "--base-url", torture.job.url, "--snapshot", "a"]
        arguments += ["--all"] if settings["limit"] is None else ["--limit", str(settings["limit"])]
        arguments += ["--page-size", str(settings.get("page_size", 20)), "--quiet"]
        with campaign.watched(torture):
            while not torture.done:
                torture.about_to_run()
                process = subprocess.Popen(
                    [sys.executable, "-m", "neows_async", "run", *arguments],
                    env=program.clean_environment(NASA_API_KEY=KEY),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )
                began_s = time.perf_counter()
                try:
                    process.wait(chance.uniform(0.5, 1.1) * longest_s)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                end = torture.looked_at(End(process.wait(LIMIT_S)))
                if end.code == 0:  # the first is not killed, and measures the time of a run
                    longest_s = time.perf_counter() - began_s
            torture.finish(campaign.expected_of(torture))


def every_request(campaign: Campaign, *, stride: int = 1) -> None:
    """On an object store: a kill at each request, before it reaches the store, and after, when its response is lost."""
    line = campaign.line
    assert line is not None
    for number in itertools.count(0, stride):
        hits = 0
        for after in (False, True):
            torture = campaign.torture(f"each request, {'its response lost' if after else 'not sent'}")
            with campaign.watched(torture):
                line.arm(kill_at=number, after=after)
                line.name(torture.started(request=number))
                hits += torture.ended().code != 0
                line.arm()
                torture.finish(campaign.expected_of(torture))
        if not hits:
            break


def without_an_archive(campaign: Campaign, *, stride: int = 1) -> None:
    """Without raw pages only the id is resumed, and leftovers are removed."""
    every_step(campaign, stride=stride, mode="each step, without an archive", settings={"archive": False})


def unnamed(campaign: Campaign, *, stride: int = 1) -> None:
    """Without ``--snapshot``: the next run must find the unfinished snapshot by itself."""
    for step in itertools.count(0, stride):
        torture = campaign.torture("each step, unnamed", snapshot=None)
        with campaign.watched(torture):
            end = torture.run(kill_at=step)
            torture.finish_unnamed(campaign.expected)
        if end.code == 0:
            break

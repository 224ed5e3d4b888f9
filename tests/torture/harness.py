"""Kills runs, runs them again until they are done, and compares the lake with an undisturbed run's."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Self

import anyio

from neows_async.errors import NotFoundError, StorageError
from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.layout import LATEST
from neows_async.lake.storage.local import LocalStorage
from neows_async.lake.storage.object_store import ObjectStorage
from neows_async.maintenance.verify import verify
from neows_async.sandbox.catalogue import SyntheticCatalogue
from neows_async.testing import browse_page
from tests import loopback
from tests.lake.storage import seaweedfs
from tests.torture.driver import KEY, End, Job

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from neows_async.lake.storage.interface import Storage
    from tests.torture.line import Line, Request

PROJECT: Final = Path(__file__).parents[2]
LIMIT_S: Final = 120.0
KILLED: Final = -signal.SIGKILL
_RAW_PAGE: Final = "/page="
_COMPLETE: Final = "nothing: the snapshot is complete"


class Driver:
    """The process that forks the runs, one at a time."""

    def __init__(self, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.driver"],
            cwd=PROJECT,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def start(self, job: Job) -> int:
        """Begin a run.

        :returns: its process id
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
        return int(self._line())

    def hung(self) -> End:
        """Wait until the run hangs; where it hangs."""
        return self.end()

    def end(self) -> End:
        """Wait until the run ends; how it ended."""
        value = json.loads(self._line())
        if value.get("step") is not None:
            value["step"] = tuple(value["step"])
        return End(**value)

    def run(self, job: Job) -> End:
        """Begin a run and wait until it ends."""
        self.start(job)
        return self.end()

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], LIMIT_S)[0]:
            raise TimeoutError(f"a run did not end within {LIMIT_S:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the driver ended; its output is above")
        return line


# The catalogue


@dataclass(frozen=True)
class Pages:
    """A catalogue: the gzip-encoded body of each page, and the settings that read all pages."""

    name: str
    bodies: Sequence[bytes]
    settings: dict[str, Any]


def recorded(folder: Path) -> Pages:
    """The recorded pages, with the test's key in their links, as the source writes it."""
    bodies = [
        gzip.compress(gzip.decompress(path.read_bytes()).replace(b"DEMO_KEY", KEY.encode()), 1, mtime=0)
        for path in sorted(folder.glob("page_*.json.gz"))
    ]
    return Pages(f"{len(bodies)} real pages", bodies, {"limit": 20 * len(bodies)})


def synthetic(pages: int, size: int = 5) -> Pages:
    """Objects of the sandbox. One is unreadable and one occurs twice, so that a run writes every kind of file."""
    entries = SyntheticCatalogue(pages * size, 7).entries(0, pages * size)
    objects = [json.loads(entry.body) | {"links": {"self": f"http://x/{entry.id}?api_key={KEY}"}} for entry in entries]
    objects[2]["absolute_magnitude_h"] = "bright"
    objects[-1] = objects[0]
    bodies = [gzip.compress(browse_page(objects, number, size), 1, mtime=0) for number in range(pages)]
    return Pages(f"{pages} sandbox pages", bodies, {"limit": None, "page_size": size})


@contextmanager
def serving(pages: Pages) -> Iterator[loopback.Server]:
    """A real server on loopback that counts its requests."""

    def answer(asked: loopback.Asked) -> loopback.Answer:
        return loopback.Answer(pages.bodies[asked.page], headers={"Content-Encoding": "gzip"})

    with loopback.serving(answer) as server:
        yield server


# The reader


class Reader:
    """Reads ``latest`` and every receipt again and again while runs are killed. Each file must exist, whole.

    A file may be missing if its receipt is missing, too: then the snapshot was removed after the receipt was read.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._hashed: set[str] = set()
        self._reading = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self.looks = 0
        self.violations: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(LIMIT_S)
        self.look()

    def look(self) -> None:
        """Read everything once."""
        with self._reading:
            self._look()

    def _look(self) -> None:
        for entry in self._storage.list("_runs"):
            if not entry.key.endswith(".json"):
                continue
            try:
                data = self._storage.get(entry.key)
            except NotFoundError:
                continue
            try:
                receipt = json.loads(data)
            except ValueError:
                self.violations.append(f"{entry.key} is not whole")
                continue
            for file in receipt["files"]:
                self._check(entry.key, data, file)
            self._hashed.add(hashlib.sha256(data).hexdigest())
        self.looks += 1

    def _check(self, key: str, receipt: bytes, file: dict[str, Any]) -> None:
        path = file["path"]
        found = {entry.key: entry.bytes for entry in self._storage.list(path.rpartition("/")[0])}
        if found.get(path) != file["bytes"]:
            if self._exists(key):
                self.violations.append(f"{key} names {path} of {file['bytes']} bytes; there are {found.get(path)}")
        elif hashlib.sha256(receipt).hexdigest() not in self._hashed:
            try:
                data = self._storage.get(path)
            except NotFoundError:
                if self._exists(key):
                    self.violations.append(f"{key} names {path}, which is gone")
                return
            if hashlib.sha256(data).hexdigest() != file["sha256"]:
                self.violations.append(f"{key}: {path} has other bytes than the receipt says")

    def _exists(self, key: str) -> bool:
        return any(entry.key == key for entry in self._storage.list("_runs"))

    def _read(self) -> None:
        while not self._stop.wait(0.005):
            try:
                self.look()
            except StorageError as exc:  # the test paused the store
                if not isinstance(exc, NotFoundError):
                    continue
                raise

    def verify(self, *, but: str | None = None) -> None:
        """Verify each snapshot but ``but``, with its raw pages."""
        for entry in self._storage.list("_runs"):
            snapshot = entry.key.removeprefix("_runs/").removesuffix(".json")
            if entry.key.endswith(".json") and snapshot not in ("latest", but):
                differences = anyio.run(verify, AsyncStorage(self._storage), snapshot).differences
                self.violations += [f"{snapshot}: {difference}" for difference in differences]


# The contents of a lake


@dataclass(frozen=True)
class Content:
    """The contents of a lake.

    :param files: the digest of every file except receipts
    :param receipts: of each receipt the fields that every run of the same settings writes equally
    :param names: all keys; in a local lake also hidden files and folders
    """

    files: dict[str, str]
    receipts: dict[str, Any]
    names: frozenset[str]

    def without(self, folder: str) -> Content:
        """The contents without ``folder``, which is the raw zone: then receipts name no raw snapshot."""

        def inside(name: str) -> bool:
            return name == folder or name.startswith(f"{folder}/")

        receipts = {
            key: receipt | {"raw": receipt["raw"] | {"snapshot": None}} for key, receipt in self.receipts.items()
        }
        files = {key: digest for key, digest in self.files.items() if not inside(key)}
        return Content(files, receipts, frozenset(name for name in self.names if not inside(name)))

    def calling(self, snapshot: str, name: str) -> Content:
        """The same contents with the id ``name`` in place of ``snapshot``."""

        def renamed(text: str) -> str:
            return text.replace(snapshot, name)

        files = {renamed(key): digest for key, digest in self.files.items()}
        return Content(files, json.loads(renamed(json.dumps(self.receipts))), frozenset(map(renamed, self.names)))

    def only(self, keys: Iterable[str]) -> Content:
        """The contents with only the files of ``keys``."""
        kept = set(keys)
        folders = {str(folder) for key in kept for folder in PurePosixPath(key).parents[:-1]}
        return Content(
            {key: digest for key, digest in self.files.items() if key in kept},
            {key: receipt for key, receipt in self.receipts.items() if key in kept},
            self.names & (kept | folders),
        )


_COMMON: Final = (
    "snapshot", "parent", "complete", "source", "total_elements", "page_size", "records", "close_approaches",
    "rejected_because", "nulls", "unknown_fields", "aggregates", "files", "raw", "identity", "derivation",
)  # fmt: skip


def content(storage: Storage) -> Content:
    """The contents of ``storage``."""
    files, receipts = {}, {}
    names = {entry.key for entry in storage.list("")}
    for key in names:
        data = storage.get(key)
        if key.startswith("_runs/") and key.endswith(".json"):
            receipt = json.loads(data)
            receipts[key] = {name: receipt[name] for name in _COMMON}
        else:
            files[key] = hashlib.sha256(data).hexdigest()
    if isinstance(storage, LocalStorage):
        root = Path(storage.uri)
        names |= {str(path.relative_to(root)) for path in root.rglob("*")}
    return Content(files, receipts, frozenset(names))


@dataclass
class Tally:
    """Counts of kills and faults, and all violations."""

    deaths: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """How a run was killed, at which step, and how the next run recovers → number of kills."""
    violations: list[str] = field(default_factory=list)
    faults: int = 0
    lakes: int = 0
    looks: int = 0

    @property
    def kills(self) -> int:
        return self.deaths.total()

    def table(self) -> str:
        """Two tables of kills: by method; by step, with how the next run recovered."""
        ways = Counter[str]()
        hits: dict[str, Counter[str]] = {}
        for (way, where, recovery), count in self.deaths.items():
            ways[way] += count
            hits.setdefault(where, Counter())[recovery] += count
        recoveries = sorted({recovery for _, _, recovery in self.deaths})
        return "\n\n".join(
            [
                _columns([["killed at", "times"], *([way, str(ways[way])] for way in sorted(ways))]),
                _columns(
                    [
                        ["step", *recoveries],
                        *([where, *(str(hits[where][name] or "") for name in recoveries)] for where in sorted(hits)),
                    ]
                ),
            ]
        )


def _columns(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


# One lake under torture


class Torture:
    """One lake, from its first run until it is committed.

    :param storage: reads the lake directly, without the faults that the run has
    :param mode: the kind of test, for the tally
    """

    def __init__(self, campaign: Campaign, job: Job, storage: Storage, mode: str) -> None:
        self.campaign = campaign
        self.driver = campaign.driver
        self.tally = campaign.tally
        self.server = campaign.server
        self.job = job
        self.storage = storage
        self.mode = mode
        self.done = False
        self._fault: dict[str, Any] = {}
        self._was_complete = False
        self._durable: set[int] = set()

    def run(self, **fault: Any) -> End:
        """One run. Pages that were durable when it began must not be requested again."""
        self.started(**fault)
        return self.ended()

    def started(self, **fault: Any) -> int:
        """Begin one run.

        :returns: its process id
        """
        self.about_to_run(**fault)
        ours = {name: value for name, value in fault.items() if name in Job.__dataclass_fields__}
        return self.driver.start(replace(self.job, **ours))

    def about_to_run(self, **fault: Any) -> None:
        """Prepare for a run: all later requests are counted as its own."""
        self._requests_before = len(self.server.asked)
        self._fault = fault

    def ended(self) -> End:
        """Wait until the run ends, and check the lake."""
        return self.looked_at(self.driver.end())

    def looked_at(self, end: End) -> End:
        """Check the lake after a run that ended with ``end``."""
        job = self.job
        if job.settings.get("archive", True) and job.from_snapshot is None and not job.replay and job.keep is None:
            again = sorted(self._durable & set(self.server.pages[self._requests_before :]))
            if again:
                self._complain(f"pages {again} were durable and were requested again")
            self._durable = {
                int(entry.key.rpartition(_RAW_PAGE)[2].partition(".")[0]) for entry in self.storage.list("raw")
            }
            if self.job.snapshot is None and self._state() == _COMPLETE:
                self._durable, self._was_complete = set(), True  # the next run begins another snapshot
        if end.code == KILLED:
            self.tally.deaths[self.mode, _where(end, self.campaign.hit()), self._state()] += 1
        elif end.code == 0:
            # A lock that could not be released is no error: the next run removes its file.
            self.done = end.step is None or end.step[1] != "release"
        elif end.code == 74 and self._fault.get("fail_at") is not None:
            self.tally.faults += 1
            assert end.step is not None
            if end.said.count("\n") or end.step[2] not in end.said or "No space left on device" not in end.said:
                self._complain(f"its error is not one line that names what failed at {end.step}: {end.said}")
        else:
            self._complain(f"it ended with {end.code}: {end.said}")
        return end

    def finish(self, expected: Content | None) -> Content:
        """Run without faults until done, and compare."""
        for _ in range(3):
            if self.done:
                break
            self.run()
        found = content(self.storage)
        if not self.done:
            self._complain("it was not finished")
        elif expected is not None:
            self._compare(found, expected)
        return found

    def finish_unnamed(self, expected: Content) -> None:
        """As :meth:`finish`, for runs whose id is the start time.

        A run that is killed before it has an id leaves its lock file. If a run is killed after its snapshot is
        complete, the next run begins another snapshot.
        """
        self.finish(None)
        found = content(self.storage)
        ids = {str(receipt["snapshot"]) for receipt in found.receipts.values()}
        for snapshot in ids:
            folder = f"/snapshot={snapshot}/"
            mine = {key.replace(folder, "/snapshot=a/"): found.files[key] for key in found.files if folder in key}
            if mine != expected.files:
                self._complain(f"{snapshot} differs from an undisturbed run's")
        if len(ids) != 1 and not self._was_complete:
            self._complain(f"there are {len(ids)} snapshots")
        for key in found.names:
            if key.startswith("_staging/") and not key.endswith(".lock"):
                self._complain(f"{key} is left over")

    def finish_unnamed_child(self, expected: Content) -> None:
        """As :meth:`finish`, for a parent ``a`` and exactly one child, which ``expected`` calls ``b``.

        If a replay is killed during its cleanup, the next replay has nothing to do. A prune then cleans up, and
        removes the lock file of a replay that was killed before it had an id.
        """
        self.finish(None)
        self.driver.run(replace(self.job, replay=False, keep=9))
        found = content(self.storage)
        ids = sorted({str(receipt["snapshot"]) for receipt in found.receipts.values()} - {"a"})
        if len(ids) == 1:
            self._compare(found.calling(ids[0], "b"), expected)
        else:
            self._complain(f"beside the parent there are {ids}")

    def _compare(self, found: Content, expected: Content) -> None:
        for name in sorted(found.names - expected.names):
            self._complain(f"{name} is left over")
        for name in sorted(expected.names - found.names):
            self._complain(f"{name} is missing")
        for key, digest in expected.files.items():
            if found.files.get(key, digest) != digest:
                self._complain(f"{key} has other bytes")
        for key, receipt in expected.receipts.items():
            other = found.receipts.get(key, receipt)
            differing = [name for name in receipt if other[name] != receipt[name]]
            if differing:
                self._complain(f"{key} differs in {', '.join(differing)}")

    def _state(self) -> str:
        """How the next run recovers, by what is in the lake."""
        keys = {entry.key for entry in self.storage.list("")}
        staged = {key.rpartition("/")[2] for key in keys if key.startswith("_staging/")}
        if self.job.keep is not None:
            return "continuing a removal" if "removed.json" in staged else "choosing what to remove"
        if any(key.startswith("_runs/") and key != LATEST for key in keys):
            return _COMPLETE if LATEST in keys and "run.json" not in staged else "cleaning up after the commit"
        if "commit.json" in staged:
            return "rolling the commit forward"
        if "run.json" in staged:
            kept = any(key.startswith("raw/") for key in keys)
            return "resuming from the raw zone" if kept else "resuming the empty snapshot"
        return "beginning"

    def _complain(self, text: str) -> None:
        self.tally.violations.append(f"{self.mode}, {self._fault}: {text}")


def _where(end: End, request: Request | None) -> str:
    if end.step is not None:
        _, verb, key = end.step
    elif request is not None:
        verb, key = request.verb, request.path.partition("?")[0]
    else:
        return "any instant"
    name = key.rpartition("/")[2]
    for known in ("page=", "part-", "close_approaches_", ".neows-"):
        if name.startswith(known):
            return f"{verb} {known.strip('.-=_')}…"
    return f"{verb} {name.partition('.')[0] or key}"


# Whole campaigns


@dataclass
class Campaign:
    """Many lakes of one catalogue, each in its own folder or prefix.

    :param root: the folder of all lakes; with ``s3`` the prefix
    :param s3: the server of the lakes; None for local folders
    :param line: the proxy through which runs reach the server
    """

    driver: Driver
    server: loopback.Server
    pages: Pages
    root: str
    tally: Tally
    durable: bool = False
    s3: seaweedfs.SeaweedFS | None = None
    line: Line | None = None
    _count: int = 0

    def __post_init__(self) -> None:
        self.expected, self.took_s = self._undisturbed()
        again, took_s = self._undisturbed()
        self.took_s = min(took_s, self.took_s)
        if again != self.expected:
            self.tally.violations.append(f"{self.pages.name}: two undisturbed runs differ")

    def _undisturbed(self) -> tuple[Content, float]:
        torture = self.torture("undisturbed")
        began_s = time.perf_counter()
        end = torture.run()
        took_s = time.perf_counter() - began_s
        if end.code != 0:
            raise RuntimeError(f"an undisturbed run ended with {end.code}: {end.said}")
        return torture.finish(None), took_s

    def torture(self, mode: str, **more: Any) -> Torture:
        """A new lake."""
        self._count += 1
        settings = self.pages.settings | more.pop("settings", {})
        root = more.pop("root", f"{self.root}/{mode.replace(' ', '-')}-{self._count}")
        storage: Storage
        if self.s3 is None:
            storage = LocalStorage(Path(root))
        else:
            storage = ObjectStorage(seaweedfs.store(self.s3.port, root), f"s3://{seaweedfs.BUCKET}/{root}")
            root = replace(self.s3, port=self.line.port if self.line else self.s3.port).uri(root)
        job = Job(root, self.server.url, settings=settings, durable=self.durable, **more)
        self.tally.lakes += 1
        return Torture(self, job, storage, f"{self.pages.name}: {mode}")

    def copy(self, of: Torture, mode: str, **job: Any) -> Torture:
        """A new lake with the contents of another."""
        torture = self.torture(mode, **job)
        if isinstance(of.storage, LocalStorage):
            shutil.copytree(of.storage.uri, torture.storage.uri)
        else:
            for entry in of.storage.list(""):
                torture.storage.put(entry.key, of.storage.get(entry.key))
        return torture

    def sibling(self, torture: Torture, **job: Any) -> Torture:
        """Another snapshot in the same lake."""
        settings = self.pages.settings | job.pop("settings", {})
        return Torture(self, replace(torture.job, settings=settings, **job), torture.storage, torture.mode)

    def hit(self) -> Request | None:
        """The request at which the last run was killed."""
        return self.line.hit if self.line else None

    @contextmanager
    def watched(self, torture: Torture) -> Iterator[Reader]:
        """Run a reader beside the block."""
        with Reader(torture.storage) as reader:
            yield reader
        self.tally.looks += reader.looks
        self.tally.violations += [f"{torture.mode}: a reader saw that {text}" for text in reader.violations]

    def one(self, mode: str, *faults: dict[str, Any], **more: Any) -> bool:
        """One lake: a run with each of ``faults``, then finish it.

        :returns: whether the last fault happened
        """
        torture = self.torture(mode, **more)
        end = End(0)
        with self.watched(torture):
            for fault in faults:
                end = torture.run(**fault)
            torture.finish(self.expected_of(torture))
        return end.step is not None or end.code != 0

    def expected_of(self, torture: Torture) -> Content:
        """The contents that the finished lake must have."""
        return self.expected if torture.job.settings.get("archive", True) else self.expected.without("raw")

    def until_done(self, mode: str, faults: Iterator[dict[str, Any]], **more: Any) -> None:
        """One lake: runs with ``faults``, until one of them is done."""
        torture = self.torture(mode, **more)
        with self.watched(torture):
            while not torture.done:
                torture.run(**next(faults))
            torture.finish(self.expected)

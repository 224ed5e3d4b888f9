"""Kills runs, runs them again until they are done, and holds what is there against an undisturbed run."""

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
_ALL_THERE: Final = "nothing: all is there"


class Driver:
    """The process from which runs are forked; one run at a time."""

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
        """Begin a run; its process."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
        return int(self._line())

    def hung(self) -> End:
        """Where it hangs, once it does."""
        return self.end()

    def end(self) -> End:
        """How it ended, once it has."""
        value = json.loads(self._line())
        if value.get("step") is not None:
            value["step"] = tuple(value["step"])
        return End(**value)

    def run(self, job: Job) -> End:
        """Both."""
        self.start(job)
        return self.end()

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], LIMIT_S)[0]:
            raise TimeoutError(f"a run is not over after {LIMIT_S:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the driver ended; what it said is above")
        return line


# What is served


@dataclass(frozen=True)
class Pages:
    """A catalogue: the compressed body of each page, and the settings that read all of it."""

    name: str
    bodies: Sequence[bytes]
    settings: dict[str, Any]


def recorded(folder: Path) -> Pages:
    """The real pages, with the caller's key in them, as the source does."""
    bodies = [
        gzip.compress(gzip.decompress(path.read_bytes()).replace(b"DEMO_KEY", KEY.encode()), 1, mtime=0)
        for path in sorted(folder.glob("page_*.json.gz"))
    ]
    return Pages(f"{len(bodies)} real pages", bodies, {"limit": 20 * len(bodies)})


def synthetic(pages: int, size: int = 5) -> Pages:
    """The sandbox's objects; one is unreadable and one comes twice, so that every kind of file is written."""
    entries = SyntheticCatalogue(pages * size, 7).entries(0, pages * size)
    objects = [json.loads(entry.body) | {"links": {"self": f"http://x/{entry.id}?api_key={KEY}"}} for entry in entries]
    objects[2]["absolute_magnitude_h"] = "bright"
    objects[-1] = objects[0]
    bodies = [gzip.compress(browse_page(objects, number, size), 1, mtime=0) for number in range(pages)]
    return Pages(f"{pages} sandbox pages", bodies, {"limit": None, "page_size": size})


@contextmanager
def serving(pages: Pages) -> Iterator[loopback.Server]:
    """A real server on loopback that counts what it is asked for."""

    def answer(asked: loopback.Asked) -> loopback.Answer:
        return loopback.Answer(pages.bodies[asked.page], headers={"Content-Encoding": "gzip"})

    with loopback.serving(answer) as server:
        yield server


# Who looks on


class Reader:
    """Keeps resolving ``latest`` and every receipt while runs live and die; each file must be there, whole.

    Unless the receipt is gone when the file is: then the snapshot was removed under the reader's hands.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._hashed: set[str] = set()
        self._looking = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self.looks = 0
        self.complaints: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(LIMIT_S)
        self.look()

    def look(self) -> None:
        """Once."""
        with self._looking:
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
                self.complaints.append(f"{entry.key} is not whole")
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
                self.complaints.append(f"{key} names {path} of {file['bytes']} bytes; there are {found.get(path)}")
        elif hashlib.sha256(receipt).hexdigest() not in self._hashed:
            try:
                data = self._storage.get(path)
            except NotFoundError:
                if self._exists(key):
                    self.complaints.append(f"{key} names {path}, which is gone")
                return
            if hashlib.sha256(data).hexdigest() != file["sha256"]:
                self.complaints.append(f"{key}: {path} has other bytes than the receipt says")

    def _exists(self, key: str) -> bool:
        return any(entry.key == key for entry in self._storage.list("_runs"))

    def _read(self) -> None:
        while not self._stop.wait(0.005):
            try:
                self.look()
            except StorageError as exc:  # a store that was stopped on purpose
                if not isinstance(exc, NotFoundError):
                    continue
                raise

    def verify(self, *, but: str | None = None) -> None:
        """Hold each snapshot against its receipt, with its raw pages."""
        for entry in self._storage.list("_runs"):
            snapshot = entry.key.removeprefix("_runs/").removesuffix(".json")
            if entry.key.endswith(".json") and snapshot not in ("latest", but):
                differences = anyio.run(verify, AsyncStorage(self._storage), snapshot).differences
                self.complaints += [f"{snapshot}: {difference}" for difference in differences]


# What is left


@dataclass(frozen=True)
class Content:
    """A lake: the digest of every file but receipts, what the receipts have in common, and all names."""

    files: dict[str, str]
    receipts: dict[str, Any]
    names: frozenset[str]

    def without(self, folder: str) -> Content:
        """What is there besides ``folder``; without raw pages a receipt names none."""

        def inside(name: str) -> bool:
            return name == folder or name.startswith(f"{folder}/")

        receipts = {
            key: receipt | {"raw": receipt["raw"] | {"snapshot": None}} for key, receipt in self.receipts.items()
        }
        files = {key: digest for key, digest in self.files.items() if not inside(key)}
        return Content(files, receipts, frozenset(name for name in self.names if not inside(name)))

    def calling(self, snapshot: str, name: str) -> Content:
        """The same with another id for ``snapshot``."""

        def renamed(text: str) -> str:
            return text.replace(snapshot, name)

        files = {renamed(key): digest for key, digest in self.files.items()}
        return Content(files, json.loads(renamed(json.dumps(self.receipts))), frozenset(map(renamed, self.names)))

    def only(self, keys: Iterable[str]) -> Content:
        """What is left when no file but those of ``keys`` is."""
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
    """All there is, hidden files and empty folders of a local lake too."""
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
    """What was done, what healed it, and whatever was not right."""

    deaths: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """How it was killed, where that hit, and what heals it → how often."""
    violations: list[str] = field(default_factory=list)
    faults: int = 0
    lakes: int = 0
    looks: int = 0

    @property
    def kills(self) -> int:
        return self.deaths.total()

    def table(self) -> str:
        """Kills by how they were done; and by where they hit, with what healed them."""
        ways = Counter[str]()
        hits: dict[str, Counter[str]] = {}
        for (way, where, healing), count in self.deaths.items():
            ways[way] += count
            hits.setdefault(where, Counter())[healing] += count
        healings = sorted({healing for _, _, healing in self.deaths})
        return "\n\n".join(
            [
                _columns([["killed at", "times"], *([way, str(ways[way])] for way in sorted(ways))]),
                _columns(
                    [
                        ["when it hit", *healings],
                        *([where, *(str(hits[where][name] or "") for name in healings)] for where in sorted(hits)),
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

    :param storage: how we look at it, past whatever stands in the run's way
    :param mode: how the tally calls what is done
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
        self._harm: dict[str, Any] = {}
        self._was_all_there = False
        self._durable: set[int] = set()

    def run(self, **harm: Any) -> End:
        """One run; what it asked for is held against what was durable when it began."""
        self.started(**harm)
        return self.ended()

    def started(self, **harm: Any) -> int:
        """Begin one run; its process."""
        self.about_to_run(**harm)
        ours = {name: value for name, value in harm.items() if name in Job.__dataclass_fields__}
        return self.driver.start(replace(self.job, **ours))

    def about_to_run(self, **harm: Any) -> None:
        """Before a run: from here on, requests are its own."""
        self._asked = len(self.server.asked)
        self._harm = harm

    def ended(self) -> End:
        """Wait for its end, and look."""
        return self.looked_at(self.driver.end())

    def looked_at(self, end: End) -> End:
        """Hold what a run that ended so left against what it found."""
        job = self.job
        if job.settings.get("archive", True) and job.from_snapshot is None and not job.replay and job.keep is None:
            again = sorted(self._durable & set(self.server.pages[self._asked :]))
            if again:
                self._complain(f"pages {again} were durable and were asked for again")
            self._durable = {
                int(entry.key.rpartition(_RAW_PAGE)[2].partition(".")[0]) for entry in self.storage.list("raw")
            }
            if self.job.snapshot is None and self._state() == _ALL_THERE:
                self._durable, self._was_all_there = set(), True  # then another snapshot begins
        if end.code == KILLED:
            self.tally.deaths[self.mode, _where(end, self.campaign.hit()), self._state()] += 1
        elif end.code == 0:
            # Nobody is told that a lock could not be removed; its file goes with the next run.
            self.done = end.step is None or end.step[1] != "release"
        elif end.code == 74 and self._harm.get("fail_at") is not None:
            self.tally.faults += 1
            assert end.step is not None
            if end.said.count("\n") or end.step[2] not in end.said or "No space left on device" not in end.said:
                self._complain(f"it does not say in one line what failed at {end.step}: {end.said}")
        else:
            self._complain(f"it ended with {end.code}: {end.said}")
        return end

    def finish(self, expected: Content | None) -> Content:
        """Run it undisturbed, and compare."""
        for _ in range(3):
            if self.done:
                break
            self.run()
        found = content(self.storage)
        if not self.done:
            self._complain("it did not come to its end")
        elif expected is not None:
            self._compare(found, expected)
        return found

    def finish_unnamed(self, expected: Content) -> None:
        """The same where the id is the time of the start: whoever was killed before it had one leaves its lock file.

        Killed when all was done, the next run begins another snapshot.
        """
        self.finish(None)
        found = content(self.storage)
        ids = {str(receipt["snapshot"]) for receipt in found.receipts.values()}
        for snapshot in ids:
            folder = f"/snapshot={snapshot}/"
            mine = {key.replace(folder, "/snapshot=a/"): found.files[key] for key in found.files if folder in key}
            if mine != expected.files:
                self._complain(f"{snapshot} is not what an undisturbed run makes")
        if len(ids) != 1 and not self._was_all_there:
            self._complain(f"there are {len(ids)} snapshots")
        for key in found.names:
            if key.startswith("_staging/") and not key.endswith(".lock"):
                self._complain(f"{key} is left over")

    def finish_unnamed_child(self, expected: Content) -> None:
        """The same where there is a parent ``a`` and exactly one other, which ``expected`` calls ``b``.

        Killed while it tidied up, the next replay sees that there is nothing to do; a prune then tidies up, and
        removes the lock of one that was killed before it had an id.
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
            self._complain(f"{name} is not there")
        for key, digest in expected.files.items():
            if found.files.get(key, digest) != digest:
                self._complain(f"{key} has other bytes")
        for key, receipt in expected.receipts.items():
            other = found.receipts.get(key, receipt)
            differing = [name for name in receipt if other[name] != receipt[name]]
            if differing:
                self._complain(f"{key} differs in {', '.join(differing)}")

    def _state(self) -> str:
        """What the next run finds, and does."""
        keys = {entry.key for entry in self.storage.list("")}
        staged = {key.rpartition("/")[2] for key in keys if key.startswith("_staging/")}
        if self.job.keep is not None:
            return "going on with a removal" if "removed.json" in staged else "looking what is to go"
        if any(key.startswith("_runs/") and key != LATEST for key in keys):
            return _ALL_THERE if LATEST in keys and "run.json" not in staged else "tidying up after the commit"
        if "commit.json" in staged:
            return "rolling the commit forward"
        if "run.json" in staged:
            kept = any(key.startswith("raw/") for key in keys)
            return "resuming from the raw zone" if kept else "adopting the empty snapshot"
        return "beginning"

    def _complain(self, text: str) -> None:
        self.tally.violations.append(f"{self.mode}, {self._harm}: {text}")


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
    """Lakes of one catalogue, each in a folder (or prefix) of its own.

    :param root: the folder of all of them; or the prefix, with ``s3``
    :param s3: the server that they are on
    :param line: over which runs reach it
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
        """A new lake that holds what another does."""
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
        """With a reader beside it."""
        with Reader(torture.storage) as reader:
            yield reader
        self.tally.looks += reader.looks
        self.tally.violations += [f"{torture.mode}: a reader saw that {text}" for text in reader.complaints]

    def one(self, mode: str, *harms: dict[str, Any], **more: Any) -> bool:
        """One lake, harmed by each of ``harms`` in turn, then finished; whether the last one hit."""
        torture = self.torture(mode, **more)
        end = End(0)
        with self.watched(torture):
            for harm in harms:
                end = torture.run(**harm)
            torture.finish(self.expected_of(torture))
        return end.step is not None or end.code != 0

    def expected_of(self, torture: Torture) -> Content:
        """What is to be there in the end."""
        return self.expected if torture.job.settings.get("archive", True) else self.expected.without("raw")

    def until_done(self, mode: str, harms: Iterator[dict[str, Any]], **more: Any) -> None:
        """One lake, harmed again and again until it is done all the same."""
        torture = self.torture(mode, **more)
        with self.watched(torture):
            while not torture.done:
                torture.run(**next(harms))
            torture.finish(self.expected)

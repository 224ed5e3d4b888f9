"""Runs, replays and prunes in processes that can be killed. One process imports everything and forks: that is cheap.

``python -m tests.torture.driver`` reads one :class:`Job` per line from standard input. For each it writes lines of
JSON: the process id; where the run hangs, if the job says so; how it ended (:class:`End`).
"""

from __future__ import annotations

import datetime as dt
import errno
import json
import os
import select
import signal
import ssl
import sys
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import httpx
import obstore  # noqa: F401 - loaded here, not in every fork
import pyarrow.compute
import pyarrow.parquet  # noqa: F401 - as above

from neows_async.cli.exit_codes import exit_code_of
from neows_async.errors import NeowsError
from neows_async.lake.async_storage import AsyncStorage
from neows_async.lake.raw_zone import RawZone, find_raw
from neows_async.lake.storage import open_storage
from neows_async.lake.storage.local import LocalStorage
from neows_async.lake.storage.uris import open_object_storage  # noqa: F401 - as above
from neows_async.maintenance.prune import Rules, prune
from neows_async.maintenance.replay import plan_replay, rebuild_request
from neows_async.outputs.aggregate_files import JsonAggregates
from neows_async.outputs.close_approaches import CloseApproachesByYear, CloseApproachesWithin
from neows_async.outputs.parquet import ParquetSink
from neows_async.pipeline.run import Parts, ingest
from neows_async.settings import Settings
from neows_async.sources.archive import ArchiveSource
from neows_async.sources.nasa import NasaSource
from neows_async.testing.faulty_storage import CountingStorage

if TYPE_CHECKING:
    from neows_async.lake.storage.interface import Storage
    from neows_async.protocols import Source

KEY: Final = "K" * 40
# The interpreter's audit events before it changes a folder or a file's name. Each counts as a step.
_SYSTEM_CALLS: Final = frozenset(
    {"open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.truncate", "fcntl.flock"}
)


@dataclass(frozen=True)
class Job:
    """One run, and the fault that it gets.

    :param kill_at: SIGKILL before this step of the storage
    :param kill_at_call: SIGKILL before this system call that touches the root
    :param kill_after_s: SIGKILL from outside
    :param fail_at: this step of the storage fails as on a full disk
    :param hang_at: this step of the storage never ends
    :param count_from: count steps from the first one of this verb and object, such as ``put commit.json``
    :param from_snapshot: rebuild from its raw pages, without a server
    :param replay: parse the rejected objects of the latest snapshot again, as ``quarantine replay`` does
    :param keep: prune instead of a run: remove all but this number of snapshots, and all unfinished ones
    :param uid: the process's user id, if the superuser runs the tests
    """

    root: str
    url: str = ""
    snapshot: str | None = "a"
    settings: dict[str, Any] = field(default_factory=dict)
    backend: str = "asyncio"
    durable: bool = False
    kill_at: int | None = None
    kill_at_call: int | None = None
    kill_after_s: float | None = None
    fail_at: int | None = None
    hang_at: int | None = None
    count_from: str = ""
    from_snapshot: str | None = None
    replay: bool = False
    keep: int | None = None
    uid: int | None = None


@dataclass(frozen=True)
class End:
    """How a run ended.

    :param code: the exit code of the command line; the negative signal number if a signal ended it
    :param said: the error's message, if there is one
    :param step: the step at which it was killed or failed: number, verb and object
    :param steps: number of steps
    """

    code: int
    said: str = ""
    step: tuple[int, str, str] | None = None
    steps: int = 0


def main() -> None:
    tls = _warm_up()
    for line in sys.stdin:
        job = Job(**json.loads(line))
        reading, writing = os.pipe()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _child(job, tls, writing)
        os.close(writing)
        print(pid, flush=True)
        end: dict[str, Any] = {}
        with os.fdopen(reading, "rb") as pipe:
            # The pipe closes when the process ends.
            if job.kill_after_s is not None and not select.select([pipe], [], [], job.kill_after_s)[0]:
                os.kill(pid, signal.SIGKILL)
            while report := pipe.readline():
                end |= json.loads(report)
                if job.hang_at is not None and not end.get("steps"):
                    print(json.dumps(end), flush=True)
        _, status = os.waitpid(pid, 0)
        print(json.dumps(end | {"code": os.waitstatus_to_exitcode(status)}), flush=True)


def _warm_up() -> ssl.SSLContext:
    """Import and open what a run needs, without starting a thread: a fork keeps only the thread that forks."""
    tls = ssl.create_default_context()

    async def nothing() -> None:
        async with httpx.AsyncClient(trust_env=False, verify=tls):
            pass

    for backend in ("asyncio", "trio"):
        anyio.run(nothing, backend=backend)
    return tls


def _child(job: Job, tls: ssl.SSLContext, writing: int) -> None:
    code = 1
    try:
        code = _run(job, tls, writing)
    except BaseException as exc:  # noqa: BLE001 - a child must never return into the parent's loop
        _report(writing, End(1, f"{type(exc).__name__}: {exc}"))
    finally:
        os._exit(code)


def _report(writing: int, end: End) -> None:
    os.write(writing, json.dumps(asdict(end)).encode() + b"\n")


def _run(job: Job, tls: ssl.SSLContext, writing: int) -> int:
    reached: tuple[int, str, str] | None = None
    first = None if job.count_from else 0

    def on_step(step: int, verb: str, key: str) -> None:
        nonlocal reached, first
        if first is None and f"{verb} {key.rpartition('/')[2]}" == job.count_from:
            first = step
        step -= step + 1 if first is None else first
        if step not in (job.kill_at, job.fail_at, job.hang_at):
            return
        reached = (step, verb, key)
        if step == job.kill_at:
            _report(writing, End(0, step=reached))
            os.kill(os.getpid(), signal.SIGKILL)
        if step == job.hang_at:
            _report(writing, End(0, step=reached))
            threading.Event().wait()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if job.uid is not None:
        os.setuid(job.uid)
    if job.kill_at_call is not None:
        _kill_at_call(job, writing)
    inner = LocalStorage(Path(job.root), durable=job.durable) if "://" not in job.root else open_storage(job.root)
    storage = CountingStorage(inner, on_step)
    try:
        anyio.run(_carry_out, job, storage, tls, backend=job.backend)
    except NeowsError as exc:
        _report(writing, End(0, str(exc), reached, storage.steps))
        return exit_code_of(exc)
    _report(writing, End(0, "", reached, storage.steps))
    return 0


def _kill_at_call(job: Job, writing: int) -> None:
    calls = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal calls
        if event not in _SYSTEM_CALLS or (event != "fcntl.flock" and not str(arguments[0]).startswith(job.root)):
            return
        if calls == job.kill_at_call:
            _report(writing, End(0, step=(calls, event, str(arguments[0]).removeprefix(job.root))))
            os.kill(os.getpid(), signal.SIGKILL)
        calls += 1

    sys.addaudithook(hook)


async def _carry_out(job: Job, storage: Storage, tls: ssl.SSLContext) -> None:
    if job.keep is not None:
        await prune(AsyncStorage(storage), Rules(job.keep, resume_within_s=0), now=dt.datetime.now(dt.UTC))
    elif job.replay:
        planned = await plan_replay(AsyncStorage(storage), "latest")
        if planned.readable:
            await _ingest(rebuild_request(planned.receipt).settings, job, storage, tls, planned.receipt.snapshot)
    else:
        settings = Settings(**{"limit": None, "retry_budget_s": 20, "snapshot": job.snapshot} | job.settings)
        await _ingest(settings, job, storage, tls, job.from_snapshot)


async def _ingest(
    settings: Settings, job: Job, storage: Storage, tls: ssl.SSLContext, from_snapshot: str | None
) -> None:
    async with httpx.AsyncClient(trust_env=False, verify=tls, timeout=30) as client:
        raw = await find_raw(AsyncStorage(storage), from_snapshot) if from_snapshot else None
        source: Source
        if raw is None:
            source = NasaSource(
                client, base_url=job.url, api_key=KEY, timeout_s=30, max_body_bytes=settings.max_body_bytes
            )
        else:
            zone = RawZone(AsyncStorage(storage), raw.snapshot, max_body_bytes=settings.max_body_bytes)
            source = ArchiveSource(zone, snapshot=raw.snapshot, synthetic=raw.synthetic)
        parts = Parts(
            storage=storage,
            source=source,
            source_name="nasa",
            sinks=[ParquetSink(name, settings.partitions.get(name)) for name in ("neos", "close_approaches")],
            aggregators=[
                CloseApproachesWithin(settings.within_au, settings.orbiting_body),
                CloseApproachesByYear(settings.orbiting_body),
            ],
            aggregate_writer=JsonAggregates(),
            parent=raw.named if raw else None,
            raw_snapshot=raw.snapshot if raw else None,
        )
        await ingest(settings, parts)


if __name__ == "__main__":
    main()

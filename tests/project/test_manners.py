"""A good guest: importing and running leave the embedding program alone, and two runs share nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from neows_async import MemoryQuotaStore, Settings, ingest
from tests import loopback, program
from tests.neos import catalogue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from neows_async import Receipt
    from tests.loopback import Answer, Asked

# Runs first in a fresh interpreter. It notes each access to the environment, with the module of the caller, each file
# that is opened for writing, and each socket.
WATCH = """
import os, sys, threading, signal, logging, json, collections.abc

seen = {"environment": [], "written": [], "sockets": 0}

def whose():
    frame, names = sys._getframe(2), []
    while frame is not None:
        names.append(frame.f_globals.get("__name__", ""))
        frame = frame.f_back
    outside = [name for name in names if name not in ("os", "__main__", "collections.abc") and "importlib" not in name]
    return outside[0] if outside else "?"

class Recording(collections.abc.MutableMapping):
    def __init__(self, real): self.real = real
    def __getitem__(self, name):
        seen["environment"].append([whose(), name]); return self.real[name]
    def __iter__(self):
        seen["environment"].append([whose(), "*"]); return iter(self.real)
    def __setitem__(self, name, value): seen["environment"].append([whose(), "=" + name]); self.real[name] = value
    def __delitem__(self, name): seen["environment"].append([whose(), "-" + name]); del self.real[name]
    def __len__(self): return len(self.real)
    def copy(self): return dict(self)

os.environ = Recording(os.environ)
os.getenv = lambda name, default=None: os.environ.get(name, default)

def hook(event, args):
    if event == "open" and isinstance(args[1], str) and set("wax+") & set(args[1]): seen["written"].append(str(args[0]))
    if event == "socket.__new__": seen["sockets"] += 1

sys.addaudithook(hook)
handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
logging.getLogger()
before = {
    "log handlers": len(logging.getLogger().handlers), "level": logging.getLogger().level,
    "path": list(sys.path), "switch": sys.getswitchinterval(), "hooks": [sys.excepthook, threading.excepthook],
}

def report():
    import asyncio
    after = {
        "log handlers": len(logging.getLogger().handlers), "level": logging.getLogger().level,
        "path": list(sys.path), "switch": sys.getswitchinterval(), "hooks": [sys.excepthook, threading.excepthook],
    }
    ours = [
        entry for entry in seen["environment"]
        # Compiled code has no frame, so Arrow's own look-ups seem to be its caller's.
        if entry[0].startswith("neows_async") and not entry[1].startswith("PYARROW_")
    ]
    loggers = [
        name for name, logger in logging.root.manager.loggerDict.items()
        if name.startswith("neows_async") and isinstance(logger, logging.Logger)
        and [type(handler).__name__ for handler in logger.handlers] not in ([], ["NullHandler"])
    ]
    print(json.dumps({
        "changed": [name for name in before if before[name] != after[name]],
        "environment": ours,
        "written": [path for path in seen["written"] if not path.endswith(".pyc") and ".pyc." not in path],
        "sockets": seen["sockets"],
        "threads": [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()],
        "signals": [int(number) for number in handlers if handlers[number] != signal.getsignal(number)],
        "loggers": loggers,
        "loop": asyncio.get_event_loop_policy()._local._loop is not None,
        "heavy": [name for name in ("pyarrow", "httpx", "pydantic", "anyio", "msgspec") if name in sys.modules],
    }))
"""


def report_of(script: str, *arguments: str) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", WATCH + textwrap.dedent(script), *arguments],
        env=program.clean_environment(),
        capture_output=True,
        text=True,
        timeout=program.LIMIT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    [line] = ended.stdout.splitlines()
    result: dict[str, Any] = json.loads(line)
    return result


NOTHING = {
    "changed": [],
    "environment": [],
    "written": [],
    "sockets": 0,
    "threads": [],
    "signals": [],
    "loggers": [],
    "loop": False,
}


def test_the_watch_notes_each_change_of_the_process(tmp_path: Path) -> None:
    seen = report_of(
        """
        import asyncio, socket
        as_ours = {"__name__": "neows_async.rude", "os": os}
        exec("os.environ.get('HOME'); os.getenv('LANG'); os.environ['LC_ALL'] = 'C'", as_ours)
        logging.basicConfig()
        logging.getLogger("neows_async.rude").addHandler(logging.StreamHandler())
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        open(sys.argv[1], "w").close()
        socket.socket().close()
        threading.Thread(target=threading.Event().wait, name="rude", daemon=True).start()
        sys.path.append("/nowhere")
        asyncio.set_event_loop(asyncio.new_event_loop())
        report()
        asyncio.get_event_loop_policy().get_event_loop().close()
        """,
        str(tmp_path / "rude"),
    )
    ours = "neows_async.rude"
    assert seen == {
        "changed": ["log handlers", "path"],
        "environment": [[ours, "HOME"], [ours, "LANG"], [ours, "=LC_ALL"]],
        "written": [str(tmp_path / "rude")],
        "sockets": seen["sockets"],
        "threads": ["rude"],
        "signals": [10 if sys.platform != "darwin" else 30],
        "loggers": [ours],
        "loop": True,
        "heavy": [],
    }
    assert seen["sockets"] > 0


def test_importing_the_package_changes_nothing() -> None:
    assert report_of("import neows_async; report()") == {**NOTHING, "heavy": []}


def test_importing_every_public_name_changes_nothing() -> None:
    seen = report_of("from neows_async import *; import neows_async.testing; report()")
    assert len(seen.pop("heavy")) == 5
    assert seen == NOTHING


def test_a_run_changes_nothing_of_its_process(tmp_path: Path) -> None:
    with loopback.serving(loopback.browse(catalogue(45))) as server:
        seen = report_of(
            """
            import asyncio
            import neows_async
            root, url = sys.argv[1:]
            settings = neows_async.Settings(root=root, base_url=url, api_key="key-of-this-run", limit=None)
            assert asyncio.run(neows_async.ingest(settings)).records.written == 45
            # The event loop has stopped its idle worker threads. Wait until they have ended.
            for thread in threading.enumerate()[1:]:
                thread.join(5)
            report()
            """,
            str(tmp_path / "lake"),
            server.url,
        )
    assert seen.pop("sockets") > 0
    assert all(path.startswith(str(tmp_path / "lake")) for path in seen.pop("written"))
    assert len(seen.pop("heavy")) == 5
    assert {**seen, "sockets": 0, "written": []} == NOTHING


@pytest.mark.uvloop
async def test_two_runs_with_two_keys_share_nothing(tmp_path: Path) -> None:
    def only(key: str) -> Callable[[Asked], Answer]:
        browse = loopback.browse(catalogue(200))

        def answer(asked: Asked) -> Answer:
            return browse(asked) if asked.key == key else loopback.Answer(b"{}", 403)

        return answer

    keys = ("first-key-of-sixteen", "second-key-of-sixteen")
    receipts: dict[str, Receipt] = {}

    async def run(key: str, url: str, store: MemoryQuotaStore) -> None:
        settings = Settings(root=str(tmp_path / key), base_url=url, api_key=key, concurrency=2)
        receipts[key] = await ingest(settings, quota_store=store)

    with loopback.serving(only(keys[0])) as first, loopback.serving(only(keys[1])) as second:
        async with anyio.create_task_group() as tasks:
            for key, server in zip(keys, (first, second), strict=True):
                tasks.start_soon(run, key, server.url, MemoryQuotaStore())
        for key, server in zip(keys, (first, second), strict=True):
            assert {asked.key for asked in server.asked} == {key}
            assert receipts[key].records.written == 200
            assert (receipts[key].source.origin, receipts[key].requests.sent) == (server.url, 10)
    for key, other in (keys, keys[::-1]):
        files = [path.read_bytes() for path in (tmp_path / key).rglob("*") if path.is_file()]
        assert files
        assert not any(word.encode() in data for data in files for word in (key, other))

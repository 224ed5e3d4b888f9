"""Programs that use a storage in a child process, which a test can kill."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_KILL_AT = """
import os, signal, sys
STEPS = {"open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "fcntl.flock"}
from pathlib import Path
from neows_async.lake.storage.local import LocalStorage
root, kill_at = Path(sys.argv[1]), int(sys.argv[2])
storage = LocalStorage(root)
steps = 0
def hook(event, arguments):
    global steps
    if event in STEPS:
        if steps == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        steps += 1
sys.addaudithook(hook)
"""


def run_killed_at(step: int, code: str, root: object) -> bool:
    """Run ``code`` on ``storage``, and kill it before the given step of the file system.

    :returns: whether it reached that step
    """
    done = subprocess.run(
        [sys.executable, "-c", _KILL_AT + code, str(root), str(step)], capture_output=True, check=False, timeout=30
    )
    assert done.returncode in (0, -9), done.stderr.decode()
    return done.returncode == -9


@contextmanager
def waiting(
    code: str, *arguments: object, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process that runs ``code``, prints a line, and waits to be killed."""
    with subprocess.Popen(
        [sys.executable, "-c", code + "\nprint('ready', flush=True)\ninput()", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()

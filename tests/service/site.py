"""The example as users run it: a process, on a free port."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from tests import program
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMIT_S = 60.0


class Site:
    """A running site: its log lines and its responses."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = re.findall(r"http://[0-9.:]+", self.until("Uvicorn running on"))[0]
        self.client = httpx.Client(base_url=self.url, timeout=LIMIT_S, trust_env=False)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def until(self, text: str, times: int = 1) -> str:
        """Wait until ``times`` log lines hold ``text``; return the last one."""

        def found() -> list[str]:
            return [line for line in self.lines if text in line]

        with self._changed:
            has_ended = self._changed.wait_for(
                lambda: len(found()) >= times or self.process.poll() is not None, LIMIT_S
            )
            assert has_ended, f"no log line holds {text!r}: {''.join(self.lines[-20:])}"
            assert len(found()) >= times, "".join(self.lines)
            return found()[-1]

    def get(self, path: str, **parameters: Any) -> Any:
        """The JSON of a response with status 200."""
        response = self.client.get(path, params=parameters or None)  # an empty one would remove the query
        assert response.status_code == 200, response.text
        return response.json()

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(LIMIT_S)
        self._reader.join(LIMIT_S)
        return code


@contextmanager
def running(root: Path, **variables: str) -> Iterator[Site]:
    """Run the site with its lakes in ``root``. ``variables`` are ``NEO_SITE_…`` without the prefix."""
    given = {name if name == "NASA_API_KEY" else f"NEO_SITE_{name}": value for name, value in variables.items()}
    environment = program.clean_environment(
        PYTHONPATH=str(ROOT / "examples/service"), NEO_SITE_PORT="0", NEO_SITE_ROOT=str(root), **given
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "neo_site"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        site = Site(process)
        with site.client:
            yield site
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()

"""Headless Chromium, controlled by its own protocol through two pipes: no driver, no port, no socket."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMIT_S = 30.0
PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Tab:
    """One page of the browser.

    ``problems`` collects errors in the console of the page, and failed or blocked requests.
    """

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._left = b""
        self._number = 0
        self._session: str | None = None
        self.problems: list[str] = []
        self.requested: list[str] = []
        self._loaded: set[str] = set()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The browser's response; events before it are recorded."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline_s = time.monotonic() + LIMIT_S
        while True:
            received = self._receive(deadline_s, method)
            if received.get("id") == self._number:
                assert "error" not in received, f"{method}: {received['error']}"
                result: dict[str, Any] = received["result"]
                return result
            self._record(received)

    def _receive(self, deadline_s: float, what: str) -> dict[str, Any]:
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline_s - time.monotonic()))
            assert ready, f"no response to {what} within {LIMIT_S:g} s"
            received = os.read(self._from, 1 << 20)
            assert received, f"the browser ended during {what}"
            self._left += received
        text, _, self._left = self._left.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message

    def _record(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.problems.append(str(parameters["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if parameters["type"] == "error":
                self.problems.append(str(parameters["args"]))
            case "Log.entryAdded" if parameters["entry"]["level"] == "error":
                self.problems.append(str(parameters["entry"]))
            case "Page.lifecycleEvent" if parameters["name"] == "load":
                self._loaded.add(parameters["loaderId"])
            case "Network.requestWillBeSent":
                self.requested.append(parameters["request"]["url"])
            case _:
                pass

    def evaluate(self, script: str) -> Any:
        """The value of ``script`` in the page; a promise is awaited."""
        response = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in response, response["exceptionDetails"]
        return response["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait in the page, frame by frame, until ``condition`` holds there."""
        self.evaluate(
            f"""new Promise((yes, no) => {{
                const end = performance.now() + {1000 * LIMIT_S * 0.8};
                const look = () => ({condition}) ? yes() :
                    performance.now() > end ? no(new Error({json.dumps(condition)})) : setTimeout(look, 20);
                look();
            }})"""
        )

    def go(self, url: str, *, width: int = 1400, height: int = 900, dark: bool = False) -> None:
        """Open ``url`` in a window of this size, and wait until it is loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        loader = self.call("Page.navigate", url=url)["loaderId"]
        deadline_s = time.monotonic() + LIMIT_S
        while loader not in self._loaded:
            self._record(self._receive(deadline_s, url))

    def screenshot(self, path: Path) -> None:
        """The whole page, as PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browsing(profile: Path) -> Iterator[Tab]:
    """A browser with an empty profile, which ends with the block."""
    assert PROGRAM is not None
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    flags = [
        "--headless=new",
        "--remote-debugging-pipe",
        f"--user-data-dir={profile}",
        "--no-first-run",
        "--disable-gpu",
    ]
    # Without requests to other hosts; and its own sandbox needs rights that root in a container does not give.
    flags += [
        "--disable-background-networking",
        "--disable-component-update",
        "--no-sandbox",
        "--disable-dev-shm-usage",
    ]
    # Chromium uses the descriptors 3 and 4 for the protocol. Descriptors of ours with these numbers are moved first.
    spare = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 10) for number in (to_read, from_write)]
    process = os.posix_spawn(
        PROGRAM,
        [PROGRAM, *flags, "about:blank"],
        os.environ,
        file_actions=[
            *((os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)),
            (os.POSIX_SPAWN_DUP2, spare[0], 3),
            (os.POSIX_SPAWN_DUP2, spare[1], 4),
        ],
        setpgroup=0,
    )
    for number in (to_read, from_write, *spare):
        os.close(number)
    try:
        yield Tab(to_write, from_read)
    finally:
        os.close(to_write)
        os.close(from_read)
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)

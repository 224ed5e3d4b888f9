"""Sees coroutines that block the event loop: opening, renaming, sleeping, resolving names, on any loop.

The interpreter announces such calls to audit hooks. What an extension module does on its own (a read
in Arrow, a long computation) is not announced, so it is not seen.
"""

from __future__ import annotations

import inspect
import sys
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_BLOCKING: Final = frozenset(
    {
        "open",
        "os.link",
        "os.listdir",
        "os.mkdir",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.scandir",
        "os.truncate",
        "os.utime",
        "shutil.copyfile",
        "shutil.rmtree",
        "fcntl.flock",
        "fcntl.lockf",
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "subprocess.Popen",
        "tempfile.mkdtemp",
        "tempfile.mkstemp",
        "time.sleep",
    }
)
_COROUTINE: Final = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR

_watches: dict[str, list[str]] = {}
_hooked = False


@contextmanager
def watch(package: str) -> Iterator[list[str]]:
    """Collects the stacks of blocking calls made by coroutines of ``package``, in the order they came.

    A call belongs to the innermost coroutine on the stack, so a test may open files.
    Work in a thread has no coroutine above it. Importing a module is allowed, and so is the lookup of a time zone:
    both happen once in a process.
    """
    global _hooked  # noqa: PLW0603 - an audit hook is there for good, so there is but one
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True
    seen = _watches[package] = []
    try:
        yield seen
    finally:
        del _watches[package]


def _hook(event: str, args: tuple[object, ...]) -> None:
    if not _watches or event not in _BLOCKING or (event == "open" and "/zoneinfo/" in str(args[0])):
        return
    caller = sys._getframe(1)
    owner = _innermost_coroutine(caller)
    for package, seen in _watches.items():
        if owner == package or owner.startswith(f"{package}."):
            seen.append(f"{event}{args!r}\n{''.join(traceback.format_list(_stack(caller)))}")


def _innermost_coroutine(frame: FrameType | None) -> str:
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith("importlib.") or frame.f_code.co_name == "__del__":
            return ""
        if frame.f_code.co_flags & _COROUTINE:
            return module
        frame = frame.f_back
    return ""


def _stack(frame: FrameType | None) -> list[traceback.FrameSummary]:
    # Without the source lines: to look them up would open files.
    found: list[traceback.FrameSummary] = []
    while frame is not None and len(found) < 12:  # enough to find the place
        found.append(traceback.FrameSummary(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, line=""))
        frame = frame.f_back
    return found[::-1]

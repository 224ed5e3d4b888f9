"""The process: settings for a process that is our own (the command line's or a worker's), and how to identify one.

The library never changes the process of the program around it.
"""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_TRIM_BYTES: Final = 16 << 20
_MMAP_BYTES: Final = 4 << 20


def tune_allocators() -> None:
    """Keep memory flat: one heap in glibc, and the same heap for Arrow.

    By default glibc gives each thread a heap of its own, and Arrow keeps what it freed. Without this call a run's peak
    is 1.3 times as high, a rebuild's 1.8 times. With the thresholds, a run takes three quarters of the time. Call it
    before threads start and before Arrow is imported.
    """
    import ctypes  # noqa: PLC0415 - only the command line and workers need it

    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    # numpy brings OpenBLAS, which starts a thread for each processor: a quarter of a small run's processor time.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc alone has it
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        # Blocks of a body's size stay in the heap: mapping each one anew costs a page fault every 4 KB.
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)


def leave_pandas_out() -> None:
    """Hide pandas from this process, a worker: it runs no code of a user.

    Arrow imports pandas, if it is installed, with the first array that it makes of a list: 0.3 s and 35 MB.
    """
    if _WithoutPandas not in sys.meta_path:
        sys.meta_path.insert(0, _WithoutPandas)


class _WithoutPandas:
    # Not None in `sys.modules`, the usual way: Arrow's compiled code would take the None for the module.
    @staticmethod
    def find_spec(fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /) -> None:  # noqa: ARG004 - the import system's signature
        if fullname == "pandas":
            raise ModuleNotFoundError(
                "pandas is hidden from this process: it runs no part that needs it", name=fullname
            )


@dataclass(frozen=True, slots=True)
class ProcessId:
    """Identifies a process among all processes of all machines.

    :param boot: the id of the machine's current boot; empty except on Linux
    :param pid_space: the namespace of ``pid``: containers on one machine share the boot
    :param started: the kernel's clock ticks from boot to the process's start, since pids are reused
    """

    host: str
    boot: str
    pid_space: str
    pid: int
    started: int


def this_process() -> ProcessId:
    """This process. Only Linux has all fields; elsewhere ``boot`` is empty."""
    pid = os.getpid()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        pid_space = str(Path("/proc/self/ns/pid").readlink())
        started = _started(pid) or 0
    except OSError:
        return ProcessId(socket.gethostname(), "", "", pid, 0)
    return ProcessId(socket.gethostname(), boot, pid_space, pid, started)


def is_dead(process: ProcessId, *, seen_from: ProcessId) -> bool:
    """True if ``process`` is surely dead; False also if ``seen_from`` cannot know.

    It cannot know about another machine, container or boot: after a reboot, a machine of the same name may be
    another machine.
    """
    if not seen_from.boot or (process.host, process.boot, process.pid_space) != (
        seen_from.host,
        seen_from.boot,
        seen_from.pid_space,
    ):
        return False
    try:
        # Pids are reused, so the start decides.
        return _started(process.pid) != process.started
    except OSError:
        return False


def _started(pid: int) -> int | None:
    """When ``pid`` started; None if it does not run. A zombie has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the command before it may contain blanks and parentheses
    return None if fields[0] in "ZX" else int(fields[19])

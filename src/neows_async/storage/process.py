"""Telling, from a note that a process left, whether it still runs."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    """A process, so described that no other is taken for it.

    :param boot: changes when the machine starts anew; empty where it cannot be told
    :param pid_space: within which ``pid`` means something: containers on one machine share its boot
    :param started: the kernel's clock ticks from boot to its start, since pids are used again
    """

    host: str
    boot: str
    pid_space: str
    pid: int
    started: int


def this_process() -> Process:
    """The process that asks. Only Linux tells all; elsewhere ``boot`` is empty."""
    pid = os.getpid()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        pid_space = str(Path("/proc/self/ns/pid").readlink())
        started = _started(pid) or 0
    except OSError:
        return Process(socket.gethostname(), "", "", pid, 0)
    return Process(socket.gethostname(), boot, pid_space, pid, started)


def is_dead(process: Process, *, seen_from: Process) -> bool:
    """True when ``process`` surely runs no more; False also when ``seen_from`` cannot tell.

    After a reboot it cannot: a machine of the same name and another boot may be another machine.
    """
    if not seen_from.boot or (process.host, process.boot, process.pid_space) != (
        seen_from.host,
        seen_from.boot,
        seen_from.pid_space,
    ):
        return False
    try:
        return _started(process.pid) != process.started
    except OSError:
        return False


def _started(pid: int) -> int | None:
    """When ``pid`` started; None if it does not run: a zombie has ended, and waits only to be told of."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # what stands before may hold blanks and parentheses
    return None if fields[0] in "ZX" else int(fields[19])

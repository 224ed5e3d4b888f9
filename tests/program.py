"""Runs the program as users do: a process of its own, in a folder of its own, with an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

LIMIT_S = 60


@dataclass(frozen=True)
class Ended:
    """How it ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.err.strip().splitlines()[-1] if self.err.strip() else ""


def clean_environment(**variables: str) -> dict[str, str]:
    """This process's environment without what the program would read."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("NEOWS_", "NASA_"))}
    # Not the user's own ledger of quotas.
    state = Path(tempfile.gettempdir()) / f"neows-async-tests-{os.getuid()}"
    return ours | {"XDG_STATE_HOME": str(state)} | variables


def run(cwd: Path, *arguments: str, **variables: str) -> Ended:
    """``neows-async ARGUMENTS`` in ``cwd``."""
    done = subprocess.run(
        [sys.executable, "-m", "neows_async", *arguments],
        cwd=cwd,
        env=clean_environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def installed() -> dict[str, str]:
    """:func:`clean_environment`, in which ``neows-async`` is found."""
    here = Path(sys.executable).parent
    return clean_environment(PATH=f"{here}{os.pathsep}{os.environ['PATH']}")


def query_for_duckdb(cwd: Path, line: str) -> str:
    """The query that a shell hands to DuckDB's own program, which is no part of its package for Python.

    :param line: ``duckdb -c …``
    """
    told = f"duckdb() {{ printf '%s' \"$2\"; }}\n{line}"
    return subprocess.run(
        ["/bin/sh", "-c", told], cwd=cwd, env=installed(), capture_output=True, text=True, check=True
    ).stdout

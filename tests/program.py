"""Runs the program as users do: as a process, in a folder, with a clean environment."""

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
    """The exit code, stdout and stderr of a command."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.err.strip().splitlines()[-1] if self.err.strip() else ""


def clean_environment(**variables: str) -> dict[str, str]:
    """This process's environment without the variables that the program reads."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("NEOWS_", "NASA_"))}
    # Not the file in which the user's own runs share quotas.
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


def imported_by(cwd: Path, *arguments: str) -> set[str]:
    """The modules that ``neows-async ARGUMENTS`` imports."""
    ended = run(cwd, *arguments, PYTHONPROFILEIMPORTTIME="1")
    assert ended.code == 0, ended.err
    return {line.split("|")[2].strip() for line in ended.err.splitlines() if line.startswith("import time:")}


def installed() -> dict[str, str]:
    """:func:`clean_environment`, with ``neows-async`` on the path."""
    here = Path(sys.executable).parent
    return clean_environment(PATH=f"{here}{os.pathsep}{os.environ['PATH']}")


def query_for_duckdb(cwd: Path, line: str) -> str:
    """The query that a shell passes to the program ``duckdb``, which is not in its Python package.

    :param line: ``duckdb -c …``
    """
    script = f"duckdb() {{ printf '%s' \"$2\"; }}\n{line}"
    return subprocess.run(
        ["/bin/sh", "-c", script], cwd=cwd, env=installed(), capture_output=True, text=True, check=True
    ).stdout

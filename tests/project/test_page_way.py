"""One page through a real run: how many modules handle it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def test_at_most_ten_modules_are_handed_a_page() -> None:
    command = [sys.executable, str(PROJECT / "tools" / "trace-page"), "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    modules = list(json.loads(ended.stdout)["taken"])
    assert len(modules) <= 10
    assert {"pipeline/decoder.py", "lake/raw_zone.py", "pipeline/admission.py", "outputs/parquet.py"} <= set(modules)

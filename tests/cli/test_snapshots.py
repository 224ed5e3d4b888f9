"""``snapshots``: a plain table for pipes, whatever the width of the terminal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests import program

if TYPE_CHECKING:
    from pathlib import Path

LONG_ID = "a-snapshot-with-a-long-id-of-64-characters-which-fills-the-line_"


def test_piped_table_has_no_colour_and_is_not_cut_at_80_columns(tmp_path: Path) -> None:
    fixed = ("run", "--source", "sandbox", "--limit", "20", "--root", "lake", "--quiet")
    assert program.run(tmp_path, *fixed, "--snapshot", LONG_ID).code == 0
    # What rich reads: neither must change a table that is no terminal's.
    ended = program.run(tmp_path, "snapshots", "--root", "lake", COLUMNS="80", FORCE_COLOR="1", TERM="xterm-256color")
    assert ended.code == 0, ended.err
    header, row = ended.out.splitlines()
    assert header.split() == ["snapshot", "state", "when", "neos", "size", "raw", "pages", "complete", "parent"]
    assert len(row) > 80
    assert row.startswith(f"{LONG_ID}  committed  ")
    assert row.endswith("latest, synthetic")
    assert "\x1b" not in ended.out


def test_json_lists_the_same_snapshots(tmp_path: Path) -> None:
    assert (
        program.run(tmp_path, "snapshots", "--root", "lake").out
        == "lake holds no snapshot; 'neows-async run' makes one\n"
    )
    fixed = ("run", "--source", "sandbox", "--limit", "20", "--root", "lake", "--quiet")
    assert program.run(tmp_path, *fixed, "--snapshot", "a").code == 0
    [listed] = json.loads(program.run(tmp_path, "snapshots", "--root", "lake", "--log-format", "json").out)
    assert (listed["snapshot"], listed["neos"], listed["latest"], listed["synthetic"]) == ("a", 20, True, True)

"""The order in which a local storage writes, syncs and renames. A power cut depends on it, and no kill shows it.

A profile function records the system calls, which are still made.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from neows_async.lake.storage.local import LocalStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux shows which file a descriptor is"
)

CALLS: Final = {os.write, os.fsync, os.rename, os.link, os.mkdir}


@contextmanager
def seen(root: Path) -> Iterator[list[str]]:
    """The system calls within the block, with the folder or file that is synced."""
    calls: list[str] = []

    def record(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and called in CALLS:
            what = ""
            if called is os.fsync:
                path = Path(f"/proc/self/fd/{frame.f_locals['fd']}").readlink()
                what = " file" if path.is_file() else f" {path.relative_to(root)}"
            calls.append(called.__name__ + what)

    sys.setprofile(record)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def written_in_pieces(storage: LocalStorage) -> None:
    output = storage.open_output("d/key")
    output.write(b"one")
    output.write(b"two")
    output.close()


@pytest.mark.parametrize(
    ("do", "calls"),
    [
        (lambda storage: storage.put("d/key", b"x"), ["write", "fsync file", "rename", "fsync d"]),
        (lambda storage: storage.create("d/key", b"x"), ["write", "fsync file", "link", "fsync d"]),
        (written_in_pieces, ["write", "write", "fsync file", "rename", "fsync d"]),
        (lambda storage: storage.move("d/old", "e/new"), ["rename", "fsync e", "fsync d"]),
        (
            lambda storage: storage.put("new/folder/key", b"x"),
            ["mkdir", "fsync .", "mkdir", "fsync new", "write", "fsync file", "rename", "fsync new/folder"],
        ),
    ],
    ids=["put", "create", "in pieces", "move", "into new folders"],
)
def test_a_file_is_durable_before_it_gets_its_name(
    tmp_path: Path, do: Callable[[LocalStorage], None], calls: list[str]
) -> None:
    storage = LocalStorage(tmp_path)
    storage.put("d/old", b"x")
    storage.put("e/old", b"x")
    with seen(tmp_path) as made:
        do(storage)
    assert made == calls


def test_without_durable_nothing_is_synced(tmp_path: Path) -> None:
    with seen(tmp_path) as made:
        LocalStorage(tmp_path, durable=False).put("key", b"x")
    assert made == ["write", "rename"]

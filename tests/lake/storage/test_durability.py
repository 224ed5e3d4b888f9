"""In which order a lake on a disk writes, syncs and names: what a power cut leaves hangs on that, and no kill shows it.

The calls are seen from beside, as a profiler sees them; they are made all the same.
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
    not sys.platform.startswith("linux"), reason="elsewhere, which file it is cannot be told"
)

CALLS: Final = {os.write, os.fsync, os.rename, os.link, os.mkdir}


@contextmanager
def seen(root: Path) -> Iterator[list[str]]:
    """The calls that are made meanwhile, with the folder or file that is synced."""
    calls: list[str] = []

    def look(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and called in CALLS:
            what = ""
            if called is os.fsync:
                path = Path(f"/proc/self/fd/{frame.f_locals['fd']}").readlink()
                what = " file" if path.is_file() else f" {path.relative_to(root)}"
            calls.append(called.__name__ + what)

    sys.setprofile(look)
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
def test_nothing_has_its_name_before_it_is_on_the_disk(
    tmp_path: Path, do: Callable[[LocalStorage], None], calls: list[str]
) -> None:
    storage = LocalStorage(tmp_path)
    storage.put("d/old", b"x")
    storage.put("e/old", b"x")
    with seen(tmp_path) as made:
        do(storage)
    assert made == calls


def test_syncs_can_be_left_out_to_measure_them(tmp_path: Path) -> None:
    with seen(tmp_path) as made:
        LocalStorage(tmp_path, durable=False).put("key", b"x")
    assert made == ["write", "rename"]

"""The watch over blocking calls sees those of the watched package's coroutines, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio.to_thread

from tests.blocking import watch

if TYPE_CHECKING:
    from pathlib import Path


async def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")  # noqa: ASYNC240 - it is to be caught


async def read_in_thread(path: Path) -> str:
    return await anyio.to_thread.run_sync(path.read_text)


class Leftover:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __del__(self) -> None:
        self.path.unlink()


async def drop(leftovers: list[Leftover]) -> None:
    leftovers.clear()


async def test_a_blocking_call_of_a_coroutine_is_noted(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("text", encoding="utf-8")

    with watch(__name__) as seen:
        assert await read(file) == "text"

    assert len(seen) == 1
    assert str(file) in seen[0]
    assert __file__ in seen[0]


async def test_a_blocking_call_in_a_thread_is_not_noted(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("text", encoding="utf-8")

    with watch(__name__) as seen:
        assert await read_in_thread(file) == "text"

    assert seen == []


async def test_a_blocking_call_of_another_package_is_not_noted(tmp_path: Path) -> None:
    with watch("somebody_else") as seen:
        (tmp_path / "file").touch()

    assert seen == []


async def test_a_finalizer_is_not_a_call_of_the_coroutine_that_it_interrupts(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    with watch(__name__) as seen:
        await drop([Leftover(file)])

    assert not file.exists()
    assert seen == []

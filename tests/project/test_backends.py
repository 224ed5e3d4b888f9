"""Async tests run where their markers say."""

from __future__ import annotations

import asyncio

import anyio
import anyio.lowlevel
import pytest
import sniffio


def here() -> str:
    if sniffio.current_async_library() == "trio":
        return "trio"
    return "uvloop" if type(asyncio.get_running_loop()).__module__.startswith("uvloop") else "asyncio"


def wanted(request: pytest.FixtureRequest) -> str:
    name = request.node.callspec.params["anyio_backend"]
    assert isinstance(name, str)
    return name


async def test_an_async_test_runs_on_the_loop_it_is_named_for(request: pytest.FixtureRequest) -> None:
    assert here() == wanted(request)
    assert here() != "uvloop"


@pytest.mark.uvloop
async def test_a_marked_test_runs_on_uvloop_too(request: pytest.FixtureRequest) -> None:
    assert here() == wanted(request)


@pytest.mark.asyncio_only
async def test_asyncio_only_runs_on_asyncio() -> None:
    assert here() == "asyncio"


@pytest.mark.trio_only
async def test_trio_only_runs_on_trio() -> None:
    assert here() == "trio"


@pytest.fixture
async def loop_of_fixture() -> str:
    await anyio.lowlevel.checkpoint()
    return here()


@pytest.mark.uvloop
async def test_an_async_fixture_runs_on_the_loop_of_its_test(loop_of_fixture: str) -> None:
    assert loop_of_fixture == here()

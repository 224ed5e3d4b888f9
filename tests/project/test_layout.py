"""The layout of the package and of its tests: what a newcomer can rely on when searching for something."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT, SLOW

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE = ROOT / "src" / "neows_async"
FOLDERS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
PACKAGES = sorted(path.parent for path in PACKAGE.glob("**/__init__.py") if path.parent != PACKAGE)
MODULES = sorted(PACKAGE.rglob("*.py"))

MOST_ENTRIES = 20
SHORTEST_PAGE = 3  # lines

# The public names of these packages are in `__init__`; all others are imported from their module.
IMPORTING = {"testing", "lake/storage", "maintenance/verify"}
SAYS_NOTHING = {"base", "common", "helper", "helpers", "manager", "misc", "util", "utils"}

# Members of the API's JSON that are not also columns of our tables.
FIELDS = (
    "absolute_magnitude(?!_h)",
    "astronomical",
    "close_approach_data",
    "close_approach_date_full",
    "epoch_date_close_approach",
    "estimated_diameter(?!_m)",
    "is_sentry_object",
    "kilometers_per_(?:second|hour)",
    "near_earth_objects",
    "orbital_data",
    "total_pages",
)
# `testing` makes pages as the API does, for the fakes and the suites of users.
KNOWS_FIELDS = ("endpoints", "sandbox", "testing")


def within(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_the_package_has_few_entries() -> None:
    entries = [path.name for path in PACKAGE.iterdir() if not path.name.startswith("__") and path.name != "py.typed"]
    assert len(entries) <= MOST_ENTRIES, sorted(entries)


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [within(path) for path in MODULES if path.stem.strip("_") in SAYS_NOTHING] == []


@pytest.mark.parametrize("folder", PACKAGES, ids=within)
def test_a_package_explains_itself_and_imports_nothing(folder: Path) -> None:
    tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    page = ast.get_docstring(tree) or ""
    assert len(page.splitlines()) >= SHORTEST_PAGE
    if within(folder) not in IMPORTING:
        assert [ast.unparse(node) for node in tree.body[1:]] == []


@pytest.mark.parametrize("folder", [one for one in PACKAGES if within(one) not in IMPORTING], ids=within)
def test_the_page_of_a_package_names_each_of_its_files(folder: Path) -> None:
    page = (folder / "__init__.py").read_text(encoding="utf-8")
    if within(folder) == "outputs":  # the registry names the files of the parts: a new part is one file and one line
        page += (folder / "registry.py").read_text(encoding="utf-8")
    files = [path.name for path in folder.iterdir() if path.suffix == ".py" and path.name != "__init__.py"]
    assert [name for name in files if not re.search(rf"\b{re.escape(name.removesuffix('.py'))}\b", page)] == []


def test_each_public_class_has_a_name_of_its_own() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in MODULES]
    names = Counter(
        node.name
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_only_endpoints_know_the_fields_of_the_api() -> None:
    member = re.compile(rf"\b(?:{'|'.join(FIELDS)})\b")
    found = [
        f"{within(path)}: {match[0]}"
        for path in MODULES
        if not within(path).startswith(KNOWS_FIELDS)
        for match in member.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize("folder", FOLDERS, ids=within)
def test_each_package_has_tests_in_a_folder_of_its_name(folder: Path) -> None:
    if folder.name == "testing":  # what it offers to users is used by the tests of our own parts
        assert "neows_async.testing" in (ROOT / "tests/project/test_conformance.py").read_text(encoding="utf-8")
        return
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests" / folder.name).rglob("test_*.py")}
    assert {file for file in files if not file.startswith(SLOW)}, "none of them is run by make test-quick"


def test_what_is_called_slow_exists() -> None:
    assert [name for name in SLOW if not (ROOT / name.partition("::")[0]).exists()] == []


def test_quick_tests_run_on_one_event_loop_and_the_slow_ones_are_left_out() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n", "0", "-m", "not slow"]
    files = ["tests/project/test_backends.py", "tests/torture/test_cancelling.py"]
    ended = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True, check=True)
    chosen = [line for line in ended.stdout.splitlines() if "::" in line]
    assert [line for line in chosen if not line.startswith("tests/project/")] == []
    assert [line for line in chosen if re.search(r"\[(trio|uvloop)", line) and "trio_only" not in line] == []
    assert any("[asyncio]" in line for line in chosen)

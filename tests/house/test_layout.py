"""The house as it is drawn: which package may import which, and what no file is."""

from __future__ import annotations

import ast
import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
# From the bottom to the top; a package imports from its own rung and from those below it, benchmarks and examples not
# from each other
LADDER = (("gfl_edge",), ("calib",), ("train",), ("export",), ("benchmarks", "examples"), ("tests",))
RUNG = {package: rung for rung, packages in enumerate(LADDER) for package in packages}
MAX_TOP_MODULES = 12
MAX_TEST_LINES = 500
MAX_BYTES = 8_000_000  # the largest is the bundled model, of 7 MB


SOURCES = sorted(path.relative_to(CHECKOUT) for package in RUNG for path in (CHECKOUT / package).rglob("*.py"))
TESTS = [path for path in SOURCES if path.name.startswith("test_")]
PACKAGES = [path for path in SOURCES if path.name == "__init__.py"]


@functools.cache
def imported(path: Path) -> tuple[str, ...]:
    """The modules that a file imports anywhere: inside functions and for type checkers, too."""
    return tuple(_imported(path))


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse((CHECKOUT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import hides where it points"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", RUNG)
def test_imports_point_down_the_ladder(package):
    upwards = [
        f"{path} imports {module}"
        for path in SOURCES
        if path.parts[0] == package
        for module in imported(path)
        if RUNG.get(root := module.partition(".")[0], -1) >= RUNG[package] and root != package
    ]
    assert not upwards, "\n".join(upwards)


def test_gfl_edge_never_imports_torch():
    found = [
        str(path)
        for path in SOURCES
        if path.parts[0] == "gfl_edge" and any(module.partition(".")[0] == "torch" for module in imported(path))
    ]
    assert not found, "\n".join(found)


def test_no_test_file_imports_another():
    found = [
        f"{path} imports {module}: move what both need into tests/support"
        for path in SOURCES
        for module in imported(path)
        if module.startswith("tests.") and any(part.startswith("test_") for part in module.split("."))
    ]
    assert not found, "\n".join(found)


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for path in SOURCES if path.parts[0] != "tests"}
    missing = sorted(f"{folder}/__init__.py" for folder in folders - {path.parent for path in PACKAGES})
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("path", PACKAGES, ids=str)
def test_a_package_says_what_it_holds_and_what_it_may_import(path):
    text = ast.get_docstring(ast.parse((CHECKOUT / path).read_text())) or ""
    assert len([line for line in text.splitlines() if line.strip()]) >= 2, f"{path}: expected two lines and more"
    assert "import" in text.lower(), f"{path}: expected what the package may import"


def test_the_front_door_is_short():
    modules = [path.name for path in SOURCES if path.parent == Path("gfl_edge")]
    assert len(modules) <= MAX_TOP_MODULES, f"gfl_edge has the modules {', '.join(modules)}"


def test_no_test_file_is_long():
    lengths = {path: len((CHECKOUT / path).read_text().splitlines()) for path in TESTS}
    long = [f"{path}: {lines} lines" for path, lines in lengths.items() if lines > MAX_TEST_LINES]
    assert not long, "\n".join(long)


def test_no_file_is_a_grab_bag():
    found = [str(path) for path in SOURCES if path.stem in ("utils", "util", "helpers", "misc", "common")]
    assert not found, "\n".join(found)


@functools.cache
def committed() -> tuple[str, ...]:
    """The paths of all files."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return tuple(name for name in listed.stdout.split("\0") if name)


def test_what_a_run_wrote_into_the_checkout_is_not_committed():
    folders = {name.partition("/")[0] for name in committed() if "/" in name}
    assert folders == {*RUNG, "docs", "plugins", ".ci", ".github"}


def test_no_file_is_large():
    paths = [CHECKOUT / name for name in committed()]
    large = [str(path) for path in paths if path.is_file() and path.stat().st_size > MAX_BYTES]
    assert not large, "\n".join(large)


def test_no_output_of_a_command_was_committed():
    """Such as the folder of an interrupted run, or one called ``s3:``, which Windows cannot check out."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    tracked = listed.stdout.rstrip("\0").split("\0")
    assert [path for path in tracked if not path.isascii() or set(path) & set('<>:"|?*\\')] == []
    folders = {path.partition("/")[0] for path in tracked if "/" in path}
    assert folders == {*RUNG, "docs", "plugins", ".ci", ".github"}

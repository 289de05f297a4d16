"""What the project promises about itself: imports, help, packaging."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import gfl_edge
from gfl_edge import errors, optional
from gfl_edge.cli import main as cli
from gfl_edge.errors import GflEdgeError, MissingDependencyError
from gfl_edge.serving import deepstream
from tests.support.helps import ask_help

CHECKOUT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    ".".join(path.relative_to(CHECKOUT).with_suffix("").parts) for path in (CHECKOUT / "gfl_edge").rglob("*.py")
)

SCRIPTS = sorted(
    path.relative_to(CHECKOUT).as_posix()
    for folder in ("calib", "train", "export", "benchmarks", "examples", "docs")
    for path in (CHECKOUT / folder).rglob("*.py")
    if "return run_command(" in path.read_text()
)

# Imports every module with everything but NumPy and the standard library out of reach
BARE = """
import importlib, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        own = {"gfl_edge", "export", "calib", "train", "benchmarks"}
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "numpy", *own}:
            raise ImportError(f"{name} is out of reach")

sys.meta_path.insert(0, Refuse())
"""


def run(*words, cwd=CHECKOUT, **kwargs):
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False, timeout=300, **kwargs)


def test_every_module_imports_with_numpy_alone():
    names = [name.removesuffix(".__init__") for name in MODULES if not name.endswith("__main__")]
    result = run(sys.executable, "-c", f"{BARE}\nfor name in {names!r}: importlib.import_module(name)")
    assert result.returncode == 0, result.stderr


def test_help_of_every_command_needs_numpy_alone():
    commands = [[], *([name] for name, _, _ in cli.COMMANDS)]
    result = run(sys.executable, *ask_help([("gfl_edge/__main__.py", *words) for words in commands], BARE))
    assert result.returncode == 0, result.stderr
    for words, told in zip(commands, json.loads(result.stdout), strict=True):
        assert told.startswith(f"usage: {' '.join(['gfl-edge', *words])}")


def test_help_of_every_script_needs_numpy_alone():
    result = run(sys.executable, *ask_help([(script,) for script in SCRIPTS], BARE))
    assert result.returncode == 0, result.stderr
    for script, told in zip(SCRIPTS, json.loads(result.stdout), strict=True):
        assert told.startswith(f"usage: {script}")


def test_exported_members():
    assert sorted(gfl_edge.__all__) == gfl_edge.__dir__()
    for name in gfl_edge.__all__:
        assert getattr(gfl_edge, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = gfl_edge.nonsense


def test_the_tree_of_errors_is_the_one_drawn():
    drawn = set(re.findall(r"\b(\w+Error)\b", errors.__doc__))
    real = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, GflEdgeError)}
    assert drawn == real


def test_missing_packages_name_the_extra():
    for module, extra in optional.EXTRA_OF.items():
        if extra and not optional.available(module):
            with pytest.raises(MissingDependencyError, match=rf"pip install 'gfl-edge\[{extra}\]'"):
                optional.load(module)


@pytest.mark.skipif(optional.available("tensorrt"), reason="full TensorRT is installed")
def test_type_stubs_do_not_pass_for_a_library(monkeypatch, tmp_path):
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt" / "__init__.pyi").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        with pytest.raises(MissingDependencyError, match="type stubs only"):
            optional.load("tensorrt")
    finally:
        sys.modules.pop("tensorrt", None)


def test_the_wheel_holds_only_gfl_edge(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entry_points = next(name for name in names if name.endswith("entry_points.txt"))
        assert "gfl-edge = gfl_edge.cli.main:main" in archive.read(entry_points).decode()
    info = f"gfl_edge-{gfl_edge.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"gfl_edge", info}
    modules = {name for name in names if name.endswith(".py")}
    assert modules == {name.replace(".", "/") + ".py" for name in MODULES}
    assert {"gfl_edge/py.typed", "gfl_edge/report/report.html.j2", "gfl_edge/web/page.html"} <= set(names)


def test_the_wheel_holds_the_kernels(wheel):
    """Their only copy in the repository lies in plugins/."""
    with zipfile.ZipFile(wheel) as archive:
        sources = [*(CHECKOUT / "plugins/src").glob("*.cuh"), CHECKOUT / "plugins/include/gfl_kernels.h"]
        assert len(sources) > 1
        for source in sources:
            assert archive.read(f"gfl_edge/cuda/source/{source.name}") == source.read_bytes()


def test_the_wheel_holds_deepstreams_parser(wheel):
    sources = [path for path in (CHECKOUT / "plugins/deepstream").iterdir() if path.is_file()]
    assert {path.name for path in sources} == set(deepstream.SOURCES)
    with zipfile.ZipFile(wheel) as archive:
        for source in sources:
            assert archive.read(f"gfl_edge/serving/parser/{source.name}") == source.read_bytes()


def test_the_wheel_runs_in_a_bare_environment(wheel, tmp_path):
    """With only NumPy beside it: import, help, and errors that name what to install."""
    import numpy

    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    numpy_home = Path(numpy.__file__).parent
    for part in (numpy_home, numpy_home.parent / "numpy.libs"):
        if part.exists():
            (site / part.name).symlink_to(part)
    environment = {**os.environ, "PYTHONPATH": ""}
    imported = run(str(python), "-c", "import gfl_edge; print(gfl_edge.Detector)", cwd=tmp_path, env=environment)
    assert imported.returncode == 0, imported.stderr
    helped = run(str(python), "-m", "gfl_edge", "eval", "--help", cwd=tmp_path, env=environment)
    assert helped.returncode == 0, helped.stderr
    listed = run(str(python), "-m", "gfl_edge", "models", cwd=tmp_path, env=environment)
    assert listed.returncode == 0, listed.stderr
    assert "gfl-r50-1x" in listed.stdout
    doctor = run(str(python), "-m", "gfl_edge", "doctor", cwd=tmp_path, env=environment)
    assert doctor.returncode == 1, doctor.stderr
    assert "-> pip install 'gfl-edge[cpu]'" in doctor.stdout
    (tmp_path / "m.onnx").touch()
    failed = run(str(python), "-m", "gfl_edge", "detect", "--model", "m.onnx", "a.jpg", cwd=tmp_path, env=environment)
    assert failed.returncode == 1
    assert "pip install 'gfl-edge[cpu]'" in failed.stderr


def test_no_file_of_the_project_names_a_path_of_a_machine():
    listed = run("git", "ls-files").stdout.split()
    for name in listed:
        path = CHECKOUT / name
        if path.is_file() and name != "tests/house/test_house.py":
            text = path.read_text(errors="replace")
            assert not re.search(r"/(root|home|work)/\w", text), name

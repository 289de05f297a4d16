"""Optional packages: loaded when they are used, and without what reports their use."""

from __future__ import annotations

import argparse
import ast
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from gfl_edge import optional
from gfl_edge.console import run_command

# Prints what the process did that could reach a network: OpenVINO's telemetry forks, and the child opens the socket
WATCHED = """
import sys

done = []
NETWORK = ("socket.", "os.fork", "os.posix_spawn", "subprocess.Popen")
sys.addaudithook(lambda event, _: done.append(event) if event.startswith(NETWORK) else None)
from gfl_edge import optional

optional.load("openvino").Core()
print([name for name in sys.modules if name.partition(".")[0] == "openvino_telemetry"], done)
"""


@pytest.mark.parametrize("cached", [False, True], ids=["first start", "second start"])
def test_openvino_reports_nothing(tmp_path, cached):
    pytest.importorskip("openvino_telemetry")
    if cached:  # consent as OpenVINO's own tools leave it
        (tmp_path / "intel").mkdir()
        (tmp_path / "intel" / "openvino_telemetry").write_text("1")
    before = sorted(tmp_path.rglob("*"))
    environment = {**os.environ, "HOME": str(tmp_path)}
    words = [sys.executable, "-c", WATCHED]
    found = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "[] []"
    assert sorted(tmp_path.rglob("*")) == before


def test_telemetry_can_be_imported_by_others_afterwards():
    telemetry = pytest.importorskip("openvino_telemetry")
    optional.load("openvino")
    assert sys.modules["openvino_telemetry"] is telemetry


def test_quiet_drops_what_is_printed_warned_of_and_logged(capsys, caplog, recwarn):
    logger = logging.getLogger("maker")
    with optional.quiet(logging.WARNING):
        print("printed")
        warnings.warn("warned of", stacklevel=1)
        logger.warning("logged")
        logger.error("serious")
    logger.warning("afterwards")
    assert not capsys.readouterr().out
    assert not recwarn.list
    assert [record.message for record in caplog.records] == ["serious", "afterwards"]


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (
            "ModuleNotFoundError(\"No module named 'cv2'\")",
            "Install it with: pip install 'gfl-edge[opencv]' or, without a screen, 'gfl-edge[headless]'; on JetPack: "
            "sudo apt install python3-opencv",
        ),
        (
            'ImportError("libGL.so.1: cannot open shared object file: No such file or directory")',
            "It needs libraries of the system: sudo apt install libgl1 libglib2.0-0",
        ),
        (
            'ImportError("numpy.core.multiarray failed to import")',
            "It was built for NumPy 1: pip install 'numpy<2'",
        ),
    ],
    ids=["none", "without libraries", "older than NumPy 2"],
)
def test_an_opencv_that_does_not_load(tmp_path, error, advice):
    (tmp_path / "cv2.py").write_text(f"import sys\nsys.stderr.write('a traceback of NumPy')\nraise {error}\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(CHECKOUT)])}
    words = [sys.executable, "-m", "gfl_edge", "camera", "--headless", "--source", "0"]
    found = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert found.returncode == 1
    assert found.stderr.splitlines()[-1].startswith("gfl-edge: error: cv2 cannot be imported (")
    assert found.stderr.endswith(f"). {advice}\n")
    assert "traceback" not in found.stderr


def test_what_a_package_says_when_it_loads_is_shown(tmp_path, monkeypatch, capsys):
    (tmp_path / "said_something.py").write_text("import sys\nsys.stderr.write('of use')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert optional.load("said_something").__name__ == "said_something"
    assert capsys.readouterr().err == "of use"


CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("gfl_edge", "calib", "train", "export", "benchmarks", "examples", "docs")


def imported_packages(path: Path) -> set[str]:
    """Names of the packages that a file's import statements and calls of ``optional.load`` name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=str(module)):
                found.add(module)
            case ast.Call(func=ast.Attribute(attr="load"), args=[ast.Constant(str(module)), *_]):
                found.add(module)
    return {name.partition(".")[0] for name in found}


def test_every_package_that_is_imported_is_in_the_table():
    files = [path for package in PACKAGES for path in (CHECKOUT / package).rglob("*.py")]
    imported = set().union(*map(imported_packages, files))
    newer = {"tomllib"}  # in Python 3.11, where tomli is not needed
    system = {"gi"}  # of Debian's Python, which runs an RTSP server
    assert imported - {*sys.stdlib_module_names, *newer, *system, *PACKAGES} <= set(optional.EXTRA_OF)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is of Python 3.11")
def test_every_extra_of_the_table_is_one_of_the_package():
    import tomllib

    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    named = {extra for extras in optional.EXTRA_OF.values() for extra in extras.split(",")} - {""}
    assert named <= set(project["optional-dependencies"])


# Runs a script where a package is not installed; sys.modules holds None for what there is none of
WITHOUT = """
import runpy, sys
sys.modules[{package!r}] = None
sys.argv = {words!r}
runpy.run_path({script!r}, run_name="__main__")
"""


@pytest.mark.parametrize(
    ("package", "extra", "command"),
    [
        ("torch", "export,train", "export/to_onnx.py --weights x.ckpt -o x.onnx"),
        ("onnxsim", "export", "export/to_onnx.py --weights x.ckpt -o x.onnx"),
        pytest.param(*("onnxscript", "export", "export/to_onnx.py --weights x.ckpt -o x.onnx"), marks=pytest.mark.slow),
        ("torch", "export,train", "export/to_trt.py --weights x.ckpt --target sm75"),
        ("torch", "export,train", "train/train.py x.toml"),
        ("torch", "export,train", "train/evaluate.py --weights x.ckpt --images . --annotations a.json"),
        ("onnx", "cpu", "calib/calibrate.py --onnx x.onnx --images . -o q.onnx"),
        ("pydantic", "", "train/train.py x.toml"),
        ("torch", "export,train", "benchmarks/run.py iteration"),
        ("pdoc", "docs", "docs/build.py"),
        ("onnx", "cpu", "gfl_edge/__main__.py build --model x.onnx --target sm75"),
    ],
)
def test_a_missing_package_is_one_line_that_names_its_extra(package, extra, command, tmp_path):
    pytest.importorskip("torch", reason="all other packages of these commands are needed")
    script, *words = command.split()
    for name in ("x.ckpt", "x.toml", "x.onnx"):
        (tmp_path / name).touch()
    code = WITHOUT.format(package=package, words=[script, *words], script=str(CHECKOUT / script))
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert f"error: {package} cannot be imported" in ended.stderr
    assert (f"pip install 'gfl-edge[{extra}]'" if extra else "pip install gfl-edge\n") in ended.stderr


def test_another_package_that_is_missing_is_a_fault_of_the_program():
    def fail(args):
        import no_such_package  # type: ignore[import-not-found] # noqa: F401

    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        run_command(argparse.ArgumentParser(), fail, [])

"""Every module that reads files has a driver in tests/fuzz, as far as that can be told from its code."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.fuzz.openers import OPENERS
from tests.fuzz.registry import all_readers

CHECKOUT = Path(__file__).resolve().parents[2]
READS = {
    *("read_text", "read_bytes", "open", "read_regular", "fromfile", "memmap", "iterparse"),
    *("imread", "imdecode", "VideoCapture", "load_model_from_string", "safe_open", "ZipFile"),
}
LOADERS = {"np", "numpy", "torch", "onnx", "json", "tomllib", "pickle", "cv2"}  # whose load() takes a file


def reads_files(path: Path) -> bool:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            owner = getattr(getattr(node.func, "value", None), "id", "")
            if name in READS or (name == "load" and owner in LOADERS):
                return True
    return False


def test_every_module_that_reads_files_is_listed_with_its_drivers():
    paths = [
        path for package in ("gfl_edge", "calib", "train", "export") for path in (CHECKOUT / package).rglob("*.py")
    ]
    found = {path.relative_to(CHECKOUT).as_posix() for path in paths if reads_files(path)}
    assert found - OPENERS.keys() == set(), "write a driver (tests/fuzz/readers), and list it in tests/fuzz/openers.py"
    assert OPENERS.keys() - found == set(), "these read no files any more: take them out of tests/fuzz/openers.py"


def test_the_listed_drivers_are_there():
    named = {name for drivers in OPENERS.values() if not isinstance(drivers, str) for name in drivers}
    assert named <= all_readers().keys()


def test_a_module_that_reads_is_found(tmp_path):
    for line in ("open('a')", "Path('a').read_bytes()", "np.load('a')", "cv2.imread('a')"):
        (tmp_path / "a.py").write_text(line)
        assert reads_files(tmp_path / "a.py"), line
    (tmp_path / "a.py").write_text("optional.load('numpy'); yaml.compose(text)")
    assert not reads_files(tmp_path / "a.py")

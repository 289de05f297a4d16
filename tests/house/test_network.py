"""No command and no import contacts another machine, except for what was asked for.

The commands of the documents, which do all real work, are watched where they run (test_documents.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gfl_edge.cli.main import COMMANDS
from gfl_edge.zoo.bundled import bundled_model
from tests.support.helps import ask_help
from tests.support.watched_network import contacts, watched

CHECKOUT = Path(__file__).resolve().parents[2]
IMPORT_ALL = """
import importlib, pathlib
from gfl_edge import optional
for path in sorted(pathlib.Path("gfl_edge").rglob("*.py")):
    if path.stem not in ("__main__", "__init__"):
        importlib.import_module(".".join(path.with_suffix("").parts))
for name in optional.EXTRA_OF:
    if name in {packages}:
        optional.available(name)
"""
LIGHT = ("numpy", "cv2", "onnx", "onnxruntime", "openvino", "pycocotools", "tensorrt_rtx", "cuda", "psutil", "yaml")
LIGHT += ("starlette", "uvicorn", "prometheus_client")
SCRIPTS = sorted(
    path.relative_to(CHECKOUT).as_posix()
    for package in ("train", "export", "calib", "benchmarks", "examples")
    for path in (CHECKOUT / package).rglob("*.py")
    if "return run_command(" in path.read_text()
)


def run(words: list[str], folder: Path, expected: int = 0) -> list[str]:
    """Run it with a home and a cache of its own; returns whom it contacted."""
    log, home = folder / "watched", folder / "home"
    home.mkdir()
    own = {"HOME": str(home), "GFL_EDGE_CACHE": str(home / "cache"), "PYTHONPATH": str(CHECKOUT)}
    settings = {"cwd": CHECKOUT, "env": watched({**os.environ, **own}, log), "timeout": 300}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, **settings)
    assert done.returncode == expected, done.stderr[-3000:]
    return contacts(log)


def test_the_watch_sees_what_is_contacted(tmp_path):
    """A name and an address, of a process, its child and its fork; nothing is sent, as there is no such name."""
    words = """
import os, socket, subprocess, sys
for contact in (
    lambda: socket.getaddrinfo("example.invalid", 80),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("192.0.2.1", 80)),
):
    try:
        contact()
    except OSError:
        pass
if len(sys.argv) == 1:
    subprocess.run([sys.executable, "-c", sys.orig_argv[-1], "child"])
    if os.fork() == 0:
        try:
            socket.getaddrinfo("fork.invalid", 80)
        except OSError:
            pass
        os._exit(0)
    os.wait()
"""
    found = [line.split()[:2] for line in run(["-c", words], tmp_path)]
    one = [["socket.getaddrinfo", "example.invalid"], ["socket.connect", "192.0.2.1"]]
    assert found == [*one, *one, ["socket.getaddrinfo", "fork.invalid"]]


def test_imports_contact_nobody(tmp_path):
    assert run(["-c", IMPORT_ALL.format(packages=LIGHT)], tmp_path) == []


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_detecting_contacts_nobody(tmp_path, backend):
    pytest.importorskip(backend)
    import cv2
    import numpy

    cv2.imwrite(str(tmp_path / "a.png"), numpy.full((64, 64, 3), 114, numpy.uint8))
    words = ["-m", "gfl_edge", "detect", "--model", str(bundled_model()), "--backend", backend]
    assert run([*words, str(tmp_path / "a.png"), "-o", str(tmp_path / "out")], tmp_path) == []


def test_doctor_contacts_nobody(tmp_path):
    done = run(["-c", "from gfl_edge.cli.main import main; main(['doctor'])"], tmp_path)
    assert done == []


@pytest.mark.slow
def test_the_help_of_a_command_contacts_nobody(tmp_path):
    assert run(ask_help([("gfl_edge/cli/main.py", name) for name, *_ in COMMANDS]), tmp_path) == []


@pytest.mark.slow
def test_the_help_of_a_script_contacts_nobody(tmp_path):
    assert run(ask_help([(script,) for script in SCRIPTS]), tmp_path) == []

"""The bundled detector behind a real Triton, in an environment of its own: nvidia-pytriton brings the server."""

from __future__ import annotations

import platform
import socket
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

from examples.triton_server import detects
from gfl_edge.detections import Detections
from gfl_edge.serving.triton import write_triton
from gfl_edge.zoo.bundled import bundled_model
from tests.conftest import CHECKOUT
from tests.support.pythons import find_python

# The server's Python back end loads libpython of the interpreter: it took that of pyenv's 3.10, and not that of 3.11
PYTHON = "3.10"
PACKAGES = (
    *("nvidia-pytriton==0.7.0", "tritonclient[grpc,http]", "numpy<2", "pydantic", "tqdm"),
    *("onnx", "onnxruntime", "opencv-python-headless<4.12"),
)


def test_requests_are_answered_one_by_one():
    def found(frame):
        boxes = np.float32([[0, 0, *frame.shape[1::-1]]])
        return Detections(boxes, np.float32([0.5]), np.int32([1]), ("a", "b"))

    frames = [np.zeros((4, 6, 3), np.uint8), np.zeros((8, 2, 3), np.uint8)]
    answers = detects(found)([{"frame": frame} for frame in frames])
    assert [answer["boxes"].tolist() for answer in answers] == [[[0, 0, 6, 4]], [[0, 0, 2, 8]]]
    assert [answer[name].dtype for name in ("scores", "class_ids") for answer in answers[:1]] == [np.float32, np.int32]


@pytest.mark.slow
def test_a_real_server(tmp_path, data):
    """The same as locally over HTTP and gRPC, a frame that is none refused, 64 clients at once, and a restart."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("nvidia-pytriton has the server for Linux on x86_64 only")
    python = environment(tmp_path / "env")
    image = sorted(data("coco128/train2017").iterdir())[0]
    repository = write_triton(tmp_path / "repo", bundled_model(), name="m")
    words = [python, str(CHECKOUT / "tests/support/triton_real.py"), image, str(three_ports()), repository]
    settings = {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    with tempfile.TemporaryDirectory() as home:  # in which its sockets lie, whose paths have to be short
        settings["HOME"] = home
        ran = subprocess.run(
            list(map(str, words)), env=settings, capture_output=True, text=True, timeout=500, check=False
        )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout.split() == ["protobuf", "same", "refused", "clients", "restart"]


def environment(folder: Path) -> Path:
    """Its interpreter; skips where the packages cannot be had."""
    subprocess.run([find_python(PYTHON), "-m", "venv", str(folder)], check=True)
    words = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *PACKAGES]
    installed = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=500, check=False)
    if installed.returncode:
        pytest.skip(f"nvidia-pytriton cannot be installed: {installed.stderr.strip().splitlines()[-1]}")
    return folder / "bin" / "python"


def three_ports() -> int:
    """The first of three ports in a row that are free."""
    for port in range(18_500, 19_000, 3):
        with socket.socket() as one, socket.socket() as two, socket.socket() as three:
            try:
                for offset, probe in enumerate((one, two, three)):
                    probe.bind(("127.0.0.1", port + offset))
            except OSError:
                continue
            return port
    pytest.skip("no free ports")

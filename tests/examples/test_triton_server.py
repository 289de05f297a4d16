"""The bundled detector behind a real Triton, in an environment of its own: nvidia-pytriton brings the server."""

from __future__ import annotations

import platform
import subprocess
import tempfile
import traceback
from pathlib import Path

import numpy as np
import pytest

from benchmarks.serving.server import PACKAGES, PYTHON
from benchmarks.serving.triton import free_ports
from examples.triton_server import NotDetectedError, detects
from gfl_edge.detections import Detections
from gfl_edge.errors import InputError
from gfl_edge.serving.triton import write_triton
from gfl_edge.zoo.bundled import bundled_model
from tests.conftest import CHECKOUT
from tests.support.pythons import find_python


def test_requests_are_answered_one_by_one():
    def found(frame):
        boxes = np.float32([[0, 0, *frame.shape[1::-1]]])
        return Detections(boxes, np.float32([0.5]), np.int32([1]), ("a", "b"))

    frames = [np.zeros((4, 6, 3), np.uint8), np.zeros((8, 2, 3), np.uint8)]
    answers = detects(found)([{"frame": frame} for frame in frames])
    assert [answer["boxes"].tolist() for answer in answers] == [[[0, 0, 6, 4]], [[0, 0, 2, 8]]]
    assert [answer[name].dtype for name in ("scores", "class_ids") for answer in answers[:1]] == [np.float32, np.int32]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError("a frame of 1x1: expected more"), "a frame of 1x1: expected more"),
        (RuntimeError("/secret/m.onnx broke"), "the detector failed; the log of the server says why"),
    ],
)
def test_a_client_reads_a_sentence_and_the_log_has_the_rest(error, said, caplog):
    """As PyTriton writes down what it raises."""

    def fails(frame):
        raise error

    with pytest.raises(NotDetectedError) as raised:
        detects(fails)([{"frame": np.zeros((1, 1, 3), np.uint8)}])
    sent = "".join(traceback.format_exception(None, raised.value, raised.value.__traceback__))
    assert sent == f"examples.triton_server.NotDetectedError: {said}\n"
    assert ("/secret/m.onnx broke" in caplog.text) == isinstance(error, RuntimeError)


@pytest.mark.slow
def test_a_real_server(tmp_path, data):
    """The same as locally over HTTP and gRPC, a frame that is none refused, 64 clients at once, and a restart."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("nvidia-pytriton has the server for Linux on x86_64 only")
    python = environment(tmp_path / "env")
    image = sorted(data("coco128/train2017").iterdir())[0]
    repository = write_triton(tmp_path / "repo", bundled_model(), name="m")
    words = [python, str(CHECKOUT / "tests/support/triton_real.py"), image, str(free_ports(3)), repository]
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

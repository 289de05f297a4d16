"""The wheel as a newcomer installs it: a fresh environment of every supported Python, an empty home, no PyTorch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gfl_edge import __version__
from tests.support.exported import SmallFiles
from tests.support.pythons import find_python

PYTHONS = ("3.10", "3.11", "3.12", "3.13")

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path: Path, small_onnx: SmallFiles) -> Path:
    """An empty home folder except for an image and a model."""
    import cv2

    shutil.copyfile(small_onnx["fp32", "none"], tmp_path / "small.onnx")
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    assert cv2.imwrite(str(tmp_path / "street.jpg"), image)
    return tmp_path


@pytest.mark.parametrize("version", PYTHONS)
def test_a_newcomer(version: str, wheel: Path, home: Path) -> None:
    kept = ("PATH", "LANG", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
    environment = {name: value for name, value in os.environ.items() if name in kept or name.startswith("PIP_")}
    environment["HOME"] = str(home)

    def run(*words: str, status: int = 0) -> str:
        result = subprocess.run(
            words, cwd=home, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert result.returncode == status, f"{words}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    run(find_python(version), "-m", "venv", "env")
    scripts = home / "env" / "bin"
    pip, gfl_edge = (scripts / "pip", "install", "--quiet"), str(scripts / "gfl-edge")
    run(*map(str, (*pip, wheel)))
    said = run(gfl_edge, "doctor", status=1)
    assert "-> pip install 'gfl-edge[cpu]'" in said
    assert "-> pip install opencv-python" in said
    # What the doctor says: the package is there, so that pip adds only the extras
    run(*map(str, (*pip, "gfl-edge[cpu,opencv]")))
    report = json.loads(run(gfl_edge, "doctor", "--json"))
    assert {"ONNX files by openvino", "ONNX files by onnxruntime"} <= set(report["ways"])
    assert run(str(scripts / "python"), "-c", "import gfl_edge; print(gfl_edge.__version__)").strip() == __version__
    assert "nanodet-plus-m-416" in run(gfl_edge, "models")
    for backend in ("openvino", "onnxruntime"):
        words = ("--model", "small.onnx", "--backend", backend, "--score", "0.0", "street.jpg", "-o", backend)
        assert json.loads(run(gfl_edge, "detect", *words))["skipped"] == []
        assert (home / backend / "street.jpg").is_file()
    # by the bundled detector
    assert json.loads(run(gfl_edge, "detect", "street.jpg", "-o", "own"))["skipped"] == []
    run(gfl_edge, "camera", "--source", "street.jpg", "--headless", "--json-lines", "lines.jsonl")
    assert len((home / "lines.jsonl").read_text().splitlines()) == 1
    installed = run(str(scripts / "pip"), "list", "--format", "freeze")
    assert "torch" not in installed

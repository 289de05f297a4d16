"""The client of Triton finds what the detector finds locally."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import onnx
import pytest

from examples.triton_client import TritonDetector, main
from gfl_edge.backends.nms import nms_place
from gfl_edge.detector import Detector
from gfl_edge.errors import BackendError
from gfl_edge.serving.triton import write_triton
from tests.support.fake_triton import Repository
from tests.support.tiny_onnx import tiny_onnx


@pytest.fixture(params=["graph", "none", "raw"])
def model(request, tmp_path, monkeypatch):
    """The file of a model, which a repository holds as "tiny"."""
    path = tmp_path / "m.onnx"
    onnx.save(tiny_onnx(request.param), path)
    write_triton(tmp_path / "repo", path, name="tiny")
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", Repository(tmp_path / "repo").client)
    return path


def test_the_same_as_locally(model):
    remote = TritonDetector("127.0.0.1:8001", "tiny")
    with Detector(model, "onnxruntime", "auto") as local:
        assert nms_place(local.backend)
        for size in ((48, 64), (33, 90)):
            frame = np.random.default_rng(size[0]).integers(0, 256, (*size, 3), np.uint8)
            here, there = local(frame), remote(frame)
            assert len(here.scores) > 0
            np.testing.assert_allclose(there.boxes, here.boxes, atol=1e-3)
            np.testing.assert_allclose(there.scores, here.scores, atol=1e-5)
            np.testing.assert_array_equal(there.class_ids, here.class_ids)
            assert there.class_names == here.class_names


def test_what_the_server_says_is_an_error(model):
    with pytest.raises(BackendError, match="model other: Request for unknown model"):
        TritonDetector("127.0.0.1:8001", "other")


def test_the_command(model, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((40, 40, 3), 128, np.uint8))
    assert main(["--model", "tiny", str(tmp_path / "a.png")]) == 0
    assert "a.png" in capsys.readouterr().out
    assert main(["--model", "tiny", "--classes", "dog", "--score", "0", str(tmp_path / "a.png")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(" dog " in line for line in lines)
    assert main(["--model", "tiny", "--classes", "owl", str(tmp_path / "a.png")]) == 1
    assert "the model has no class 'owl'" in capsys.readouterr().err
    assert main(["--model", "other", str(tmp_path / "a.png")]) == 1
    assert "unknown model" in capsys.readouterr().err

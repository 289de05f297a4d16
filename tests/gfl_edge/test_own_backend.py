"""A detector around a backend that is not the package's own."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from gfl_edge import Detector
from gfl_edge.backends.nms import NmsChoice
from gfl_edge.backends.select import BackendName
from gfl_edge.errors import InputError
from gfl_edge.evaluation.compare import compare, table
from tests.support.own_backend import Candidates
from tests.support.tiny_spec import TINY


def test_any_object_with_the_protocol_runs() -> None:
    backend = Candidates()
    with Detector(backend) as detector:
        assert detector.backend is backend
        assert detector.spec is backend.spec
        (found,), ms, invalid = detector.infer(detector.prepare([np.zeros((50, 200, 3), np.uint8)]))
    assert invalid == [0]
    assert found.to_dicts() == [
        {"box_xyxy": [0.0, 0.0, 100.0, 50.0], "score": 0.75, "class_id": 1, "class_name": "dog"}
    ]
    assert list(ms) == ["preprocess", "network", "postprocess"]
    assert backend.closed == 1


def test_it_has_no_file() -> None:
    detector = Detector(Candidates())
    described = detector.describe()
    assert detector.path is None
    assert (described["model"]["file"], described["model"]["sha256"]) == (None, None)
    assert described["model"]["nms"] == "host"
    assert described["backend"] == {"name": "candidates", "library": "none", "device": "CPU"}


def test_it_compares_without_a_size(tmp_path: Any) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((64, 96, 3), np.uint8))
    found = compare(Detector(Candidates()), Detector(Candidates()), tmp_path, progress=False)
    assert found.size_ratio is None
    assert json.loads(json.dumps(found.to_dict()))["reference"]["size_bytes"] is None
    (size,) = [line.split() for line in table(found).splitlines() if line.startswith("size")]
    assert size == ["size,", "MB", "-", "-"]
    other = Candidates()
    other.spec = replace(other.spec, class_names=("cat", "cow"))
    with pytest.raises(InputError, match="tiny and tiny differ in classes"):
        compare(Detector(Candidates()), Detector(other), tmp_path, progress=False)


@pytest.mark.parametrize(
    ("candidate", "missing"),
    [
        (
            42,
            r"int is not a backend: it has no name, spec, max_batch, run\(\), describe\(\), close\(\)\. Give a model",
        ),
        (
            SimpleNamespace(name="a", spec=TINY, run=print, describe=dict, close=None),
            r"SimpleNamespace is not a backend: it has no max_batch, close\(\)\.",
        ),
        (
            SimpleNamespace(name="a", spec={}, max_batch=1, run=print, describe=dict, close=print),
            r"the spec of the backend SimpleNamespace is a dict, expected a gfl_edge\.spec\.ModelSpec",
        ),
    ],
)
def test_what_does_not_fit_the_protocol(candidate: Any, missing: str) -> None:
    with pytest.raises(InputError, match=missing):
        Detector(candidate)


@pytest.mark.parametrize(("backend", "nms"), [("onnxruntime", "auto"), ("auto", "host")])
def test_choices_for_files_do_not_go_with_a_backend(backend: BackendName, nms: NmsChoice) -> None:
    with pytest.raises(InputError, match=r"with an open backend \(candidates\): they choose how a file is opened"):
        Detector(Candidates(), backend, nms)

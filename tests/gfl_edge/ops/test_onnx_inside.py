"""A network that is not what its metadata say is refused when its file is loaded."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from gfl_edge.detector import Detector
from gfl_edge.errors import ModelFileError
from gfl_edge.spec import load_contract, read_spec
from gfl_edge.zoo.bundled import bundled_model

onnx = pytest.importorskip("onnx")


def described_as(path: Path, **changes: Any) -> Path:
    """The bundled model with other metadata."""
    model, spec = load_contract(bundled_model())
    onnx.helper.set_model_props(model, dataclasses.replace(spec, **changes).to_metadata())
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ("person", "dog")}, r"has scores of float \[any, 4116, 80\], its description says .* 2\]"),
        (
            {"strides": (8, 16, 64)},
            r"has (boxes|scores) of float \[any, 4116, 80\], its description says .* 3969, 80\]",
        ),
        ({"strides": (8, 16)}, r"of float \[any, 4116, 80\], its description says float \[any, 3920, 80\]"),
        ({"reg_max": 7}, "has 11 bins per edge, its description says reg_max 7"),
        ({"input_hw": (320, 320)}, r"images of uint8 \[any, 448, 448, 3\], its description says .*320, 320"),
        ({"nms": "none"}, "has no output 'scores'"),
        ({"nms": "raw"}, "has no output 'cls_logits'"),
        ({"nms": "plugin"}, "has NMS as a function, its description says nms plugin"),
        ({"resize": "fit", "short_long": (320, 640)}, "takes images of one size, its description says .* is dynamic"),
        ({"score_threshold": 0.5}, r"has the score_threshold 0\.05, its description says 0\.5"),
        ({"iou_threshold": 0.5}, r"has the iou_threshold 0\.6, its description says 0\.5"),
    ],
)
def test_metadata_of_another_network(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFileError, match=rf"m\.onnx: the model .*{message}.*python export/to_onnx\.py"):
        Detector(described_as(tmp_path / "m.onnx", **changes))


def test_other_names_are_another_matter(tmp_path: Path) -> None:
    names = tuple(f"worker {number}" for number in range(80))
    path = described_as(tmp_path / "m.onnx", class_names=names, name="other", point_offset=0.5)
    assert read_spec(path).class_names == names


def test_thresholds_that_are_no_numbers(tmp_path: Path) -> None:
    model, _ = load_contract(bundled_model())
    (node,) = (node for node in model.graph.node if node.op_type == "GflNms")
    node.attribute[0].f = float("nan")
    onnx.save(model, str(tmp_path / "m.onnx"))
    with pytest.raises(ModelFileError, match=r"has the (score|iou)_threshold nan, its description says 0\."):
        read_spec(tmp_path / "m.onnx")

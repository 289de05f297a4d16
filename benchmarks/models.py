"""The published models that measurements run on."""

from __future__ import annotations

from pathlib import Path

from export.arguments import ExportRequest
from export.to_onnx import export_onnx
from gfl_edge.spec import ExportedNms, Precision
from train.weights.find import CHECKPOINTS, data_folder

IMAGES = "coco/val2017_mix397"
ANNOTATIONS = "coco/instances_val2017_mix397.json"


def export(
    name: str,
    folder: Path,
    precision: Precision = "fp32",
    nms: ExportedNms = "graph",
    input_hw: tuple[int, int] | None = None,
) -> Path:
    """Export a published model into ``folder``, by default for the input that it was trained with."""
    size = "" if input_hw is None else f"-{input_hw[0]}x{input_hw[1]}"
    path, weights = folder / f"{name}{size}-{precision}-{nms}.onnx", data_folder() / CHECKPOINTS[name]
    export_onnx(ExportRequest(weights, model=name, precision=precision, nms=nms, input_hw=input_hw), path)
    return path

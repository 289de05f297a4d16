"""The published models that measurements run on."""

from __future__ import annotations

from pathlib import Path

from export.arguments import ExportRequest
from export.to_onnx import export_onnx
from gfl_edge.spec import ExportedNms, Precision
from train.weights.find import CHECKPOINTS, data_folder

IMAGES = "coco/val2017_mix397"
ANNOTATIONS = "coco/instances_val2017_mix397.json"


def export(name: str, folder: Path, precision: Precision = "fp32", nms: ExportedNms = "graph") -> Path:
    """Export a published model into ``folder``."""
    path = folder / f"{name}-{precision}-{nms}.onnx"
    export_onnx(ExportRequest(data_folder() / CHECKPOINTS[name], model=name, precision=precision, nms=nms), path)
    return path

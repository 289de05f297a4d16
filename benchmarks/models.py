"""The published models that measurements run on."""

from __future__ import annotations

from pathlib import Path

from export.default_model import data_folder
from export.to_onnx import ExportRequest, export_onnx
from gfl_edge.spec import NmsPlace, Precision

CHECKPOINTS = {
    "nanodet-m-320": "weights/nanodet_m/nanodet_m.ckpt",
    "nanodet-m-416": "weights/nanodet_m/nanodet_m_416.ckpt",
    "nanodet-plus-m-320": "weights/nanodet_plus_m/nanodet_plus_m_320_from_ncnn_fp16.pth",
    "nanodet-plus-m-416": "weights/nanodet_plus_m/nanodet_plus_m_416_from_ncnn_fp16.pth",
}
IMAGES = "coco/val2017_mix397"
ANNOTATIONS = "coco/instances_val2017_mix397.json"


def export(name: str, folder: Path, precision: Precision = "fp32", nms: NmsPlace = "graph") -> Path:
    """Export a published model into ``folder``."""
    path = folder / f"{name}-{precision}-{nms}.onnx"
    export_onnx(ExportRequest(data_folder() / CHECKPOINTS[name], model=name, precision=precision, nms=nms), path)
    return path

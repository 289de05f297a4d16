"""AP of the NanoDet models on 397 COCO val2017 images, through the pipeline that users run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.models import ANNOTATIONS, IMAGES, export
from gfl_edge.backends.nms import NmsChoice
from gfl_edge.backends.select import BackendName
from gfl_edge.detector import Detector
from gfl_edge.evaluation.ap import evaluate
from gfl_edge.spec import ExportedNms, Precision
from train.weights.find import CHECKPOINTS, data_folder

# label -> how the ONNX file is made and run. FP16 runs in ONNX Runtime, which rounds after every node; OpenVINO
# on a CPU would compute in float32.
VARIANTS: dict[str, tuple[Precision, ExportedNms, BackendName, NmsChoice]] = {
    "fp32, NMS in the graph, openvino": ("fp32", "graph", "openvino", "graph"),
    "fp32, NMS in the graph, onnxruntime": ("fp32", "graph", "onnxruntime", "graph"),
    "fp32, --nms none, NMS on the host, openvino": ("fp32", "none", "openvino", "host"),
    "fp16, NMS in the graph, onnxruntime": ("fp16", "graph", "onnxruntime", "graph"),
}


def measure(folder: Path) -> dict[str, Any]:
    """AP of every model and variant; ``folder`` takes the exported files."""
    data = data_folder()
    results: dict[str, Any] = {}
    for name in CHECKPOINTS:
        results[name] = {}
        for label, (precision, place, backend, choice) in VARIANTS.items():
            path = export(name, folder, precision, place)
            with Detector(path, backend, choice) as detector:
                result = evaluate(detector, data / IMAGES, data / ANNOTATIONS).to_dict()
            results[name][label] = {**result, "bytes": path.stat().st_size}
    return {"annotations": ANNOTATIONS, "models": results}

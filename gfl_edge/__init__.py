"""Generalized Focal Loss detectors on NVIDIA edge GPUs: load an ONNX file or a TensorRT engine, detect, run a camera.

    import cv2, gfl_edge
    detector = gfl_edge.Detector()  # the bundled one, of COCO's 80 classes; or a file: "model.onnx", "model.engine"
    for box, score, name in detector(cv2.imread("street.jpg")).above(0.4):
        print(name, score, box)

Importing the package needs only NumPy; everything else loads when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gfl_edge._version import __version__

if TYPE_CHECKING:
    from gfl_edge.camera import run_camera
    from gfl_edge.detections import Detections
    from gfl_edge.detector import Detector
    from gfl_edge.errors import GflEdgeError
    from gfl_edge.spec import ModelSpec

__all__ = ["Detections", "Detector", "GflEdgeError", "ModelSpec", "__version__", "run_camera"]

_HOME = {
    "Detections": "gfl_edge.detections",
    "Detector": "gfl_edge.detector",
    "GflEdgeError": "gfl_edge.errors",
    "ModelSpec": "gfl_edge.spec",
    "run_camera": "gfl_edge.camera",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'gfl_edge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

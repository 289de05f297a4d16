"""What readers load, in the process that their own are forked from; what is not installed is left out."""

from __future__ import annotations

import contextlib
import importlib

from tests.fuzz.registry import all_readers

MODULES = (
    "cv2",
    "onnx",
    "torch",
    "torch._dynamo",
    "train.config",
    "train.loop",
    "train.checkpoint",
    "train.weights.loading",
)

all_readers()
for _name in MODULES:
    with contextlib.suppress(ImportError):
        importlib.import_module(_name)

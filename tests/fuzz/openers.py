"""Which driver tries each module that reads files; a new one goes here, or tests/house/test_fuzzed.py fails.

A module is listed with the names of the drivers in tests/fuzz/readers that reach it, or with the reason why it has none.
"""

from __future__ import annotations

Drivers = tuple[str, ...]

MADE_HERE = "reads what gfl_edge or its packages brought with them"
SYSTEM = "reads what the operating system says of this machine"
OWN_RESULT = "reads results that this checkout measured"
NOT_YET = "has no driver yet"

OPENERS: dict[str, Drivers | str] = {
    "gfl_edge/annotations/text.py": ("text", "xml-text", "class-names"),
    "gfl_edge/media/images.py": ("image", "image-size"),
    "gfl_edge/spec.py": ("onnx-description", "onnxruntime", "openvino"),
}

"""The bundled detector, which is used where no model is named."""

from __future__ import annotations

from pathlib import Path

from gfl_edge.errors import ModelFileError

NAME = "coco-448"
DESCRIPTION = f"{NAME}, the bundled detector"
PROPERTIES = "80 classes of COCO, 448x448 pixels, FP16; docs/bundled.md is its model card"


def bundled_model() -> Path:
    """The ONNX file of the bundled detector, in ``gfl_edge/zoo/models``; its card is docs/bundled.md.

    Raises:
        ModelFileError: the installation lacks it.
    """
    path = Path(__file__).parent / "models" / f"{NAME}.onnx"
    if not path.is_file():
        raise ModelFileError(f"{path}: this installation of gfl_edge lacks the bundled detector. Install it again")
    return path

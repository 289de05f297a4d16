"""The bundled person detector, which is used where no model is named."""

from __future__ import annotations

from pathlib import Path

from gfl_edge.errors import ModelFileError

NAME = "person-416"
DESCRIPTION = f"{NAME}, the bundled person detector"
PROPERTIES = "416x416 pixels, FP16; docs/person.md is its model card"


def bundled_model() -> Path:
    """The ONNX file of the bundled person detector, in ``gfl_edge/zoo/models``; its card is docs/person.md.

    Raises:
        ModelFileError: the installation lacks it.
    """
    path = Path(__file__).parent / "models" / f"{NAME}.onnx"
    if not path.is_file():
        raise ModelFileError(
            f"{path}: this installation of gfl_edge lacks the bundled person detector. Install it again"
        )
    return path

"""The detector that comes with the package: persons, for where no model is named."""

from __future__ import annotations

from pathlib import Path

from gfl_edge.errors import ModelFileError

NAME = "person-416"
DESCRIPTION = "persons, 416x416 pixels, FP16; docs/person.md is its model card"


def builtin_model() -> Path:
    """The ONNX file of the detector of persons that ``gfl_edge/zoo/models`` holds; its card is docs/person.md.

    Raises:
        ModelFileError: the installation lacks it.
    """
    path = Path(__file__).parent / "models" / f"{NAME}.onnx"
    if not path.is_file():
        raise ModelFileError(f"{path}: this installation of gfl_edge lacks its own detector. Install it again")
    return path

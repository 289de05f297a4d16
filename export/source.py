"""Which model an engine is built from: the one named, else the newest artifact, else the bundled detector."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gfl_edge.errors import ContractError, ModelFileError
from gfl_edge.spec import ModelSpec, Precision, load_contract
from gfl_edge.zoo.bundled import DESCRIPTION, bundled_model
from train.weights import find

if TYPE_CHECKING:
    from onnx import ModelProto

logger = logging.getLogger(__name__)

ARTIFACTS = Path("artifacts")  # relative to where the command runs


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file that was read, so that nothing after has to read it again."""

    path: Path
    model: ModelProto
    spec: ModelSpec

    @classmethod
    def read(cls, path: Path) -> OnnxFile:
        """Read and check it; see :func:`gfl_edge.spec.load_contract` for the errors."""
        return cls(path, *load_contract(path))


def find_source(named: Path | None, precision: Precision, int8: bool, unchecked: bool = False) -> Path | OnnxFile:
    """The checkpoint or the ONNX file to build from.

    Args:
        named: a checkpoint, a name of published weights, or an ONNX file; None: the newest artifact, else the
            bundled detector.
        precision: of the artifact; with ``int8`` that of what is not INT8.
        int8: prefer an artifact that is INT8 already.
        unchecked: see :func:`train.weights.find.find_weights`.

    Raises:
        InputError, DownloadError: see :func:`train.weights.find.find_weights`.
        ModelFileError, ContractError: unusable ONNX file.
    """
    if named is not None:
        return OnnxFile.read(named) if named.suffix == ".onnx" else find.find_weights(named, unchecked)
    newest = newest_artifact("fp16", int8=True) if int8 else None
    newest = newest or newest_artifact(precision)
    if newest is not None:
        path = newest.path if isinstance(newest, OnnxFile) else newest
        logger.info("no model named: taking %s, the newest under %s/", path, ARTIFACTS)
        return newest
    logger.info("no model named and none under %s/: taking %s", ARTIFACTS, DESCRIPTION)
    return OnnxFile.read(bundled_model())


def newest_artifact(precision: Precision, int8: bool = False, folder: Path = ARTIFACTS) -> Path | OnnxFile | None:
    """The newest under ``folder`` of all checkpoints and of the ONNX files of that precision; None if there is none.

    With ``int8`` it is the newest of the ONNX files in INT8. Hidden files are left out.
    """
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        if path.suffix in find.CHECKPOINT_SUFFIXES and not int8:
            return path
        if path.suffix == ".onnx":
            try:
                found = OnnxFile.read(path)
            except (ModelFileError, ContractError):
                continue
            if found.spec.precision == precision and bool(found.spec.quantized_layers) == int8:
                return found
    return None

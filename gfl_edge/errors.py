"""Every error that gfl_edge raises on purpose.

    GflEdgeError
    ├── MissingDependencyError   an optional package is not installed; names the extra that brings it
    ├── InputError               something the caller gave cannot be used
    │   ├── FrameError           an array that is not an 8-bit BGR image
    │   ├── ImageError               an image file that is none, or is cut; says what it is
    │   ├── OutputError          a file that cannot be written: a full disk, no permission
    │   ├── SourceError          a camera, video or folder that gives no frames
    │   ├── AnnotationError      a COCO annotation file that does not fit
    │   └── ModelFileError       a checkpoint, ONNX file or engine that cannot be used
    │       ├── CheckpointError
    │       ├── ContractError    an ONNX file without, or with other, gfl_edge metadata
    │       └── EngineMismatchError   built for another TensorRT, version or GPU
    ├── DownloadError            published weights that cannot be brought here, or are not the published ones
    ├── BackendError             a run-time library refused to load or run a model
    ├── BuildError               TensorRT could not build an engine
    ├── PrecisionError           the built network is not of the precision that was requested
    ├── CalibrationError         a model that cannot be made INT8, or not without losing more AP than allowed
    └── ParityError              two implementations of the same model disagree

Each message says what was found, what was expected and what to do.
"""

from __future__ import annotations

from pathlib import Path

MAX_CHARS = 1500  # of a message: files do not choose how much of a terminal or a log an error takes
END_CHARS = 400  # of those, from the end of a longer one, which says what to do


class GflEdgeError(Exception):
    """Base of all errors that gfl_edge raises on purpose."""

    def __str__(self) -> str:
        return _shortened(super().__str__())


class MissingDependencyError(GflEdgeError):
    """An optional package is not installed."""


class InputError(GflEdgeError):
    """Something the caller gave cannot be used."""


class FrameError(InputError):
    """An array that is not an 8-bit BGR image."""


class ImageError(InputError):
    """An image file that cannot be used.

    Args:
        path: of the file.
        reason: goes on where the path ends: "is a JPEG of 640x480 pixels: it is cut ...".
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(path, reason)
        self.reason = reason

    def __str__(self) -> str:
        return _shortened(f"{self.args[0]} {self.reason}")


class OutputError(InputError):
    """A file cannot be written: the disk is full, the folder read-only, the name impossible."""


class SourceError(InputError):
    """A camera, video or folder that gives no frames."""


class AnnotationError(InputError):
    """Annotations (COCO, VOC or YOLO) that cannot be used, or do not fit the model or the images."""


class ModelFileError(InputError):
    """A checkpoint, ONNX file or engine that cannot be used."""


class CheckpointError(ModelFileError):
    """A PyTorch checkpoint that is unreadable, incomplete or of another model."""


class ContractError(ModelFileError):
    """An ONNX file or sidecar whose gfl_edge metadata is missing or invalid."""


class EngineMismatchError(ModelFileError):
    """An engine built for another TensorRT flavor, version or GPU."""


class DownloadError(GflEdgeError):
    """Published weights cannot be brought here, or are not the published ones."""


class BackendError(GflEdgeError):
    """A run-time library refused to load or run a model."""


class BuildError(GflEdgeError):
    """TensorRT could not build an engine."""


class PrecisionError(GflEdgeError):
    """The built network is not of the precision that was requested."""


class CalibrationError(GflEdgeError):
    """A model cannot be made INT8, or not without losing more AP than allowed."""


class ParityError(GflEdgeError):
    """Two implementations of the same model disagree beyond the stated tolerance."""


def _shortened(message: str) -> str:
    """``message`` without its middle where that makes it too long."""
    if len(message) <= MAX_CHARS:
        return message
    start = MAX_CHARS - END_CHARS
    return f"{message[:start]} [{len(message) - MAX_CHARS} more characters] {message[-END_CHARS:]}"

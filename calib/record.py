"""What a calibration did: the record in the metadata of an INT8 model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from calib.arguments import Target
from calib.histogram import Method
from gfl_edge.errors import ContractError, InputError
from gfl_edge.parsing.fields import Amount, Limits, Sha256
from gfl_edge.parsing.json_text import parse_json
from gfl_edge.parsing.validation import build

Percent = Annotated[float, Limits(ge=-1, le=100)]  # -1: there was no box
RECORD_KEY = "gfl_edge_calibration"  # in the metadata of an INT8 model


@dataclass(frozen=True)
class Accuracy:
    """COCO's average precision in percent, on so many images; the names are those of the record."""

    AP: Percent
    AP50: Percent
    AP75: Percent
    images: Amount


@dataclass(frozen=True)
class QuantizedAccuracy(Accuracy):
    """The accuracy of the INT8 model.

    Attributes:
        reference: the accuracy of the float model.
        drop: points of AP lost.
        annotations: name of the file.
        backend: what ran both.
    """

    reference: Accuracy
    drop: float
    annotations: str
    backend: str


@dataclass(frozen=True)
class CalibrationRecord:
    """What a calibration did.

    Attributes:
        method: by which the ranges were found.
        snr_db: method -> signal to noise in decibels (see :mod:`calib.noise`), with all layers in INT8.
        target: what the file is for.
        calibration_images: how many.
        calibration_sha256: over their names and contents.
        model_sha256: of the float ONNX file.
        quantized: convolutions in INT8.
        convolutions: all of them.
        float_layers: that stay float.
        measured: None where there were no annotations.
        versions: of the packages.
    """

    method: Method
    snr_db: dict[str, float]
    target: Target
    calibration_images: Amount
    calibration_sha256: Sha256
    model_sha256: Sha256
    quantized: Amount
    convolutions: Amount
    float_layers: list[str]
    measured: QuantizedAccuracy | None
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> CalibrationRecord:
        """The record in an INT8 model's metadata.

        Raises:
            KeyError: there is none.
            ContractError: it is none of ours; names the field.
        """
        try:
            return build(cls, parse_json(metadata[RECORD_KEY]))
        except (ValueError, InputError) as error:
            raise ContractError(f"the record of the calibration is damaged: {error}. Calibrate again") from error

    def summary(self, path: Path) -> str:
        """One line on the INT8 model in ``path``."""
        ap = "AP not measured (no --annotations)"
        if self.measured is not None:
            before, images = self.measured.reference.AP, self.measured.images
            ap = f"AP {self.measured.AP:.2f}, {before:.2f} before, on {images} images"
        return (
            f"{path}: {self.quantized} of {self.convolutions} convolutions INT8, "
            f"{len(self.float_layers)} layers kept float, {path.stat().st_size / 1e6:.2f} MB, {ap}"
        )

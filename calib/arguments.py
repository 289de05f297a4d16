"""The options of a calibration, on the command line or otherwise; needs no optional package."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from calib.histogram import METHODS, Method
from calib.noise import MAX_DB
from gfl_edge.annotations.checks import OnBad
from gfl_edge.cli.options import add_on_bad
from gfl_edge.errors import InputError
from gfl_edge.parsing.numbers import MAX_SEED, number, number_argument, whole_argument, whole_number

Target = Literal["trt", "cpu"]


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions:
    """How to calibrate, and how much AP that may cost."""

    method: Method | Literal["auto"] = "auto"
    num_images: int = 128
    seed: int = 0
    target: Target | None = None  # None: "trt" for an FP16 model, "cpu" for an FP32 one
    cache: Path | None = None
    annotations: Path | None = None  # None: AP is not measured and nothing is refused
    eval_images: Path | None = None
    eval_limit: int | None = None
    on_bad: OnBad = "error"  # bad boxes, missing and doubled images: refuse them, or leave them out
    max_ap_drop: float = 0.3
    min_snr_db: float = 30.0  # of scores and boxes: below, layers stay float
    probe_images: int = 4

    def request(self, onnx: Path, images: Path, output: Path) -> CalibrationRequest:
        """The calibration of that model on those images with these options."""
        values = {field.name: getattr(self, field.name) for field in fields(CalibrationOptions)}
        return CalibrationRequest(onnx, images, output, **values)


@dataclass(frozen=True)
class CalibrationRequest(CalibrationOptions):
    """What to make INT8, on what images, and how.

    Raises:
        InputError: options that do not go together, or are out of range.
    """

    onnx: Path
    images: Path
    output: Path

    def __post_init__(self) -> None:
        if (self.annotations is None) != (self.eval_images is None):
            raise InputError("--annotations and --eval-images belong together: give both, or none to measure no AP")
        if self.annotations is None and self.eval_limit is not None:
            raise InputError("--eval-limit without --annotations: there is nothing to measure")
        number("--max-ap-drop", self.max_ap_drop, 0, 100)
        number("--min-snr-db", self.min_snr_db, 0, MAX_DB)
        whole_number("--probe-images", self.probe_images)
        whole_number("--num-images", self.num_images)
        whole_number("--seed", self.seed, 0, MAX_SEED)
        if self.eval_limit is not None:
            whole_number("--eval-limit", self.eval_limit)
        if self.output.suffix != ".onnx" or os.path.realpath(self.output) == os.path.realpath(self.onnx):
            raise InputError(f"-o {self.output}: expected another .onnx file than --onnx")

    def beside(self, suffix: str) -> Path:
        """A file next to the output: "M.int8.onnx" -> "M.int8.calibration.json"."""
        return self.output.with_suffix(suffix)


def add_calibration_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say how to calibrate, shared with export/to_trt.py."""
    group = parser.add_argument_group("calibration")
    group.add_argument("--annotations", type=Path, metavar="JSON", help="COCO instances file to measure AP with")
    group.add_argument("--eval-images", type=Path, metavar="DIR", help="its images")
    group.add_argument(
        "--eval-limit", type=whole_argument(), metavar="N", help="measure AP on the first N of them only"
    )
    add_on_bad(group)
    group.add_argument(
        "--method",
        choices=("auto", *METHODS),
        default="auto",
        help="how ranges are found (default: auto, the one with the least noise in scores and boxes)",
    )
    group.add_argument(
        "--num-images", type=whole_argument(), default=128, metavar="N", help="to calibrate on (default: 128)"
    )
    group.add_argument(
        "--seed", type=whole_argument(0, MAX_SEED), default=0, help="of the choice of images (default: 0)"
    )
    group.add_argument(
        "--max-ap-drop",
        type=number_argument(0, 100),
        default=0.3,
        metavar="AP",
        help="points that INT8 may cost; more layers stay float until it does not cost more (default: 0.3)",
    )
    group.add_argument(
        "--min-snr-db",
        type=number_argument(0, MAX_DB),
        default=30.0,
        metavar="DB",
        help="signal to noise of scores and boxes; the noisiest layers stay float for it, up to a fifth of the "
        "convolutions (default: 30; 0: none does)",
    )
    group.add_argument("--cache", type=Path, metavar="JSON", help="ranges of an earlier calibration of this model")
    group.add_argument(
        "--probe-images", type=whole_argument(), default=4, metavar="N", help="on which noise is measured (default: 4)"
    )


def options_from(args: argparse.Namespace) -> CalibrationOptions:
    """What the options of :func:`add_calibration_arguments` say; the target is the model's own."""
    names = (field.name for field in fields(CalibrationOptions) if field.name != "target")
    return CalibrationOptions(**{name: getattr(args, name) for name in names})

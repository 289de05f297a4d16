"""The options of an export, on the command line or otherwise; needs no optional package."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from gfl_edge.annotations.class_names import parse_class_names
from gfl_edge.parsing.numbers import MAX_SIDE, whole_argument
from gfl_edge.spec import ExportedNms, Precision

DeformForm = Literal["gridsample", "deform"]


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """How a checkpoint is exported."""

    model: str | None = None  # a preset's name; None: recognized from the checkpoint
    config: Path | None = None  # that the checkpoint was trained with; see train.describe.find_trained
    ema: bool | None = None  # see train.weights.unwrapping.read_checkpoint
    input_hw: tuple[int, int] | None = None  # pixels; None: see train.describe.load_described
    class_names: tuple[str, ...] | None = None
    nms: ExportedNms = "graph"
    dcn: DeformForm = "gridsample"  # deformable convolution in plain operators, or as ONNX's DeformConv
    short_long: tuple[int, int] | None = None  # pixels; None: the size is fixed
    check_images: Path | None = None  # on which the range of FP16 is checked, besides those of the comparison
    uncertainty: bool = False  # whether the model gives the standard deviation of every edge

    def request(self, weights: Path, precision: Precision) -> ExportRequest:
        """The export of that checkpoint with these options."""
        values = {field.name: getattr(self, field.name) for field in fields(ExportOptions)}
        return ExportRequest(weights, precision, **values)


@dataclass(frozen=True)
class ExportRequest(ExportOptions):
    """What to export, and how."""

    weights: Path
    precision: Precision = "fp32"


def add_weights_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say what to export, shared by to_onnx.py and to_trt.py."""
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE|NAME",
        help="PyTorch checkpoint (.ckpt, .pth), or the name of published weights (gfl-edge models lists them)",
    )
    parser.add_argument(
        "--unchecked", action="store_true", help="download published weights even if no digest of them is known"
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="configuration that the checkpoint was trained with, nanodet's .yml or mmdetection's whole .py: class "
        "names, input size, normalization (default: the checkpoint's own, or nanodet's train_cfg.yml beside it)",
    )
    parser.add_argument(
        "--ema",
        action=argparse.BooleanOptionalAction,
        help="take the averaged weights of a checkpoint, or those trained (default: averaged where there are some)",
    )
    parser.add_argument("--model", metavar="NAME", help="fail unless the checkpoint is this model; sets the input size")
    parser.add_argument(
        "--input-size", type=whole_argument(32, MAX_SIDE), nargs=2, metavar=("H", "W"), help="pixels, multiples of 32"
    )
    parser.add_argument(
        "--classes",
        metavar="A,B,C|FILE",
        help="class names, for detectors of your own; a file has one per line, or is a YOLO data set's YAML",
    )
    parser.add_argument(
        "--nms",
        choices=get_args(ExportedNms),
        default="graph",
        help="where NMS runs: in the graph (default), in TensorRT's plugin GflNms (plugin), or after the model, which "
        "gives decoded boxes (none) or logits (raw)",
    )
    parser.add_argument(
        "--dcn",
        choices=get_args(DeformForm),
        default="gridsample",
        help="deformable convolution in plain operators (default), or as DeformConv for ONNX Runtime",
    )
    parser.add_argument(
        "--dynamic",
        type=whole_argument(32, MAX_SIDE),
        nargs=2,
        metavar=("SHORT", "LONG"),
        help="keep every frame's aspect ratio, with these sides at most, as in the paper (800 1333); GFL and ATSS only",
    )
    parser.add_argument(
        "--uncertainty",
        action="store_true",
        help="have the model give the standard deviation of every edge, in pixels; see docs/uncertainty.md",
    )
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument("--fp16", action="store_true", help="FP16 between normalization and decode")
    precision.add_argument("--bf16", action="store_true", help="BF16 there instead, for GPUs from sm80 on")
    parser.add_argument(
        "--check-images",
        type=Path,
        metavar="DIR",
        help="with --fp16: up to 32 images on which to look for layers that FP16 cannot hold, besides generated ones",
    )


def options_from(args: argparse.Namespace) -> ExportOptions:
    """What the options of :func:`add_weights_arguments` say of how to export."""
    return ExportOptions(
        model=args.model,
        config=args.config,
        ema=args.ema,
        input_hw=tuple(args.input_size) if args.input_size else None,
        class_names=parse_class_names(args.classes) if args.classes is not None else None,
        nms=args.nms or "graph",  # None: to_trt.py was not asked for any
        dcn=args.dcn,
        short_long=tuple(args.dynamic) if args.dynamic else None,
        check_images=args.check_images,
        uncertainty=args.uncertainty,
    )


def precision_from(args: argparse.Namespace) -> Precision:
    """The precision that these options ask for."""
    if args.bf16:
        return "bf16"
    return "fp16" if args.fp16 else "fp32"

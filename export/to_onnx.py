"""Export a checkpoint to ONNX: python export/to_onnx.py --weights nanodet_m.ckpt -o artifacts/nanodet-m-320.onnx."""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gfl_edge.console import log, run_command
from gfl_edge.errors import InputError
from gfl_edge.spec import PRECISION_OPTION, ExportedNms, ModelSpec, Precision
from train.weights import find

if TYPE_CHECKING:
    from export.half import HalfPlan
    from train.models.detector import Detector

logger = logging.getLogger(__name__)

DeformForm = Literal["gridsample", "deform"]  # see export.deform, which needs torch


@dataclass(frozen=True)
class ExportRequest:
    """What to export, and how."""

    weights: Path
    model: str | None = None  # a preset's name; None: recognised from the checkpoint
    input_hw: tuple[int, int] | None = None  # pixels; None: see train.describe.describe_checkpoint
    class_names: tuple[str, ...] | None = None
    precision: Precision = "fp32"
    nms: ExportedNms = "graph"
    dcn: DeformForm = "gridsample"
    short_long: tuple[int, int] | None = None  # pixels; None: the size is fixed
    check_images: Path | None = None  # pictures on which the range of half is checked, beside those of the comparison


def export_onnx(request: ExportRequest, output: Path) -> ModelSpec:
    """Export, compare with PyTorch, and write ``output`` only if both agree.

    Raises:
        InputError: unusable checkpoint, unknown model, input size that the network cannot take.
        ParityError: the graph does not compute what PyTorch computes.
        PrecisionError: the network does not fit into half.
        SourceError: no pictures at ``check_images``.
    """
    if request.check_images is not None and request.precision != "fp16":
        raise InputError(
            f"--check-images says on what the range of half is checked, not of {request.precision}: add --fp16"
        )
    # torch takes seconds to import and --help must work without it
    from export import graph, parity
    from gfl_edge.files import write_atomically
    from train import describe
    from train.weights.loading import load_detector

    preset = describe.find_preset(request.model) if request.model else None
    detector = load_detector(request.weights, family=preset.family if preset else None)
    if preset:
        describe.check_architecture(detector, preset, str(request.model))
    spec = describe.describe_checkpoint(
        detector,
        request.weights,
        input_hw=request.input_hw or (preset.input_hw if preset else None),
        class_names=request.class_names,
        short_long=request.short_long,
    )
    spec = replace(spec, precision=request.precision, nms=request.nms)
    logger.info(
        "%s: %s, %d classes; exporting %s, NMS %s",
        request.weights,
        spec.name,
        spec.num_classes,
        spec.precision,
        spec.nms,
    )
    plan = _plan_half(detector, spec, request.check_images) if spec.precision == "fp16" else None
    model = graph.build_graph(detector, spec, request.dcn, plan)
    logger.info("%s", parity.compare(detector, model, spec))
    if spec.precision == "bf16":
        score, edge = parity.rounding(detector, spec)
        logger.info(
            "bf16: with activations rounded, too, PyTorch differs by score %.2e, box edge %.2e strides", score, edge
        )
    write_atomically(output, model.SerializeToString())
    return ModelSpec.from_metadata({prop.key: prop.value for prop in model.metadata_props}, str(output))


def _plan_half(detector: Detector, spec: ModelSpec, check_images: Path | None) -> HalfPlan:
    """What stays float32 in half, by the magnitudes on the pictures of the comparison and those of ``check_images``."""
    from export import graph, half, parity, ranges

    reference = graph.ExportedDetector(detector, replace(spec, precision="fp32", nms="none")).eval()
    own = ranges.read_pictures(check_images, spec) if check_images else ()
    found = ranges.measure(reference, reference.body, itertools.chain([parity.pictures(spec)], own))
    plan = half.make_plan(found, spec)
    logger.info("%s", plan)
    return plan


def read_class_names(text: str) -> tuple[str, ...]:
    """``a,b,c`` or a text file with one name per line."""
    path = Path(text)
    if path.is_file():
        names = [line.strip() for line in path.read_text().splitlines()]
    elif path.suffix == ".txt":
        raise InputError(f"{text}: no such file of class names. Give names as a,b,c or a text file with one per line")
    else:
        names = [name.strip() for name in text.split(",")]
    return tuple(name for name in names if name)


def add_weights_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say what to export, shared with to_trt.py."""
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE|NAME",
        help="PyTorch checkpoint (.ckpt, .pth), or the name of published weights (gfl-edge models lists them)",
    )
    parser.add_argument(
        "--unchecked", action="store_true", help="download published weights even if no digest of them is known"
    )
    parser.add_argument("--model", metavar="NAME", help="fail unless the checkpoint is this model; sets the input size")
    parser.add_argument("--input-size", type=int, nargs=2, metavar=("H", "W"), help="pixels, multiples of 32")
    parser.add_argument("--classes", metavar="A,B,C|FILE", help="class names, for detectors of your own")
    parser.add_argument(
        "--nms",
        choices=get_args(ExportedNms),
        default="graph",
        help="where NMS runs: in the graph (default), in TensorRT's plugin GflNms (plugin), or behind the model, which "
        "gives decoded boxes (none) or logits (raw)",
    )
    parser.add_argument(
        "--dcn",
        choices=("gridsample", "deform"),
        default="gridsample",
        help="deformable convolution in plain operators (default), or as DeformConv for ONNX Runtime",
    )
    parser.add_argument(
        "--dynamic",
        type=int,
        nargs=2,
        metavar=("SHORT", "LONG"),
        help="keep every frame's aspect ratio, with these sides at most, as in the paper (800 1333); GFL only",
    )
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument("--fp16", action="store_true", help="half precision between normalisation and decode")
    precision.add_argument("--bf16", action="store_true", help="bfloat16 there instead, for GPUs from sm80 on")
    parser.add_argument(
        "--check-images",
        type=Path,
        metavar="DIR",
        help="with --fp16: up to 32 pictures on which to look for layers that half cannot hold, beside generated ones",
    )


def request_from(args: argparse.Namespace) -> ExportRequest:
    """The request that the options of :func:`add_weights_arguments` describe."""
    return ExportRequest(
        weights=args.weights,
        model=args.model,
        input_hw=tuple(args.input_size) if args.input_size else None,
        class_names=read_class_names(args.classes) if args.classes else None,
        precision=asked_precision(args),
        nms=args.nms,
        dcn=args.dcn,
        short_long=tuple(args.dynamic) if args.dynamic else None,
        check_images=args.check_images,
    )


def asked_precision(args: argparse.Namespace) -> Precision:
    """The precision that the options ask for."""
    if args.bf16:
        return "bf16"
    return "fp16" if args.fp16 else "fp32"


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="export/to_onnx.py", description=__doc__)
    add_weights_arguments(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.onnx", help="file to write")
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> int:
    if args.weights is None:
        raise InputError("--weights is missing: give a PyTorch checkpoint (.ckpt, .pth) or a name of: gfl-edge models")
    weights = find.find_weights(args.weights, args.unchecked)
    spec = export_onnx(replace(request_from(args), weights=weights), args.output)
    print(args.output)
    build = f"python export/to_trt.py --onnx {args.output}{PRECISION_OPTION[spec.precision]}"
    detect = f"gfl-edge detect --model {args.output} IMAGE"
    log(f"next: {build} --flavor tensorrt" if spec.nms == "plugin" else f"next: {detect}, or {build}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

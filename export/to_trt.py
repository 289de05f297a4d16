"""Build a TensorRT engine: python export/to_trt.py --fp16. Without a GPU, TensorRT-RTX builds for the asked SMs."""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from calib import arguments as calibration
from export import to_onnx
from export.to_onnx import ExportRequest
from gfl_edge.cli import build as build_command
from gfl_edge.console import run_command
from gfl_edge.engine.build import check_plugin_place, check_targets
from gfl_edge.errors import InputError, PrecisionError
from gfl_edge.spec import PRECISION_OPTION, ModelSpec, Precision, read_spec
from gfl_edge.zoo.bundled import DESCRIPTION, bundled_model
from train.weights import find

logger = logging.getLogger(__name__)


def choose_source(args: argparse.Namespace) -> Path:
    """The file to build from: the one named, else the newest ONNX artifact, else the bundled person detector."""
    onnx: Path | None = args.onnx
    if onnx is not None:
        return onnx
    if args.weights is not None:
        return find.find_weights(args.weights, args.unchecked)
    if args.model is not None:
        raise InputError(f"--model {args.model} says which model the checkpoint is to be: give one with --weights")
    newest = find.newest_artifact("fp16", int8=True) if args.int8 else None
    newest = newest or find.newest_artifact(_precision(args))
    if newest is not None:
        logger.info("no model named: taking %s, the newest under %s/", newest, find.ARTIFACTS)
        return newest
    logger.info("no model named and none under %s/: taking %s", find.ARTIFACTS, DESCRIPTION)
    return bundled_model()


def _precision(args: argparse.Namespace) -> Precision:
    """Of what is not INT8."""
    return "fp16" if args.int8 else to_onnx.asked_precision(args)


def onnx_for(source: Path, args: argparse.Namespace) -> tuple[Path, ModelSpec]:
    """The ONNX file to build from, exported first where ``source`` is a checkpoint, and calibrated for --int8.

    Raises:
        PrecisionError: another precision was asked for than that of the ONNX file.
        InputError: --int8 without an INT8 file or pictures to make one on.
    """
    onnx, spec = _float_onnx(source, args)
    if not args.int8 or spec.quantized_layers:
        return onnx, spec
    from calib.calibrate import calibrate, summary  # needs Model Optimizer, and only here

    output = args.output_dir / f"{replace(spec, quantized_layers=1).file_stem}.onnx"
    record = calibrate(calibration.request_from(args, onnx, args.calib_images, output))
    logger.info("%s", summary(record, output))
    return output, read_spec(output)


def _check_int8(source: Path, args: argparse.Namespace) -> None:
    """Raise InputError if --int8 lacks what it needs, before minutes of export."""
    if args.int8 and args.bf16:
        raise InputError("--int8 with --bf16: what is not INT8 is half. Leave one of them out")
    if (
        args.int8
        and args.calib_images is None
        and not (source.suffix == ".onnx" and read_spec(source).quantized_layers)
    ):
        raise InputError(
            f"--int8: {source} is not INT8 yet. Give pictures of what the detector is to see with --calib-images, and "
            "--annotations with --eval-images to have its AP tested"
        )


def _float_onnx(source: Path, args: argparse.Namespace) -> tuple[Path, ModelSpec]:
    if source.suffix == ".onnx":
        spec = read_spec(source)
        asked = _precision(args)
        if spec.quantized_layers and not args.int8 and asked != "fp32":
            raise PrecisionError(f"{source} is INT8, asked for was {asked}. Give --int8, or the file it was made from")
        if asked not in ("fp32", spec.precision):
            option = PRECISION_OPTION[asked]
            raise PrecisionError(
                f"{source} is {spec.precision}: precision is part of an ONNX file and is never changed silently. "
                f"Export another with: python export/to_onnx.py --weights CHECKPOINT{option} -o MODEL.onnx"
            )
        return source, spec
    request: ExportRequest = replace(to_onnx.request_from(args), weights=source, precision=_precision(args))
    folder = args.output_dir
    temporary = folder / ".exporting.onnx"
    spec = to_onnx.export_onnx(request, temporary)
    return temporary.replace(folder / f"{spec.file_stem}.onnx"), spec


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="export/to_trt.py", description=__doc__)
    to_onnx.add_weights_arguments(parser)
    parser.add_argument(
        "--onnx", type=Path, metavar="FILE", help="ONNX file of export/to_onnx.py, instead of --weights"
    )
    build_command.add_build_arguments(parser)
    parser.add_argument("--int8", action="store_true", help="INT8 convolutions, the rest half; see calib/calibrate.py")
    parser.add_argument("--calib-images", type=Path, metavar="DIR", help="with --int8: pictures to calibrate on")
    calibration.add_calibration_arguments(parser)
    parser.add_argument("-o", "--output-dir", type=Path, default=find.ARTIFACTS, metavar="DIR")
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> int:
    if args.onnx and args.weights:
        raise InputError("--onnx and --weights both name a model: give one of them")
    settled = build_command.plan_for(Path(), args)  # before minutes of download and export, not after
    source = choose_source(args)
    _check_int8(source, args)
    if source.suffix != ".onnx":
        check_plugin_place(args.nms, settled.flavor)
        check_targets(_precision(args), settled.targets)
    onnx, _ = onnx_for(source, args)
    build_command.build(replace(settled, onnx=onnx), args.output_dir)
    return 0


if __name__ == "__main__":
    sys.exit(main())

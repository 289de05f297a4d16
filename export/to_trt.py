"""Build a TensorRT engine: python export/to_trt.py --fp16. Without a GPU, TensorRT-RTX builds for the asked SMs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from calib import arguments as calibration
from export import arguments
from export.engine import EngineRequest, build
from export.source import ARTIFACTS
from gfl_edge.cli import build as build_command
from gfl_edge.console import CommandParser, run_command
from gfl_edge.errors import InputError


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = CommandParser(prog="export/to_trt.py", description=__doc__)
    arguments.add_weights_arguments(parser)
    parser.add_argument(
        "--onnx", type=Path, metavar="FILE", help="ONNX file of export/to_onnx.py, instead of --weights"
    )
    parser.set_defaults(nms=None)  # in the ONNX file's graph, and after the engine; graph keeps it there, too
    build_command.add_build_arguments(parser)
    parser.add_argument("--int8", action="store_true", help="INT8 convolutions, the rest FP16; see calib/calibrate.py")
    parser.add_argument("--calib-images", type=Path, metavar="DIR", help="with --int8: images to calibrate on")
    calibration.add_calibration_arguments(parser)
    parser.add_argument(
        "-o", "--output-dir", type=Path, default=ARTIFACTS, metavar="DIR", help=f"where to write (default: {ARTIFACTS})"
    )
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> int:
    if args.onnx and args.weights:
        raise InputError("--onnx and --weights both name a model: give one of them")
    if args.int8 and args.bf16:
        raise InputError("--int8 with --bf16: what is not INT8 is FP16. Leave one of them out")
    request = EngineRequest(
        args.onnx or args.weights,
        "int8" if args.int8 else arguments.precision_from(args),
        output_dir=args.output_dir,
        targets=build_command.targets_from(args),
        flavor=args.flavor,
        max_batch=args.max_batch,
        export=arguments.options_from(args),
        options=build_command.options_from(args),
        timing_cache=args.timing_cache,
        calib_images=args.calib_images,
        calibration=calibration.options_from(args),
        unchecked=args.unchecked,
    )
    result = build(request)
    build_command.announce(result.engine, result.sidecar)
    return 0


if __name__ == "__main__":
    sys.exit(main())

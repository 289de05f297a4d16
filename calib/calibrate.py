"""Make a model INT8 and see that it still detects: python calib/calibrate.py --onnx M.onnx --images DIR -o Q.onnx."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from calib.arguments import Target, add_calibration_arguments, options_from
from gfl_edge.console import CommandParser, log, run_command
from gfl_edge.parsing.json_text import json_text


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = CommandParser(prog="calib/calibrate.py", description=__doc__)
    parser.add_argument("--onnx", type=Path, required=True, metavar="M.onnx", help="file of export/to_onnx.py")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="images to calibrate on")
    parser.add_argument(
        "--target",
        choices=get_args(Target),
        help="trt: the rest is FP16, for TensorRT; cpu: FP32, of an FP16 model, too (default: as the model is)",
    )
    add_calibration_arguments(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.onnx", help="file to write")
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> int:
    from calib.run import calibrate  # needs ONNX, and --help must work without it

    request = replace(options_from(args), target=args.target).request(args.onnx, args.images, args.output)
    record = calibrate(request).record
    print(json_text(record.to_dict(), indent=1))
    log(record.summary(request.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The command ``gfl-edge compare``."""

from __future__ import annotations

import argparse
from pathlib import Path

from gfl_edge.cli.options import add_backend, add_measured_images, add_on_bad
from gfl_edge.cli.result import check_result, described, write_result
from gfl_edge.console import log
from gfl_edge.detector import Detector
from gfl_edge.evaluation.compare import compare, table
from gfl_edge.filters.arguments import add_classes, chosen_classes
from gfl_edge.parsing.numbers import number_argument


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("reference", type=Path, metavar="A", help="the reference, .onnx or .engine file")
    parser.add_argument("candidate", type=Path, metavar="B", help="what is compared with it, as its INT8 form")
    add_backend(parser)
    add_measured_images(parser)
    parser.add_argument("--annotations", type=Path, metavar="JSON", help="COCO instances file (default: no AP)")
    add_on_bad(parser)
    add_classes(parser, "compare only these")
    parser.add_argument(
        "--score",
        type=number_argument(0, 1),
        default=0.3,
        metavar="S",
        help="match detections from this score on (default: 0.3)",
    )


def run(args: argparse.Namespace) -> int:
    """Compare two models; the table goes to stderr and the numbers as JSON to stdout."""
    check_result(args)
    with (
        Detector(args.reference, args.backend, args.nms) as reference,
        Detector(args.candidate, args.backend, args.nms) as candidate,
    ):
        result = compare(
            *(reference, candidate, args.images, args.annotations),
            limit=args.limit,
            score=args.score,
            on_bad=args.on_bad,
            classes=chosen_classes(args),
        )
    write_result(described(result.to_dict(), args), result.skipped, args)
    log(*table(result).splitlines())
    return 0

"""The command ``gfl-edge eval``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from gfl_edge.cli.options import add_measured_images, add_model, add_on_bad, open_detector
from gfl_edge.cli.result import check_result, write_result
from gfl_edge.evaluation.ap import Evaluator, evaluate


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_model(parser)
    add_measured_images(parser)
    parser.add_argument("--annotations", type=Path, required=True, metavar="JSON", help="COCO instances file")
    add_on_bad(parser)
    parser.add_argument(
        "--evaluator",
        choices=get_args(Evaluator),
        default="pycocotools",
        help="what computes AP; the numbers are the same, faster-coco-eval takes less time (default: pycocotools)",
    )


def run(args: argparse.Namespace) -> int:
    """Measure AP and print it as JSON."""
    check_result(args)
    with open_detector(args, "throughput") as detector:
        result = evaluate(
            detector, args.images, args.annotations, args.limit, evaluator=args.evaluator, on_bad=args.on_bad
        )
        write_result({**result.to_dict(), **detector.describe()}, result.skipped, args)
    return 0

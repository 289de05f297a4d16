"""The command ``gfl-edge deepstream``."""

from __future__ import annotations

import argparse
from pathlib import Path

from gfl_edge.console import log, say_path
from gfl_edge.filters.arguments import add_classes, add_score, chosen_classes, join_scores
from gfl_edge.filters.detection_filter import DetectionFilter
from gfl_edge.parsing.fields import MAX_SIDE
from gfl_edge.parsing.numbers import MAX_BATCH, whole_argument
from gfl_edge.serving.deepstream import README, write_deepstream
from gfl_edge.zoo.bundled import DESCRIPTION, bundled_model


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="where to write; changes no file that is there")
    parser.add_argument("--model", type=Path, metavar="M", help=f".onnx file (default: {DESCRIPTION})")
    parser.add_argument(
        "--batch", type=whole_argument(1, MAX_BATCH), default=1, metavar="N", help="frames at a time (default: 1)"
    )
    add_classes(parser, "hand on only these")
    add_score(parser, "hand on from this score on (default: what the model recommends)")
    parser.add_argument(
        "--size",
        type=whole_argument(1, MAX_SIDE),
        nargs=2,
        metavar=("H", "W"),
        help="the fixed input size of a model of dynamic size (default: the one that it is fastest at)",
    )


def run(args: argparse.Namespace) -> int:
    """Write the folder; the exit status."""
    size, scores = tuple(args.size) if args.size else None, join_scores(args.score)
    keep = DetectionFilter(scores.general, scores.by_class, chosen_classes(args))
    written = write_deepstream(args.folder, args.model or bundled_model(), args.batch, keep, size)
    log("input {} x {}. {}".format(*written.spec.input_hw, written.remark))
    say_path(written.config)
    log(f"next, on the device: the two commands in {args.folder / README}")
    return 0

"""Options that several commands have."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from gfl_edge.annotations.checks import OnBad
from gfl_edge.backends.base import Performance
from gfl_edge.backends.nms import NmsChoice
from gfl_edge.backends.select import BackendName
from gfl_edge.console import log
from gfl_edge.detector import Detector
from gfl_edge.filters.arguments import argument
from gfl_edge.parsing.numbers import whole_argument
from gfl_edge.results.formats import parse_formats
from gfl_edge.zoo.bundled import DESCRIPTION, PROPERTIES


def add_model(parser: argparse.ArgumentParser) -> None:
    """``--model``, ``--backend`` and ``--nms``: what :func:`open_detector` opens."""
    parser.add_argument("--model", type=Path, metavar="M", help=f".onnx or .engine file (default: {DESCRIPTION})")
    add_backend(parser)


def add_backend(parser: argparse.ArgumentParser) -> None:
    """``--backend`` and ``--nms``: how models are run."""
    parser.add_argument("--backend", choices=get_args(BackendName), default="auto", help="what runs it (default: auto)")
    parser.add_argument("--nms", choices=get_args(NmsChoice), default="auto", help="where NMS runs (default: auto)")


def open_detector(args: argparse.Namespace, performance: Performance) -> Detector:
    """The detector that the options of :func:`add_model` name, fast at what the command needs."""
    say_model(args)
    return Detector(args.model, args.backend, args.nms, performance)


def say_model(args: argparse.Namespace) -> None:
    """Tell the person at the terminal which model is taken where none was named."""
    if args.model is None:
        log(f"no model named: taking {DESCRIPTION} ({PROPERTIES})")


def add_format(parser: argparse.ArgumentParser) -> None:
    """``--format``: of files of results."""
    parser.add_argument(
        "--format",
        type=argument(parse_formats),
        action="append",
        default=[],
        metavar="F",
        help="also write detections as coco, yolo, csv or jsonl, or several: coco,csv; or with a name: csv=cars.csv",
    )


def add_draw_sigma(parser: argparse.ArgumentParser) -> None:
    """``--draw-sigma``, see :func:`gfl_edge.media.draw.draw_detections`."""
    parser.add_argument(
        "--draw-sigma",
        action="store_true",
        help="shade one standard deviation to either side of each edge; of models with --uncertainty",
    )


def add_on_bad(parser: argparse._ActionsContainer) -> None:
    """``--on-bad``: as ``on_bad`` in the settings of training."""
    parser.add_argument(
        "--on-bad",
        choices=get_args(OnBad),
        default="error",
        help="refuse annotations with bad boxes and missing or doubled images, or leave these out (default: error)",
    )


def add_measured_images(parser: argparse.ArgumentParser) -> None:
    """``--images``, ``--limit`` and ``--json``: what is measured on, and where the result is written."""
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the images")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the result here as well")
    parser.add_argument("--limit", type=whole_argument(), metavar="N", help="only the first N images")

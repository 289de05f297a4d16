"""The command ``gfl-edge adopt``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from gfl_edge.adopt.choices import Choices
from gfl_edge.adopt.families import FAMILIES, ChannelOrder
from gfl_edge.adopt.run import Adopted, AdoptRequest, adopt
from gfl_edge.annotations.class_names import parse_class_names
from gfl_edge.backends.select import CpuBackendName
from gfl_edge.cli.options import add_on_bad
from gfl_edge.console import aligned, log, say_path
from gfl_edge.parsing.numbers import MAX_SIDE, number_argument, whole_argument
from gfl_edge.spec import ResizeRule
from gfl_edge.terminal.printable import word

MAX_GRAY = 1e6


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("source", type=Path, metavar="FOREIGN.onnx", help="NanoDet, NanoDet-Plus, PicoDet or GFL")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="M.onnx", help="file to write")
    parser.add_argument("--config", type=Path, metavar="YML", help="nanodet's configuration, or Paddle's infer_cfg.yml")
    parser.add_argument(
        "--classes", metavar="A,B,C|FILE", help="class names, or a file of one per line (default: COCO's for 80)"
    )
    parser.add_argument("--name", metavar="NAME", help="of the model (default: that of the file)")
    _add_choices(parser)
    parser.add_argument(
        "--nms",
        choices=("graph", "none", "raw"),
        default="graph",
        help="where NMS runs: in the graph (default), or after the model, which gives decoded boxes (none) or logits "
        "(raw)",
    )
    parser.add_argument(
        "--uncertainty",
        action="store_true",
        help="have the model give the standard deviation of every edge, in pixels; see docs/uncertainty.md",
    )
    parser.add_argument("--fp16", action="store_true", help="FP16 between normalization and decode, for engines")
    one = number_argument(0, 1)
    parser.add_argument("--score-threshold", type=one, metavar="S", help="of NMS (default: the family's)")
    parser.add_argument("--iou-threshold", type=one, metavar="IOU", help="of NMS (default: 0.6)")
    _add_proof(parser)


def _add_choices(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "what the graph cannot tell", "each is the family's where it is not given; the family is recognized"
    )
    gray = number_argument(-MAX_GRAY, MAX_GRAY)
    group.add_argument("--family", choices=FAMILIES, help="whose conventions hold")
    group.add_argument(
        "--point-offset", type=number_argument(-1, 1), metavar="P", help="cell i lies at (i + P) strides"
    )
    group.add_argument("--resize", choices=get_args(ResizeRule), help="how frames become the input")
    group.add_argument(
        "--channel-order", choices=get_args(ChannelOrder), help="in which the network takes its channels"
    )
    for name, kind in (("--mean", gray), ("--std", number_argument(1e-6, 1e6))):
        group.add_argument(
            name, type=kind, nargs=3, metavar=("A", "B", "C"), help="gray levels, 0 to 255, in the network's order"
        )
    group.add_argument("--reg-max", type=whole_argument(1, 255), metavar="N", help="bins per edge, less one")
    group.add_argument(
        "--input-size", type=whole_argument(32, MAX_SIDE), nargs=2, metavar=("H", "W"), help="pixels, of a file of any"
    )


def _add_proof(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("proof", "the file is compared with the foreign one in any case, on noise")
    group.add_argument("--images", type=Path, metavar="DIR", help="compare on some of these, too")
    group.add_argument("--annotations", type=Path, metavar="JSON", help="COCO instances: AP under each open choice")
    group.add_argument("--limit", type=whole_argument(), metavar="N", help="AP on the first N images only")
    add_on_bad(group)
    group.add_argument(
        "--backend", choices=get_args(CpuBackendName), default="auto", help="what runs it for AP (default: auto)"
    )


def run(args: argparse.Namespace) -> int:
    """Adopt the file, and say what was found."""
    adopted = adopt(request_from(args))
    _tell(adopted)
    say_path(adopted.path)
    model = word(adopted.path)
    log(f"next: gfl-edge build --model {model}, or gfl-edge detect --model {model} IMAGES -o DIR")
    return 0


def request_from(args: argparse.Namespace) -> AdoptRequest:
    """What the options ask for."""
    return AdoptRequest(
        source=args.source,
        output=args.output,
        config=args.config,
        class_names=None if args.classes is None else parse_class_names(args.classes),
        input_hw=tuple(args.input_size) if args.input_size else None,
        reg_max=args.reg_max,
        given=Choices(
            family=args.family,
            point_offset=args.point_offset,
            resize=args.resize,
            channel_order=args.channel_order,
            mean=tuple(args.mean) if args.mean else None,
            std=tuple(args.std) if args.std else None,
        ),
        nms=args.nms,
        uncertainty=args.uncertainty,
        fp16=args.fp16,
        score_threshold=args.score_threshold,
        iou_threshold=args.iou_threshold,
        name=args.name,
        images=args.images,
        annotations=args.annotations,
        limit=args.limit,
        on_bad=args.on_bad,
        backend=args.backend,
    )


def _tell(adopted: Adopted) -> None:
    if adopted.table:
        rows = [[row.options or "as recognized", f"{row.ap:.2f}"] for row in adopted.table]
        log(*aligned([["choice", "AP"], *rows]).splitlines())

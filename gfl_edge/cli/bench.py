"""The command ``gfl-edge bench``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

from gfl_edge import optional
from gfl_edge.bench.report import BenchRequest, bench
from gfl_edge.cli.options import add_backend, add_on_bad
from gfl_edge.console import FAILURE, log, say_path
from gfl_edge.files import check_output
from gfl_edge.parsing.numbers import MAX_OFFLINE_BATCH, MAX_SEED, number_argument, whole_argument, whole_list_argument
from gfl_edge.report.against import changes, read_report, table
from gfl_edge.report.document import summary_section
from gfl_edge.report.markdown import table_text
from gfl_edge.report.schema import ProtocolName
from gfl_edge.report.write import JSON_NAME, write_report
from gfl_edge.zoo.bundled import DESCRIPTION, bundled_model


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--model",
        type=Path,
        nargs="+",
        metavar="M",
        help=f".onnx or .engine files (default: {DESCRIPTION})",
    )
    parser.add_argument(
        "--protocol", choices=get_args(ProtocolName), default="stream", help="what is timed (default: stream)"
    )
    parser.add_argument(
        "--batch",
        type=whole_list_argument(1, MAX_OFFLINE_BATCH),
        default=(),
        metavar="N,N",
        help="batches to measure the throughput of, as 1,8",
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="images to run on (default: generated ones)")
    parser.add_argument("--annotations", type=Path, metavar="JSON", help="COCO file of the images (default: no AP)")
    add_on_bad(parser)
    parser.add_argument("--limit", type=whole_argument(), metavar="N", help="AP on the first N images only")
    parser.add_argument(
        "--seconds",
        type=number_argument(0.001, 86400),
        default=10.0,
        metavar="S",
        help="of measuring per model and batch (default: 10)",
    )
    parser.add_argument(
        "--seed",
        type=whole_argument(0, MAX_SEED),
        default=0,
        help="of generated images and the order of turns (default: 0)",
    )
    parser.add_argument(
        "--bound-only", type=Path, nargs="+", default=(), metavar="M", help=".onnx files to compute bounds of, not run"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="REPORT", help="folder of the report")
    add_backend(parser)
    group = parser.add_argument_group("regression")
    group.add_argument("--against", type=Path, metavar="OLD", help="report.json to compare with; exit 1 if worse")
    group.add_argument(
        "--max-slowdown",
        type=number_argument(0.001, 1000),
        default=1.1,
        metavar="R",
        help="p50 may be so many times the old (default: 1.1)",
    )
    group.add_argument(
        "--max-ap-drop",
        type=number_argument(0, 100),
        default=0.2,
        metavar="AP",
        help="points AP may lose (default: 0.2)",
    )
    group.add_argument("--any-device", action="store_true", help="compare with a report of another device")


def run(args: argparse.Namespace) -> int:
    """Measure, write the report and compare; the exit status."""
    for package in ("matplotlib", "jinja2"):  # what the report needs should not be missed after the measurement
        optional.load(package)
    check_output(args.output / JSON_NAME)
    old = None if args.against is None else read_report(args.against)
    request = BenchRequest(
        models=tuple(args.model or (bundled_model(),)),
        protocol=args.protocol,
        batches=args.batch,
        images=args.images,
        annotations=args.annotations,
        limit=args.limit,
        on_bad=args.on_bad,
        seconds=args.seconds,
        backend=args.backend,
        nms=args.nms,
        bound_only=tuple(args.bound_only),
        seed=args.seed,
    )
    report = bench(request, ["gfl-edge", *sys.argv[1:]])
    html = write_report(report, args.output)
    print(table_text(summary_section(report).tables[0]))
    say_path(html)
    if old is None:
        return 0
    found = changes(old, report, args.max_slowdown, args.max_ap_drop, args.any_device)
    print(table_text(table(found)))
    worse = sum(change.failed for change in found)
    log(f"{worse} of {len(found)} numbers are worse than {args.against} allows" if worse else "no regression")
    return FAILURE if worse else 0

"""COCO AP of a checkpoint: python train/evaluate.py --weights best.pt --images DIR --annotations instances.json."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gfl_edge import environment
from gfl_edge.cli.options import add_on_bad
from gfl_edge.console import CommandParser, log, run_command
from gfl_edge.files import check_output, write_atomically
from gfl_edge.parsing.json_text import json_text
from gfl_edge.parsing.numbers import MAX_SIDE, whole_argument
from train.leaving import leave


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = CommandParser(prog="train/evaluate.py", description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE|NAME", help="checkpoint, or a name")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the images")
    parser.add_argument("--annotations", type=Path, required=True, metavar="JSON", help="COCO instances file")
    add_on_bad(parser)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the result here as well")
    parser.add_argument("--limit", type=whole_argument(), metavar="N", help="only the first N images")
    parser.add_argument(
        "--input-size", type=whole_argument(32, MAX_SIDE), nargs=2, metavar=("H", "W"), help="pixels, multiples of 32"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="that it was trained with, as of export/to_onnx.py")
    parser.add_argument(
        "--ema", action=argparse.BooleanOptionalAction, help="take the averaged weights, or those trained"
    )
    parser.add_argument(
        "--uncertainty",
        action="store_true",
        help="also judge the standard deviations of edges, see docs/uncertainty.md",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 ... (default: a GPU where there is one)")
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> int:
    # torch takes seconds to import and --help must work without it
    from train.describe import Wanted
    from train.validation import evaluate_checkpoint
    from train.weights.find import find_weights

    if args.json:
        check_output(args.json)
    report = evaluate_checkpoint(
        find_weights(args.weights),
        args.images,
        args.annotations,
        wanted=Wanted(config=args.config, ema=args.ema, input_hw=tuple(args.input_size) if args.input_size else None),
        limit=args.limit,
        device=args.device,
        on_bad=args.on_bad,
        uncertainty=args.uncertainty,
    )
    text = json_text({**report, **environment.describe(["train/evaluate.py", *sys.argv[1:]])}, indent=2)
    print(text)
    if args.json:
        write_atomically(args.json, f"{text}\n".encode())
    if report["skipped"]:
        log(f"{len(report['skipped'])} unreadable images left out: {', '.join(report['skipped'])}")
    return 0


if __name__ == "__main__":
    leave(main())

"""The command ``gfl-edge triton``."""

from __future__ import annotations

import argparse
from pathlib import Path

from gfl_edge.console import log, say_path
from gfl_edge.parsing.numbers import MAX_BATCH, whole_argument
from gfl_edge.serving.triton import DEFAULT_MAX_BATCH, write_triton
from gfl_edge.terminal.printable import word
from gfl_edge.zoo.bundled import DESCRIPTION, bundled_model

MAX_INSTANCES = 64


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("repository", type=Path, metavar="REPO", help="model repository; other models in it stay")
    parser.add_argument("--model", type=Path, metavar="M", help=f".onnx or .engine file (default: {DESCRIPTION})")
    parser.add_argument("--name", metavar="NAME", help="of the model there (default: what its file is called)")
    parser.add_argument(
        "--max-batch",
        type=whole_argument(1, MAX_BATCH),
        metavar="N",
        help=f"images run together at most (default: what an engine takes; of ONNX files {DEFAULT_MAX_BATCH})",
    )
    parser.add_argument(
        "--instances",
        type=whole_argument(1, MAX_INSTANCES),
        default=1,
        metavar="N",
        help="of the model at the same time (default: 1)",
    )


def run(args: argparse.Namespace) -> int:
    """Add the model to the repository; the exit status."""
    folder = write_triton(args.repository, args.model or bundled_model(), args.max_batch, args.instances, args.name)
    say_path(folder)
    log(f"next, where Triton is: tritonserver --model-repository={word(args.repository.absolute())}")
    return 0

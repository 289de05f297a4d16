"""Train a detector: python train/train.py train/configs/bccd_nanodet_m.toml [--set train.epochs=3]."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gfl_edge.console import CommandParser, log, run_command
from gfl_edge.parsing.json_text import json_text
from train.arguments import add_config_arguments, config_of
from train.leaving import leave


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = CommandParser(
        prog="train/train.py",
        description=__doc__,
        epilog="On several GPUs: torchrun --nproc-per-node 4 train/train.py CONFIG.toml; on nodes: docs/cluster.md",
    )
    add_config_arguments(parser)
    parser.set_defaults(resume=False)
    going_on = parser.add_mutually_exclusive_group()
    going_on.add_argument("--resume", action="store_true", help="go on with the run in train.output exactly")
    going_on.add_argument(
        "--auto-resume",
        action="store_const",
        dest="resume",
        const="auto",
        help="the same, or start it if there is none: for commands that are started again by themselves",
    )
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> int:
    # torch takes seconds to import and --help must work without it
    import os

    from gfl_edge.evaluation.ap import rounded
    from train.run import next_command, train

    config = config_of(args)
    metrics = train(config, args.resume)
    if os.environ.get("RANK", "0") == "0":
        print(json_text(rounded(metrics)))
        log(f"next: {next_command(config.train.output)}")
    return 0


if __name__ == "__main__":
    leave(main())

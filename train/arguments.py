"""The settings of a run on a command line: a file, and what replaces them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train.config import Config


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add CONFIG.toml and ``--set``, which :func:`config_of` reads."""
    parser.add_argument("config", type=Path, metavar="CONFIG.toml", help="settings of the run, see train/configs")
    parser.add_argument(
        "--set",
        action="append",
        nargs="+",
        default=[],
        metavar="SECTION.FIELD=VALUE",
        dest="overrides",
        help="replace settings; values as in TOML: train.epochs=3 'train.amp=\"bf16\"'",
    )


def config_of(args: argparse.Namespace) -> Config:
    """The settings that are meant; raises as :func:`train.config.read_config`."""
    from train.config import read_config  # which imports torch, and --help must work without it

    return read_config(args.config, [text for group in args.overrides for text in group])

"""The command ``gfl-edge models``."""

from __future__ import annotations

import argparse

from gfl_edge.parsing.json_text import readable_json
from gfl_edge.zoo import weights
from gfl_edge.zoo.bundled import DESCRIPTION, PROPERTIES


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--json", action="store_true", help="as JSON, with addresses and digests")


def run(args: argparse.Namespace) -> int:
    """List the published weights that are known by name."""
    rows = weights.listing()
    if args.json:
        print(readable_json(rows))
    else:
        print(weights.table(rows))
        print(f"\n{DESCRIPTION} ({PROPERTIES}), is used where no --model is named")
    return 0

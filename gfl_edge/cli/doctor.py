"""The command ``gfl-edge doctor``."""

from __future__ import annotations

import argparse

from gfl_edge.console import FAILURE
from gfl_edge.doctor import examine
from gfl_edge.parsing.json_text import json_text


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Examine this machine; a failure where nothing on it can run a model."""
    report = examine()
    print(json_text(report.to_dict(), indent=2) if args.json else report)
    return 0 if report.ways else FAILURE

"""How the commands that measure on images report it."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from gfl_edge import environment
from gfl_edge.console import log
from gfl_edge.files import check_output, write_atomically
from gfl_edge.parsing.json_text import readable_json


def check_result(args: argparse.Namespace) -> None:
    """Raise OutputError before the measurement if ``--json`` could not be written after it."""
    if args.json:
        check_output(args.json)


def described(measured: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """What was measured on ``--images``, and on what machine."""
    annotations = args.annotations.name if args.annotations else None
    return {**measured, "annotations": annotations, **environment.describe(["gfl-edge", *sys.argv[1:]])}


def write_result(result: dict[str, Any], skipped: tuple[str, ...], args: argparse.Namespace) -> None:
    """Write what :func:`described` gave to stdout and to ``--json``."""
    text = readable_json(result)
    print(text)
    if args.json:
        write_atomically(args.json, f"{text}\n".encode())
    if skipped:
        log(f"{len(skipped)} unreadable images left out: {', '.join(skipped)}")

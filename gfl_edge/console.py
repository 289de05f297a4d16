"""How every command of the project ends: exit status 0, 1 for a failure, 2 for wrong usage, and one line on stderr."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

from gfl_edge.errors import GflEdgeError

FAILURE, INTERRUPTED = 1, 130


def run_command(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int], argv: list[str] | None
) -> int:
    """Parse ``argv`` and call ``run``; turn a GflEdgeError into one line on stderr and status 1.

    argparse itself exits with 2 for wrong usage.
    """
    args = parser.parse_args(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING, stream=sys.stderr)
    try:
        return run(args)
    except GflEdgeError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return FAILURE
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output left, as `head` does
        sys.stderr.close()
        return FAILURE


def log(message: str) -> None:
    """A line for the person at the terminal; results alone go to stdout."""
    print(message, file=sys.stderr, flush=True)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines of aligned columns; every row has as many cells as the first."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)

"""What every command of the project does at the terminal.

It ends with exit status 0, 1 for a failure, 2 for wrong usage, and one line on stderr that says why. Results go to
stdout. What the library logs goes to stderr: the progress of the project's own packages, warnings of all.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn

from gfl_edge import optional
from gfl_edge.errors import GflEdgeError
from gfl_edge.progress import beside_bars
from gfl_edge.redact import redact

FAILURE, INTERRUPTED = 1, 130
# Whose INFO is for the person at the terminal; a script's own functions log as __main__
OWN_LOGGERS = ("gfl_edge", "calib", "train", "export", "benchmarks", "examples", "__main__")


def run_command(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int], argv: list[str] | None
) -> int:
    """Parse ``argv`` and call ``run``; turn a GflEdgeError, a package that is missing, or what the system refuses, such
    as a temporary file on a full disk, into one line and status 1.

    argparse itself exits with 2 for wrong usage.
    """
    args = parser.parse_args(argv)
    try:
        with _log_on_stderr():
            status = run(args)
            if sys.stdout is not None:
                sys.stdout.flush()  # at the exit of Python it would be too late to say that the disk is full
            return status
    except (GflEdgeError, ImportError) as error:
        reason = optional.explain(error) if isinstance(error, ImportError) else error
        if reason is None:
            raise
        print(f"{parser.prog}: error: {redact(str(reason))}", file=sys.stderr)
        _drop_unwritten()
        return FAILURE
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output left, as `head` does
        sys.stderr.close()
        return FAILURE
    except OSError as error:
        if error.errno is None:
            raise
        where = f": {error.filename}" if error.filename is not None else ""
        print(f"{parser.prog}: error: {redact(str(error.strerror) + where)}", file=sys.stderr)
        _drop_unwritten()
        return FAILURE


def _drop_unwritten() -> None:
    """Forget what stdout does not take, or Python would try again, and complain, at its exit."""
    with suppress(AttributeError, ValueError):  # there is none
        try:
            sys.stdout.flush()
        except OSError:
            with open(os.devnull, "wb") as nothing:  # noqa: PTH123  no path
                os.dup2(nothing.fileno(), sys.stdout.fileno())


class CommandParser(argparse.ArgumentParser):
    """Says what is wrong with the arguments without the passwords in them."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and ``message``, and exit with status 2."""
        super().error(redact(message))


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]  # Python 3.10 cannot subscript it
    """Writes above the lines of progress."""

    def emit(self, record: logging.LogRecord) -> None:
        with beside_bars():
            super().emit(record)


class _Formatter(logging.Formatter):
    """Progress as it is, anything above with its level before it; no passwords, whoever logs."""

    def format(self, record: logging.LogRecord) -> str:
        text = redact(super().format(record))
        return text if record.levelno <= logging.INFO else f"{record.levelname}: {text}"


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    """Write what is logged to stderr: from INFO on of our packages, from WARNING on of others."""
    handler = _Handler(sys.stderr)
    handler.setFormatter(_Formatter())
    own = [logging.getLogger(name) for name in OWN_LOGGERS]
    before = [logger.level for logger in own]
    for logger in own:
        logger.setLevel(logging.INFO)
    logging.root.addHandler(handler)
    try:
        yield
    finally:
        logging.root.removeHandler(handler)
        for logger, level in zip(own, before, strict=True):
            logger.setLevel(level)


def log(message: str) -> None:
    """A line for the person at the terminal, of a command; libraries use :mod:`logging`."""
    with beside_bars():
        print(message, file=sys.stderr, flush=True)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines of aligned columns; every row has as many cells as the first."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)

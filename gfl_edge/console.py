"""What every command of the project does at the terminal.

It ends with exit status 0, 1 for a failure, 2 for wrong usage, and one line on stderr that says why. Results go to
stdout. What the library logs goes to stderr: the progress of the project's own packages, warnings of all. Foreign text
in them is made printable, and the streams may be closed or full (:mod:`gfl_edge.terminal`).
"""

from __future__ import annotations

import argparse
import difflib
import errno
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from gfl_edge import optional
from gfl_edge.errors import GflEdgeError
from gfl_edge.progress import beside_bars
from gfl_edge.redact import redact
from gfl_edge.terminal.printable import printable, printable_line
from gfl_edge.terminal.streams import stderr, usable_streams

FAILURE, USAGE, INTERRUPTED = 1, 2, 130
# What is often given without its option, by how its name ends; a word of another end is a source
OPTION_OF = {
    ".onnx": ("--model", "--onnx"),
    ".engine": ("--model",),
    ".ckpt": ("--weights",),
    ".pth": ("--weights",),
    ".pt": ("--weights",),
    ".safetensors": ("--weights",),
}
# Whose INFO is for the person at the terminal; a script's own functions log as __main__
OWN_LOGGERS = ("gfl_edge", "calib", "train", "export", "benchmarks", "examples", "__main__")


def run_command(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int], argv: list[str] | None
) -> int:
    """Parse ``argv`` and call ``run``; turn a GflEdgeError, a package that is missing, or what the system refuses, such
    as a temporary file on a full disk, or more memory, into one line and status 1.

    argparse itself exits with 2 for wrong usage.
    """
    with usable_streams():
        return _status_of(parser, run, argv)


def _status_of(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int], argv: list[str] | None
) -> int:
    """Of :func:`run_command`."""
    try:
        with _log_on_stderr():
            status = run(parser.parse_args(argv))
        sys.stdout.flush()  # at the exit of Python it would be too late to say that the disk is full
        return status
    except (GflEdgeError, ImportError) as error:
        reason = optional.explain(error) if isinstance(error, ImportError) else error
        if reason is None:
            raise
        log(f"{parser.prog}: error: {reason}")
    except KeyboardInterrupt:
        log(f"{parser.prog}: interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output left, as `head` does
        pass
    except MemoryError as error:
        detail = f" ({error})" if str(error) else ""
        log(f"{parser.prog}: error: there is not enough memory{detail}. Give it more, or smaller files")
    except RuntimeError as error:
        if str(error) != "can't start new thread":  # Python's words
            raise
        log(f"{parser.prog}: error: {error}. Give it more memory, or more of them (ulimit -u, docker's --pids-limit)")
    except OSError as error:
        if error.errno is None:
            raise
        where = f": {error.filename}" if error.filename is not None else ""
        if error.errno == errno.ENOENT and not where:  # of os.getcwd()
            where = ": the folder that this runs in was removed. Change to another"
        log(f"{parser.prog}: error: {error.strerror}{where}")
    return FAILURE


class CommandParser(argparse.ArgumentParser):
    """Says what is wrong with the arguments, without the passwords in them, in printable text."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # as argparse calls it of a command
        """Parse; what is left over is an error of the command that does not know it, with what may have been meant."""
        known, left = super().parse_known_args(args, namespace)
        if left:
            self.error(f"unrecognized arguments: {' '.join(left)}{self._meant(left[0])}")
        return known, left

    def _meant(self, word: str) -> str:
        options = self._option_string_actions
        if word.startswith("-"):
            close = difflib.get_close_matches(word.partition("=")[0], options, 1)
        else:
            close = [f"{name} {word}" for name in OPTION_OF.get(Path(word).suffix, ("--source",)) if name in options]
        return f". Did you mean {close[0]}?" if close else ""

    def error(self, message: str) -> NoReturn:
        """Print the usage and ``message``, and exit with status 2."""
        super().error(shown_line(message))


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]  # Python 3.10 cannot subscript it
    """Writes above the lines of progress."""

    def emit(self, record: logging.LogRecord) -> None:
        with beside_bars():
            super().emit(record)


class _Formatter(logging.Formatter):
    """Progress as it is, anything above with its level before it; one line, no passwords, whoever logs."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        text = shown_line(super().formatMessage(record))
        return text if record.levelno <= logging.INFO else f"{record.levelname}: {text}"

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "\n".join(map(shown_line, super().formatException(ei).split("\n")))


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    """Write what is logged to stderr: from INFO on of our packages, from WARNING on of others."""
    handler = _Handler(stderr())
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


def log(*lines: str) -> None:
    """Lines for the person at the terminal, of a command; libraries use :mod:`logging`."""
    with beside_bars():
        print(*map(shown_line, lines), sep="\n", file=stderr(), flush=True)


def say_path(path: Path) -> None:
    """A path on stdout, for the next command; a person sees it printable."""
    print(printable(str(path)) if sys.stdout.isatty() else path)


def shown_line(text: str) -> str:
    """Text as one line of a terminal: printable, not endless, and without passwords."""
    return printable_line(redact(text))


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, made printable, as lines of aligned columns; every row has as many cells as the first."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)

"""JSON lines: detections as they come, for whoever follows."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

from gfl_edge.errors import InputError, OutputError
from gfl_edge.files import cannot_write, check_output
from gfl_edge.files.partial import try_lock

STDOUT = "-"

_FLAGS = os.O_WRONLY | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class JsonLinesSink:
    """One JSON object a line, each flushed whole, so that a reader can follow.

    A file has one writer: a second run, of this process or another, is refused. Programs that turn logs over may cut it
    or rename it. Where the disk is full it ends with its last whole line. Only of a process that is killed (SIGKILL, or
    the power) the last line may be cut: it has no newline then.

    Args:
        path: file, which is written over, device or pipe; missing folders are made. "-" = stdout.
        keep: go on after what the file holds instead.

    Raises:
        OutputError: the file cannot be written, is being written by another run, or is a pipe that nobody reads.
    """

    def __init__(self, path: str | Path, *, keep: bool = False) -> None:
        self._path, self._descriptor = path, -1
        if str(path) == STDOUT:
            return
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = _opened(path, os.O_CREAT)
            if not keep and stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                self.cut(0)
        except (OSError, ValueError) as error:
            self.close()
            raise cannot_write(path, error) from error

    def write(self, record: dict[str, Any]) -> None:
        """Write ``record`` as a line.

        Raises:
            OutputError: the disk is full or gone.
            InputError: ``record`` has a number that JSON has not.
            BrokenPipeError: the reader of stdout or of the pipe left.
        """
        try:
            line = f"{json.dumps(record, allow_nan=False)}\n"
        except ValueError as error:
            raise InputError(f"{record!r:.200} cannot be written as JSON ({error})") from error
        try:
            if self._descriptor < 0:
                sys.stdout.write(line)
                sys.stdout.flush()
            else:
                self._append(line.encode())
        except BrokenPipeError:
            raise
        except OSError as error:
            raise cannot_write("stdout" if self._descriptor < 0 else self._path, error) from error

    def cut(self, size_bytes: int) -> None:
        """Let the file end after so many bytes; it has them."""
        os.ftruncate(self._descriptor, size_bytes)

    def _append(self, line: bytes) -> None:
        """Write all of ``line``, or on an error nothing of it."""
        before, left = os.fstat(self._descriptor), memoryview(line)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            if len(left) < len(line) and stat.S_ISREG(before.st_mode):
                os.ftruncate(self._descriptor, before.st_size)
            raise

    def close(self) -> None:
        """Close the file; stdout stays open."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> JsonLinesSink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_lines(path: str | Path) -> None:
    """Find out before a model is loaded that :class:`JsonLinesSink` could not write ``path``; leaves no trace.

    Raises:
        OutputError: as the sink does.
    """
    if str(path) == STDOUT:
        return
    try:
        os.close(_opened(path))
    except FileNotFoundError:
        check_output(path)
    except (OSError, ValueError) as error:
        raise cannot_write(path, error) from error


def _opened(path: str | Path, flags: int = 0) -> int:
    """The descriptor of a file that is locked; a pipe that nobody reads is refused, where opening it would wait."""
    waits = getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, _FLAGS | flags | waits, 0o666)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "a pipe that nobody reads: start its reader first") from error
        raise
    if waits:
        os.set_blocking(descriptor, True)
    if stat.S_ISREG(os.fstat(descriptor).st_mode) and not _lock(descriptor):
        os.close(descriptor)
        raise OutputError(f"{path} is being written by another run: give each run a file of its own")
    return descriptor


def _lock(descriptor: int) -> bool:
    try:
        return try_lock(descriptor)
    except OSError:  # no locks here
        return True

"""The standard streams of a process, which may be closed, full, or read by nobody."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, cast

from gfl_edge.files import cannot_write


def stderr() -> TextIO:
    """Where messages go: nowhere, if this process was started without (``2>&-``, a service of Windows)."""
    return sys.stderr or _nowhere()


@functools.cache
def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")  # as long as the process


@contextmanager
def usable_streams() -> Iterator[None]:
    """Within, printing fails only where a result is lost, and never for what a text holds.

    Closed streams are as ``/dev/null``, and no file that is opened later takes their numbers, by which libraries in C
    would write their messages into it. What the encoding of a terminal lacks is spelled, as ``\\xe9``. Messages that
    nobody takes are lost without a word. Writing to stdout raises BrokenPipeError where its reader left, OutputError
    where it cannot be written, as on a full disk.
    """
    for number in (0, 1, 2):
        if not _is_open(number):
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    before = sys.stdout, sys.stderr
    sys.stdout = cast(TextIO, _Results(before[0] or _nowhere()))
    sys.stderr = cast(TextIO, _Messages(before[1] or _nowhere()))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in before:
            _settle(stream)


@contextmanager
def results_alone_on_stdout() -> Iterator[None]:
    """Within, what libraries in C print to stdout, as NVIDIA's decoders do, goes to stderr, not between results."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):  # of a test, or closed
        number = -1
    if number != 1:
        yield
        return
    sys.stdout.flush()
    before, kept = sys.stdout, os.dup(1)
    os.dup2(2, 1)
    own = os.fdopen(kept, "w", encoding=before.encoding, errors=before.errors)
    sys.stdout = cast(TextIO, _Results(own))
    try:
        yield
    finally:
        sys.stdout = before
        os.dup2(kept, 1)
        with suppress(OSError, ValueError):  # what its reader left, which whoever wrote it was told
            own.close()


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _settle(stream: TextIO | None) -> None:
    """Let go of what a stream does not take: Python would try it again at its end, complain, and exit with 120."""
    with suppress(OSError, ValueError, AttributeError):
        try:
            cast(TextIO, stream).flush()
        except OSError:
            target = os.open(os.devnull, os.O_WRONLY)
            os.dup2(target, cast(TextIO, stream).fileno())
            os.close(target)


class _Stream:
    """A stream that spells what its encoding lacks."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _encodable(self, text: str) -> str:
        encoding = self._stream.encoding or "utf-8"
        return text.encode(encoding, "backslashreplace").decode(encoding, "replace")


class _Results(_Stream):
    """Stdout: what cannot be written is an error."""

    def write(self, text: str) -> int:
        """See :func:`usable_streams`."""
        self._tried(self._stream.write, self._encodable(text))
        return len(text)

    def flush(self) -> None:
        """See :func:`usable_streams`."""
        self._tried(self._stream.flush)

    def _tried(self, call: Callable[..., object], *arguments: str) -> None:
        try:
            call(*arguments)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise cannot_write("stdout", error) from error


class _Messages(_Stream):
    """Stderr: what nobody takes is lost."""

    def write(self, text: str) -> int:
        """Write what can be written."""
        with suppress(OSError, ValueError):
            self._stream.write(self._encodable(text))
        return len(text)

    def flush(self) -> None:
        """See :meth:`write`."""
        with suppress(OSError, ValueError):
            self._stream.flush()

"""Progress of long work on stderr by tqdm: a line that renews itself on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from gfl_edge import optional
from gfl_edge.terminal.printable import printable
from gfl_edge.terminal.streams import stderr

if TYPE_CHECKING:
    from tqdm import tqdm

T = TypeVar("T")

UNKNOWN_SIZE = {"ncols": 79, "nrows": 23}  # of a terminal, to be safe
REDRAW_SECONDS, LOG_SECONDS = 0.1, 10.0  # between states that are shown, on a terminal and elsewhere


def progress_bar(
    label: str, total: int, *, enabled: bool = True, done: int = 0, unit: str = "it", scaled: bool = False
) -> tqdm[Any]:
    """A line of progress, which is a context manager: ``with progress_bar("label", 10) as bar: bar.update()``.

    Args:
        label: what is being done.
        total: number of steps; 0 where it is not known, and then ``bar.total`` may be set later.
        enabled: draw nothing where False.
        done: steps that were done before; they do not count for the rate.
        unit: name of a step.
        scaled: show steps as k, M, G.
    """
    stream = stderr()
    live = stream.isatty()
    bar: tqdm[Any] = _bar_class()(
        desc=printable(label),
        total=total,
        initial=done,
        disable=not enabled,
        file=stream if live else _Lines(stream),
        mininterval=REDRAW_SECONDS if live else LOG_SECONDS,
        miniters=1,
        unit=unit,
        unit_scale=scaled,
        **(UNKNOWN_SIZE if live and not _has_size(stream) else {}),
    )
    return bar


def track(items: Iterable[T], label: str, total: int, enabled: bool = True) -> Iterator[T]:
    """Yield ``items`` with a line of progress."""
    with progress_bar(label, total, enabled=enabled) as bar:
        for item in items:
            yield item
            bar.update()


def beside_bars() -> AbstractContextManager[None]:
    """Writes to stderr meanwhile go above the lines that renew themselves, if there are any."""
    if "tqdm" not in sys.modules:
        return nullcontext()
    return _bar_class().external_write_mode(stderr())  # type: ignore[no-any-return]


def _has_size(terminal: TextIO) -> bool:
    """Whether a terminal says how large it is; serial consoles do not, and tqdm by itself draws nothing there."""
    try:
        return all(os.get_terminal_size(terminal.fileno()))
    except OSError:
        return False


@functools.cache
def _bar_class() -> Any:
    class Bar(optional.load("tqdm").tqdm):  # type: ignore[misc]
        """Without tqdm's thread, which forks of training do not bear, and its lock among processes."""

        monitor_interval = 0
        _lock = threading.RLock()

    return Bar


class _Lines:
    """A stream on which each state of a bar is a line of its own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """What tqdm writes: a state begins with a return, blanks erase the state before, and a line feed ends all."""
        if state := text.strip("\r\n").rstrip():
            self._stream.write(f"{state}\n")

    def flush(self) -> None:
        self._stream.flush()

"""Progress of long work on stderr: one line that renews itself on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

T = TypeVar("T")

WIDTH = 24  # characters of the bar
LOG_SECONDS = 10.0  # between lines where stderr is no terminal
REDRAW_SECONDS = 0.1


class Progress:
    """A progress line ``label [####----] done/total, rate, remaining``.

    Args:
        label: what is being done.
        total: number of steps; 0 where it is not known.
        stream: where to draw; default stderr.
        enabled: draw nothing where False.
        done: steps that were done before; they do not count for the rate.
        per_unit: steps of one unit that is shown; 1 shows steps.
        unit: its name, as in " MB".
    """

    def __init__(
        self,
        label: str,
        total: int,
        stream: TextIO | None = None,
        enabled: bool = True,
        *,
        done: int = 0,
        per_unit: float = 1,
        unit: str = "",
    ) -> None:
        self.label, self.total, self.done = label, total, done
        self._before, self._per_unit, self._unit = done, per_unit, unit
        self._stream = stream or sys.stderr
        self._enabled = enabled
        self._live = self._stream.isatty()
        self._start = self._drawn = time.monotonic()

    def advance(self, steps: int = 1) -> None:
        """Count ``steps`` as done and redraw if it is time."""
        self.done += steps
        now = time.monotonic()
        if self._enabled and now - self._drawn >= (REDRAW_SECONDS if self._live else LOG_SECONDS):
            self._draw(now)

    def close(self) -> None:
        """Draw the last state and end the line."""
        if self._enabled:
            self._draw(time.monotonic())
            if self._live:
                self._stream.write("\n")
                self._stream.flush()
        self._enabled = False

    def _draw(self, now: float) -> None:
        self._drawn = now
        seconds = now - self._start
        fraction = min(1.0, self.done / self.total) if self.total else 1.0
        bar = "#" * round(fraction * WIDTH)
        rate = (self.done - self._before) / seconds if seconds > 0 else 0.0
        remaining = f", {(self.total - self.done) / rate:.0f} s left" if rate and self.done < self.total else ""
        steps = (self.done, self.total) if self.total else (self.done,)
        counted = "/".join(map(self._counted, steps)) + self._unit
        per_second = f"{rate / self._per_unit:.1f}{self._unit}/s"
        line = f"{self.label} [{bar:-<{WIDTH}}] {counted}, {per_second}, {seconds:.0f} s{remaining}"
        self._stream.write(f"\r{line}\x1b[K" if self._live else f"{line}\n")
        self._stream.flush()

    def _counted(self, steps: int) -> str:
        return str(steps) if self._per_unit == 1 else f"{steps / self._per_unit:.1f}"

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def track(items: Iterable[T], label: str, total: int, enabled: bool = True) -> Iterator[T]:
    """Yield ``items`` with a progress line."""
    with Progress(label, total, enabled=enabled) as progress:
        for item in items:
            yield item
            progress.advance()

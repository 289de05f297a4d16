"""How a run goes: the time of its stages, and a line on stderr that tells it."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

STAGES = ("read", "preprocess", "network", "postprocess", "draw", "write")
RECENT_SECONDS, RECENT_FRAMES = 2.0, 500  # over which the status averages, whichever is less
REDRAW_SECONDS, LOG_SECONDS = 0.5, 10.0  # between status lines, on a terminal and elsewhere


class StageClock:
    """Milliseconds of each stage: the mean of all frames, and of those in the last two seconds, 500 at most."""

    def __init__(self) -> None:
        self.frames = 0
        self._sums = dict.fromkeys(STAGES, 0.0)
        self._recent: deque[tuple[float, dict[str, float]]] = deque(maxlen=RECENT_FRAMES)

    def add(self, ms: dict[str, float]) -> None:
        """Count a frame with its milliseconds of all ``STAGES``."""
        self.frames += 1
        for stage in STAGES:
            self._sums[stage] += ms[stage]
        now = time.monotonic()
        self._recent.append((now, ms))
        while len(self._recent) > 2 and now - self._recent[0][0] > RECENT_SECONDS:
            self._recent.popleft()

    def mean_ms(self) -> dict[str, float]:
        """Mean milliseconds by stage over all frames."""
        return {stage: total / max(1, self.frames) for stage, total in self._sums.items()}

    def recent_ms(self) -> dict[str, float]:
        """Mean milliseconds by stage over the last two seconds."""
        count = max(1, len(self._recent))
        return {stage: sum(ms[stage] for _, ms in self._recent) / count for stage in STAGES}

    def recent_fps(self) -> float:
        """Frames per second over the last two seconds; 0 until there are two frames."""
        seconds = self._recent[-1][0] - self._recent[0][0] if self._recent else 0.0
        return (len(self._recent) - 1) / seconds if seconds > 0 else 0.0


class StatusLine:
    """One line on stderr that renews itself on a terminal; a line now and then elsewhere.

    Args:
        total: number of frames, if known.
        load: what to say about queues and dropped frames.
        stream: where to write; default stderr.
    """

    def __init__(self, total: int | None, load: Callable[[], str], stream: TextIO | None = None) -> None:
        self._of_total = "" if total is None else f"/{total}"
        self._load = load
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._drawn = time.monotonic()
        self._last = ""

    def update(self, frames: int, clock: StageClock) -> None:
        """Renew the line if it is time; ``frames`` of the total are done."""
        now = time.monotonic()
        if now - self._drawn >= (REDRAW_SECONDS if self._live else LOG_SECONDS):
            self._drawn = now
            self._draw(frames, clock)

    def _draw(self, frames: int, clock: StageClock) -> None:
        ms = ", ".join(f"{stage} {value:.1f}" for stage, value in clock.recent_ms().items())
        self._last = f"frame {frames}{self._of_total}, {clock.recent_fps():.1f} FPS; ms: {ms}; {self._load()}"
        self._stream.write(f"\r{self._last}\x1b[K" if self._live else f"{self._last}\n")
        self._stream.flush()

    def close(self) -> None:
        """End the line."""
        if self._live and self._last:
            self._stream.write("\n")
            self._stream.flush()

    def __enter__(self) -> StatusLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

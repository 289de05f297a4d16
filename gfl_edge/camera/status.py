"""How a run goes: the times of its stages and frames, and a line on stderr that shows them."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

from gfl_edge.terminal.streams import stderr

CAMERA_STAGES = ("read", "preprocess", "network", "postprocess", "draw", "write")
RECENT_SECONDS, RECENT_FRAMES = 2.0, 500  # over which the status averages, whichever is less
REDRAW_SECONDS, LOG_SECONDS = 0.5, 10.0  # between status lines, on a terminal and elsewhere

# Of a latency histogram: the first bucket's end, the ratio of one bucket's end to the one before, and the number of
# buckets, which reach up to 47 minutes
MIN_MS, BUCKET_RATIO, BUCKETS = 0.01, 1.05, 400


class StageTimes:
    """Milliseconds of each stage: the mean of all frames, and of those in the last two seconds, 500 at most."""

    def __init__(self) -> None:
        self.frames = 0
        self._sums = dict.fromkeys(CAMERA_STAGES, 0.0)
        self._recent: deque[tuple[float, dict[str, float]]] = deque(maxlen=RECENT_FRAMES)

    def add(self, ms: dict[str, float]) -> None:
        """Count a frame with its milliseconds of all ``CAMERA_STAGES``."""
        self.frames += 1
        for stage in CAMERA_STAGES:
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
        return {stage: sum(ms[stage] for _, ms in self._recent) / count for stage in CAMERA_STAGES}

    def recent_fps(self) -> float:
        """Frames per second over the last two seconds; 0 until there are two frames."""
        seconds = self._recent[-1][0] - self._recent[0][0] if self._recent else 0.0
        return (len(self._recent) - 1) / seconds if seconds > 0 else 0.0


class LatencyHistogram:
    """Counts times in buckets that are 5 % wide: percentiles are exact to 2.5 %, the largest is exact.

    Its memory is the same for any number of times.

    Attributes:
        count: times that were added.
        max_ms: the largest.
    """

    def __init__(self) -> None:
        self.count, self.max_ms = 0, 0.0
        self._counts = [0] * BUCKETS

    def add(self, ms: float) -> None:
        """Count a time in milliseconds, 0 or more."""
        self.count += 1
        self.max_ms = max(self.max_ms, ms)
        bucket = math.ceil(math.log(ms / MIN_MS, BUCKET_RATIO)) if ms > MIN_MS else 0
        self._counts[min(bucket, BUCKETS - 1)] += 1

    def percentile_ms(self, percent: float) -> float:
        """The time that ``percent`` of all do not exceed (nearest rank); 0 without any."""
        rank = math.ceil(percent / 100 * self.count)
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if count and seen >= rank:
                return min(self.max_ms, MIN_MS * math.pow(BUCKET_RATIO, bucket - 0.5))
        return 0.0

    def to_dict(self) -> dict[str, float]:
        """Milliseconds: ``p50``, ``p99``, ``max``."""
        return {"p50": self.percentile_ms(50), "p99": self.percentile_ms(99), "max": self.max_ms}


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
        self._stream = stream or stderr()
        self._live = self._stream.isatty()
        self._drawn = time.monotonic()
        self._last = ""

    def update(self, frames: int, times: StageTimes) -> None:
        """Renew the line if it is time; ``frames`` of the total are done."""
        now = time.monotonic()
        if now - self._drawn >= (REDRAW_SECONDS if self._live else LOG_SECONDS):
            self._drawn = now
            ms = ", ".join(f"{stage} {value:.1f}" for stage, value in times.recent_ms().items())
            self._last = f"frame {frames}{self._of_total}, {times.recent_fps():.1f} FPS; ms: {ms}; {self._load()}"
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

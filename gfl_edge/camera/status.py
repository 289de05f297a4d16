"""How a run goes: the times of its stages and frames, and a line on stderr that shows them."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TextIO

from gfl_edge.terminal.streams import stderr

CAMERA_STAGES = ("read", "preprocess", "network", "postprocess", "draw", "write")
RECENT_SECONDS, RECENT_FRAMES = 2.0, 500  # over which the status averages, whichever is less
REDRAW_SECONDS, LOG_SECONDS = 0.5, 10.0  # between status lines, on a terminal and elsewhere

# Of a latency histogram: the first bucket's end, the ratio of one bucket's end to the one before, and the number of
# buckets, which reach up to 47 minutes
MIN_MS, BUCKET_RATIO, BUCKETS = 0.01, 1.05, 400


class StageTimes:
    """Milliseconds of each stage: the mean of all frames, and of those in the last two seconds, 500 at most.

    One thread adds, others may look.
    """

    def __init__(self) -> None:
        self.frames = 0
        self._lock = threading.Lock()  # of the recent ones, which nobody may look through while they change
        self._sums = dict.fromkeys(CAMERA_STAGES, 0.0)
        self._recent: deque[tuple[float, dict[str, float]]] = deque(maxlen=RECENT_FRAMES)

    def add(self, ms: dict[str, float]) -> None:
        """Count a frame with its milliseconds of all ``CAMERA_STAGES``."""
        self.frames += 1
        for stage in CAMERA_STAGES:
            self._sums[stage] += ms[stage]
        now = time.monotonic()
        with self._lock:
            self._recent.append((now, ms))
            while len(self._recent) > 2 and now - self._recent[0][0] > RECENT_SECONDS:
                self._recent.popleft()

    def mean_ms(self) -> dict[str, float]:
        """Mean milliseconds by stage over all frames."""
        return {stage: total / max(1, self.frames) for stage, total in self._sums.items()}

    def recent_ms(self) -> dict[str, float]:
        """Mean milliseconds by stage over the last two seconds."""
        with self._lock:
            recent = list(self._recent)
        return {stage: sum(ms[stage] for _, ms in recent) / max(1, len(recent)) for stage in CAMERA_STAGES}

    def recent_fps(self) -> float:
        """Frames per second over the last two seconds; 0 until there are two frames."""
        seconds = self._recent[-1][0] - self._recent[0][0] if self._recent else 0.0
        return (len(self._recent) - 1) / seconds if seconds > 0 else 0.0


class RecentRate:
    """Frames per second over the last two seconds; one thread adds, others may look."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: deque[float] = deque(maxlen=RECENT_FRAMES)

    def add(self) -> None:
        """Count a frame, now."""
        with self._lock:
            self._times.append(time.monotonic())
            while len(self._times) > 2 and self._times[-1] - self._times[0] > RECENT_SECONDS:
                self._times.popleft()

    def fps(self) -> float:
        """0 until there are two frames, and when the next is late: by two seconds, or by longer intervals."""
        with self._lock:
            count = len(self._times)
            first, last = (self._times[0], self._times[-1]) if count > 1 else (0.0, 0.0)
        if last <= first:
            return 0.0
        interval = (last - first) / (count - 1)
        return 0.0 if time.monotonic() - last > max(RECENT_SECONDS, 2 * interval) else 1 / interval


class LatencyHistogram:
    """Counts times in buckets that are 5 % wide: percentiles are exact to 2.5 %, the largest is exact.

    Its memory is the same for any number of times.

    Attributes:
        count: times that were added.
        max_ms: the largest.
        sum_ms: of all.
    """

    def __init__(self) -> None:
        self.count, self.max_ms, self.sum_ms = 0, 0.0, 0.0
        self._counts = [0] * BUCKETS

    def add(self, ms: float) -> None:
        """Count a time in milliseconds, 0 or more."""
        self.count += 1
        self.max_ms, self.sum_ms = max(self.max_ms, ms), self.sum_ms + ms
        self._counts[self._bucket(ms)] += 1

    def percentile_ms(self, percent: float) -> float:
        """The time that ``percent`` of all do not exceed (nearest rank); 0 without any."""
        rank = math.ceil(percent / 100 * self.count)
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if count and seen >= rank:
                return min(self.max_ms, MIN_MS * math.pow(BUCKET_RATIO, bucket - 0.5))
        return 0.0

    def counts_up_to(self, ends_ms: Sequence[float]) -> tuple[int, ...]:
        """How many times were at most each of these milliseconds."""
        counts = list(self._counts)
        return tuple(sum(counts[: self._bucket(end) + 1]) for end in ends_ms)

    @staticmethod
    def _bucket(ms: float) -> int:
        return min(math.ceil(math.log(ms / MIN_MS, BUCKET_RATIO)) if ms > MIN_MS else 0, BUCKETS - 1)

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

"""Percentiles of any number of times, in memory of fixed size."""

from __future__ import annotations

import math

LEAST_MS, STEP = 0.01, 1.05  # the first bucket's end, and the ratio of one bucket's end to the one before
BUCKETS = 400  # up to 47 minutes


class LatencyHistogram:
    """Counts times in buckets that are 5 % wide: percentiles are exact to 2.5 %, the largest is exact.

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
        bucket = math.ceil(math.log(ms / LEAST_MS, STEP)) if ms > LEAST_MS else 0
        self._counts[min(bucket, BUCKETS - 1)] += 1

    def percentile_ms(self, percent: float) -> float:
        """The time that ``percent`` of all do not exceed (nearest rank); 0 without any."""
        rank = math.ceil(percent / 100 * self.count)
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if count and seen >= rank:
                return min(self.max_ms, LEAST_MS * math.pow(STEP, bucket - 0.5))
        return 0.0

    def to_dict(self) -> dict[str, float]:
        """Milliseconds: ``p50``, ``p99``, ``max``."""
        return {"p50": self.percentile_ms(50), "p99": self.percentile_ms(99), "max": self.max_ms}

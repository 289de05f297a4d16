"""Statistics of times, and when a machine is warm enough to take them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gfl_edge.errors import InputError

WINDOW_RUNS = 5  # whose median is compared with those of the windows before
WINDOWS = 3  # that have to agree
TOLERANCE = 0.05  # by how much their medians may differ, of the smallest
MOST_WARM_UP_SECONDS = 20.0
MOST_WARM_UP_RUNS = 500
PERCENTILES = (5, 25, 50, 75, 90, 95, 99)


@dataclass(frozen=True)
class Latency:
    """How long the runs of one case took.

    Attributes:
        samples: how many runs were timed.
        seconds: their sum.
        mean_ms: arithmetic mean.
        std_ms: standard deviation of the population.
        cv: std_ms / mean_ms.
        min_ms: shortest.
        max_ms: longest.
        p5_ms: percentiles, by linear interpolation between the samples, as :func:`numpy.percentile` has them.
        p25_ms: likewise.
        p50_ms: likewise.
        p75_ms: likewise.
        p90_ms: likewise.
        p95_ms: likewise.
        p99_ms: likewise.
        fps: images per second: all images by the sum of all times, not a mean of ratios.
    """

    samples: int
    seconds: float
    mean_ms: float
    std_ms: float
    cv: float
    min_ms: float
    max_ms: float
    p5_ms: float
    p25_ms: float
    p50_ms: float
    p75_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    fps: float


def summarize(times_ms: Sequence[float], batch: int = 1) -> Latency:
    """The statistics of ``times_ms``, milliseconds of runs of ``batch`` images each.

    Raises:
        InputError: there is no time, or one that is not positive.
    """
    values = np.asarray(times_ms, np.float64)
    if not len(values) or not np.all(values > 0):
        raise InputError(f"{len(values)} times, the least {values.min(initial=np.inf):g} ms: expected positive ones")
    mean_ms, std_ms = float(values.mean()), float(values.std())
    percentiles = np.percentile(values, PERCENTILES).tolist()
    return Latency(
        samples=len(values),
        seconds=float(values.sum()) / 1000,
        mean_ms=mean_ms,
        std_ms=std_ms,
        cv=std_ms / mean_ms,
        min_ms=float(values.min()),
        max_ms=float(values.max()),
        fps=1000 * batch / mean_ms,
        **{f"p{rank}_ms": value for rank, value in zip(PERCENTILES, percentiles, strict=True)},
    )


@dataclass(frozen=True)
class WarmUp:
    """What happened before the first run that counts.

    Attributes:
        runs: that were made.
        seconds: that they took.
        stable: whether the medians of the last windows agreed; False where the patience ended before.
        difference: of these medians, (largest - smallest) / smallest; None with too few windows.
        tolerance: what was asked for.
    """

    runs: int
    seconds: float
    stable: bool
    difference: float | None
    tolerance: float


def warm_up(
    run: Callable[[], float],
    *,
    tolerance: float = TOLERANCE,
    most_seconds: float = MOST_WARM_UP_SECONDS,
    most_runs: int = MOST_WARM_UP_RUNS,
) -> WarmUp:
    """Call ``run``, which returns its milliseconds, until it takes as long as it did before.

    Stable is when the medians of the last ``WINDOWS`` windows of ``WINDOW_RUNS`` runs differ by no more than
    ``tolerance``. After ``most_seconds`` or ``most_runs`` it ends all the same.
    """
    start = time.perf_counter()
    times_ms: list[float] = []
    difference: float | None = None
    while len(times_ms) < most_runs and time.perf_counter() - start < most_seconds:
        times_ms.append(run())
        difference = _difference(times_ms)
        if len(times_ms) % WINDOW_RUNS == 0 and difference is not None and difference <= tolerance:
            break
    seconds = time.perf_counter() - start
    return WarmUp(len(times_ms), seconds, difference is not None and difference <= tolerance, difference, tolerance)


def _difference(times_ms: Sequence[float]) -> float | None:
    """Of the medians of the last windows, relative to the smallest; None with fewer windows."""
    needed = WINDOWS * WINDOW_RUNS
    if len(times_ms) < needed:
        return None
    medians = np.median(np.reshape(times_ms[-needed:], (WINDOWS, WINDOW_RUNS)), axis=1)
    return float(np.ptp(medians) / medians.min())

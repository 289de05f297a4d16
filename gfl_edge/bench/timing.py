"""Statistics of times, and when a machine is warm enough to take them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from gfl_edge.errors import InputError
from gfl_edge.report.schema import OUTSIDE_STAGES, RUN_STAGES, Latency, StageName, StageRow, WarmUp

WINDOW_RUNS = 5  # whose median is compared with those of the windows before
WINDOWS = 3  # that have to agree
TOLERANCE = 0.05  # by how much their medians may differ, of the smallest
MAX_WARM_UP_SECONDS = 20.0
MAX_WARM_UP_RUNS = 500
MIN_GPU_SECONDS = 1.0  # of load, before which a GPU may not have raised its clocks
PERCENTILES = (5, 25, 50, 75, 90, 95, 99)


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


def summarize_stages(
    samples: Sequence[Mapping[StageName, float]], latencies_ms: Sequence[float], why: Mapping[StageName, str]
) -> tuple[StageRow, ...]:
    """A row for each of :data:`gfl_edge.report.schema.RUN_STAGES`, in order.

    Args:
        samples: milliseconds by stage of every run; all have the same stages.
        latencies_ms: of the same runs.
        why: see :meth:`gfl_edge.bench.protocols.StageReader.notes`.
    """
    columns = {stage: np.array([sample[stage] for sample in samples]) for stage in samples[0]}
    inside = [values for stage, values in columns.items() if stage not in OUTSIDE_STAGES]
    columns["other"] = np.maximum(0.0, np.asarray(latencies_ms) - np.sum(inside, axis=0))
    rows = []
    for stage in RUN_STAGES:
        if stage in columns:
            p50_ms, p95_ms = np.percentile(columns[stage], (50, 95)).tolist()
            rows.append(StageRow(stage, float(columns[stage].mean()), p50_ms, p95_ms, why.get(stage, "")))
        else:
            rows.append(StageRow(stage, None, None, None, why.get(stage, "")))
    return tuple(rows)


def warm_up(
    run: Callable[[], float],
    *,
    tolerance: float = TOLERANCE,
    max_seconds: float = MAX_WARM_UP_SECONDS,
    max_runs: int = MAX_WARM_UP_RUNS,
    min_seconds: float = 0.0,
) -> WarmUp:
    """Call ``run``, which returns its milliseconds, until it takes as long as it did before.

    Stable is when the medians of the last ``WINDOWS`` windows of ``WINDOW_RUNS`` runs differ by no more than
    ``tolerance``. After ``max_seconds`` or ``max_runs`` it ends all the same, but not before ``min_seconds``.
    """
    needed = WINDOWS * WINDOW_RUNS
    start = time.perf_counter()
    times_ms: list[float] = []
    difference: float | None = None
    seconds = 0.0
    while seconds < min_seconds or (len(times_ms) < max_runs and seconds < max_seconds):
        times_ms.append(run())
        if len(times_ms) >= needed:
            medians = np.median(np.reshape(times_ms[-needed:], (WINDOWS, WINDOW_RUNS)), axis=1)
            difference = float(np.ptp(medians) / medians.min())
        seconds = time.perf_counter() - start
        settled = difference is not None and difference <= tolerance
        if settled and seconds >= min_seconds and len(times_ms) % WINDOW_RUNS == 0:
            break
    return WarmUp(len(times_ms), seconds, difference is not None and difference <= tolerance, difference, tolerance)

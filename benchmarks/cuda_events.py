"""Times of work on a GPU by CUDA's events, for which gfl_edge.cuda has no use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gfl_edge.cuda.cuda_python import load_driver


def call(function: str, *arguments: Any) -> Any:
    """Call a driver function, whose answers are tuples (status, value), and return the value."""
    driver = load_driver()
    status, *values = getattr(driver, function)(*arguments)
    if status != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"{function} failed: {status}")
    return values[0] if values else None


def microseconds(stream: int, queue: Callable[[], None], runs: int, warm_ups: int = 20) -> list[float]:
    """Times on the GPU of ``runs`` calls of ``queue``, which puts work on ``stream``, by events before and after each.

    The CUDA context must be current on this thread.
    """
    events = [call("cuEventCreate", 0) for _ in range(2)]
    times = []
    for i in range(warm_ups + runs):
        call("cuEventRecord", events[0], stream)
        queue()
        call("cuEventRecord", events[1], stream)
        call("cuEventSynchronize", events[1])
        if i >= warm_ups:
            times.append(1e3 * float(call("cuEventElapsedTime", *events)))
    for event in events:
        call("cuEventDestroy", event)
    return times

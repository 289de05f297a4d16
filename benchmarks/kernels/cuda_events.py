"""Times of work on a GPU by CUDA's events, and the driver calls for which gfl_edge.cuda has no use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gfl_edge.cuda.cuda_python import load_driver
from gfl_edge.cuda.interface import CudaDevice


def call(function: str, *arguments: Any) -> Any:
    """Call a driver function, whose answers are tuples (status, value), and return the value."""
    driver = load_driver()
    status, *values = getattr(driver, function)(*arguments)
    if status != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"{function} failed: {status}")
    return values[0] if values else None


def microseconds(
    device: CudaDevice, stream: int, queue: Callable[[], None], runs: int, warm_ups: int = 20
) -> list[float]:
    """Times on the GPU of ``runs`` calls of ``queue``, which puts work on ``stream``, by events before and after each.

    Use it inside ``with device.active()``.
    """
    events = device.create_event(), device.create_event()
    times = []
    for i in range(warm_ups + runs):
        device.record_event(events[0], stream)
        queue()
        device.record_event(events[1], stream)
        device.synchronize(stream)
        if i >= warm_ups:
            times.append(1e3 * device.elapsed_ms(*events))
    for event in events:
        device.destroy_event(event)
    return times

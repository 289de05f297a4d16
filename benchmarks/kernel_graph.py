"""A CUDA graph of calls that queue work on a stream, for tests and times of the kernels."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def driver() -> Any:
    """cuda-python's bindings of the driver."""
    return importlib.import_module("cuda.bindings.driver")


def call(function: str, *arguments: Any) -> Any:
    """Call a driver function, whose answers are tuples (status, value), and return the value."""
    status, *values = getattr(driver(), function)(*arguments)
    if status != driver().CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"{function} failed: {status}")
    return values[0] if values else None


class Graph:
    """What ``queue`` puts on ``stream``, captured; the CUDA context must be current on this thread."""

    def __init__(self, stream: int, queue: Callable[[], None]) -> None:
        self._stream = driver().CUstream(stream)
        call("cuStreamBeginCapture", self._stream, driver().CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        try:
            queue()
        finally:
            graph = call("cuStreamEndCapture", self._stream)
        self._executable = call("cuGraphInstantiate", graph, 0)
        call("cuGraphDestroy", graph)

    def launch(self) -> None:
        """Queue the graph on its stream."""
        call("cuGraphLaunch", self._executable, self._stream)

    def microseconds(self, runs: int, warm_ups: int = 20) -> list[float]:
        """Times of ``runs`` launches on the GPU, by events before and after each."""
        events = [call("cuEventCreate", 0) for _ in range(2)]
        times = []
        for i in range(warm_ups + runs):
            call("cuEventRecord", events[0], self._stream)
            self.launch()
            call("cuEventRecord", events[1], self._stream)
            call("cuEventSynchronize", events[1])
            if i >= warm_ups:
                times.append(1e3 * float(call("cuEventElapsedTime", *events)))
        for event in events:
            call("cuEventDestroy", event)
        return times

    def close(self) -> None:
        """Give the graph back."""
        call("cuGraphExecDestroy", self._executable)

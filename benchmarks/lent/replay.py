"""Whether a captured call gives the same ten thousand times, and takes no memory by it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kernels.cuda_events import call
from benchmarks.kernels.inputs import made
from benchmarks.kernels.library import NmsCall
from benchmarks.kernels.production import ProductionLibrary
from gfl_edge.cuda import open_device

RUNS = 10_000


def measure(folder: Path, small: bool) -> dict[str, Any]:
    """Runs, how many differed from the first, and bytes of the GPU that are missing afterwards."""
    device, runs = open_device("cuda-python"), 3 if small else RUNS
    one = made(200 if small else 22400, 4 if small else 80, 1, np.float16)
    with closing(ProductionLibrary(device)) as library, library.memory() as memory:
        nms = NmsCall(library, memory, one.params, **one.arrays)
        nms.queue()
        first = nms.results()
        graph = device.capture(memory.stream, lambda: library.queue_nms(nms, memory.stream))
        free_before, different = call("cuMemGetInfo"), 0
        for run in range(runs):
            device.launch_graph(graph, memory.stream)
            if run % 100 == 99 or run == runs - 1:
                found = nms.results()
                different += any(not np.array_equal(found[name], first[name]) for name in first)
        missing = free_before - call("cuMemGetInfo")
        device.destroy_graph(graph)
    return {"runs": runs, "compared_runs_that_differ": different, "bytes_missing": int(missing)}

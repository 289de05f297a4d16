"""Times of the kernels with other numbers in ``gfl_common.cuh``, side by side."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.kernels.inputs import made, real
from benchmarks.kernels.library import NmsCall
from benchmarks.kernels.production import ProductionLibrary
from benchmarks.kernels.times import KernelTimer
from gfl_edge.cuda import kernels
from gfl_edge.cuda.interface import CudaDevice
from gfl_edge.cuda.source import CudaSource

VARIANTS: tuple[dict[str, int], ...] = (
    {},
    {"SUPPRESS_THREADS": 512},
    {"SEGMENTS": 400},
    {"FILTER_THREADS": 256},
)


@contextmanager
def constants(changes: dict[str, int]) -> Iterator[None]:
    """In the block, kernels are compiled and launched with other values of ``GFL_`` and the names in ``changes``."""
    source = kernels.kernel_source()
    common = source.headers["gfl_common.cuh"]
    for name, value in changes.items():
        common, found = re.subn(rf"^(#define GFL_{name}) \d+", rf"\g<1> {value}", common, flags=re.MULTILINE)
        if found != 1:
            raise ValueError(f"gfl_common.cuh has no GFL_{name}")
    changed = CudaSource(source.name, source.text, {**source.headers, "gfl_common.cuh": common})
    with patch.object(kernels, "kernel_source", lambda: changed):
        kernels._constants.cache_clear()
        yield
    kernels._constants.cache_clear()


def measure(device: CudaDevice) -> list[dict[str, Any]]:
    """Microseconds of each kernel, by variant and input. Use it inside ``with device.active()``."""
    inputs = [made(22400, 80, 1, np.float16), made(22400, 80, 8, np.float16), list(real())[-1]]
    rows = []
    for changes in VARIANTS:
        with constants(changes), closing(ProductionLibrary(device)) as library, closing(KernelTimer(device)) as timer:
            for one in inputs:
                with library.memory() as memory:
                    nms = NmsCall(library, memory, one.params, **one.arrays)
                    whole, kernels_us = timer.whole_us(nms, memory.stream), timer.times_us(nms, memory.stream)
                rounded = {name: round(value, 2) for name, value in kernels_us.items()}
                rows.append({"constants": changes, **one.named, "in_order_us": round(whole, 2), "kernels_us": rounded})
    return rows

"""Kernels that write beyond their memory and race: what a tool that finds nothing elsewhere has to find here."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from gfl_edge.cuda import open_device
from gfl_edge.cuda.compiler import open_compiler
from gfl_edge.cuda.interface import Launch
from gfl_edge.cuda.source import CudaSource

THREADS = 64
SOURCE = CudaSource(
    "planted.cu",
    """
extern "C" __global__ void planted_kernel(int *out) {
    __shared__ volatile int last;  // read back from memory, not from the register that it was written from
    last = threadIdx.x;            // a race
    out[threadIdx.x + last] = 1;   // beyond the end of what was allocated for one number a thread
}
""",
)


class Parameters(ctypes.Structure):
    """What the kernel is called with."""

    _fields_ = (("out", ctypes.c_void_p),)


def measure(folder: Path, small: bool) -> dict[str, Any]:
    """Run it; a dry run has no GPU that could."""
    if small:
        return {}
    device = open_device("cuda-python")
    with device.active():
        image = open_compiler(device.driver_version).compile(SOURCE, device.compute_capability)
        module, stream = device.load_module(image), device.create_stream()
        out = device.malloc(4 * THREADS)
        launch = Launch((1, 1, 1), (THREADS, 1, 1))
        device.launch(device.get_function(module, "planted_kernel"), launch, Parameters(out), stream)
        device.synchronize(stream)
    return {}

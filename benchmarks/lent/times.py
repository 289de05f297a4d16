"""Times of the kernels, alone and together, and of resizing; beside PyTorch and torchvision where they are."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from benchmarks.kernels import times as kernel_times
from benchmarks.kernels import variants
from benchmarks.kernels.cuda_events import microseconds
from benchmarks.kernels.inputs import made, real
from benchmarks.kernels.library import NmsCall
from benchmarks.kernels.production import ProductionLibrary
from gfl_edge.cuda import open_device
from gfl_edge.cuda.interface import CudaDevice
from gfl_edge.cuda.kernels import resize_params
from gfl_edge.ops.preprocess import place_frame
from gfl_edge.spec import ModelSpec

FRAMES = ((1080, 1920), (480, 640))
INPUT_HW = (416, 416)


def measure(folder: Path, small: bool) -> dict[str, Any]:
    """Microseconds."""
    device = open_device("cuda-python")
    found: dict[str, Any] = {"resize_us": _resize(device, small)}
    if small or shutil.which("nvcc") is None:
        return {**found, "nms_us": _nms(device, small)}
    found |= kernel_times.measure(folder, device)
    try:
        with device.active():
            return {**found, "variants": variants.measure(device)}
    except Exception as error:  # what was measured until then is worth more
        return {**found, "variants": {"failed": repr(error)}}


def _nms(device: CudaDevice, small: bool) -> list[dict[str, Any]]:
    """Without nvcc: of the road that gfl_edge itself takes."""
    inputs = [made(200, 4, 1, np.float16)] if small else [made(22400, 80, 1, np.float16), *real()]
    rows = []
    for one in inputs:
        with closing(ProductionLibrary(device)) as library, library.memory() as memory:
            nms = NmsCall(library, memory, one.params, **one.arrays)
            queue = partial(library.queue_nms, nms, memory.stream)
            rows.append({**one.named, "microseconds": _median_us(device, memory.stream, queue, small)})
    return rows


def _median_us(device: CudaDevice, stream: int, queue: Callable[[], None], small: bool) -> float:
    if small:  # a graph is all the same to a dry run
        return statistics.median(microseconds(device, stream, queue, runs=2, warm_ups=1))
    return round(kernel_times.median_us(device, stream, queue), 2)


def _resize(device: CudaDevice, small: bool) -> dict[str, float]:
    spec = cast(ModelSpec, SimpleNamespace(resize="stretch"))  # of a whole one, onnx would have to be here
    found = {}
    with closing(ProductionLibrary(device)) as library, library.memory() as memory:
        for hw in ((24, 32),) if small else FRAMES:
            input_hw = (16, 16) if small else INPUT_HW
            params = resize_params(spec, place_frame(hw, input_hw, "stretch"), input_hw)
            frame, out = memory.empty(3 * hw[0] * hw[1]), memory.empty(3 * input_hw[0] * input_hw[1])
            queue = partial(library.queue_resize, params, frame, 0, out, memory.stream)
            found["x".join(map(str, hw))] = _median_us(device, memory.stream, queue, small)
    return found

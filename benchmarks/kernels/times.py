"""Times of the CUDA kernels on a GPU, beside PyTorch, torchvision and NumPy; see benchmarks/kernels/kernels.py."""

from __future__ import annotations

import ctypes
import importlib
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.kernels.cuda_events import call, microseconds
from benchmarks.kernels.inputs import KernelInput, made, real
from benchmarks.kernels.library import DeviceLibrary, NmsCall, build_for_gpu
from benchmarks.kernels.memory import Array
from gfl_edge.cuda.compiler import compiled, open_compiler
from gfl_edge.cuda.cuda_python import load_driver
from gfl_edge.cuda.interface import CudaDevice, Launch
from gfl_edge.cuda.kernels import Kernels
from gfl_edge.cuda.source import CudaSource
from gfl_edge.ops.boxes import multiclass_nms
from gfl_edge.ops.decode import decode

RUNS = 200
REPEATS = 20  # of a kernel inside of one graph, as events are coarse
ANCHORS, BATCHES = (3598, 8400, 22400), (1, 8)
CLASSES = (1, 20, 365)  # beside 80
GOAL = {"anchors": 22400, "classes": 80, "batch": 1, "microseconds": {"H100": 20, "RTX 2080 Ti": 35}}
STEPS = ("filter", "rank", "suppress")


def measure(folder: Path, device: CudaDevice) -> dict[str, Any]:
    """Microseconds of decode and NMS by input; ``folder`` takes the library, ``device`` is cuda-python's."""
    library = DeviceLibrary(build_for_gpu(folder), device)
    sizes = [(anchors, 80, batch) for anchors in ANCHORS for batch in BATCHES]
    sizes[:0] = [(8400, classes, 1) for classes in CLASSES]
    with device.active(), closing(KernelTimer(device)) as timer:
        inputs = [made(*size, np.float16) for size in sizes]
        rows = [_row(library, timer, one) for one in (*inputs, made(22400, 80, 1, np.float32), *real())]
        bandwidth, floors = _bandwidth(), launch_floors_us(device)
    return {
        "gpu": device.name,
        "goal": GOAL,
        "kernels_that_do_nothing_us": floors,
        "memory_bytes_per_second": bandwidth,
        "how": f"medians of {RUNS} CUDA graphs by events, caches warm; a kernel alone, and all in order, begin when "
        f"those before them have ended; a kernel alone: {REPEATS} times in a graph",
        "rows": rows,
    }


def _row(library: DeviceLibrary, timer: KernelTimer, one: KernelInput) -> dict[str, Any]:
    with library.memory() as memory:
        nms = NmsCall(library, memory, one.params, **one.arrays)
        whole = median_us(library.device, memory.stream, nms.queue)
        in_order = timer.whole_us(nms, memory.stream)
        kernels = timer.times_us(nms, memory.stream)
    moved = one.arrays["scores"].nbytes
    # The filter is what reads all of the input; the rest depends only on the candidates
    fraction = moved / (kernels["filter"] * 1e-6) / _bandwidth()
    return {
        **one.named,
        "microseconds": round(whole, 2),
        "microseconds_in_order": round(in_order, 2),
        "kernels_us": {name: round(value, 2) for name, value in kernels.items()},
        "score_bytes": moved,
        "fraction_of_memory_bandwidth_in_filter": round(fraction, 3),
        "others_us": _others(one.params, one.arrays) if one.params.num_classes in (1, 80) else {},
    }


class SomeKernels:
    """A CudaDevice that leaves out all launches but those of some kernels.

    Args:
        device: does the rest.

    Attributes:
        wanted: names of the kernels.
    """

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._names: dict[int, str] = {}
        self.wanted: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def get_function(self, module: int, name: str) -> int:
        """See CudaDevice."""
        function = self._device.get_function(module, name)
        self._names[function] = name
        return function

    def launch(self, function: int, launch: Launch, parameters: ctypes.Structure, stream: int) -> None:
        """See CudaDevice."""
        if self._names[function] in self.wanted:
            self._device.launch(function, launch, parameters, stream)


class KernelTimer:
    """Times of kernels that begin when those before them have ended, compiled and launched as after an engine.

    Use it inside ``with device.active()``.
    """

    def __init__(self, device: CudaDevice) -> None:
        self._device, self._some_kernels = device, SomeKernels(device)
        self._kernels = Kernels(cast(CudaDevice, self._some_kernels), overlapping=False)

    def times_us(self, nms: NmsCall, stream: int) -> dict[str, float]:
        """Microseconds of each step of a call, which must have run as a whole: each finds what those before it left."""
        return {step: self._time_us((step,), nms, stream) for step in STEPS}

    def whole_us(self, nms: NmsCall, stream: int) -> float:
        """Microseconds of a call."""
        return self._time_us(STEPS, nms, stream, 1)

    def _time_us(self, steps: tuple[str, ...], nms: NmsCall, stream: int, repeats: int = REPEATS) -> float:
        self._some_kernels.wanted = {f"gfl_{step}_kernel" for step in steps}

        def queue() -> None:
            for _ in range(repeats):
                self._kernels.nms(nms.params, *nms.addresses(), nms.workspace, stream)

        return median_us(self._device, stream, queue) / repeats

    def close(self) -> None:
        """Unload the kernels."""
        self._kernels.close()


def launch_floors_us(device: CudaDevice) -> dict[str, float]:
    """Microseconds of graphs of one, four and REPEATS kernels that do nothing: below them no kernel can get."""
    source = CudaSource("nothing.cu", 'extern "C" __global__ void nothing(int) {}\n', {})
    image = compiled(source, device.compute_capability, open_compiler(device.driver_version))
    module, stream = device.load_module(image), device.create_stream()
    function, parameters = device.get_function(module, "nothing"), _Nothing()

    def queue(launches: int) -> None:
        for _ in range(launches):
            device.launch(function, Launch((1, 1, 1), (32, 1, 1)), parameters, stream)

    found = {str(number): median_us(device, stream, partial(queue, number)) for number in (1, len(STEPS), REPEATS)}
    device.destroy_stream(stream)
    device.unload_module(module)
    return {number: round(value, 2) for number, value in found.items()}


class _Nothing(ctypes.Structure):
    _fields_ = (("number", ctypes.c_int32),)


def median_us(device: CudaDevice, stream: int, queue: Callable[[], None]) -> float:
    """Microseconds of what ``queue`` puts on ``stream``, as a CUDA graph."""
    graph = device.capture(stream, queue)
    try:
        return statistics.median(microseconds(device, stream, lambda: device.launch_graph(graph, stream), RUNS))
    finally:
        device.destroy_graph(graph)


def _bandwidth() -> float:
    """Bytes per second that the memory can move at most: two transfers per clock."""
    attribute = load_driver().CUdevice_attribute
    device = call("cuCtxGetDevice")
    clock = call("cuDeviceGetAttribute", attribute.CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, device)
    bits = call("cuDeviceGetAttribute", attribute.CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH, device)
    return float(2 * 1e3 * clock * bits / 8)


def _others(params: Any, arrays: dict[str, Array]) -> dict[str, float]:
    """The same work by PyTorch and by NumPy; torchvision's NMS where it is installed."""
    found = {"numpy on the host": _numpy_us(params, arrays)}
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return found
    if torch.cuda.is_available():
        found |= _torch_us(torch, params, arrays)
    return found


def _numpy_us(params: Any, arrays: dict[str, Array]) -> float:
    logits, reg = (arrays[name].astype(np.float32) for name in ("scores", "reg_logits"))
    rule = {
        name: getattr(params, name) for name in ("score_threshold", "iou_threshold", "max_candidates", "max_detections")
    }
    size = (params.input_height, params.input_width)
    start = time.perf_counter()
    for image in range(params.batch):
        boxes = decode(reg[image], size, tuple(params.strides[: params.num_levels]), params.point_offset)
        multiclass_nms(boxes, 1 / (1 + np.exp(-logits[image])), **rule)
    return round(1e6 * (time.perf_counter() - start), 1)


def _torch_us(torch: Any, params: Any, arrays: dict[str, Array]) -> dict[str, float]:
    """Top-k and softmax of the survivors, then torchvision's batched NMS, image by image and without a graph."""
    logits, reg = (torch.from_numpy(arrays[name]).cuda() for name in ("scores", "reg_logits"))
    bins = torch.arange(params.reg_max + 1, device="cuda", dtype=torch.float32)

    def candidates() -> list[Any]:
        scores, pairs = logits.flatten(1).float().sigmoid().topk(params.max_candidates)
        anchors = pairs // params.num_classes
        rows = torch.gather(reg, 1, anchors[..., None].expand(-1, -1, reg.shape[2])).float()
        distances = (rows.unflatten(2, (4, -1)).softmax(-1) * bins).sum(-1)
        centers = torch.stack((anchors % 64, anchors // 64), dim=-1).float()
        boxes = torch.cat((centers - distances[..., :2], centers + distances[..., 2:]), dim=-1)
        return [boxes, scores, pairs % params.num_classes]

    found = {"torch: top-k and softmax": _torch_median(torch, candidates)}
    try:
        batched_nms = importlib.import_module("torchvision.ops").batched_nms
    except (ImportError, RuntimeError):
        return found
    boxes, scores, classes = candidates()

    def suppress() -> None:
        for image in range(params.batch):
            batched_nms(boxes[image], scores[image], classes[image], params.iou_threshold)

    return {**found, "torchvision: batched_nms of the candidates": _torch_median(torch, suppress)}


def _torch_median(torch: Any, work: Callable[[], Any]) -> float:
    times = []
    for i in range(120):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        if i >= 20:
            times.append(1e6 * (time.perf_counter() - start))
    return round(statistics.median(times), 1)

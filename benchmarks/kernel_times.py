"""Times of the CUDA kernels on a GPU, beside PyTorch, torchvision and NumPy; see benchmarks/kernels.py."""

from __future__ import annotations

import ctypes
import importlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kernel_graph import Graph, call, driver
from benchmarks.kernel_library import PLUGINS, Array, DeviceLibrary, NmsCall, build_for_gpu
from gfl_edge.boxes import multiclass_nms
from gfl_edge.cuda.interface import CudaDevice
from gfl_edge.decode import decode
from gfl_edge.errors import GflEdgeError

MakeInput = Callable[[int, int, int, type], tuple[Any, dict[str, Array]]]

RUNS = 200
REPEATS = 20  # of a kernel inside of one graph, as events are coarse
ANCHORS, BATCHES, DTYPES = (3598, 8400, 22400), (1, 8), (np.float32, np.float16)
CLASSES = (1, 20, 365)  # beside 80
GOAL = {"anchors": 22400, "classes": 80, "batch": 1, "microseconds": 60}  # on Hopper
# As in the launch plan in gfl_kernels.cuh
THREADS = {"filter": 256, "select": 1024, "nms": 512}
TILE, SORT_SMALLEST = 4096, 2048


def measure(folder: Path, device: CudaDevice, make_input: MakeInput) -> dict[str, Any]:
    """Microseconds of decode and NMS by size; ``folder`` takes the library."""
    library = DeviceLibrary(build_for_gpu(folder), device)
    sizes = [(anchors, 80, batch) for anchors in ANCHORS for batch in BATCHES]
    sizes += [(8400, classes, 1) for classes in CLASSES]
    with device.active():
        module = call("cuModuleLoadData", _compile(device))
        rows = [_row(library, module, make_input, size, dtype) for size in sizes for dtype in DTYPES]
    return {
        "gpu": device.name,
        "goal": GOAL,
        "memory_bytes_per_second": _bandwidth(),
        "how": f"medians of {RUNS} CUDA graphs by events, caches warm; a kernel alone: {REPEATS} times in a graph",
        "rows": rows,
    }


def _row(
    library: DeviceLibrary, module: Any, make_input: MakeInput, size: tuple[int, int, int], dtype: type
) -> dict[str, Any]:
    anchors, classes, batch = size
    params, arrays = make_input(anchors, classes, batch, dtype)
    with library.memory() as memory:
        nms = NmsCall(library, memory, params, **arrays)
        whole = _median(memory.stream, nms.queue)
        kernels = _kernel_times(module, nms, memory.stream)
    moved = arrays["scores"].nbytes
    # The filter is what reads all of the input; the rest depends on the candidates alone
    fraction = moved / (kernels["memset and filter"] * 1e-6) / _bandwidth()
    return {
        "anchors": anchors,
        "classes": classes,
        "batch": batch,
        "dtype": np.dtype(dtype).name,
        "microseconds": round(whole, 2),
        "kernels_us": {name: round(value, 2) for name, value in kernels.items()},
        "score_bytes": moved,
        "fraction_of_memory_bandwidth_in_filter": round(fraction, 3),
        "others_us": _others(params, arrays) if classes == 80 else {},
    }


def _median(stream: int, queue: Callable[[], None]) -> float:
    graph = Graph(stream, queue)
    try:
        return statistics.median(graph.microseconds(RUNS))
    finally:
        graph.close()


def _compile(device: CudaDevice) -> bytes:
    """The kernels by NVRTC, which is how a device without nvcc gets them."""
    nvrtc = importlib.import_module("cuda.bindings.nvrtc")
    source, header = (
        (PLUGINS / "src" / "gfl_kernels.cuh").read_bytes(),
        (PLUGINS / "include" / "gfl_kernels.h").read_bytes(),
    )
    _, program = nvrtc.nvrtcCreateProgram(source, b"gfl_kernels.cu", 1, [header], [b"gfl_kernels.h"])
    architecture = device.compute_capability.replace("sm", "sm_")
    (status,) = nvrtc.nvrtcCompileProgram(program, 1, [f"--gpu-architecture={architecture}".encode()])
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise GflEdgeError(f"NVRTC could not compile the kernels for {architecture}: {status}")
    _, size = nvrtc.nvrtcGetCUBINSize(program)
    cubin = b" " * (size + 1)
    nvrtc.nvrtcGetCUBIN(program, cubin)
    return cubin


def _kernel_times(module: Any, nms: NmsCall, stream: int) -> dict[str, float]:
    """Each step of the launch plan in gfl_kernels.cuh alone, one list per image."""
    params, given, out = nms.params, nms.inputs, nms.outputs
    batch, most = params.batch, params.max_candidates
    pad = 256
    top = nms.workspace + -(-4 * batch // pad) * pad
    keys = top + -(-8 * batch * most // pad) * pad
    counts = nms.workspace
    capacity = max(SORT_SMALLEST, 1 << (most - 1).bit_length())
    blocks = -(-params.num_anchors * params.num_classes // TILE) + 1
    outputs = (out.num_dets, out.det_boxes, out.det_scores, out.det_classes)

    def launch(name: str, grid: tuple[int, int], shared: int, *addresses: int | None) -> None:
        function = call("cuModuleGetFunction", module, f"gfl_{name}_kernel".encode())
        values = [params, *(ctypes.c_void_p(address) for address in addresses)]
        pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(value) for value in values])
        threads = THREADS[name]
        call("cuLaunchKernel", function, *grid, 1, threads, 1, 1, shared, stream, ctypes.addressof(pointers), 0)

    def filter_pairs() -> None:
        call("cuMemsetD8Async", counts, 0, 4 * batch, driver().CUstream(stream))
        launch("filter", (blocks, batch), 0, given.scores, given.quality, counts, keys)

    def select() -> None:
        launch("select", (1, batch), 8 * capacity, counts, keys, top)

    def suppress() -> None:
        launch("nms", (batch, 1), 0, counts, top, given.reg_logits, given.boxes, *outputs)

    def repeated(queue: Callable[[], None]) -> Callable[[], None]:
        def queue_all() -> None:
            for _ in range(REPEATS):
                queue()

        return queue_all

    steps = {"memset and filter": filter_pairs, "select": select, "nms": suppress}
    return {name: _median(stream, repeated(queue)) / REPEATS for name, queue in steps.items()}


def _bandwidth() -> float:
    """Bytes per second that the memory can move at most: two transfers per clock."""
    attribute = driver().CUdevice_attribute
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
        centres = torch.stack((anchors % 64, anchors // 64), dim=-1).float()
        boxes = torch.cat((centres - distances[..., :2], centres + distances[..., 2:]), dim=-1)
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

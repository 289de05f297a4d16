"""A TensorRT for the fake GPU, of both flavors: its engines are JSON, and its networks cheap functions of the input."""

from __future__ import annotations

import enum
import json
import weakref
from collections import Counter
from math import prod
from types import ModuleType
from typing import Any

import numpy as np

from gfl_edge.spec import INPUT_NAME, ModelSpec
from tests.support.fake_gpu import FakeGpu

NUMPY_OF = {"UINT8": np.uint8, "INT32": np.int32, "FLOAT": np.float32, "HALF": np.float16}


# What the fake network's numbers 0..255 are divided by, and then shifted by, to be like real outputs
RANGE_OF = {"scores": (256, 0), "cls_logits": (32, -7), "reg_logits": (64, 0)}


def fake_network(images: np.ndarray, outputs: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """What the fake engine computes: every output is another function of its own image, uint8 ``[N, H, W, 3]``.

    Args:
        images: the batch.
        outputs: item shape by output name.
    """
    found = {}
    for place, (name, shape) in enumerate(outputs.items()):
        scale, shift = RANGE_OF.get(name, (1, 0))
        flat = (images.reshape(len(images), -1).astype(np.float32) + place) / scale + shift
        found[name] = np.stack([np.resize(item, prod(shape)).reshape(shape) for item in flat])
    return found


def engine_file(spec: ModelSpec, max_batch: int, **changes: dict[str, Any] | None) -> bytes:
    """An engine that the fake TensorRT loads, as JSON.

    Args:
        spec: of the model that it claims to be.
        max_batch: of its profile.
        changes: by tensor name, what is different about it; None: it is not there.
    """
    sizes = (spec.size_range[0], spec.input_hw, spec.size_range[1])
    size = spec.input_hw if spec.short_long is None else (-1, -1)
    tensors: dict[str, dict[str, Any]] = {
        INPUT_NAME: {
            "mode": "INPUT",
            "dtype": "UINT8",
            "shape": [-1, *size, 3],
            "batches": [1, 1, max_batch],
            "sizes": sizes,
            "strides": spec.strides,
        }
    }
    most, anchors = spec.max_detections, "anchors" if spec.short_long else spec.num_anchors
    raw = "HALF" if spec.precision == "fp16" else "FLOAT"
    outputs = {
        "num_dets": ("INT32", [1]),
        "det_boxes": ("FLOAT", [most, 4]),
        "det_scores": ("FLOAT", [most]),
        "det_classes": ("INT32", [most]),
        "det_sigmas": ("FLOAT", [most, 4]),
        "boxes": ("FLOAT", [anchors, 4]),
        "sigmas": ("FLOAT", [anchors, 4]),
        "scores": ("FLOAT", [anchors, spec.num_classes]),
        "cls_logits": (raw, [anchors, spec.num_classes]),
        "reg_logits": (raw, [anchors, 4 * (spec.reg_max + 1)]),
    }
    for name in spec.output_names:
        dtype, shape = outputs[name]
        tensors[name] = {"mode": "OUTPUT", "dtype": dtype, "shape": [-1, *shape]}
    for name, change in changes.items():
        tensors[name] = {**tensors.get(name, {}), **(change or {})}
        if change is None:
            del tensors[name]
    return json.dumps(tensors).encode()


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    INT32 = 3
    UINT8 = 5


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class ILogger:
    class Severity(enum.Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4


class FakeEngine:
    """``ICudaEngine`` of full TensorRT 10.3."""

    def __init__(self, library: FakeTensorRT, logger: Any, tensors: dict[str, dict[str, Any]]) -> None:
        self.library, self.logger, self.tensors = library, logger, tensors
        self.num_io_tensors = len(tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode[self.tensors[name]["mode"]]

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[self.tensors[name]["dtype"]]

    def get_tensor_shape(self, name: str) -> list[int]:
        return self.tensors[name]["shape"]

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[list[int]]:
        assert (name, profile_index) == (INPUT_NAME, 0)
        tensor = self.tensors[name]
        fixed = [size for size in tensor["shape"][1:-1] if size != -1]
        sizes = [fixed or size for size in tensor["sizes"]]
        return [[batch, *size, tensor["shape"][-1]] for batch, size in zip(tensor["batches"], sizes, strict=True)]

    def create_execution_context(self) -> FakeContext | None:
        if self.library.refuses(self.logger, "context"):
            return None
        return FakeContext(self)


class CudaGraphStrategy(enum.Enum):
    DISABLED = 0
    WHOLE_GRAPH_CAPTURE = 1


class DynamicShapesKernelSpecializationStrategy(enum.Enum):
    LAZY = 0
    EAGER = 1
    NONE = 2


class FakeRtxConfig:
    """``IRuntimeConfig`` of TensorRT-RTX."""

    __slots__ = ("cache", "cuda_graph_strategy", "dynamic_shapes_kernel_specialization_strategy", "library")

    def __init__(self, library: FakeTensorRT) -> None:
        self.library = library
        self.cache: FakeRuntimeCache | None = None
        self.cuda_graph_strategy = CudaGraphStrategy.DISABLED
        self.dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY

    def create_runtime_cache(self) -> FakeRuntimeCache:
        return FakeRuntimeCache(self.library)

    def set_runtime_cache(self, cache: FakeRuntimeCache) -> bool:
        self.cache = cache
        return True


class FakeRuntimeCache:
    """``IRuntimeCache``: it holds a kernel for each shape."""

    def __init__(self, library: FakeTensorRT) -> None:
        self.library = library
        self.kernels: set[str] = set()

    def deserialize(self, blob: bytes) -> bool:
        assert self.library.gpu.depth, "it is compared with the context that is current"
        if not blob.startswith(b"cache:") or self.library.refuse == "cache":
            return False
        self.kernels.update(blob[6:].decode().split(";"))
        return True

    def serialize(self) -> bytes:
        return b"cache:" + ";".join(sorted(self.kernels)).encode()


class FakeRtxEngine(FakeEngine):
    """``ICudaEngine`` of TensorRT-RTX, which takes its run-time options in a config."""

    def create_runtime_config(self) -> FakeRtxConfig:
        return FakeRtxConfig(self.library)

    def create_execution_context(self, runtime_config: FakeRtxConfig) -> FakeContext | None:
        self.library.config = runtime_config
        if self.library.refuses(self.logger, "context"):
            return None
        return FakeRtxContext(self, weakref.ref(runtime_config.cache) if runtime_config.cache else None)


class FakeContext:
    """``IExecutionContext``: reads and writes the fake GPU's memory at the addresses it was given."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.library = engine.library
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = (-1, -1, -1, 3)  # of the input
        self.touched = 0  # how often a shape was set, which no graph of this context survives
        self.has_run = False  # at this shape, as it has to before it can be captured
        self.library.contexts.add(self)
        weakref.finalize(self, self._destroyed, self.library.gpu)

    @staticmethod
    def _destroyed(gpu: FakeGpu) -> None:
        assert gpu.capturing is None, "TensorRT frees memory, which voids what this thread captures"

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.library.calls["set_input_shape"] += 1
        assert name == INPUT_NAME
        least, _, most = self.engine.get_tensor_profile_shape(name, 0)
        if not all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True)):
            self.engine.logger.log(ILogger.Severity.ERROR, "Supplied shape does not satisfy the profile")
            return False
        self.shape = shape
        self.touched += 1
        self.has_run = False
        return True

    def get_tensor_shape(self, name: str) -> list[int]:
        if name == INPUT_NAME:
            return list(self.shape)
        _, height, width, _ = self.shape
        strides = self.engine.tensors[INPUT_NAME]["strides"]
        anchors = sum(-(-height // stride) * -(-width // stride) for stride in strides)
        known = {-1: self.shape[0], "anchors": anchors}
        return [known.get(size, size) for size in self.engine.tensors[name]["shape"]]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.library.calls["set_tensor_address"] += 1
        assert prod(self.get_tensor_shape(name)) * self._dtype(name).itemsize <= len(self.library.gpu.memory[memory])
        self.addresses[name] = memory
        return not self.library.refuses(self.engine.logger, "address")

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert self.addresses.keys() == self.engine.tensors.keys()
        if self.library.refuses(self.engine.logger, "execute"):
            return False
        gpu, touched = self.library.gpu, self.touched
        if gpu.capturing is not None and (not self.has_run or self.library.refuses(self.engine.logger, "capture")):
            return False
        self.has_run = True
        gpu.queue(stream_handle, lambda: self._compute(touched))
        return True

    def _compute(self, touched: int) -> None:
        gpu = self.library.gpu
        assert touched == self.touched, "the context was changed since this was queued"
        images = gpu.read(self.addresses[INPUT_NAME], tuple(self.get_tensor_shape(INPUT_NAME)), np.uint8)
        shapes = {name: tuple(self.get_tensor_shape(name)[1:]) for name in self.addresses if name != INPUT_NAME}
        for name, array in fake_network(images, shapes).items():
            gpu.write(self.addresses[name], array.astype(self._dtype(name)))

    def _dtype(self, name: str) -> np.dtype:
        return np.dtype(NUMPY_OF[self.engine.tensors[name]["dtype"]])


class FakeRtxContext(FakeContext):
    """``IExecutionContext`` of TensorRT-RTX, which compiles a kernel for each shape that is in no cache."""

    def __init__(self, engine: FakeEngine, cache: Any) -> None:
        super().__init__(engine)
        self.cache = cache

    def execute_async_v3(self, stream_handle: int) -> bool:
        if self.cache is not None:
            cache, kernel = self.cache(), str(self.shape)
            assert cache is not None, "the cache has to live as long as the context"
            self.library.compiled += kernel not in cache.kernels
            cache.kernels.add(kernel)
        return super().execute_async_v3(stream_handle)

    def is_stream_capturable(self, stream: int) -> bool:
        assert stream in self.library.gpu.streams
        assert -1 not in self.shape, "it depends on the shape"
        assert self.addresses.keys() == self.engine.tensors.keys()
        return self.library.refuse != "capturable"


class FakeTensorRT(ModuleType):
    """The module ``tensorrt`` or ``tensorrt_rtx``.

    Attributes:
        calls: how often some methods of contexts were called.
        contexts: execution contexts that are still alive.
        compiled: kernels that TensorRT-RTX had to compile at run time.
        refuse: "runtime", "context", "address", "execute", "capturable", "capture" or a reason of CUDA's: which step
            fails.
        config: run-time options of the last context that TensorRT-RTX made.
    """

    def __init__(self, gpu: FakeGpu, flavor: str, version: str) -> None:
        super().__init__({"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}[flavor])
        self.__file__ = "fake"
        self.__version__ = version
        self.gpu = gpu
        self.calls: Counter[str] = Counter()
        self.contexts: weakref.WeakSet[FakeContext] = weakref.WeakSet()
        self.refuse = ""
        self.compiled = 0
        self.logger: Any = None
        self.config = FakeRtxConfig(self)
        self.CudaGraphStrategy = CudaGraphStrategy
        self.DynamicShapesKernelSpecializationStrategy = DynamicShapesKernelSpecializationStrategy
        self.ILogger, self.DataType, self.TensorIOMode = ILogger, DataType, TensorIOMode
        self._engine = FakeRtxEngine if flavor == "rtx" else FakeEngine

    def refuses(self, logger: Any, step: str) -> bool:
        if self.refuse == step:
            logger.log(ILogger.Severity.ERROR, f"{step} failed for a good reason")
        return self.refuse == step

    def Runtime(self, logger: Any) -> FakeRuntime:  # noqa: N802 - TensorRT's name
        if self.refuse == "runtime":
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return FakeRuntime(self, logger)


class FakeRuntime:
    """``IRuntime``: chatty like the real one, and None for what it cannot read."""

    def __init__(self, library: FakeTensorRT, logger: Any) -> None:
        library.logger = library.logger or logger  # the first that it is given, for ever
        self.library, self.logger = library, library.logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> FakeEngine | None:
        self.logger.log(ILogger.Severity.INFO, f"Loaded engine size: {len(serialized_engine)} bytes")
        self.logger.log(ILogger.Severity.WARNING, "Using default stream may lead to performance issues")
        if self.library.refuses(self.logger, "CUDA driver version is insufficient for CUDA runtime version"):
            return None
        try:
            tensors = json.loads(serialized_engine)
        except ValueError:
            self.logger.log(ILogger.Severity.ERROR, "Serialization assertion magicTagRead == kMAGIC_TAG failed")
            return None
        return self.library._engine(self.library, self.logger, tensors)

"""Both CUDA libraries in host memory: what their documentation describes of them, and its errors."""

from __future__ import annotations

import ctypes
import enum
import struct
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


class CUresult(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_ILLEGAL_ADDRESS = 700


class Attribute(enum.IntEnum):
    CU_DEVICE_ATTRIBUTE_INTEGRATED = 18
    CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY = 19
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76


class FillParameters(ctypes.Structure):
    """Of ``fill(uint8_t value, void *address, int count)``: a kernel whose parameters need padding at two places."""

    _fields_ = (("value", ctypes.c_uint8), ("address", ctypes.c_uint64), ("count", ctypes.c_int32))


FILL_MODULE = b"\x7fELF of fill"


class HostMemory:
    """Memory that stands for both sides of the bus, by address."""

    def __init__(self) -> None:
        self.blocks: dict[int, Any] = {}

    def allocate(self, nbytes: int) -> int:
        block = ctypes.create_string_buffer(nbytes)
        self.blocks[ctypes.addressof(block)] = block
        return ctypes.addressof(block)


class FakeDriver:
    """``cuda.bindings.driver``: answers are tuples (status, value); the parameters are those of the real functions.

    Attributes:
        calls: names of the functions called, in order.
        fails: status that a function answers instead of success, by its name.
    """

    CUresult = CUresult
    CUdevice_attribute = Attribute
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1)
    CUstreamCaptureStatus = SimpleNamespace(CU_STREAM_CAPTURE_STATUS_ACTIVE=1)
    CUevent_flags = SimpleNamespace(CU_EVENT_DEFAULT=0)
    CUevent_record_flags = SimpleNamespace(CU_EVENT_RECORD_EXTERNAL=1)

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fails: dict[str, CUresult] = {}
        self.memory = HostMemory()
        self.contexts: list[str] = []
        self.captured: list[Callable[[], None]] | None = None  # while the stream is being captured
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.events: list[int] = []  # when they were reached, in calls

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if not name.startswith("cu") or name.startswith("cuGetError"):
            return found

        def recorded(*arguments: Any) -> Any:
            self.calls.append(name)
            if name in self.fails:
                return (self.fails[name], None)
            value = found(*arguments)
            return (CUresult.CUDA_SUCCESS,) if value is None else (CUresult.CUDA_SUCCESS, value)

        return recorded

    def cuInit(self, flags: int) -> None:  # noqa: N802
        assert flags == 0

    def cuDeviceGet(self, ordinal: int) -> str:  # noqa: N802
        return f"device {ordinal}"

    def cuDeviceGetName(self, length: int, dev: str) -> bytes:  # noqa: N802
        return b"Fake RTX 2080 Ti".ljust(length, b"\0")

    def cuDeviceGetPCIBusId(self, length: int, dev: str) -> bytes:  # noqa: N802
        return b"0000:0B:00.0".ljust(length, b"\0")

    def cuDeviceGetAttribute(self, attrib: Attribute, dev: str) -> int:  # noqa: N802
        return {18: 0, 19: 1, 75: 7, 76: 5}[attrib]

    def cuDriverGetVersion(self) -> int:  # noqa: N802
        return 12060

    def cuDevicePrimaryCtxRetain(self, dev: str) -> str:  # noqa: N802
        return f"primary context of {dev}"

    def cuCtxPushCurrent(self, ctx: str) -> None:  # noqa: N802
        self.contexts.append(ctx)

    def cuCtxPopCurrent(self) -> str:  # noqa: N802
        return self.contexts.pop()

    def cuMemAlloc(self, bytesize: int) -> int:  # noqa: N802
        return self.memory.allocate(bytesize)

    def cuMemFree(self, dptr: int) -> None:  # noqa: N802
        del self.memory.blocks[dptr]

    def cuMemAllocHost(self, bytesize: int) -> int:  # noqa: N802
        return self.memory.allocate(bytesize)

    def cuMemFreeHost(self, p: int) -> None:  # noqa: N802
        del self.memory.blocks[p]

    def cuStreamCreate(self, flags: int) -> int:  # noqa: N802
        return 0x57

    def cuStreamDestroy(self, stream: int) -> None:  # noqa: N802
        assert stream == 0x57

    def _queue(self, stream: int, work: Callable[[], Any]) -> None:
        assert stream == 0x57
        if self.captured is None:
            work()
        else:
            self.captured.append(work)

    def cuMemcpyHtoDAsync(self, dst: int, src: int, nbytes: int, stream: int) -> None:  # noqa: N802
        self._queue(stream, lambda: ctypes.memmove(dst, src, nbytes))

    def cuMemcpyDtoHAsync(self, dst: int, src: int, nbytes: int, stream: int) -> None:  # noqa: N802
        self._queue(stream, lambda: ctypes.memmove(dst, src, nbytes))

    def cuMemsetD8Async(self, dst: int, uc: int, n: int, stream: int) -> None:  # noqa: N802
        self._queue(stream, lambda: ctypes.memset(dst, uc, n))

    def cuModuleLoadData(self, image: bytes) -> int:  # noqa: N802
        assert image == FILL_MODULE + b"\0"
        return 0x30D

    def cuModuleUnload(self, hmod: int) -> None:  # noqa: N802
        assert hmod == 0x30D

    def cuModuleGetFunction(self, hmod: int, name: bytes) -> int:  # noqa: N802
        assert (hmod, name) == (0x30D, b"fill")
        return 0xF11

    def cuLaunchKernel(  # noqa: N802
        self,
        f: int,
        gx: int,
        gy: int,
        gz: int,
        bx: int,
        by: int,
        bz: int,
        shared: int,
        stream: int,
        params: int,
        x: int,
    ) -> None:
        assert (f, (gx, gy, gz), (bx, by, bz), shared) == (0xF11, (2, 1, 1), (3, 1, 1), 16)
        fields = (ctypes.c_void_p * 3).from_address(params)
        value, address, count = (
            kind.from_address(field or 0).value
            for kind, field in zip((ctypes.c_uint8, ctypes.c_uint64, ctypes.c_int32), fields, strict=True)
        )
        self._queue(stream, lambda: ctypes.memset(address, value, count))

    def cuStreamBeginCapture(self, stream: int, mode: int) -> None:  # noqa: N802
        assert (stream, mode, self.captured) == (0x57, 1, None)
        self.captured = []

    def cuStreamEndCapture(self, stream: int) -> int:  # noqa: N802
        assert stream == 0x57
        assert self.captured is not None
        self.graphs[0x68] = self.captured
        self.captured = None
        return 0x68

    def cuGraphInstantiate(self, graph: int, flags: int) -> int:  # noqa: N802
        assert flags == 0
        self.graphs[0x69] = self.graphs[graph]
        return 0x69

    def cuGraphDestroy(self, graph: int) -> None:  # noqa: N802
        del self.graphs[graph]

    def cuGraphExecDestroy(self, graph: int) -> None:  # noqa: N802
        del self.graphs[graph]

    def cuGraphLaunch(self, graph: int, stream: int) -> None:  # noqa: N802
        for work in self.graphs[graph]:
            self._queue(stream, work)

    def cuStreamIsCapturing(self, stream: int) -> int:  # noqa: N802
        return 0 if self.captured is None else 1

    def cuEventCreate(self, flags: int) -> int:  # noqa: N802
        assert flags == 0
        self.events.append(0)
        return len(self.events) - 1

    def cuEventRecord(self, event: int, stream: int) -> None:  # noqa: N802
        assert self.captured is None, "such an event has no time"
        self.events[event] = len(self.calls)

    def cuEventRecordWithFlags(self, event: int, stream: int, flags: int) -> None:  # noqa: N802
        assert flags == 1
        assert self.captured is not None, "CUDA_ERROR_INVALID_VALUE"
        self._queue(stream, lambda: self.events.__setitem__(event, len(self.calls)))

    def cuEventElapsedTime(self, start: int, end: int) -> float:  # noqa: N802
        return float(self.events[end] - self.events[start])

    def cuEventDestroy(self, event: int) -> None:  # noqa: N802
        assert self.events[event] is not None

    def cuStreamSynchronize(self, stream: int) -> None:  # noqa: N802
        assert stream == 0x57

    def cuGetErrorName(self, error: CUresult) -> tuple[CUresult, bytes]:  # noqa: N802
        return CUresult.CUDA_SUCCESS, error.name.encode()

    def cuGetErrorString(self, error: CUresult) -> tuple[CUresult, bytes]:  # noqa: N802
        return CUresult.CUDA_SUCCESS, error.name.partition("_")[2].replace("_", " ").lower().encode()


class FakePycuda(ModuleType):
    """``pycuda.driver``, of which only what its documentation describes (and ``Stream.handle``) is there."""

    class Error(Exception):
        pass

    class MemoryError(Error):
        pass

    class RuntimeError(Error):
        pass

    class LogicError(Error):
        pass

    def __init__(self) -> None:
        super().__init__("pycuda.driver")
        self.__file__ = "fake"
        self.calls: list[str] = []
        self.fails: dict[str, Exception] = {}
        self.memory = HostMemory()
        self.Device = lambda number: FakePycudaDevice(self, number)
        self.Context = SimpleNamespace(pop=lambda: self.record("pop"))
        self.Stream = lambda flags=0: FakePycudaStream(self, flags)
        self.Event = lambda: FakePycudaEvent(self)

    def record(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fails:
            raise self.fails[name]

    def init(self) -> None:
        self.record("init")

    def get_driver_version(self) -> int:
        return 12060

    def mem_alloc(self, nbytes: int) -> FakePycudaAllocation:
        self.record("mem_alloc")
        return FakePycudaAllocation(self.memory, nbytes)

    def pagelocked_empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        self.record("pagelocked_empty")
        return np.asarray(FakePinnedAllocation(self, shape, np.dtype(dtype)))

    def memcpy_htod_async(self, dest: int, src: np.ndarray, stream: FakePycudaStream) -> None:
        self.record("memcpy_htod_async")
        assert src.flags.c_contiguous
        ctypes.memmove(dest, src.ctypes.data, src.nbytes)

    def memset_d8_async(self, dest: int, data: int, count: int, stream: FakePycudaStream) -> None:
        self.record("memset_d8_async")
        ctypes.memset(dest, data, count)

    def module_from_buffer(self, buffer: bytes) -> FakePycudaModule:
        self.record("module_from_buffer")
        assert buffer == FILL_MODULE
        return FakePycudaModule(self)

    def memcpy_dtoh_async(self, dest: np.ndarray, src: int, stream: FakePycudaStream) -> None:
        self.record("memcpy_dtoh_async")
        assert dest.flags.c_contiguous
        ctypes.memmove(dest.ctypes.data, src, dest.nbytes)


class FakePycudaDevice:
    def __init__(self, library: FakePycuda, number: int) -> None:
        assert number == 0
        self.library = library

    def name(self) -> str:
        return "Fake RTX 2080 Ti"

    def pci_bus_id(self) -> str:
        return "0000:0B:00.0"

    def compute_capability(self) -> tuple[int, int]:
        return (7, 5)

    def retain_primary_context(self) -> FakePycudaContext:
        self.library.record("retain_primary_context")
        return FakePycudaContext(self.library)


class FakePycudaContext:
    def __init__(self, library: FakePycuda) -> None:
        self.library = library

    def push(self) -> None:
        self.library.record("push")


class FakePycudaAllocation:
    def __init__(self, memory: HostMemory, nbytes: int) -> None:
        self.memory, self.address = memory, memory.allocate(nbytes)

    def __int__(self) -> int:
        return self.address

    def __del__(self) -> None:
        del self.memory.blocks[self.address]


class FakePinnedAllocation:
    """``PagelockedHostAllocation``, the ``base`` of pagelocked arrays."""

    def __init__(self, library: FakePycuda, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.library, self.address = library, library.memory.allocate(dtype.itemsize * int(np.prod(shape)))
        data = (self.address, False)
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": dtype.str, "data": data}

    def free(self) -> None:
        self.library.record("free pinned")
        del self.library.memory.blocks[self.address]


class FakePycudaModule:
    def __init__(self, library: FakePycuda) -> None:
        self.library = library

    def get_function(self, name: str) -> FakePycudaFunction:
        self.library.record("get_function")
        assert name == "fill"
        return FakePycudaFunction(self.library)

    def __del__(self) -> None:
        self.library.calls.append("unload module")


class FakePycudaFunction:
    def __init__(self, library: FakePycuda) -> None:
        self.library = library

    def __call__(self, *args: Any, grid: Any, block: Any, shared: int, stream: FakePycudaStream) -> None:
        self.library.record("launch")
        (packed,) = args
        assert isinstance(packed, np.void)
        assert (grid, block, shared) == ((2, 1, 1), (3, 1, 1), 16)
        value, address, count = struct.unpack("@BPi", bytes(memoryview(packed)))  # as CUDA packs parameters
        ctypes.memset(address, value, count)


class FakePycudaStream:
    handle = 0x57

    def __init__(self, library: FakePycuda, flags: int) -> None:
        assert flags == 1, "a blocking stream waits for the default one"
        self.library = library

    def synchronize(self) -> None:
        self.library.record("synchronize")

    def __del__(self) -> None:
        self.library.calls.append("destroy stream")


class FakePycudaEvent:
    def __init__(self, library: FakePycuda) -> None:
        self.library, self.reached = library, 0

    def record(self, stream: FakePycudaStream) -> FakePycudaEvent:
        self.library.record("event")
        self.reached = len(self.library.calls)
        return self

    def time_till(self, event: FakePycudaEvent) -> float:
        return float(event.reached - self.reached)

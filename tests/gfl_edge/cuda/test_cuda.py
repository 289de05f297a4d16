"""Both CUDA libraries behind the interface: on fakes of the libraries, on a real GPU, and for real without one."""

from __future__ import annotations

import ctypes
import enum
import importlib.util
import inspect
import logging
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gfl_edge import optional
from gfl_edge.cuda import CudaPythonDevice, PycudaDevice, open_device
from gfl_edge.cuda.interface import CudaDevice, Launch
from gfl_edge.errors import BackendError, InputError, MissingDependencyError


class CUresult(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_ILLEGAL_ADDRESS = 700


class Attribute(enum.IntEnum):
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

    def cuDeviceGetAttribute(self, attrib: Attribute, dev: str) -> int:  # noqa: N802
        return {Attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: 7}.get(attrib, 5)

    def cuDriverGetVersion(self) -> int:  # noqa: N802
        return 12060

    def cuDevicePrimaryCtxRetain(self, dev: str) -> str:  # noqa: N802
        return f"primary context of {dev}"

    def cuDevicePrimaryCtxRelease(self, dev: str) -> None:  # noqa: N802
        assert dev == "device 0"

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
        self.Stream = lambda: FakePycudaStream(self)
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

    def detach(self) -> None:
        self.library.record("detach")


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

    def __init__(self, library: FakePycuda) -> None:
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


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    fake = FakeDriver()
    monkeypatch.setattr("gfl_edge.cuda.cuda_python.load_driver", lambda: fake)
    return fake


@pytest.fixture
def pycuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePycuda]:
    fake = FakePycuda()
    monkeypatch.setitem(sys.modules, "pycuda.driver", fake)
    yield fake
    fake.fails.clear()


@pytest.fixture(params=["cuda-python", "pycuda"])
def device(request: pytest.FixtureRequest, driver: FakeDriver, pycuda: FakePycuda) -> CudaDevice:
    return open_device(request.param)


@pytest.fixture
def fake(device: CudaDevice, driver: FakeDriver, pycuda: FakePycuda) -> FakeDriver | FakePycuda:
    """The library behind ``device``."""
    return driver if device.library == "cuda-python" else pycuda


class TestBothLibraries:
    def test_what_the_gpu_is(self, device: CudaDevice) -> None:
        assert (device.name, device.compute_capability, device.driver_version) == ("Fake RTX 2080 Ti", "sm75", "12.6")

    def test_there_and_back(self, device: CudaDevice, fake: FakeDriver | FakePycuda) -> None:
        values = np.arange(12, dtype=np.float32).reshape(3, 4)
        with device.active():
            stream = device.create_stream()
            sent, received = device.pinned_empty((3, 4), np.float32), device.pinned_empty((3, 4), "float32")
            address = device.malloc(sent.nbytes)
            sent[:], received[:] = values, 0
            device.copy_to_device(address, sent, stream)
            device.copy_to_host(received[:2], address, stream)
            device.synchronize(stream)
            np.testing.assert_array_equal(received[:2], values[:2])
            assert not received[2].any()
            device.free(address)
            device.destroy_stream(stream)
        del sent, received
        device.close()
        device.close()
        assert not fake.memory.blocks

    def test_kernels_and_memset(self, device: CudaDevice, fake: FakeDriver | FakePycuda) -> None:
        with device.active():
            stream = device.create_stream()
            found, address = device.pinned_empty((8,), np.uint8), device.malloc(8)
            module = device.load_module(FILL_MODULE)
            device.memset(address, 9, 8, stream)
            fill = device.get_function(module, "fill")
            device.launch(fill, Launch((2, 1, 1), (3, 1, 1), 16), FillParameters(7, address, 6), stream)
            device.copy_to_host(found, address, stream)
            device.synchronize(stream)
            device.unload_module(module)
        assert found.tolist() == [7] * 6 + [9] * 2
        assert {"cuModuleUnload", "unload module"} & set(fake.calls)

    def test_events(self, device: CudaDevice, fake: FakeDriver | FakePycuda) -> None:
        with device.active():
            stream, address = device.create_stream(), device.malloc(4)
            first, second = device.create_event(), device.create_event()
            assert first != second
            device.record_event(first, stream)
            device.memset(address, 1, 4, stream)
            device.record_event(second, stream)
            assert device.elapsed_ms(first, second) >= 2
            fake.fails = {
                "cuEventRecord": CUresult.CUDA_ERROR_ILLEGAL_ADDRESS,
                "event": FakePycuda.LogicError("cuEventRecord failed: error illegal address"),
            }
            with pytest.raises(BackendError, match=r"CUDA failed.*cuEventRecord.*error illegal address"):
                device.record_event(first, stream)
            device.destroy_event(first)
            device.destroy_event(second)

    def test_a_module_that_cuda_refuses(self, device: CudaDevice, fake: FakeDriver | FakePycuda) -> None:
        fake.fails = {
            "cuModuleLoadData": CUresult.CUDA_ERROR_ILLEGAL_ADDRESS,
            "module_from_buffer": FakePycuda.LogicError("cuModuleLoadDataEx failed: error illegal address"),
        }
        with pytest.raises(BackendError, match=r"CUDA failed.*cuModuleLoadData.*error illegal address"):
            device.load_module(FILL_MODULE)

    def test_a_launch_that_cuda_refuses(self, device: CudaDevice, fake: FakeDriver | FakePycuda) -> None:
        stream = device.create_stream()
        fill = device.get_function(device.load_module(FILL_MODULE), "fill")
        fake.fails = {
            "cuLaunchKernel": CUresult.CUDA_ERROR_ILLEGAL_ADDRESS,
            "launch": FakePycuda.LogicError("cuLaunchKernel failed: error illegal address"),
        }
        with pytest.raises(BackendError, match=r"CUDA failed.*cuLaunchKernel.*error illegal address"):
            device.launch(fill, Launch((2, 1, 1), (3, 1, 1), 16), FillParameters(7, 0, 0), stream)

    def test_pinned_arrays_are_whole_and_writable(self, device: CudaDevice) -> None:
        with device.active():
            array = device.pinned_empty((2, 3), np.uint8)
        assert (array.shape, array.dtype) == ((2, 3), np.uint8)
        assert array.flags.c_contiguous
        assert array.flags.writeable

    def test_pinned_memory_outlives_the_device(self, device: CudaDevice, fake: FakeDriver | FakePycuda) -> None:
        with device.active():
            array = device.pinned_empty((4,), np.int32)
        array[:] = 7
        view = array[1:3]
        device.close()
        fake.calls.clear()
        del array
        assert view.tolist() == [7, 7]
        assert not fake.calls
        del view
        assert fake.calls in (
            ["cuCtxPushCurrent", "cuMemFreeHost", "cuCtxPopCurrent", "cuDevicePrimaryCtxRelease"],
            ["push", "free pinned", "pop", "detach"],
        )
        assert not fake.memory.blocks

    @pytest.mark.parametrize("pinned", [False, True], ids=["device", "pinned host"])
    def test_out_of_memory_names_the_bytes(
        self, device: CudaDevice, fake: FakeDriver | FakePycuda, pinned: bool
    ) -> None:
        fake.fails = {
            "cuMemAlloc": CUresult.CUDA_ERROR_OUT_OF_MEMORY,
            "cuMemAllocHost": CUresult.CUDA_ERROR_OUT_OF_MEMORY,
            "mem_alloc": FakePycuda.MemoryError("cuMemAlloc failed: out of memory"),
            "pagelocked_empty": FakePycuda.MemoryError("cuMemHostAlloc failed: out of memory"),
        }
        allocate: Callable[[], Any] = (
            (lambda: device.pinned_empty((50, 20), np.float32)) if pinned else (lambda: device.malloc(4000))
        )
        kind = "pinned host" if pinned else "device"
        with pytest.raises(BackendError, match=rf"(?i)no room for 4000 bytes of {kind} memory \(.*out.of.memory"):
            allocate()

    def test_other_errors_carry_cudas_words(self, device: CudaDevice, fake: FakeDriver | FakePycuda) -> None:
        with device.active():
            stream = device.create_stream()
        fake.fails = {
            "cuStreamSynchronize": CUresult.CUDA_ERROR_ILLEGAL_ADDRESS,
            "synchronize": FakePycuda.LogicError("cuStreamSynchronize failed: error illegal address"),
        }
        with pytest.raises(BackendError, match=r"CUDA failed.*cuStreamSynchronize.*error illegal address"):
            device.synchronize(stream)

    def test_context_is_given_back_after_an_error(self, device: CudaDevice, fake: FakeDriver | FakePycuda) -> None:
        fake.calls.clear()
        with pytest.raises(ZeroDivisionError), device.active():
            raise ZeroDivisionError
        assert fake.calls in (["cuCtxPushCurrent", "cuCtxPopCurrent"], ["push", "pop"])


class TestCudaPython:
    def test_opens_in_order(self, driver: FakeDriver) -> None:
        CudaPythonDevice()
        assert driver.calls[:2] == ["cuInit", "cuDeviceGet"]
        assert driver.calls[-1] == "cuDevicePrimaryCtxRetain"  # the last, so that no failure before it leaks it

    def test_a_run_in_order(self, driver: FakeDriver) -> None:
        device = CudaPythonDevice()
        driver.calls.clear()
        with device.active():
            device.create_stream()
        device.close()
        assert driver.calls == ["cuCtxPushCurrent", "cuStreamCreate", "cuCtxPopCurrent", "cuDevicePrimaryCtxRelease"]

    def test_freeing_after_an_error_only_logs(self, driver: FakeDriver, caplog: pytest.LogCaptureFixture) -> None:
        device = CudaPythonDevice()
        address = device.malloc(4)
        driver.fails = dict.fromkeys(
            ["cuMemFree", "cuStreamDestroy", "cuDevicePrimaryCtxRelease"], CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
        )
        with caplog.at_level(logging.WARNING):
            device.free(address)
            device.destroy_stream(0x57)
            device.close()
        assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
            "CUDA failed in cuMemFree",
            "CUDA failed in cuStreamDestroy",
            "CUDA failed in cuDevicePrimaryCtxRelease",
        ]

    def test_a_captured_graph_runs_when_it_is_launched(self, driver: FakeDriver) -> None:
        device = CudaPythonDevice()
        stream, found, address = device.create_stream(), device.pinned_empty((4,), np.uint8), device.malloc(4)
        found[:] = 0

        def queue() -> None:
            device.memset(address, 5, 4, stream)
            device.copy_to_host(found, address, stream)

        graph = device.capture(stream, queue)
        assert not found.any()
        for _ in range(2):
            found[:] = 0
            device.launch_graph(graph, stream)
            assert found.tolist() == [5] * 4
        assert driver.calls.count("cuMemsetD8Async") == 1
        device.destroy_graph(graph)
        assert not driver.graphs

    def test_events_of_a_graph_have_the_times_of_its_launches(self, driver: FakeDriver) -> None:
        device = CudaPythonDevice()
        stream, address = device.create_stream(), device.malloc(4)
        events = device.create_event(), device.create_event()

        def queue() -> None:
            device.record_event(events[0], stream)
            device.memset(address, 5, 4, stream)
            device.record_event(events[1], stream)

        graph = device.capture(stream, queue)
        assert driver.events == [0, 0]
        device.launch_graph(graph, stream)
        first = list(driver.events)
        device.launch_graph(graph, stream)
        assert min(driver.events) > max(first) > 0

    def test_an_error_during_capture_comes_through(self, driver: FakeDriver) -> None:
        device = CudaPythonDevice()
        stream = device.create_stream()
        driver.fails["cuMemsetD8Async"] = CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
        with pytest.raises(BackendError, match="cuMemsetD8Async"):
            device.capture(stream, lambda: device.memset(0, 0, 0, stream))
        assert driver.captured is None
        assert not driver.graphs

    @pytest.mark.parametrize("function", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"])
    def test_capture_that_cuda_refuses(self, driver: FakeDriver, function: str) -> None:
        device = CudaPythonDevice()
        driver.fails[function] = CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
        with pytest.raises(BackendError, match=f"CUDA failed in {function}"):
            device.capture(device.create_stream(), lambda: None)
        assert not driver.graphs

    def test_no_gpu(self, driver: FakeDriver) -> None:
        driver.fails["cuInit"] = CUresult.CUDA_ERROR_NO_DEVICE
        message = r"finds no GPU \(CUDA_ERROR_NO_DEVICE: error no device\)\. Check nvidia-smi"
        with pytest.raises(BackendError, match=message):
            CudaPythonDevice()

    def test_no_driver(self, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
        def absent(flags: int) -> None:
            raise RuntimeError("Failed to dlopen libcuda.so.1")  # cuda-python 12; 13 raises a subclass

        monkeypatch.setattr(driver, "cuInit", absent)
        message = r"no NVIDIA driver found \(Failed to dlopen libcuda.so.1\)\. Install the driver, or run the \.onnx"
        with pytest.raises(BackendError, match=message):
            CudaPythonDevice()

    def test_error_by_name_and_text(self, driver: FakeDriver) -> None:
        driver.fails["cuDevicePrimaryCtxRetain"] = CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
        message = "CUDA failed in cuDevicePrimaryCtxRetain: CUDA_ERROR_ILLEGAL_ADDRESS: error illegal address"
        with pytest.raises(BackendError, match=message):
            CudaPythonDevice()

    def test_error_that_cuda_cannot_name(self, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
        for ask in ("cuGetErrorName", "cuGetErrorString"):
            monkeypatch.setattr(driver, ask, lambda error: (CUresult.CUDA_SUCCESS, None))
        driver.fails["cuDeviceGet"] = CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
        with pytest.raises(BackendError, match="CUDA failed in cuDeviceGet: unknown CUDA error"):
            CudaPythonDevice()

    def test_old_versions_have_another_module(self, monkeypatch: pytest.MonkeyPatch) -> None:
        old = ModuleType("cuda.cuda")
        monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
        monkeypatch.setitem(sys.modules, "cuda.cuda", old)
        from gfl_edge.cuda.cuda_python import load_driver

        assert load_driver() is old

    @pytest.mark.skipif(not optional.available("cuda.bindings.driver"), reason="cuda-python is not installed")
    def test_the_fake_is_like_the_real_library(self) -> None:
        real = optional.load("cuda.bindings.driver")
        for name, function in inspect.getmembers(FakeDriver, inspect.isfunction):
            if name.startswith("cu"):
                signature = getattr(real, name).__doc__.partition("\n")[0]  # "cuMemFree(dptr)"
                parameters = [part for part in signature.partition("(")[2].rstrip(")").split(",") if part]
                assert len(parameters) == len(inspect.signature(function).parameters) - 1, signature
        for status in CUresult:
            assert getattr(real.CUresult, status.name).value == status.value
        for attribute in Attribute:
            assert getattr(real.CUdevice_attribute, attribute.name).value == attribute.value
        assert real.CUstream_flags.CU_STREAM_NON_BLOCKING.value == 1
        assert real.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL.value == 1
        assert real.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_ACTIVE.value == 1
        assert real.CUevent_record_flags.CU_EVENT_RECORD_EXTERNAL.value == 1

    @pytest.mark.skipif(not optional.available("cuda.bindings.driver"), reason="cuda-python is not installed")
    def test_the_real_library_takes_the_types_that_are_passed(self) -> None:
        """Conversion comes before the call, which fails without a driver, and on wrong handles with one."""
        driver = optional.load("cuda.bindings.driver")
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        calls: list[tuple[str, tuple[Any, ...]]] = [
            ("cuModuleLoadData", (FILL_MODULE,)),
            ("cuModuleGetFunction", (0, b"fill")),
            ("cuMemsetD8Async", (0, 7, 0, 0)),
            ("cuLaunchKernel", (0, 1, 1, 1, 1, 1, 1, 0, 0, ctypes.addressof(ctypes.c_void_p()), 0)),
            ("cuStreamBeginCapture", (0, mode)),
            ("cuGraphInstantiate", (driver.CUgraph(0), 0)),
            ("cuGraphLaunch", (0, 0)),
            ("cuEventRecordWithFlags", (0, 0, driver.CUevent_record_flags.CU_EVENT_RECORD_EXTERNAL)),
            ("cuEventElapsedTime", (0, 0)),
        ]
        for name, arguments in calls:
            try:
                status, *_ = getattr(driver, name)(*arguments)
            except RuntimeError:
                continue  # no libcuda
            assert status != driver.CUresult.CUDA_SUCCESS, name


class TestPycuda:
    def test_does_not_capture(self, pycuda: FakePycuda) -> None:
        device = PycudaDevice()
        assert not device.captures
        stream = device.create_stream()
        for use in (
            lambda: device.capture(stream, lambda: None),
            lambda: device.launch_graph(1, stream),
            lambda: device.destroy_graph(1),
        ):
            with pytest.raises(BackendError, match="pycuda cannot capture CUDA graphs: install cuda-python"):
                use()

    def test_a_run_in_order(self, pycuda: FakePycuda) -> None:
        device = PycudaDevice()
        with device.active():
            stream = device.create_stream()
            device.destroy_stream(stream)
        device.close()
        assert pycuda.calls == ["init", "retain_primary_context", "push", "destroy stream", "pop", "detach"]

    def test_no_gpu(self, pycuda: FakePycuda) -> None:
        pycuda.fails["init"] = FakePycuda.RuntimeError("cuInit failed: no CUDA-capable device is detected")
        with pytest.raises(BackendError, match=r"finds no GPU \(cuInit failed: no CUDA-capable device is detected\)"):
            PycudaDevice()

    def test_cuda_does_not_start(self, pycuda: FakePycuda) -> None:
        pycuda.fails["init"] = FakePycuda.LogicError("cuInit failed: system has unsupported display driver")
        with pytest.raises(BackendError, match="CUDA failed: cuInit failed: system has unsupported"):
            PycudaDevice()

    def test_no_driver(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "pycuda").mkdir()
        (tmp_path / "pycuda/__init__.py").touch()
        reason = "libcuda.so.1: cannot open shared object file: No such file or directory"
        (tmp_path / "pycuda/driver.py").write_text(f"raise ImportError({reason!r})")  # pycuda is linked with libcuda
        for module in ("pycuda", "pycuda.driver"):
            monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.syspath_prepend(tmp_path)
        try:
            with pytest.raises(BackendError, match=r"no NVIDIA driver found \(libcuda\.so\.1: cannot open"):
                PycudaDevice()
        finally:
            sys.modules.pop("pycuda", None)

    @pytest.mark.skipif(importlib.util.find_spec("pycuda") is not None, reason="pycuda is installed")
    def test_not_installed(self) -> None:
        with pytest.raises(MissingDependencyError, match=r"pip install 'gfl-edge\[pycuda\]'"):
            open_device("pycuda")

    def test_freeing_after_an_error_only_logs(self, pycuda: FakePycuda, caplog: pytest.LogCaptureFixture) -> None:
        device = PycudaDevice()
        array = device.pinned_empty((4,), np.uint8)
        error = FakePycuda.LogicError("an illegal memory access was encountered")
        pycuda.fails = {"free pinned": error, "detach": error}
        with caplog.at_level(logging.WARNING):
            del array
            device.close()
        assert [record.getMessage() for record in caplog.records] == [f"CUDA failed: {error}"] * 2


class TestOpenDevice:
    @pytest.fixture
    def no_cuda_python(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in ("cuda.bindings.driver", "cuda.cuda"):
            monkeypatch.setitem(sys.modules, module, None)

    def test_cuda_python_first(self, driver: FakeDriver, pycuda: FakePycuda) -> None:
        assert open_device().library == "cuda-python"

    @pytest.mark.usefixtures("no_cuda_python")
    def test_pycuda_where_cuda_python_is_missing(self, pycuda: FakePycuda) -> None:
        assert open_device().library == "pycuda"

    @pytest.mark.usefixtures("no_cuda_python")
    def test_cuda_python_is_missing(self) -> None:
        with pytest.raises(MissingDependencyError, match=r"cuda\.bindings\.driver.*pip install 'gfl-edge\[rtx\]'"):
            open_device("cuda-python")

    @pytest.mark.usefixtures("no_cuda_python")
    def test_both_are_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pycuda.driver", None)
        with pytest.raises(MissingDependencyError, match=r"(?s)\[rtx\].*\[tensorrt\].*\[pycuda\]"):
            open_device()

    def test_a_gpu_that_fails_is_no_reason_to_try_the_other(self, driver: FakeDriver, pycuda: FakePycuda) -> None:
        driver.fails["cuInit"] = CUresult.CUDA_ERROR_NO_DEVICE
        with pytest.raises(BackendError, match="no GPU"):
            open_device()
        assert not pycuda.calls

    def test_unknown_library(self) -> None:
        with pytest.raises(InputError, match="unknown CUDA library 'cupy': expected one of auto, cuda-python, pycuda"):
            open_device("cupy")  # type: ignore[arg-type]

    @pytest.mark.skipif(not optional.available("cuda.bindings.driver"), reason="cuda-python is not installed")
    def test_real_library_without_a_driver(self) -> None:
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            pass
        else:
            pytest.skip("there is an NVIDIA driver")
        with pytest.raises(
            BackendError, match=r"^no NVIDIA driver found \(.*\)\. Install the driver, or run the \.onnx"
        ):
            open_device()


@pytest.mark.gpu
@pytest.mark.parametrize("library", ["cuda-python", "pycuda"])
def test_real_gpu(library: Any) -> None:
    try:
        device = open_device(library)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    assert device.name
    assert device.compute_capability.startswith("sm")
    with device.active():
        stream = device.create_stream()
        sent, received = device.pinned_empty((1000,), np.uint8), device.pinned_empty((1000,), np.uint8)
        address = device.malloc(sent.nbytes)
        sent[:], received[:] = np.arange(1000) % 251, 0
        device.copy_to_device(address, sent, stream)
        device.copy_to_host(received, address, stream)
        device.synchronize(stream)
        device.free(address)
        device.destroy_stream(stream)
    device.close()
    np.testing.assert_array_equal(received, sent)

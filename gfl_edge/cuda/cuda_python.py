"""CUDA through NVIDIA's own package cuda-python, the default."""

from __future__ import annotations

import ctypes
import functools
import logging
import math
import re
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gfl_edge import optional
from gfl_edge.cuda.captures import after_capture, capturing
from gfl_edge.cuda.contexts import primary_context
from gfl_edge.cuda.interface import Launch, dotted_version, no_driver, no_gpu, out_of_memory, parameter_addresses
from gfl_edge.errors import BackendError

_LOG = logging.getLogger(__name__)

OLDEST = (12, 9, 1)  # cuda-python; those before hold Python's lock in cuStreamSynchronize
_OVERLAP_FROM = (90, 12030)  # compute capability, and driver: older ones cannot capture launches that overlap


class CudaPythonDevice:
    """See :class:`gfl_edge.cuda.interface.CudaDevice`.

    Raises:
        MissingDependencyError: cuda-python is not installed.
        BackendError: no driver, no GPU, or CUDA failed.
    """

    library = "cuda-python"
    captures = True

    def __init__(self) -> None:
        self._driver = load_driver()
        try:
            status, *_ = self._driver.cuInit(0)
        except RuntimeError as error:  # libcuda is loaded by the first call, not by the import
            raise no_driver(str(error)) from error
        if status == self._driver.CUresult.CUDA_ERROR_NO_DEVICE:
            raise no_gpu(self._describe(status))
        self._check("cuInit", status)
        attribute = self._driver.CUdevice_attribute
        self._device = self._call("cuDeviceGet", 0)
        self.name: str = self._call("cuDeviceGetName", 128, self._device).partition(b"\0")[0].decode()
        self.pci_bus_id: str = self._call("cuDeviceGetPCIBusId", 32, self._device).partition(b"\0")[0].decode()
        self.compute_capability = "sm" + "".join(
            str(self._call("cuDeviceGetAttribute", part, self._device))
            for part in (
                attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
        self.maps = all(
            self._call("cuDeviceGetAttribute", what, self._device)
            for what in (
                attribute.CU_DEVICE_ATTRIBUTE_INTEGRATED,
                attribute.CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY,
            )
        )
        version = self._call("cuDriverGetVersion")
        self.driver_version = dotted_version(version)
        capability = int(self.compute_capability.removeprefix("sm"))
        self._can_overlap = capability >= _OVERLAP_FROM[0] and version >= _OVERLAP_FROM[1]

    def _call(self, function: str, *arguments: Any) -> Any:
        """Call a driver function, whose answers are tuples (status, value), and return the value."""
        status, *values = getattr(self._driver, function)(*arguments)
        self._check(function, status)
        return values[0] if values else None

    def _check(self, function: str, status: Any) -> None:
        if status != self._driver.CUresult.CUDA_SUCCESS:
            raise BackendError(f"CUDA failed in {function}: {self._describe(status)}")

    def _describe(self, status: Any) -> str:
        """ "CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected"."""
        texts = [ask(status)[1] for ask in (self._driver.cuGetErrorName, self._driver.cuGetErrorString)]
        return ": ".join(text.decode() for text in texts if text) or f"unknown CUDA error {status}"

    def _allocate(self, function: str, kind: str, nbytes: int) -> int:
        status, address = getattr(self._driver, function)(nbytes)
        if status == self._driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            raise out_of_memory(kind, nbytes, self._describe(status))
        self._check(function, status)
        return int(address)

    def _release(self, function: str, handle: Any) -> None:
        after_capture(functools.partial(self._release_now, function, handle))

    def _release_now(self, function: str, handle: Any) -> None:
        try:
            with self.active():
                self._call(function, handle)
        except BackendError as error:
            _LOG.warning("%s", error)

    @contextmanager
    def active(self) -> Iterator[None]:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.active`."""
        retain = functools.partial(self._call, "cuDevicePrimaryCtxRetain", self._device)
        self._call("cuCtxPushCurrent", primary_context(self._driver, retain))
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent")

    def malloc(self, nbytes: int) -> int:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.malloc`."""
        return self._allocate("cuMemAlloc", "device", nbytes)

    def free(self, address: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.free`."""
        self._release("cuMemFree", address)

    def pinned_empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.pinned_empty`."""
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        address = self._allocate("cuMemAllocHost", "pinned host", nbytes)
        block = (ctypes.c_uint8 * nbytes).from_address(address)  # every view on the array keeps this object alive
        # At the end of the process the driver frees everything by itself, and may be gone already
        weakref.finalize(block, self._release, "cuMemFreeHost", address).atexit = False
        array: NDArray[Any] = np.frombuffer(memoryview(block), dtype)
        return array.reshape(shape)

    def mapped_address(self, array: NDArray[Any]) -> int:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.mapped_address`."""
        return int(self._call("cuMemHostGetDevicePointer", array.ctypes.data, 0))

    def create_stream(self) -> int:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.create_stream`."""
        # Non-blocking: never waits for work that other libraries put on the default stream
        return int(self._call("cuStreamCreate", self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING))

    def destroy_stream(self, stream: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.destroy_stream`."""
        self._release("cuStreamDestroy", stream)

    def copy_to_device(self, address: int, array: NDArray[Any], stream: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.copy_to_device`."""
        self._call("cuMemcpyHtoDAsync", address, array.ctypes.data, array.nbytes, stream)

    def copy_to_host(self, array: NDArray[Any], address: int, stream: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.copy_to_host`."""
        self._call("cuMemcpyDtoHAsync", array.ctypes.data, address, array.nbytes, stream)

    def memset(self, address: int, value: int, nbytes: int, stream: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.memset`."""
        self._call("cuMemsetD8Async", address, value, nbytes, stream)

    def load_module(self, image: bytes) -> int:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.load_module`."""
        # PTX is text that the driver reads up to its zero byte
        return int(self._call("cuModuleLoadData", image + b"\0"))

    def unload_module(self, module: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.unload_module`."""
        self._release("cuModuleUnload", module)

    def get_function(self, module: int, name: str) -> int:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.get_function`."""
        return int(self._call("cuModuleGetFunction", module, name.encode()))

    def launch(self, function: int, launch: Launch, parameters: ctypes.Structure, stream: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.launch`."""
        addresses = parameter_addresses(parameters)
        if launch.overlaps and self._can_overlap:
            config = self._overlapping(launch, stream)
            self._call("cuLaunchKernelEx", config, function, ctypes.addressof(addresses), 0)
            return
        threads = (*launch.grid, *launch.block, launch.shared_bytes)
        self._call("cuLaunchKernel", function, *threads, stream, ctypes.addressof(addresses), 0)

    def _overlapping(self, launch: Launch, stream: int) -> Any:
        """The driver's description of a launch that need not wait for the kernel before it."""
        attribute, value, config = (
            getattr(self._driver, name)() for name in ("CUlaunchAttribute", "CUlaunchAttributeValue", "CUlaunchConfig")
        )
        value.programmaticStreamSerializationAllowed = 1
        attribute.id = self._driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
        attribute.value = value
        config.gridDimX, config.gridDimY, config.gridDimZ = launch.grid
        config.blockDimX, config.blockDimY, config.blockDimZ = launch.block
        config.sharedMemBytes, config.hStream = launch.shared_bytes, stream
        config.attrs, config.numAttrs = [attribute], 1
        return config

    def capture(self, stream: int, queue: Callable[[], None]) -> int:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.capture`."""
        # Thread-local: what other threads do with CUDA meanwhile neither enters the graph nor spoils it
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        with capturing():
            self._call("cuStreamBeginCapture", stream, mode)
            try:
                queue()
            except BaseException:
                status, graph = self._driver.cuStreamEndCapture(stream)  # fails where a call has spoiled the capture
                if status == self._driver.CUresult.CUDA_SUCCESS and graph:
                    self._release("cuGraphDestroy", graph)
                raise
            graph = self._call("cuStreamEndCapture", stream)
        try:
            return int(self._call("cuGraphInstantiate", graph, 0))
        finally:
            self._release("cuGraphDestroy", graph)

    def launch_graph(self, graph: int, stream: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.launch_graph`."""
        self._call("cuGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.destroy_graph`."""
        self._release("cuGraphExecDestroy", graph)

    def create_event(self) -> int:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.create_event`."""
        return int(self._call("cuEventCreate", self._driver.CUevent_flags.CU_EVENT_DEFAULT))

    def record_event(self, event: int, stream: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.record_event`."""
        capturing = self._driver.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_ACTIVE
        if self._call("cuStreamIsCapturing", stream) == capturing:
            # External: a node of the graph. Otherwise it would only order what is captured, and have no time
            external = self._driver.CUevent_record_flags.CU_EVENT_RECORD_EXTERNAL
            self._call("cuEventRecordWithFlags", event, stream, external)
        else:
            self._call("cuEventRecord", event, stream)

    def elapsed_ms(self, start: int, end: int) -> float:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.elapsed_ms`."""
        return float(self._call("cuEventElapsedTime", start, end))

    def destroy_event(self, event: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.destroy_event`."""
        self._release("cuEventDestroy", event)

    def wait_for_event(self, event: int, stream: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.wait_for_event`."""
        self._call("cuStreamWaitEvent", stream, event, 0)

    def synchronize_event(self, event: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.synchronize_event`."""
        self._call("cuEventSynchronize", event)

    def synchronize(self, stream: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.synchronize`."""
        self._call("cuStreamSynchronize", stream)


def load_driver() -> ModuleType:
    """The driver API of cuda-python; raises MissingDependencyError if it is not installed."""
    driver = optional.load("cuda.bindings.driver")
    version = str(optional.load("cuda.bindings").__version__)
    if tuple(int(number) for number in re.findall(r"\d+", version)[:3]) < OLDEST:
        _warn_once(version)
    return driver


@functools.cache
def _warn_once(version: str) -> None:
    oldest = ".".join(map(str, OLDEST))
    _LOG.warning(
        "cuda-python %s keeps every other thread of Python waiting while it waits for the GPU. Update it with: "
        "pip install --upgrade 'cuda-python>=%s'",
        version,
        oldest,
    )

"""CUDA through pycuda, which many Jetson images carry."""

from __future__ import annotations

import ctypes
import logging
import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gfl_edge import optional
from gfl_edge.cuda.captures import after_capture
from gfl_edge.cuda.contexts import primary_context
from gfl_edge.cuda.interface import Launch, dotted_version, no_driver, no_gpu, out_of_memory, parameter_bytes
from gfl_edge.errors import BackendError, MissingDependencyError

_LOG = logging.getLogger(__name__)

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, which pycuda has no name for


class PycudaDevice:
    """See :class:`gfl_edge.cuda.interface.CudaDevice`.

    Raises:
        MissingDependencyError: pycuda is not installed.
        BackendError: no driver, no GPU, or CUDA failed.
    """

    library = "pycuda"
    captures = False
    maps = False  # every frame is copied

    def __init__(self) -> None:
        self._driver = load_driver()
        # pycuda frees what no object refers to any more, so its objects are kept under their addresses and handles
        self._memory: dict[int, Any] = {}
        self._streams: dict[int, Any] = {}
        self._events: dict[int, Any] = {}
        self._modules: dict[int, Any] = {}
        self._functions: dict[int, tuple[int, Any]] = {}  # with the module's number
        try:
            self._driver.init()
        except self._driver.RuntimeError as error:  # pycuda's own class, which stands for CUDA_ERROR_NO_DEVICE here
            raise no_gpu(str(error)) from error
        except self._driver.Error as error:
            raise _failed(error) from error
        self._device = self._call(self._driver.Device, 0)
        self.name: str = self._call(self._device.name)
        self.pci_bus_id: str = self._call(self._device.pci_bus_id)
        self.compute_capability = "sm{}{}".format(*self._call(self._device.compute_capability))
        self.driver_version = dotted_version(self._call(self._driver.get_driver_version))

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self._driver.Error as error:
            raise _failed(error) from error

    def _allocate(self, kind: str, nbytes: int, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self._driver.MemoryError as error:
            raise out_of_memory(kind, nbytes, str(error)) from error
        except self._driver.Error as error:
            raise _failed(error) from error

    @contextmanager
    def active(self) -> Iterator[None]:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.active`."""
        retain = partial(self._call, self._device.retain_primary_context)
        self._call(primary_context(self._driver, retain).push)
        try:
            yield
        finally:
            self._call(self._driver.Context.pop)

    def malloc(self, nbytes: int) -> int:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.malloc`."""
        allocation = self._allocate("device", nbytes, self._driver.mem_alloc, nbytes)
        address = int(allocation)
        self._memory[address] = allocation
        return address

    def free(self, address: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.free`."""
        after_capture(partial(self._memory.pop, address))  # pycuda reports its own clean-up failures, on stderr

    def pinned_empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.pinned_empty`."""
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        block = self._allocate("pinned host", nbytes, self._driver.pagelocked_empty, (nbytes,), np.uint8)
        # At the end of the process the driver frees everything by itself, and may be gone already
        weakref.finalize(block, after_capture, partial(self._free_pinned, block.base)).atexit = False
        # Through a memoryview, because views on the block itself would refer to its base and let go of the block
        array: NDArray[Any] = np.frombuffer(memoryview(block), dtype)
        return array.reshape(shape)

    def _free_pinned(self, allocation: Any) -> None:
        try:
            with self.active():
                self._call(allocation.free)
        except BackendError as error:
            _LOG.warning("%s", error)

    def mapped_address(self, array: NDArray[Any]) -> int:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.mapped_address`."""
        raise BackendError("pycuda maps no memory: install cuda-python, with pip install 'gfl-edge[rtx]'")

    def create_stream(self) -> int:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.create_stream`."""
        # Non-blocking, as cuda-python's: never waits for work that other libraries put on the default stream
        stream = self._call(self._driver.Stream, _NON_BLOCKING)
        handle = int(stream.handle)
        self._streams[handle] = stream
        return handle

    def destroy_stream(self, stream: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.destroy_stream`."""
        after_capture(partial(self._streams.pop, stream))

    def copy_to_device(self, address: int, array: NDArray[Any], stream: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.copy_to_device`."""
        self._call(self._driver.memcpy_htod_async, address, array, self._streams[stream])

    def copy_to_host(self, array: NDArray[Any], address: int, stream: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.copy_to_host`."""
        self._call(self._driver.memcpy_dtoh_async, array, address, self._streams[stream])

    def memset(self, address: int, value: int, nbytes: int, stream: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.memset`."""
        self._call(self._driver.memset_d8_async, address, value, nbytes, self._streams[stream])

    def load_module(self, image: bytes) -> int:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.load_module`."""
        module = self._call(self._driver.module_from_buffer, image)
        self._modules[id(module)] = module  # pycuda does not give CUDA's own handles
        return id(module)

    def unload_module(self, module: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.unload_module`."""
        after_capture(partial(self._unload_now, module))

    def _unload_now(self, module: int) -> None:
        for handle in [handle for handle, (owner, _) in self._functions.items() if owner == module]:
            del self._functions[handle]
        del self._modules[module]

    def get_function(self, module: int, name: str) -> int:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.get_function`."""
        function = self._call(self._modules[module].get_function, name)
        self._functions[id(function)] = (module, function)
        return id(function)

    def launch(self, function: int, launch: Launch, parameters: ctypes.Structure, stream: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.launch`."""
        # As one scalar, since pycuda packs several without looking at the alignment of structures
        packed = np.void(parameter_bytes(parameters))
        kernel, on_stream = self._functions[function][1], self._streams[stream]
        threads = {"grid": launch.grid, "block": launch.block, "shared": launch.shared_bytes}
        self._call(lambda: kernel(packed, stream=on_stream, **threads))

    def capture(self, stream: int, queue: Callable[[], None]) -> int:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.capture`."""
        raise _no_graphs()

    def launch_graph(self, graph: int, stream: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.launch_graph`."""
        raise _no_graphs()

    def destroy_graph(self, graph: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.destroy_graph`."""
        raise _no_graphs()

    def create_event(self) -> int:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.create_event`."""
        event = self._call(self._driver.Event)
        self._events[id(event)] = event
        return id(event)

    def record_event(self, event: int, stream: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.record_event`."""
        self._call(self._events[event].record, self._streams[stream])

    def elapsed_ms(self, start: int, end: int) -> float:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.elapsed_ms`."""
        return float(self._call(self._events[start].time_till, self._events[end]))

    def destroy_event(self, event: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.destroy_event`."""
        after_capture(partial(self._events.pop, event))

    def wait_for_event(self, event: int, stream: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.wait_for_event`."""
        self._call(self._streams[stream].wait_for_event, self._events[event])

    def synchronize_event(self, event: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.synchronize_event`."""
        self._call(self._events[event].synchronize)

    def synchronize(self, stream: int) -> None:
        """See :meth:`gfl_edge.cuda.interface.CudaDevice.synchronize`."""
        self._call(self._streams[stream].synchronize)


def _failed(error: Exception) -> BackendError:
    return BackendError(f"CUDA failed: {error}")  # pycuda's message names the function and CUDA's reason


def _no_graphs() -> BackendError:
    return BackendError("pycuda cannot capture CUDA graphs: install cuda-python, with pip install 'gfl-edge[rtx]'")


def load_driver() -> ModuleType:
    """``pycuda.driver``.

    Raises:
        MissingDependencyError: pycuda is not installed.
        BackendError: it is, but the driver that it is linked with is not.
    """
    try:
        return optional.load("pycuda.driver")
    except MissingDependencyError as error:
        if "libcuda" in str(error):
            raise no_driver(str(error.__cause__)) from error
        raise

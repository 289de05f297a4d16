"""What a CUDA library has to offer to run an engine, and the errors that every one of them reports alike."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import DTypeLike, NDArray

from gfl_edge.errors import BackendError

INSTEAD = "run the .onnx on the CPU instead (--backend openvino)"


@dataclass(frozen=True)
class Launch:
    """The threads that a kernel runs on."""

    grid: tuple[int, int, int]  # blocks, in x, y and z
    block: tuple[int, int, int]  # threads of a block, in x, y and z
    shared_bytes: int = 0  # of dynamic shared memory per block, 48 KiB at most
    overlaps: bool = False  # may begin while the kernel before it on the stream runs, as it waits for that by itself


class CudaDevice(Protocol):
    """The first GPU that CUDA lists (``CUDA_VISIBLE_DEVICES`` reorders them), through its primary context.

    The first use of the context makes it, and it lives as long as the process. Memory, streams, copies, modules and
    graphs need it on the calling thread: use them inside ``with device.active()``. Every method raises BackendError
    where CUDA fails, except those that free: they log, because they also run when an earlier error is on its way up,
    which they must not hide. What is freed on a thread that captures is freed when the capture is over.
    """

    library: str  # "cuda-python", "pycuda"
    name: str  # "NVIDIA GeForce RTX 2080 Ti"
    compute_capability: str  # "sm75"
    pci_bus_id: str  # "0000:0B:00.0"; names several cards may have, and their order is another in each library
    driver_version: str  # newest CUDA that the driver runs, "13.0"
    captures: bool  # whether the library can capture CUDA graphs
    maps: bool  # whether the GPU shares the host's memory, and the library gives pinned arrays its addresses

    def active(self) -> AbstractContextManager[None]:
        """Make the context current on this thread for a ``with`` block, and the one before it current again after."""
        ...

    def malloc(self, nbytes: int) -> int:
        """Address of ``nbytes`` bytes of device memory; BackendError that names the number if there is no room."""
        ...

    def free(self, address: int) -> None:
        """Give device memory back."""
        ...

    def pinned_empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A C-contiguous array in page-locked host memory, for fast and truly asynchronous copies.

        Its memory is freed when the array and the last view on it are gone.
        """
        ...

    def mapped_address(self, array: NDArray[Any]) -> int:
        """Where the GPU reads and writes a pinned ``array`` without a copy; only where it ``maps``."""
        ...

    def create_stream(self) -> int:
        """Handle of a new stream."""
        ...

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back; what is queued on it still runs."""
        ...

    def copy_to_device(self, address: int, array: NDArray[Any], stream: int) -> None:
        """Queue a copy of a contiguous pinned ``array`` to device memory; do not touch it until the stream is done."""
        ...

    def copy_to_host(self, array: NDArray[Any], address: int, stream: int) -> None:
        """Queue a copy of device memory that fills a contiguous pinned ``array``; valid once the stream is done."""
        ...

    def memset(self, address: int, value: int, nbytes: int, stream: int) -> None:
        """Queue the filling of ``nbytes`` bytes of device memory with the byte ``value``."""
        ...

    def load_module(self, image: bytes) -> int:
        """Handle of the module of kernels in ``image``, a CUBIN or PTX."""
        ...

    def unload_module(self, module: int) -> None:
        """Give a module and its functions back."""
        ...

    def get_function(self, module: int, name: str) -> int:
        """Handle of the kernel ``name``, as its ``extern "C"`` declaration calls it; valid as long as the module."""
        ...

    def launch(self, function: int, launch: Launch, parameters: ctypes.Structure, stream: int) -> None:
        """Queue a kernel.

        Args:
            function: which, of :meth:`get_function`.
            launch: on how many threads.
            parameters: what the kernel is called with, a field each, in order; read before this returns.
            stream: where.
        """
        ...

    def capture(self, stream: int, queue: Callable[[], None]) -> int:
        """Handle of a CUDA graph of everything that ``queue()`` puts on ``stream``, none of which happens now.

        The graph keeps the addresses and parameters of its calls: their memory must outlive it. What ``queue`` raises
        comes through, and leaves the stream as it was.

        Raises:
            BackendError: the library cannot (see ``captures``), or one of the calls cannot be captured.
        """
        ...

    def launch_graph(self, graph: int, stream: int) -> None:
        """Queue all that a graph holds."""
        ...

    def destroy_graph(self, graph: int) -> None:
        """Give a graph back that is not running any more."""
        ...

    def create_event(self) -> int:
        """Handle of a new event."""
        ...

    def record_event(self, event: int, stream: int) -> None:
        """Queue a note of the time when all before it is done; within a graph, each launch notes it anew."""
        ...

    def elapsed_ms(self, start: int, end: int) -> float:
        """Milliseconds between two events that were recorded, and are done."""
        ...

    def destroy_event(self, event: int) -> None:
        """Give an event back."""
        ...

    def wait_for_event(self, event: int, stream: int) -> None:
        """Let what is queued on ``stream`` from now on wait for an event that was recorded on another."""
        ...

    def synchronize_event(self, event: int) -> None:
        """Wait until an event that was recorded is reached, whatever was queued after it."""
        ...

    def synchronize(self, stream: int) -> None:
        """Wait until all that is queued on ``stream`` is done."""
        ...


def no_driver(reason: str) -> BackendError:
    """The error for a machine without the NVIDIA driver (libcuda); ``reason`` is the library's own message."""
    return BackendError(f"no NVIDIA driver found ({reason.rstrip('.')}). Install the driver, or {INSTEAD}")


def no_gpu(reason: str) -> BackendError:
    """The error for a driver that sees no GPU; ``reason`` is CUDA's own message."""
    return BackendError(
        f"the NVIDIA driver finds no GPU ({reason}). Check nvidia-smi and CUDA_VISIBLE_DEVICES, or {INSTEAD}"
    )


def out_of_memory(kind: str, nbytes: int, reason: str) -> BackendError:
    """The error for an allocation that does not fit; ``kind`` is "device" or "pinned host"."""
    return BackendError(
        f"no room for {nbytes} bytes of {kind} memory ({reason}). "
        "End other programs that use the GPU, or rebuild the engine with a smaller --max-batch"
    )


def dotted_version(number: int) -> str:
    """CUDA's version number as people write it: 12060 -> "12.6"."""
    return f"{number // 1000}.{number % 1000 // 10}"


def parameter_addresses(parameters: ctypes.Structure) -> ctypes.Array[ctypes.c_void_p]:
    """The address of every field of a kernel's parameters, as ``cuLaunchKernel`` wants them."""
    start = ctypes.addressof(parameters)
    offsets = [getattr(type(parameters), field[0]).offset for field in parameters._fields_]
    return (ctypes.c_void_p * len(offsets))(*(start + offset for offset in offsets))


def parameter_bytes(parameters: ctypes.Structure) -> bytes:
    """A kernel's parameters as one block, each at its natural alignment, without padding at the end."""
    last = getattr(type(parameters), parameters._fields_[-1][0])
    return bytes(parameters)[: last.offset + last.size]

"""Memory that the CUDA kernels of plugins/ can reach: the host's for the emulation, a GPU's for the others."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gfl_edge.cuda.interface import CudaDevice

ALIGNMENT = 256  # bytes, of every block
GUARD = 256  # bytes after every block of host memory that no kernel may touch
GUARD_VALUE = 0xA5

Array = NDArray[Any]


class Memory(Protocol):
    """Memory that kernels can reach. Blocks live until ``close``."""

    stream: int  # on which its copies run, and kernels should

    def put(self, array: Array) -> int:
        """Address of a copy of ``array``, or of itself."""
        ...

    def empty(self, nbytes: int) -> int:
        """Address of ``nbytes`` bytes, aligned to 256."""
        ...

    def fill(self, address: int, array: Array) -> None:
        """Overwrite what lies at ``address``, after what was queued on ``stream`` and before what is queued then."""
        ...

    def get(self, address: int, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """A copy of what lies at ``address``, once everything that was queued on ``stream`` is done."""
        ...

    def close(self) -> None:
        """Free all blocks."""
        ...


class HostMemory:
    """Memory for the emulation: inputs as they are, the rest with a guard after it, which ``close`` checks."""

    stream = 0

    def __init__(self) -> None:
        self._arrays: list[Array] = []
        self._guards: list[Array] = []

    def put(self, array: Array) -> int:
        """See Memory."""
        contiguous = np.ascontiguousarray(array)
        self._arrays.append(contiguous)
        return contiguous.ctypes.data

    def empty(self, nbytes: int) -> int:
        """See Memory. What is in there is garbage on purpose."""
        block = np.full(nbytes + GUARD + ALIGNMENT, GUARD_VALUE, np.uint8)
        start = -block.ctypes.data % ALIGNMENT
        self._arrays.append(block)
        self._guards.append(block[start + nbytes :])
        return block.ctypes.data + start

    def fill(self, address: int, array: Array) -> None:
        """See Memory."""
        ctypes.memmove(address, np.ascontiguousarray(array).ctypes.data, array.nbytes)

    def get(self, address: int, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """See Memory."""
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer(ctypes.string_at(address, nbytes), dtype).reshape(shape).copy()

    def close(self) -> None:
        """See Memory; raises AssertionError if a kernel wrote beyond the end of a block."""
        touched = [guard for guard in self._guards if (guard != GUARD_VALUE).any()]
        self._arrays.clear()
        self._guards.clear()
        assert not touched, "a kernel wrote beyond the end of its memory"


class DeviceMemory:
    """Memory of a GPU. Use it inside of ``with device.active()``."""

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self.stream = device.create_stream()
        self._addresses: list[int] = []

    def put(self, array: Array) -> int:
        """See Memory."""
        address = self.empty(array.nbytes)
        self.fill(address, array)
        return address

    def fill(self, address: int, array: Array) -> None:
        """See Memory. Pinned, on the stream: a copy from other memory may still be on its way when it returns."""
        pinned = self._device.pinned_empty(array.shape, array.dtype)
        pinned[...] = array
        self._device.copy_to_device(address, pinned, self.stream)
        self._device.synchronize(self.stream)

    def empty(self, nbytes: int) -> int:
        """See Memory."""
        self._addresses.append(self._device.malloc(nbytes))
        return self._addresses[-1]

    def get(self, address: int, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """See Memory."""
        pinned = self._device.pinned_empty(shape, dtype)
        self._device.copy_to_host(pinned, address, self.stream)
        self._device.synchronize(self.stream)
        return pinned.copy()

    def close(self) -> None:
        """See Memory."""
        self._device.synchronize(self.stream)
        for address in self._addresses:
            self._device.free(address)
        self._addresses.clear()
        self._device.destroy_stream(self.stream)


@contextmanager
def memory_of(device: CudaDevice) -> Iterator[Memory]:
    """Memory of a GPU, which is this thread's for the ``with`` block."""
    with device.active():
        memory = DeviceMemory(device)
        try:
            yield memory
        finally:
            memory.close()

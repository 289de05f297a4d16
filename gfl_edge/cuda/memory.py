"""Memory that both sides of the bus have, for copies in between."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gfl_edge.cuda.interface import CudaDevice


class MirroredMemory:
    """Pinned host memory, and device memory of the same size. Use it inside ``with device.active()``.

    A GPU that shares the host's memory reads and writes the pinned one: nothing is copied, and what it writes is there
    when the stream is done.

    Attributes:
        address: of the device's memory.
        nbytes: size of each.
    """

    def __init__(self, device: CudaDevice, nbytes: int) -> None:
        self._device = device
        self.nbytes = nbytes
        self._host = device.pinned_empty((nbytes,), np.uint8)
        self.address = device.mapped_address(self._host) if device.maps else device.malloc(nbytes)

    def host(self, shape: tuple[int, ...], dtype: DTypeLike, offset: int = 0) -> NDArray[Any]:
        """A view on the host memory from ``offset`` bytes on."""
        end = offset + math.prod(shape) * np.dtype(dtype).itemsize
        return self._host[offset:end].view(dtype).reshape(shape)

    def upload(self, nbytes: int, stream: int) -> None:
        """Queue the copy of the first bytes to the device."""
        if self._device.maps:
            return
        self._device.copy_to_device(self.address, self._host[:nbytes], stream)

    def download(self, nbytes: int, stream: int) -> None:
        """Queue the copy of the first bytes to the host."""
        if self._device.maps:
            return
        self._device.copy_to_host(self._host[:nbytes], self.address, stream)

    def close(self) -> None:
        """Free the device memory; host memory goes with the last view on it, and this gives none any more."""
        if not self._device.maps:
            self._device.free(self.address)
        del self._host


def offsets(sizes: list[int], alignment: int) -> list[int]:
    """Where parts of ``sizes`` bytes begin one after another, aligned; and, last, where they end."""
    found = [0]
    for size in sizes:
        found.append(found[-1] + -(-size // alignment) * alignment)
    return found

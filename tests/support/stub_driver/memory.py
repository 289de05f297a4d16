"""The stub driver's memory and streams as the fake TensorRT uses those of the fake GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from tests.support.stub_driver.library import NAME, StubDriver

HostFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class StubGpu:
    """What ``tests.support.fake_tensorrt`` needs of a GPU, of which real CUDA libraries are the other users.

    Attributes:
        failures: what went wrong in work that the driver did, which has no way to say so.
    """

    depth = 1  # contexts are on the stack: the driver checks that itself

    def __init__(self, driver: StubDriver) -> None:
        self._driver, self._library = driver, ctypes.CDLL(NAME)
        self._library.stub_block_size.restype = ctypes.c_long
        self._work: list[Any] = []  # has to outlive the graphs
        self.failures: list[BaseException] = []
        self.memory, self.streams = _Sizes(self._library), _Any()

    @property
    def capturing(self) -> int | None:
        return self._driver.count("capturing") or None

    def queue(self, stream: int, work: Callable[[], None]) -> None:
        """Put work on a stream."""

        def run(_: object) -> None:
            try:
                work()
            except BaseException as error:
                self.failures.append(error)

        self._work.append(HostFunction(run))
        status = self._library.cuLaunchHostFunc(ctypes.c_void_p(stream), self._work[-1], None)
        assert status == 0, status

    def read(self, address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        nbytes = prod(shape) * np.dtype(dtype).itemsize
        return np.frombuffer(ctypes.string_at(address, nbytes), dtype).reshape(shape)

    def write(self, address: int, array: np.ndarray) -> None:
        content = np.ascontiguousarray(array)
        ctypes.memmove(address, content.ctypes.data, content.nbytes)


class _Sizes:
    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def __getitem__(self, address: int) -> range:
        return range(self._library.stub_block_size(ctypes.c_void_p(address)))


class _Any:
    def __contains__(self, stream: int) -> bool:
        return True

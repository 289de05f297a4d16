"""A GPU in host memory, strict enough that the mistakes of the real code, which drives it, show.

Nothing queued on a stream happens before the stream is synchronized, as late as a real GPU may do it: an output that is
read too early, an input that is changed too early or a missing copy gives wrong numbers. What is captured happens when
the graph is launched, with the addresses and parameters of the capture. Every allocation is counted.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import prod
from typing import Any

import numpy as np

from gfl_edge.cuda.captures import after_capture, capturing
from gfl_edge.cuda.interface import Launch, out_of_memory
from gfl_edge.errors import BackendError
from tests.support.fake_kernels import KERNELS

FAKE_CUBIN = b"kernels for the fake GPU"  # the only module that it loads
WAITING = {"synchronize", "synchronize_event"}
NOT_WHILE_CAPTURING = {"malloc", "free", "pinned_empty", "load_module", "unload_module", *WAITING}


class FakeGpu:
    """Implements ``gfl_edge.cuda.interface.CudaDevice``.

    Args:
        room: bytes of device memory.

    Attributes:
        memory: device memory that is not freed, by address.
        streams: work that is queued, by stream.
        pinned: blocks of pinned memory that are still referred to.
        modules: that are not unloaded.
        graphs: captured work that is not destroyed, by handle.
        events: that are not destroyed, and how much had been worked when they were reached.
        worked: pieces of work that were done.
        capturing: the work of the graph that is being captured.
        calls: how often each method was called.
        depth: how often the context is on the stack of this thread.
        copied: bytes of each copy, in order.
    """

    library = "fake"
    name = "Fake RTX 2080 Ti"
    compute_capability = "sm75"
    pci_bus_id = "0000:0B:00.0"
    driver_version = "13.0"
    captures = True
    maps = False

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self.memory: dict[int, bytearray] = {}
        self.streams: dict[int, list[Callable[[], None]]] = {}
        self.pinned: set[int] = set()
        self.modules: set[int] = set()
        self.functions: dict[int, tuple[int, str]] = {}  # module and name
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.events: dict[int, int | None] = {}
        self.recorded_on: dict[int, int] = {}  # the stream of each event
        self.worked = 0
        self.capturing: list[Callable[[], None]] | None = None
        self.calls: Counter[str] = Counter()
        self.copied: list[int] = []
        self.fail_in = ""  # name of the method that raises
        self.depth = 0
        self._next = 0x7F0000000000
        self._working = threading.RLock()  # a stream's work is done in order, whoever waits for it
        self._capturing_thread = 0

    def assert_nothing_left(self) -> None:
        assert not self.memory
        assert not self.streams
        assert not self.pinned
        assert not self.modules
        assert not self.graphs
        assert not self.events
        assert self.depth == 0

    def _enter(self, method: str) -> None:
        assert self.depth, f"{method} needs the context: use it inside device.active()"
        self.calls[method] += 1
        if method == self.fail_in:
            raise BackendError(f"CUDA failed in {method}: CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure")
        if self._captures() and method in NOT_WHILE_CAPTURING:
            raise BackendError(f"CUDA failed in {method}: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")

    def _address(self, nbytes: int = 1) -> int:
        address = self._next
        self._next += -(-nbytes // 4096) * 4096 + (1 << 20)  # a gap, so that what runs over an end meets nothing
        return address

    def queue(self, stream: int, work: Callable[[], None]) -> None:
        """Put work on a stream, or into the graph that is being captured from it."""
        assert stream in self.streams
        (self.capturing if self._captures() else self.streams[stream]).append(work)

    def _captures(self) -> bool:
        """Whether this thread does; the others go on."""
        return self.capturing is not None and self._capturing_thread == threading.get_ident()

    @contextmanager
    def active(self) -> Iterator[None]:
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def malloc(self, nbytes: int) -> int:
        self._enter("malloc")
        if nbytes > self.room - sum(map(len, self.memory.values())):
            raise out_of_memory("device", nbytes, "CUDA_ERROR_OUT_OF_MEMORY: out of memory")
        address = self._address(nbytes)
        self.memory[address] = bytearray(b"\xcd" * nbytes)  # what is read before it is written is no zero
        return address

    def free(self, address: int) -> None:
        after_capture(partial(self._free, address))

    def _free(self, address: int) -> None:
        with self.active():
            self._enter("free")
        del self.memory[address]

    def pinned_empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        self._enter("pinned_empty")
        block = np.full(prod(shape) * np.dtype(dtype).itemsize, 0xCD, np.uint8)
        self.pinned.add(id(block))
        weakref.finalize(block, after_capture, partial(self.pinned.discard, id(block)))
        return block.view(dtype).reshape(shape)

    def create_stream(self) -> int:
        self._enter("create_stream")
        stream = self._address()
        self.streams[stream] = []
        return stream

    def destroy_stream(self, stream: int) -> None:
        self._enter("destroy_stream")
        del self.streams[stream]

    def copy_to_device(self, address: int, array: np.ndarray, stream: int) -> None:
        self._enter("copy_to_device")
        self._check_copy(address, array)
        self.queue(stream, lambda: self.write(address, array))

    def copy_to_host(self, array: np.ndarray, address: int, stream: int) -> None:
        self._enter("copy_to_host")
        self._check_copy(address, array)
        self.queue(stream, lambda: np.copyto(array, self.read(address, array.shape, array.dtype)))

    def _check_copy(self, address: int, array: np.ndarray) -> None:
        assert array.flags.c_contiguous
        assert id(array.base) in self.pinned, "an asynchronous copy needs pinned memory"
        self._place(address, array.nbytes)
        self.copied.append(array.nbytes)

    def _place(self, address: int, nbytes: int) -> tuple[bytearray, int]:
        """The block in which ``nbytes`` bytes from ``address`` on lie, and their offset there."""
        for start, block in self.memory.items():
            if start <= address and address + nbytes <= start + len(block):
                return block, address - start
        raise AssertionError(f"{nbytes} bytes at {address:#x} are no memory of this GPU")

    def memset(self, address: int, value: int, nbytes: int, stream: int) -> None:
        self._enter("memset")
        self._place(address, nbytes)
        self.queue(stream, lambda: self.write(address, np.full(nbytes, value, np.uint8)))

    def load_module(self, image: bytes) -> int:
        self._enter("load_module")
        assert image == FAKE_CUBIN
        module = self._address()
        self.modules.add(module)
        return module

    def unload_module(self, module: int) -> None:
        self._enter("unload_module")
        self.modules.remove(module)

    def get_function(self, module: int, name: str) -> int:
        self._enter("get_function")
        assert module in self.modules
        function = self._address()
        self.functions[function] = module, name
        return function

    def launch(self, function: int, launch: Launch, parameters: ctypes.Structure, stream: int) -> None:
        self._enter("launch")
        module, name = self.functions[function]
        assert module in self.modules
        assert min(launch.grid + launch.block) >= 1
        assert prod(launch.block) <= 1024
        frozen = type(parameters).from_buffer_copy(parameters)
        self.queue(stream, lambda: KERNELS[name](self, frozen, launch))

    def capture(self, stream: int, queue: Callable[[], None]) -> int:
        self._enter("capture")
        assert stream in self.streams
        assert self.capturing is None
        self._capturing_thread = threading.get_ident()
        self.capturing = captured = []
        with capturing():
            try:
                queue()
            finally:
                self.capturing = None
        graph = self._address()
        self.graphs[graph] = captured
        return graph

    def launch_graph(self, graph: int, stream: int) -> None:
        self._enter("launch_graph")
        self.streams[stream].extend(self.graphs[graph])

    def destroy_graph(self, graph: int) -> None:
        self._enter("destroy_graph")
        del self.graphs[graph]

    def create_event(self) -> int:
        self._enter("create_event")
        event = self._address()
        self.events[event] = None
        return event

    def record_event(self, event: int, stream: int) -> None:
        self._enter("record_event")
        assert event in self.events

        def note() -> None:
            self.worked -= 1  # this is no work
            self.events[event] = self.worked

        self.events[event], self.recorded_on[event] = None, stream
        self.queue(stream, note)

    def wait_for_event(self, event: int, stream: int) -> None:
        self._enter("wait_for_event")
        assert event in self.recorded_on

        def reach() -> None:
            self.worked -= 1  # this is no work
            self._reach(event)

        self.queue(stream, reach)

    def synchronize_event(self, event: int) -> None:
        self._enter("synchronize_event")
        self._reach(event)

    def _reach(self, event: int) -> None:
        with self._working:
            while self.events[event] is None:
                self._work(self.recorded_on[event])

    def elapsed_ms(self, start: int, end: int) -> float:
        """A millisecond for each piece of work in between."""
        self._enter("elapsed_ms")
        first, last = self.events[start], self.events[end]
        assert first is not None
        assert last is not None
        return float(last - first)

    def destroy_event(self, event: int) -> None:
        self._enter("destroy_event")
        del self.events[event]

    def synchronize(self, stream: int) -> None:
        self._enter("synchronize")
        with self._working:
            while self.streams[stream]:
                self._work(stream)

    def _work(self, stream: int) -> None:
        self.worked += 1
        self.streams[stream].pop(0)()

    def read(self, address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        nbytes = prod(shape) * np.dtype(dtype).itemsize
        block, offset = self._place(address, nbytes)
        return np.frombuffer(block[offset : offset + nbytes], dtype).reshape(shape)

    def write(self, address: int, array: np.ndarray) -> None:
        block, offset = self._place(address, array.nbytes)
        block[offset : offset + array.nbytes] = array.tobytes()

"""The CUDA kernels as gfl_edge itself runs them: compiled at run time, launched one by one, as graphs where it can."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from benchmarks.kernels.library import KernelLibrary, NmsCall
from benchmarks.kernels.memory import Memory, memory_of
from gfl_edge.cuda.interface import CudaDevice
from gfl_edge.cuda.kernels import Kernels, NmsParams, ResizeParams, Workspace


class ProductionLibrary(KernelLibrary):
    """The kernels of :class:`gfl_edge.cuda.kernels.Kernels`.

    Args:
        device: where.
        captured: whether every call is captured into a graph, and that is launched.
        overlapping: see :class:`gfl_edge.cuda.kernels.Kernels`.
    """

    def __init__(self, device: CudaDevice, captured: bool = False, overlapping: bool = True) -> None:
        self.device = device
        self._captured = captured
        with device.active():
            self._kernels = Kernels(device, overlapping)

    def memory(self) -> AbstractContextManager[Memory]:
        """See KernelLibrary. The GPU is this thread's for the ``with`` block."""
        return memory_of(self.device)

    def workspace_size(self, params: NmsParams) -> int:
        """See KernelLibrary."""
        return Workspace.of(params).nbytes

    def queue_nms(self, call: NmsCall, stream: int) -> None:
        """See KernelLibrary."""
        self._queue(lambda: self._kernels.nms(call.params, *call.addresses(), call.workspace, stream), stream)

    def queue_resize(self, params: ResizeParams, frame: int, uv: int, out: int, stream: int) -> None:
        """See KernelLibrary."""
        assert uv in (0, frame + params.frame_height * params.pitch)
        self._queue(lambda: self._kernels.resize(params, frame, out, stream), stream)

    def _queue(self, work: Callable[[], None], stream: int) -> None:
        if not self._captured:
            work()
            return
        graph = self.device.capture(stream, work)
        self.device.launch_graph(graph, stream)
        self.device.synchronize(stream)
        self.device.destroy_graph(graph)

    def close(self) -> None:
        """Unload the kernels."""
        with self.device.active():
            self._kernels.close()

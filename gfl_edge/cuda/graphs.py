"""Work that is queued again and again, as a CUDA graph."""

from __future__ import annotations

import logging
from collections.abc import Callable

from gfl_edge.cuda.interface import CudaDevice
from gfl_edge.errors import BackendError

_LOG = logging.getLogger(__name__)


class RepeatedWork:
    """Queues work on a stream: call by call the first time, so that libraries settle, and as a graph from then on.

    Where a graph cannot be captured, everything is queued call by call, which is warned of once. Use it inside
    ``with device.active()``.

    Args:
        device: the GPU.
        stream: where the work is queued.
        enabled: False: never capture.

    Attributes:
        enabled: whether it captures; stays False where the library cannot.
    """

    def __init__(self, device: CudaDevice, stream: int, enabled: bool = True) -> None:
        self._device = device
        self._stream = stream
        self.enabled = enabled and device.captures
        self._ran = False
        self._graph: int | None = None

    def run(self, queue: Callable[[], None]) -> None:
        """Queue the work that ``queue`` puts on the stream; it is not called where a graph of it is kept.

        Between two calls of :meth:`clear` it has to be the same calls with the same addresses and parameters.
        """
        if self._graph is None and self._ran and self.enabled:
            try:
                self._graph = self._device.capture(self._stream, queue)
            except BackendError as error:
                self.enabled = False
                _LOG.warning("no CUDA graph, so that every frame costs the CPU some more time: %s", str(error))
        if self._graph is None:
            queue()
        else:
            self._device.launch_graph(self._graph, self._stream)
        self._ran = True

    def clear(self) -> None:
        """Forget the graph, since something that it holds is about to change."""
        graph, self._graph, self._ran = self._graph, None, False
        if graph is not None:
            self._device.destroy_graph(graph)

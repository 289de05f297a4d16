"""Work that is queued again and again, as CUDA graphs."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable

from gfl_edge.cuda.interface import CudaDevice
from gfl_edge.errors import BackendError

_LOG = logging.getLogger(__name__)

# Each keeps some memory of the driver's. A camera needs one, a folder of images none; the oldest goes first
MAX_GRAPHS = 8


class GraphCache:
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
        self._graphs: OrderedDict[Hashable, int | None] = OrderedDict()  # None: seen once

    def run(self, key: Hashable, queue: Callable[[], None]) -> None:
        """Queue the work that ``queue`` puts on the stream.

        Args:
            key: of the work; the same key promises the same calls with the same addresses and parameters.
            queue: puts it there; not called where a graph of it is kept.
        """
        graph = self._graphs.get(key)
        if graph is None and key in self._graphs and self.enabled:
            try:
                graph = self._graphs[key] = self._device.capture(self._stream, queue)
            except BackendError as error:
                self.enabled = False
                _LOG.warning("no CUDA graph, so that every frame costs the CPU some more time: %s", str(error))
        if graph is None:
            queue()
        else:
            self._device.launch_graph(graph, self._stream)
        self._graphs[key] = graph
        self._graphs.move_to_end(key)
        while len(self._graphs) > MAX_GRAPHS:
            _, oldest = self._graphs.popitem(last=False)
            self._destroy(oldest)

    def _destroy(self, graph: int | None) -> None:
        if graph is not None:
            self._device.destroy_graph(graph)

    def clear(self) -> None:
        """Forget all graphs, since something that they hold is about to change."""
        while self._graphs:
            _, graph = self._graphs.popitem()
            self._destroy(graph)

"""What each run has of its own while others are under way on the same GPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from gfl_edge.backends.gpu_stages import GpuFrames, GpuNms
from gfl_edge.cuda.events import Mark, StageEvents, unmarked
from gfl_edge.cuda.graphs import RepeatedWork
from gfl_edge.cuda.interface import CudaDevice
from gfl_edge.ops.postprocess import Outputs


class Slot:
    """The place of one run: its frames, what it leaves on the host, its graph. Use it inside ``with device.active()``.

    Args:
        device: the GPU.
        stream: where all but the copy of its input is queued.
        sending: where that is; the same, or another, whose copies go on beside the work of the run before.
        captured: whether what follows resizing becomes a graph.
        nms: what does NMS after the engine; None: the engine's own outputs go to the host.
        pinned: flat memory on the host for those, by name.

    Attributes:
        sending: the stream of the copy of the input.
        stages: measures them, once it is asked to.
        sent: of the stages before the network, those that the run under way has.
    """

    def __init__(
        self,
        device: CudaDevice,
        stream: int,
        sending: int,
        captured: bool,
        nms: GpuNms | None,
        pinned: Mapping[str, NDArray[Any]],
    ) -> None:
        self._device, self._stream, self.sending = device, stream, sending
        self.nms, self.pinned = nms, pinned
        self.frames: GpuFrames | None = None
        self.graph = RepeatedWork(device, stream, captured)
        self.stages: StageEvents | None = None
        self.sent: tuple[str, ...] = ()
        self._arrived, self._done = device.create_event(), device.create_event()

    @property
    def mark(self) -> Mark:
        """What marks the end of a stage."""
        return unmarked if self.stages is None else self.stages.mark

    def join(self) -> None:
        """Let what is queued from now on wait for what was sent."""
        if self.sending != self._stream:
            self._device.record_event(self._arrived, self.sending)
            self._device.wait_for_event(self._arrived, self._stream)

    def run(self, queue: Callable[[], None]) -> None:
        """Queue what follows resizing, which ends the run."""
        self.graph.run(queue)
        self._device.record_event(self._done, self._stream)

    def wait(self) -> None:
        """Wait for the end of the run."""
        self._device.synchronize_event(self._done)

    def stage_ms(self) -> dict[str, float]:
        """Milliseconds of the stages of the run, which is over; empty where they are not measured."""
        if self.stages is None:
            return {}
        return self.stages.read((*self.sent, "network", *(("nms",) if self.nms else ()), "download"))

    def measure(self) -> None:
        """Time the stages from now on. Nothing may be under way."""
        self.graph.clear()  # it has no events
        if self.stages is None:
            self.stages = StageEvents(self._device, self._stream, self.sending)

    def outputs(self, shapes: Mapping[str, tuple[int, ...]]) -> Outputs:
        """Where the results are once the run is over; ``shapes`` are those of the engine's outputs, batch first."""
        if self.nms is not None:
            batch, *_ = next(iter(shapes.values()))
            return self.nms.outputs(batch)
        return {name: on_host(self.pinned[name], shape) for name, shape in shapes.items()}

    def close(self) -> None:
        """Free everything but the graph. Nothing may be under way."""
        for part in (self.frames, self.nms, self.stages):
            if part is not None:
                part.close()
        for event in (self._arrived, self._done):
            self._device.destroy_event(event)
        self.pinned = {}


def on_host(flat: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The part of pinned memory that ``shape`` takes, as such."""
    return flat[: math.prod(shape)].reshape(shape)

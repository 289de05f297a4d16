"""How long the stages of queued work take on the GPU, by events between them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from gfl_edge.cuda.interface import CudaDevice

Mark = Callable[[str], None]  # queues the end of the stage of that name

START = "start"
SENT = "upload"


def unmarked(stage: str) -> None:
    """For runs that are not measured."""


class StageEvents:
    """Events, one at the end of each stage. Use it inside ``with device.active()``.

    They enter the graphs that are captured with them, whose replays record them again.

    Args:
        device: the GPU.
        stream: where the work is queued.
        sending: where that of the first stage is, "upload"; None: there, too.
    """

    def __init__(self, device: CudaDevice, stream: int, sending: int | None = None) -> None:
        self._device, self._stream, self._sending = device, stream, stream if sending is None else sending
        self._events: dict[str, int] = {}

    def mark(self, stage: str) -> None:
        """Queue the end of a stage, or with ``START`` the beginning of the first."""
        if stage not in self._events:
            self._events[stage] = self._device.create_event()
        self._device.record_event(self._events[stage], self._sending if stage in (START, SENT) else self._stream)

    def read(self, stages: Sequence[str]) -> dict[str, float]:
        """Milliseconds of the ``stages``, which followed one another in this order and are done."""
        events = [self._events[name] for name in (START, *stages)]
        times = (self._device.elapsed_ms(*pair) for pair in itertools.pairwise(events))
        return dict(zip(stages, times, strict=True))

    def close(self) -> None:
        """Give the events back."""
        while self._events:
            _, event = self._events.popitem()
            self._device.destroy_event(event)

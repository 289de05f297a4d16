"""What a run hands to its page: the newest frame of each source, and how it goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from gfl_edge.backends.base import Backend
from gfl_edge.detections import Detections
from gfl_edge.errors import InputError
from gfl_edge.filters.detection_filter import DetectionFilter
from gfl_edge.ops.preprocess import AnyFrame, Image, as_bgr, checked_size

Phase = Literal["starting", "running", "ended"]


@dataclass(frozen=True, eq=False)
class LiveFrame:
    """The newest frame of a source.

    Attributes:
        number: of the frames of its source that were shown, from 1.
        pixels: uint8 ``[H, W, 3]`` BGR or NV12, without drawings.
        found: all that the model found in it, from its own lowest score on.
        counts: what of it counts in the run, with the identities of a run that tracks.
        shown_s: when, by ``time.monotonic``.
    """

    number: int
    pixels: AnyFrame
    found: Detections
    counts: Detections
    shown_s: float

    @cached_property
    def image(self) -> Image:
        """Uint8 ``[H, W, 3]`` BGR without drawings."""
        return as_bgr(self.pixels)

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width = checked_size(self.pixels)
        return width, height


@dataclass(frozen=True)
class SourceStatistics:
    """How a source does.

    Attributes:
        name: without passwords.
        live: whether it is a camera or stream.
        away: whether it is waited for.
        ended: whether no more frames come.
        frames: that were detected in.
        fps: of the last seconds; 0 where none came.
        latency_ms: from capture to delivery, of the whole run: ``p50``, ``p90``, ``p99`` and ``max``.
        latency_counts: of ``LATENCY_ENDS_S``, how many frames took up to so long.
        latency_sum_s: of all frames.
        dropped: frames that were too old when their turn came.
        reconnects: how often it was opened again.
        skipped: image files that could not be used.
        invalid: candidates of the model that can be no detections.
        error: why it failed; None if it did not.
    """

    name: str
    live: bool
    away: bool
    ended: bool
    frames: int
    fps: float
    latency_ms: dict[str, float]
    latency_counts: tuple[int, ...]
    latency_sum_s: float
    dropped: int
    reconnects: int
    skipped: int
    invalid: int
    error: str | None


@dataclass(frozen=True)
class RunStatistics:
    """How a run does.

    Attributes:
        model: its name.
        backend: what runs it.
        seconds: since its first frame was waited for.
        stage_ms: milliseconds of each stage, mean of the last two seconds.
        waiting: frames that wait in front of each stage.
        sources: in their order.
    """

    model: str
    backend: str
    seconds: float
    stage_ms: dict[str, float]
    waiting: dict[str, int]
    sources: tuple[SourceStatistics, ...]


# Of the histogram of latencies in the metrics: how long a frame may take, in seconds
LATENCY_ENDS_S = (0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, eq=False)
class Run:
    """A run that a page shows.

    Attributes:
        keep: which detections count in it.
        asked: the same as the user gave it, without the scores that the model recommends.
        backend: of its detector.
        draw_sigma: whether it is drawn how sure each edge is.
        statistics: how it does now; may be called in any thread.
    """

    keep: DetectionFilter
    asked: DetectionFilter
    backend: Backend
    draw_sigma: bool
    statistics: Callable[[], RunStatistics]


class Live:
    """Between a run and its page. The run stores references and never waits; the page looks at them when it likes.

    Attributes:
        run: None until it has its model.
        phase: where the run stands.
        frames: the newest of each source; None until there is one.
    """

    def __init__(self) -> None:
        self.run: Run | None = None
        self.phase: Phase = "starting"
        self.frames: list[LiveFrame | None] = []

    def follow(self, run: Run, sources: int) -> None:
        """Show a run of so many sources from now on.

        Raises:
            InputError: another is shown, which has not ended.
        """
        if self.phase == "running":
            raise InputError("the live page shows another run already: give each run a page of its own")
        self.frames, self.run, self.phase = [None] * sources, run, "running"

    def show(self, source: int, pixels: AnyFrame, found: Detections, counts: Detections) -> None:
        """The newest frame of a source, see :class:`LiveFrame`, which is not changed from now on."""
        before = self.frames[source]
        self.frames[source] = LiveFrame(before.number + 1 if before else 1, pixels, found, counts, time.monotonic())

    def end(self) -> None:
        """The run has ended; its last frames stay."""
        self.phase = "ended"

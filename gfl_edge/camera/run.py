"""The stages of a run of the camera, put together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sized
from typing import TYPE_CHECKING

from gfl_edge.camera.batching import SteadyBatch
from gfl_edge.camera.delivery import Delivery, Result
from gfl_edge.camera.feeds import Feeds, Taken
from gfl_edge.camera.latency import LatencyHistogram
from gfl_edge.camera.pipeline import BoundedQueue, EndOfItems, Pipeline, QueueDepth
from gfl_edge.camera.status import StageClock, StatusLine
from gfl_edge.camera.stop_signals import StopSignals
from gfl_edge.camera.summary import StoppedBy
from gfl_edge.detections import Detections
from gfl_edge.media.draw import draw_detections
from gfl_edge.media.sources import Frame

if TYPE_CHECKING:
    from gfl_edge.detector import Detector, Prepared

# Frames between two stages: one, since each more makes a live picture older by a frame; files have a spare one, which
# evens out stages that take now more, now less
WAITING, WAITING_LIVE = 2, 1
POLL_SECONDS = 0.05  # between looks at whether a signal came


class CameraRun:
    """The stages of a run; the last, which writes, is the caller's thread, as windows belong to it.

    Args:
        detector: resizes and finds.
        feeds: open sources.
        pipeline: empty, takes the stages.
        delivery: takes the results.
        score: detections with at least this score count.
        on_frame: called after every delivery.

    Attributes:
        clock: times of the stages.
        latency: milliseconds from capture to delivery.
        status: the line that tells how it goes.
    """

    def __init__(
        self,
        detector: Detector,
        feeds: Feeds,
        pipeline: Pipeline,
        delivery: Delivery,
        score: float,
        on_frame: Callable[[Frame, Detections], None] | None,
    ) -> None:
        self.clock, self.latency = StageClock(), LatencyHistogram()
        self.status = StatusLine(feeds.total, self._load)
        self._detector, self._feeds, self._delivery = detector, feeds, delivery
        self._pipeline, self._score, self._on_frame = pipeline, score, on_frame
        self._steady = SteadyBatch()

    def _start(self) -> BoundedQueue[Result]:
        waiting = WAITING_LIVE if any(feed.live for feed in self._feeds.feeds) else WAITING
        add, draws = self._pipeline.add, self._delivery.draws
        prepared = add("preprocess", self._feeds, self._prepare, "network", waiting)
        found = add("network", prepared, self._infer, "draw" if draws else "write", waiting)
        return add("draw", found, self._draw, "write", waiting) if draws else found

    def _prepare(self, taken: list[Taken]) -> list[tuple[list[Taken], Prepared]]:
        frames = [one.frame.image for one in taken]
        frames += frames[-1:] * (self._steady.size(len(frames)) - len(frames))
        return [(taken, self._detector.prepare(frames))]

    def _infer(self, ready: tuple[list[Taken], Prepared]) -> list[Result]:
        taken, prepared = ready
        found, ms = self._detector.infer(prepared)
        found = found[: len(taken)]  # the batch may have been filled up
        return [
            Result(one, detections.above(self._score), {"read": one.read_ms, **ms}, one.frame.image)
            for one, detections in zip(taken, found, strict=True)
        ]

    def _draw(self, result: Result) -> list[Result]:
        start = time.perf_counter()
        result.picture = draw_detections(result.picture, result.detections)
        result.ms["draw"] = _ms_since(start)
        return [result]

    def until_it_ends(self, stop: StopSignals) -> StoppedBy:
        """Deliver what comes; every way out but an error is returned. Signals are disarmed but in ``on_frame``."""
        results = self._start()
        try:
            while not stop.requested:
                result = results.get_within(POLL_SECONDS)
                shown = self._delivery.stays() if result is None else self._deliver(result)
                if result is not None and self._on_frame is not None:
                    with stop.armed():
                        self._on_frame(result.taken.frame, result.detections)
                if not shown:
                    return "user"
        except EndOfItems:
            return self._feeds.ended_by
        except KeyboardInterrupt:
            pass
        finally:
            self._feeds.stop()
            self._pipeline.stop()
        return "interrupt"

    def _deliver(self, result: Result) -> bool:
        """Write and show; False when the user has closed the window."""
        start = time.perf_counter()
        self._delivery.write(result)
        shown = self._delivery.show(result, self._window_text(result.ms))
        feed, ms = result.taken.feed, _ms_since(result.taken.captured_s)
        for latency in (self.latency, feed.latency):
            latency.add(ms)
        feed.delivered += 1
        self.clock.add({"draw": 0.0, **result.ms, "write": _ms_since(start)})
        several = len(self._feeds.feeds) > 1
        self.status.update(self.clock.frames if several else result.taken.frame.index + 1, self.clock)
        return shown

    def _window_text(self, ms: dict[str, float]) -> str:
        return f"{self.clock.recent_fps():.1f} FPS, network {ms['network']:.1f} ms ({self._detector.backend.name})"

    def _load(self) -> str:
        """What the status line says of the queues."""
        waiting: dict[str, Sized] = {"preprocess": self._feeds, **self._pipeline.queues}
        text = ", ".join(f"{name} {len(queue)}" for name, queue in waiting.items())
        return f"waiting: {text}; dropped {self._feeds.dropped}"

    def queues(self) -> dict[str, QueueDepth]:
        """How full the queue in front of each stage was."""
        depths = {name: queue.depth() for name, queue in self._pipeline.queues.items()}
        return {"preprocess": self._feeds.depth(), **depths}


def _ms_since(start: float) -> float:
    return 1000 * (time.perf_counter() - start)

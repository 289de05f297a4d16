"""The camera's stages at the same time."""

from __future__ import annotations

import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from gfl_edge.camera import run as camera_run
from gfl_edge.camera import run_camera
from gfl_edge.detections import Detections
from gfl_edge.detector import Inference
from gfl_edge.media.sinks import VideoSink
from gfl_edge.media.sources import Frame
from tests.support.fake_detector import FakeDetector, SlowDetector, slowed
from tests.support.fake_sources import FakeSource, Sources


@pytest.mark.parametrize("slowest", ["read", "preprocess", "network", "draw", "write"])
def test_the_slowest_stage_sets_the_pace(
    tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch, slowest: str
) -> None:
    count, most, other = 15, 0.04, 0.02
    seconds = {stage: most if stage == slowest else other for stage in ("read", "preprocess", "network")}
    monkeypatch.setattr(
        camera_run, "draw_detections", slowed(camera_run.draw_detections, most if slowest == "draw" else other)
    )
    monkeypatch.setattr(VideoSink, "write", slowed(VideoSink.write, most if slowest == "write" else other))
    (name,) = sources.add(FakeSource(count=count, period_s=seconds["read"]))
    slow = SlowDetector(seconds["preprocess"], seconds["network"])
    summary = run_camera(slow, name, output=tmp_path / "out.avi")
    assert summary.frames == count
    one_after_the_other = count * (most + 4 * other)
    assert summary.seconds < 0.75 * one_after_the_other, "the slowest by itself takes a third"
    assert summary.stage_ms["write"] >= 1000 * (most if slowest == "write" else other)


def test_resizing_overlaps_with_the_network(sources: Sources) -> None:
    """Frame n + 1 is made ready while frame n is in the network."""
    events = []

    class Watched(FakeDetector):
        def prepare(self, frames: list[np.ndarray]) -> list[np.ndarray]:
            events.append(("prepare", int(frames[0][0, 0, 0])))
            return frames

        def infer(self, prepared: list[np.ndarray]) -> Inference:
            number = int(prepared[0][0, 0, 0])
            time.sleep(0.03)
            events.append(("inferred", number))
            return super().infer(prepared)

    run_camera(Watched(), sources.add(FakeSource(count=6))[0])
    for number in range(5):
        assert events.index(("prepare", number + 1)) < events.index(("inferred", number))


def test_queues_are_reported(tmp_path: Path, sources: Sources) -> None:
    (name,) = sources.add(FakeSource(count=20))
    summary = run_camera(SlowDetector(infer_s=0.01), name, output=tmp_path / "out.avi")
    assert list(summary.queues) == ["preprocess", "network", "draw", "write"]
    assert all(queue.most <= queue.capacity <= 2 for queue in summary.queues.values())
    assert summary.queues["network"].mean > 1, "frames wait for the slow network"
    assert summary.queues["write"].mean < 0.5, "and nothing waits after it"


def test_nothing_is_drawn_that_nobody_sees(
    detector: FakeDetector, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(camera_run, "draw_detections", None)
    summary = run_camera(detector, sources.add(FakeSource())[0])
    assert list(summary.queues) == ["preprocess", "network", "write"]
    assert summary.stage_ms["draw"] == 0


def test_frames_are_handed_on_in_order_by_the_callers_thread(sources: Sources) -> None:
    seen, threads = [], set()

    def on_frame(frame: Frame, _: Detections) -> None:
        seen.append(frame.index)
        threads.add(threading.current_thread())

    run_camera(FakeDetector(), sources.add(FakeSource(count=200))[0], on_frame=on_frame)
    assert seen == list(range(200))
    assert threads == {threading.current_thread()}


def test_memory_is_flat(sources: Sources) -> None:
    """Nothing is kept of a frame that was delivered."""
    traced: list[int] = []

    def on_frame(frame: Frame, _: Detections) -> None:
        if frame.index in (1500, 4999):
            traced.append(tracemalloc.get_traced_memory()[0])

    (name,) = sources.add(FakeSource(count=5000, hw=(8, 8)))
    tracemalloc.start()
    try:
        run_camera(FakeDetector(), name, on_frame=on_frame)
    finally:
        tracemalloc.stop()
    assert traced[1] - traced[0] < 50_000, "bytes; 3500 frames of 192 bytes alone would be 672 000"

"""Live sources: drops, latency, and cameras that come back."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from gfl_edge.camera import run_camera
from gfl_edge.detections import Detections
from gfl_edge.errors import SourceError
from gfl_edge.media.sinks import VideoSink
from gfl_edge.media.sources import Frame
from tests.support.fake_detector import FakeDetector, SlowDetector, slowed
from tests.support.fake_sources import Camera, Cameras, Clock, FakeSource, Sources
from tests.support.media_files import frames_of, lines_of, make_video


def test_old_frames_are_dropped_and_counted(sources: Sources) -> None:
    source = FakeSource(count=150, live=True, period_s=0.005)
    seen: list[int] = []
    summary = run_camera(
        SlowDetector(infer_s=0.03),
        sources.add(source)[0],
        on_frame=lambda frame, _: seen.append(frame.index),
    )
    assert seen == sorted(set(seen))
    assert seen[-1] == 149, "the newest is never dropped"
    assert summary.frames + summary.dropped == source.read == 150
    assert summary.dropped > 75


def test_latency_is_bounded_by_the_slowest_stage(sources: Sources) -> None:
    (name,) = sources.add(FakeSource(count=120, live=True, period_s=0.005))
    summary = run_camera(SlowDetector(infer_s=0.05), name)
    period_ms = 1000 * summary.seconds / summary.frames
    # One that is inferred, one that waits for it, and a frame that is as fresh as the queue in front allows
    assert 48 <= summary.latency_ms["p50"] < 3 * period_ms
    assert summary.latency_ms["p99"] < 6 * period_ms
    assert summary.latency_ms["p50"] <= summary.latency_ms["p99"] <= summary.latency_ms["max"]


def test_latency_is_bounded_where_writing_is_slowest(
    tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VideoSink, "write", slowed(VideoSink.write, 0.05))
    (name,) = sources.add(FakeSource(count=120, live=True, period_s=0.005))
    summary = run_camera(FakeDetector(), name, output=tmp_path / "out.avi")
    period_ms = 1000 * summary.seconds / summary.frames
    assert summary.latency_ms["p50"] < 6 * period_ms, "a frame waits in front of each of four stages at most"


def test_files_lose_no_frame(tmp_path: Path) -> None:
    source, lines = make_video(tmp_path / "in.avi", frames=30), tmp_path / "out.jsonl"
    summary = run_camera(SlowDetector(infer_s=0.01), source, json_lines=lines)
    assert (summary.frames, summary.dropped) == (30, 0)
    assert [record["frame"] for record in lines_of(lines)] == list(range(30))


class PatientCameras(Cameras):
    """Cameras whose next frame, or drop, comes when the one before was delivered, so that none is too old."""

    def __init__(self, lengths: list[int]) -> None:
        super().__init__(lengths)
        self.delivered = threading.Semaphore(1)
        self.over = threading.Event()

    def __call__(self, *opening: object) -> Camera:
        camera = super().__call__(*opening)
        read = camera.read

        def patient() -> tuple[bool, np.ndarray | None]:
            if self.over.is_set() or not self.delivered.acquire(timeout=20):
                return False, None
            found = read()
            if not found[0]:
                self.delivered.release()
            return found

        camera.read = patient  # type: ignore[method-assign]
        return camera

    def on_frame(self, frame: Frame, detections: Detections) -> None:
        if frame.index == 9:
            self.over.set()
        self.delivered.release()


def test_camera_that_drops_is_recorded_on(
    tmp_path: Path, detector: FakeDetector, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    writing, playing = cv2.VideoWriter, cv2.VideoCapture
    cameras = PatientCameras([4, 0, 3, 0, 0, 5])
    monkeypatch.setattr(cv2, "VideoCapture", cameras)
    summary = run_camera(detector, 0, output=tmp_path / "out.avi", max_frames=10, on_frame=cameras.on_frame)
    assert (summary.frames, summary.reconnects, summary.stopped_by) == (10, 2, "max_frames")
    assert summary.dropped == 0
    monkeypatch.setattr(cv2, "VideoCapture", playing)
    assert cv2.VideoWriter is writing
    assert len(frames_of(tmp_path / "out.avi")) == 10


def test_camera_that_is_lost_leaves_a_video(
    tmp_path: Path, detector: FakeDetector, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    playing = cv2.VideoCapture
    cameras = PatientCameras([4])
    monkeypatch.setattr(cv2, "VideoCapture", cameras)
    output, lines = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    with pytest.raises(SourceError, match=r"camera 0 dropped after 4 frames .* within 5 s \(4 attempts\)"):
        run_camera(detector, "0", output=output, json_lines=lines, reconnect_seconds=5, on_frame=cameras.on_frame)
    monkeypatch.setattr(cv2, "VideoCapture", playing)
    assert (len(frames_of(output)), len(lines_of(lines))) == (4, 4)
    assert not detector.closed


def test_ctrl_c_while_reconnecting(detector: FakeDetector, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    interrupted = threading.Event()

    def sleep(_: float) -> None:
        if not interrupted.is_set():
            interrupted.set()
            os.kill(os.getpid(), signal.SIGINT)

    clock.sleep = sleep  # type: ignore[method-assign]
    cameras = PatientCameras([4])
    monkeypatch.setattr(cv2, "VideoCapture", cameras)
    summary = run_camera(detector, 0, on_frame=cameras.on_frame)
    assert (summary.frames, summary.stopped_by) == (4, "interrupt")
    assert cameras.held == 0

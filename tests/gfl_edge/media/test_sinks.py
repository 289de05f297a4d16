"""Annotated videos and the window by themselves."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from gfl_edge.media.pace import MEASURED_FRAMES
from gfl_edge.media.sinks import VideoSink, Window, why_no_window
from tests.support.fake_screen import Screen
from tests.support.media_files import frames_of, rate_of


def test_video_of_a_live_source_plays_as_fast_as_it_was_seen(tmp_path: Path) -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    with VideoSink(tmp_path / "out.avi", fps=30, measure=True) as sink:
        sink.write(image, 0.0)
        for i in range(2 * MEASURED_FRAMES):
            sink.write(image, 3.0 + i / 8)  # the first frame took 3 s, the others come at 8 per second
    assert rate_of(tmp_path / "out.avi") == 8
    assert len(frames_of(tmp_path / "out.avi")) == 1 + 2 * MEASURED_FRAMES


@pytest.mark.parametrize(("declared", "expected"), [(15.0, 15.0), (None, 30.0)])
def test_video_too_short_to_measure(tmp_path: Path, declared: float | None, expected: float) -> None:
    with VideoSink(tmp_path / "out.avi", declared, measure=True) as sink:
        for time_s in (0.0, 5.0):
            sink.write(np.zeros((48, 64, 3), np.uint8), time_s)
    assert rate_of(tmp_path / "out.avi") == expected
    assert len(frames_of(tmp_path / "out.avi")) == 2


@pytest.mark.parametrize(
    ("times", "levels"),
    [
        ([0, 0.1, 0.2, 0.3], [0, 1, 2, 3]),
        ([5, 5.1004, 5.1996, 5.3], [0, 1, 2, 3]),
        ([0, 0.1, 0.5, 0.6], [0, 1, 1, 1, 1, 2, 3]),
        ([0, 0.02, 0.04, 0.4], [0, 1, 2, 2, 3]),
        ([0, 0.1, 1e9, 1e9 + 0.1], [0, *[1] * 101, 2, 3]),
    ],
    ids=["even", "later, in whole milliseconds", "a gap", "a burst", "a gap of years"],
)
def test_a_video_plays_as_fast_as_its_source(tmp_path: Path, times: list[float], levels: list[int]) -> None:
    with VideoSink(tmp_path / "out.avi", 10, hold=True) as sink:
        for level, time_s in enumerate(times):
            sink.write(np.full((48, 64, 3), 8 * level, np.uint8), time_s)
    assert [round(frame.mean() / 8) for frame in frames_of(tmp_path / "out.avi")] == levels
    assert sink.frames == len(times)


def test_large_frames_fit_on_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch, [])
    with Window("test") as window:
        assert window.show(np.zeros((2160, 3840, 3), np.uint8))
    assert screen.size == (1280, 720)


def test_opencv_without_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "\n  GUI:                           NONE\n")
    assert "opencv-python-headless" in str(why_no_window())

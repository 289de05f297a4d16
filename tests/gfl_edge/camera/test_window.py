"""A run with a window."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import cv2
import pytest

from gfl_edge.camera import run_camera
from gfl_edge.errors import InputError
from tests.support.fake_detector import FakeDetector
from tests.support.fake_screen import Screen
from tests.support.fake_sources import FakeSource, Sources
from tests.support.media_files import frames_of, make_video


@pytest.mark.parametrize(
    ("keys", "closed_after", "frames"),
    [([-1, -1, ord("q")], 1000, 3), ([-1, 27], 1000, 2), ([ord("x")], 4, 4)],
    ids=["q", "Esc", "close button"],
)
def test_window_is_closed_by_the_user(
    tmp_path: Path,
    detector: FakeDetector,
    monkeypatch: pytest.MonkeyPatch,
    keys: list[int],
    closed_after: int,
    frames: int,
) -> None:
    screen = Screen(monkeypatch, keys, closed_after)
    output = tmp_path / "out.avi"
    summary = run_camera(detector, make_video(tmp_path / "in.avi", frames=9), output=output)
    assert (summary.frames, summary.stopped_by, screen.destroyed) == (frames, "user", 1)
    assert screen.size == (64, 48)
    assert len(frames_of(output)) == frames
    assert len({image.shape for image in screen.shown}) == 1


def test_window_until_the_end(tmp_path: Path, detector: FakeDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch, [])
    summary = run_camera(detector, make_video(tmp_path / "in.avi", frames=3), show=True)
    assert (summary.stopped_by, len(screen.shown), screen.destroyed) == ("end of source", 3, 1)


def test_no_window_if_none_is_wanted(tmp_path: Path, detector: FakeDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch, [])
    run_camera(detector, make_video(tmp_path / "in.avi", frames=3), show=False)
    assert screen.shown == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has displays that may be dead")
def test_dead_display(tmp_path: Path, detector: FakeDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Qt aborts the process on a display that does not answer: the loop must notice before."""
    monkeypatch.setenv("DISPLAY", ":4711")
    source = make_video(tmp_path / "in.avi", frames=2)
    assert run_camera(detector, source).frames == 2
    with pytest.raises(InputError, match="the display :4711 cannot be opened"):
        run_camera(detector, source, show=True)


def test_the_window_shows_all(detector: FakeDetector, sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch, [])
    names = sources.add(*(FakeSource(f"s{i}", 10, period_s=0.02) for i in range(3)))
    summary = run_camera(detector, names)
    assert summary.frames == 30
    assert 1 < len(screen.shown) < 30, "not renewed for every frame"
    assert {image.shape[1] for image in screen.shown} == {1280}
    assert (screen.shown[-1][10:300, 700:1200] > 0).any(), "the second source is on the right"


def test_the_window_is_closed(detector: FakeDetector, sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    Screen(monkeypatch, [-1, ord("q")])
    source = FakeSource(count=None, live=True, period_s=0.001)
    summary = run_camera(detector, sources.add(source)[0])
    assert (summary.frames, summary.stopped_by) == (2, "user")


@pytest.mark.usefixtures("impatient")
def test_the_window_is_closed_while_no_frame_comes(
    detector: FakeDetector, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen, released = Screen(monkeypatch, []), threading.Event()

    def press_q_after_a_while(ms: int) -> int:
        screen.keys.append(-1)
        return ord("q") if len(screen.keys) > 5 else -1

    monkeypatch.setattr(cv2, "waitKey", press_q_after_a_while)
    try:
        summary = run_camera(detector, sources.add(FakeSource(count=2, hangs=released))[0])
    finally:
        released.set()
    assert (summary.frames, summary.stopped_by) == (2, "user")

"""Frames of a hardware decoder on their way through the camera."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from gfl_edge.camera import run_camera
from gfl_edge.detections import Detections
from gfl_edge.detector import Inference
from gfl_edge.media.sources import Frame, FrameSource
from gfl_edge.ops.preprocess import AnyFrame, Nv12Frame
from gfl_edge.web.live import Live
from tests.support.fake_detector import FakeDetector
from tests.support.fake_jetson import nv12
from tests.support.media_files import frames_of, lines_of

IMAGE = cv2.resize(np.random.default_rng(0).integers(80, 160, (3, 4, 3), np.uint8), (64, 48))


class Decoder(FrameSource):
    """Gives the image as NV12."""

    def __init__(self, count: int) -> None:
        super().__init__("decoder", live=False, fps=10.0, total=count)

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.total or 0):
            yield Frame(index, str(index), index / 10, Nv12Frame(nv12(IMAGE)))


class Nv12Detector(FakeDetector):
    """Takes NV12 only, as a GPU is to."""

    def prepare(self, frames: list[AnyFrame]) -> list[AnyFrame]:  # type: ignore[override]
        assert all(isinstance(frame, Nv12Frame) for frame in frames)
        return frames

    def infer(self, prepared: list[AnyFrame]) -> Inference:  # type: ignore[override]
        return super().infer([np.zeros((48, 64, 3), np.uint8)] * len(prepared))


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Nv12Frame]:
    """Frames that were made BGR."""
    found: list[Nv12Frame] = []
    to_bgr = Nv12Frame.to_bgr

    def counted(frame: Nv12Frame) -> np.ndarray:
        found.append(frame)
        return to_bgr(frame)

    monkeypatch.setattr(Nv12Frame, "to_bgr", counted)
    return found


def test_the_detector_gets_nv12_and_the_video_colors(tmp_path: Path, conversions: list[Nv12Frame]) -> None:
    seen: list[tuple[Frame, Detections]] = []
    summary = run_camera(
        Nv12Detector(),
        Decoder(5),
        output=tmp_path / "out.avi",
        json_lines=tmp_path / "out.jsonl",
        on_frame=lambda frame, found: seen.append((frame, found)),
    )
    assert summary.frames == len(lines_of(tmp_path / "out.jsonl")) == 5
    written = frames_of(tmp_path / "out.avi")
    assert [image.shape for image in written] == [(48, 64, 3)] * 5
    right = np.s_[24:, 48:]  # the box that is drawn is in the left half, its label at the top
    assert np.abs(written[2][right].astype(int) - IMAGE[right]).mean() < 12
    assert seen[0][0].image.shape == (48, 64, 3)
    assert seen[0][1].boxes.tolist() == [[0, 0, 32, 48]]
    assert len(conversions) == 5, "once a frame, though it is drawn and looked at"


def test_where_nobody_looks_nothing_is_converted(tmp_path: Path, conversions: list[Nv12Frame]) -> None:
    run_camera(Nv12Detector(), Decoder(5), json_lines=tmp_path / "out.jsonl")
    assert conversions == []


def test_the_live_page_converts_what_it_shows(conversions: list[Nv12Frame]) -> None:
    live, found = Live(), FakeDetector()(IMAGE)
    live.frames = [None]
    for _ in range(3):
        live.show(0, Nv12Frame(nv12(IMAGE)), found, found)
    (frame,) = live.frames
    assert frame is not None
    assert (frame.size_wh, len(conversions)) == ((64, 48), 0)
    assert frame.image.shape == (48, 64, 3)
    assert frame.image is frame.image
    assert frame.shown_s <= time.monotonic()
    assert len(conversions) == 1

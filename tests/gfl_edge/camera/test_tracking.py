"""Identities in the files of the camera."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from gfl_edge import optional
from gfl_edge.camera import run_camera
from gfl_edge.detections import Detections
from gfl_edge.errors import MissingDependencyError
from gfl_edge.filters import DetectionFilter
from gfl_edge.media.draw import draw_detections
from tests.support.fake_detector import FakeDetector
from tests.support.media_files import frames_of, lines_of, make_video

FOLLOWED_FROM = 2  # the third frame


@pytest.fixture
def _norfair() -> None:
    pytest.importorskip("norfair")


@pytest.mark.usefixtures("_norfair")
def test_each_source_has_identities_of_its_own(tmp_path: Path, detector: FakeDetector) -> None:
    videos = [make_video(tmp_path / f"{i}.avi", frames=5) for i in range(2)]
    lines, output = tmp_path / "out.jsonl", tmp_path / "out.avi"
    seen: list[Detections] = []
    run_camera(
        *(detector, videos),
        keep=DetectionFilter(score=0.1),
        json_lines=lines,
        output=output,
        track=True,
        on_frame=lambda _, found: seen.append(found),
    )
    for source in range(2):
        records = [record for record in lines_of(lines) if record["source"] == source]
        found = [[one["track_id"] for one in record["detections"]] for record in records]
        assert found[:FOLLOWED_FROM] == [[None, None]] * FOLLOWED_FROM
        assert [sorted(ids) for ids in found[FOLLOWED_FROM:]] == [[1, 2]] * 3
        assert found[FOLLOWED_FROM:] == [found[FOLLOWED_FROM]] * 3
        video = frames_of(tmp_path / f"out-{source}.avi")
        assert np.abs(video[4].astype(int) - video[0]).mean() > np.abs(video[1].astype(int) - video[0]).mean(), "drawn"
    assert all(one.track_ids is not None for one in seen)


def test_without_it_there_are_none(tmp_path: Path, detector: FakeDetector) -> None:
    run_camera(detector, make_video(tmp_path / "in.avi", frames=3), json_lines=tmp_path / "out.jsonl")
    assert "track_id" not in lines_of(tmp_path / "out.jsonl")[2]["detections"][0]


def test_a_missing_library_is_said_before_anything_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str) -> None:
        raise MissingDependencyError(f"{module}: pip install 'gfl-edge[track]'")

    monkeypatch.setattr(optional, "load", missing)
    with pytest.raises(MissingDependencyError, match="norfair"):
        run_camera("none.onnx", "video.mp4", track=True)


def test_the_identity_is_in_the_label() -> None:
    frame = np.zeros((200, 400, 3), np.uint8)
    arrays = np.array([[150, 80, 200, 150]], np.float32), np.array([0.9], np.float32), np.array([0], np.int32)
    drawn = {
        track: draw_detections(frame, Detections(*arrays, ("dog",), track_ids=np.array([track])))
        for track in (-1, 1, 2)
    }
    assert (drawn[-1] == draw_detections(frame, Detections(*arrays, ("dog",)))).all()
    assert not (drawn[1] == drawn[2]).all()
    width = {
        track: cv2.boundingRect((image[:75].max(axis=2) > 0).astype(np.uint8))[2] for track, image in drawn.items()
    }
    assert width[1] > width[-1]

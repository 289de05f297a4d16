"""Regions in a run of the camera."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gfl_edge.camera import run_camera
from gfl_edge.errors import InputError
from gfl_edge.filters import DetectionFilter, Region
from tests.support.fake_detector import FakeDetector
from tests.support.media_files import frames_of, lines_of, make_image, make_video

BESIDE = DetectionFilter(regions=(Region(((70, 10), (90, 10), (90, 40))),))  # of frames of 64x48


def test_a_region_beside_the_frames_is_an_error(tmp_path: Path, detector: FakeDetector) -> None:
    with pytest.raises(InputError, match="a region lies outside of the frame of 64x48 pixels"):
        run_camera(detector, make_video(tmp_path / "in.avi", frames=3), keep=BESIDE)
    keep = DetectionFilter(excluded=(Region(((0, 0), (9, 0), (9, 9)), source=2),))
    with pytest.raises(InputError, match="source 2, but there are 2, 0 to 1"):
        run_camera(detector, ["a.avi", "b.avi"], keep=keep)


def test_a_source_beside_a_region_is_left_out_where_there_are_others(tmp_path: Path, detector: FakeDetector) -> None:
    large, small = (
        make_video(tmp_path / "large.avi", frames=4, size_wh=(128, 96)),
        make_video(tmp_path / "s.avi", frames=4),
    )
    summary = run_camera(detector, [small, large], keep=BESIDE)
    assert [source.frames for source in summary.sources] == [0, 4]
    assert summary.sources[0].error is not None
    assert "outside of the frame of 64x48" in summary.sources[0].error


def test_images_beside_a_region_are_skipped(tmp_path: Path, detector: FakeDetector) -> None:
    for name, hw in (("a.png", (48, 64)), ("b.png", (96, 128))):
        make_image(tmp_path / name, hw=hw)
    lines = tmp_path / "lines.jsonl"
    summary = run_camera(detector, tmp_path, keep=replace(BESIDE, score=0.1), json_lines=lines)
    assert (summary.frames, summary.skipped) == (1, ("a.png",))
    assert [found["class_name"] for found in lines_of(lines)[0]["detections"]] == []


def test_regions_are_drawn_in_the_video_of_their_source(tmp_path: Path, detector: FakeDetector) -> None:
    videos = [make_video(tmp_path / f"{i}.avi", frames=2, size_wh=(128, 96)) for i in range(2)]
    square = Region(((10, 10), (50, 10), (50, 60), (10, 60)), source=1)
    keep = DetectionFilter(score=1.0, regions=(square,))
    run_camera(detector, videos, keep=keep, output=tmp_path / "out.avi")
    drawn, bare = (frames_of(tmp_path / f"out-{i}.avi")[1].astype(int) for i in (1, 0))
    assert abs(drawn - bare)[10, 15:45].mean() > 20
    assert abs(drawn - bare)[20:50, 60:].mean() < 5

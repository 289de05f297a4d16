"""Detections as a data set of YOLO, ready to train on: data.yaml, images and labels.

yolo/data.yaml            train, val, nc and names
yolo/images/dog.jpg       a link to the image, or a copy where the file system has no links
yolo/labels/dog.txt       a line for each object: class, center x, center y, width, height as shares of the image
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gfl_edge.detections import Detections
from gfl_edge.results.image_result import ImageResult


def write_yolo(folder: Path, results: Sequence[ImageResult], class_names: Sequence[str]) -> None:
    """Write the data set into a folder that is not there yet.

    Images keep their names; where two would have the same label file, a number is added. Boxes are cut back to their
    image, and what has no area there is left out. An image without objects has an empty label file.
    """
    images, labels = folder / "images", folder / "labels"
    for made in (images, labels):
        made.mkdir(parents=True)
    # JSON is YAML, whatever the names are
    names = json.dumps(list(class_names), ensure_ascii=False, allow_nan=False)
    text = f"train: images\nval: images\nnc: {len(class_names)}\nnames: {names}\n"
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    taken: set[str] = set()
    for one in results:
        stem = _free_stem(one.path.stem, taken)
        _link(one.path, images / f"{stem}{one.path.suffix}")
        (labels / f"{stem}.txt").write_text(label_lines(one.detections, one.size_hw), encoding="ascii")


def label_lines(found: Detections, size_hw: tuple[int, int]) -> str:
    """The content of a label file."""
    height, width = size_hw
    boxes = np.clip(found.boxes.astype(np.float64), 0, (width, height) * 2) / ((width, height) * 2)
    sides = boxes[:, 2:] - boxes[:, :2]
    centers = boxes[:, :2] + sides / 2
    rows = zip(found.class_ids, np.concatenate((centers, sides), axis=1), strict=True)
    return "".join(
        f"{class_id} {' '.join(f'{v:.8f}' for v in row)}\n" for class_id, row in rows if row[2:].min() > 1e-8
    )


def _free_stem(stem: str, taken: set[str]) -> str:
    """A name that is not taken, whatever the case, and not hidden, as hidden images are not read."""
    stem = stem.lstrip(".") or "image"
    free, number = stem, 1
    while free.lower() in taken:
        number += 1
        free = f"{stem}-{number}"
    taken.add(free.lower())
    return free


def _link(source: Path, link: Path) -> None:
    real = os.path.realpath(source)
    try:
        link.symlink_to(os.path.relpath(real, os.path.realpath(link.parent)))
    except (OSError, ValueError, NotImplementedError):
        shutil.copyfile(real, link)

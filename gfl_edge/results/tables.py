"""Detections as CSV, a row for each, and as JSON lines, an object for each image."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gfl_edge.parsing.json_text import json_text
from gfl_edge.results.image_result import ImageResult

COLUMNS = (
    *("image", "image_id", "width", "height", "class_id", "class_name"),
    *("score", "x1", "y1", "x2", "y2"),
)
SIGMA_COLUMNS = ("sigma_left", "sigma_top", "sigma_right", "sigma_bottom")  # where the model gives them, pixels


def write_csv(path: Path, results: Sequence[ImageResult]) -> None:
    """A row for each detection, after one with the names of the columns; an image without any has no row.

    In UTF-8, fields with commas, quotes or newlines between quotes; bytes of file names that are no UTF-8 become
    ``\\udc..``. Numbers have as many digits as their float32 needs.
    """
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        with_sigmas = any(one.detections.edge_sigma is not None for one in results)
        rows.writerow((*COLUMNS, *(SIGMA_COLUMNS if with_sigmas else ())))
        for one in results:
            height, width = one.size_hw
            found = one.detections
            sigmas = np.zeros((len(found), 0), np.float32) if found.edge_sigma is None else found.edge_sigma
            for box, score, class_id, sigma in zip(found.boxes, found.scores, found.class_ids, sigmas, strict=True):
                numbers = [_digits(value) for value in (score, *box, *sigma)]
                rows.writerow(
                    [one.file_name, one.image_id, width, height, int(class_id), found.class_names[class_id], *numbers]
                )


def write_json_lines(path: Path, results: Sequence[ImageResult]) -> None:
    """An object for each image: ``image``, ``image_id``, ``width``, ``height`` and ``detections``, as
    :meth:`gfl_edge.detections.Detections.to_dicts` has them.
    """
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for one in results:
            height, width = one.size_hw
            record = {"image": one.file_name, "image_id": one.image_id, "width": width, "height": height}
            file.write(f"{json_text({**record, 'detections': one.detections.to_dicts()})}\n")


def _digits(value: np.float32) -> str:
    return np.format_float_positional(np.float32(value), unique=True, trim="-")

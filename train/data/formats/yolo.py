"""YOLO: a text file per image, a line per object: class, center x, center y, width, height in parts of the image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gfl_edge.annotations.records import Annotations, ImageRecord, Objects
from gfl_edge.errors import AnnotationError, ImageError
from gfl_edge.media.images import image_files, image_hw
from train.data.formats.voc import read_image_list


def read_yolo(
    image_folder: str | Path,
    label_folder: str | Path,
    class_names: Sequence[str],
    image_list: str | Path | None = None,
) -> Annotations:
    """Read YOLO labels. An image without a label file is background, as in YOLO.

    Args:
        image_folder: the images.
        label_folder: ``<name>.txt`` per image.
        class_names: in the order of the class numbers; see :func:`gfl_edge.annotations.class_names.read_class_names`.
        image_list: text file of images relative to ``image_folder``; default all that lie directly in it.

    Raises:
        AnnotationError: no image has a label file, or a line is not five numbers.
        SourceError: the folder holds no images.
    """
    images, labels = Path(image_folder), Path(label_folder)
    if not images.is_dir():
        raise AnnotationError(f"{images} is no folder: expected the images of a YOLO data set")
    names = [path.name for path in image_files(images)] if image_list is None else read_image_list(image_list)
    paths = [images / name for name in names]
    texts = [labels / Path(name).with_suffix(".txt") for name in names]
    if not any(text.is_file() for text in texts):
        raise AnnotationError(
            f"none of {len(paths)} images under {images} has a label file under {labels}, such as {texts[0]}. "
            "Give the folder of the label files as annotations"
        )
    classes = tuple(class_names)
    foreign: list[int] = []
    records = tuple(
        _record(path, number, text, len(classes), foreign)
        for number, (path, text) in enumerate(zip(paths, texts, strict=True), 1)
    )
    return Annotations(classes, records, images, str(labels), tuple(f"class number {number}" for number in foreign))


def _record(path: Path, number: int, labels: Path, num_classes: int, foreign: list[int]) -> ImageRecord:
    """The record of one image; class numbers from ``num_classes`` on are added to ``foreign``."""
    try:
        size = image_hw(path)
    except ImageError:
        size = None
    rows = _rows(labels) if labels.is_file() else np.empty((0, 5))
    if size is None:  # missing or broken, which the checks will report
        rows, size_hw = rows[:0], (0, 0)
    else:
        size_hw = size
    centers, sides = rows[:, 1:3] * size_hw[::-1], rows[:, 3:5] * size_hw[::-1]
    boxes = np.concatenate((centers - sides / 2, centers + sides / 2), axis=1)
    numbers = [int(row) for row in rows[:, 0]]
    foreign.extend(dict.fromkeys(n for n in numbers if not 0 <= n < num_classes and n not in foreign))
    found = [n if 0 <= n < num_classes else ~foreign.index(n) for n in numbers]
    return ImageRecord(path, number, Objects.of(boxes, found), size_hw=size)


def _rows(path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The lines of a label file, float64 ``[n, 5]``."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            row = [float(word) for word in words]
        except ValueError:
            row = []
        if len(row) != 5 or not row[0].is_integer():
            raise AnnotationError(
                f"{path}, line {number}: {line.strip()[:60]!r}: expected a class number and four numbers: "
                "center x, center y, width, height"
            )
        rows.append(row)
    return np.array(rows, np.float64).reshape(-1, 5)

"""YOLO: a text file per image, a line per object: class, center x, center y, width, height in parts of the image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from gfl_edge.annotations.image_list import Entry, locate, read_image_list
from gfl_edge.annotations.records import NO_OBJECTS, Annotations, ImageRecord, Objects
from gfl_edge.annotations.text import read_lines
from gfl_edge.errors import AnnotationError, ImageError
from train.data.formats.found_files import FoundFiles, without_suffix
from train.data.verified import Size, measured


def read_yolo(
    image_folder: str | Path,
    label_folder: str | Path,
    class_names: Sequence[str],
    image_list: str | Path | None = None,
) -> Annotations:
    """Read YOLO labels. An image without a label file is background, as in YOLO.

    Args:
        image_folder: the images.
        label_folder: ``<name>.txt`` per image, in the sub-folders of the images, or where ultralytics looks: at the
            image's path with ``labels`` instead of ``images``.
        class_names: in the order of the numbers; see :func:`gfl_edge.annotations.class_names.read_class_names`.
        image_list: text file of images; default all that lie directly in the folder. How paths are read, see
            :func:`gfl_edge.annotations.image_list.locate`.

    Raises:
        AnnotationError: no image of the list is there or has a label file, a line is not five numbers, or classes are
            numbered from 1.
        SourceError: the folder holds no images.
    """
    images, labels = FoundFiles(Path(image_folder)), FoundFiles(Path(label_folder))
    if not images.root.is_dir():
        raise AnnotationError(f"{images.root} is no folder: expected the images of a YOLO data set")
    if image_list is None:
        entries, names = images.all_images()
    else:
        entries, names = _listed(Path(image_list), images)
    paths = [_image_path(images, entry, name, image_list) for entry, name in zip(entries, names, strict=True)]
    texts = [_label_file(labels, path, name) for path, name in zip(paths, names, strict=True)]
    if not any(texts):
        example = labels.root / f"{without_suffix(names[0]).lstrip('/')}.txt"
        raise AnnotationError(
            f"none of {len(paths)} images under {images.root} has a label file under {labels.root}, such as {example}. "
            "Give the folder of the label files as annotations"
        )
    classes = tuple(class_names)
    foreign: list[int] = []
    records = tuple(
        _record(path, size, number, entry, text, len(classes), foreign)
        for number, (path, size, entry, text) in enumerate(zip(paths, measured(paths), entries, texts, strict=True), 1)
    )
    if foreign == [len(classes)] and not any(0 in record.objects.labels for record in records):
        raise AnnotationError(  # whatever is to be done about bad boxes: the others would be learned as the next class
            f"{labels.root}: class numbers run from 1 to {len(classes)}, as many as there are names, where YOLO counts "
            f"from 0: {classes[0]} is 0. Subtract 1 from each number, or give a name more, before the first"
        )
    origin = str(labels.root if image_list is None else image_list)
    return Annotations(classes, records, images.root, origin, tuple(f"class number {number}" for number in foreign))


def _listed(image_list: Path, images: FoundFiles) -> tuple[list[Entry], list[str]]:
    """The entries of a list, and where they are; some may be missing, which the checks will report."""
    entries = read_image_list(image_list)
    names, found = locate(entries, image_list, images.root, lambda name: bool(images.images(name)))
    if not found:
        raise AnnotationError(
            f"{image_list}: none of its {len(entries)} images is in {images.root}, such as line {entries[0].line}: "
            f"{entries[0].text!r}. Expected paths relative to that folder or to the list, or absolute ones"
        )
    return entries, names


def _image_path(images: FoundFiles, entry: Entry, name: str, image_list: str | Path | None) -> Path:
    found = [] if name.startswith("/") else images.images(name)
    if len(found) > 1:
        raise AnnotationError(
            f"{image_list}, line {entry.line}: {entry.text!r} may be {' or '.join(path.name for path in found)}. Write "
            "the suffix as well"
        )
    return found[0] if found else images.root / name


def _label_file(labels: FoundFiles, image: Path, name: str) -> Path | None:
    """The label file of an image, None if there is none: at the same place, or where ultralytics looks for it."""
    found = labels.find(f"{without_suffix(PurePosixPath(name).name if name.startswith('/') else name)}.txt")
    if found is not None:
        return found
    parts = list(image.absolute().parts[:-1])
    if "images" not in parts:
        return None
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    beside = os.path.relpath(Path(*parts, f"{without_suffix(image.name)}.txt"), labels.root)
    return None if beside.startswith(os.pardir) else labels.find(Path(beside).as_posix())


def _record(
    path: Path,
    size: Size | ImageError,
    number: int,
    entry: Entry,
    labels: Path | None,
    num_classes: int,
    foreign: list[int],
) -> ImageRecord:
    """The record of one image; class numbers from ``num_classes`` on are added to ``foreign``."""
    rows = np.empty((0, 5)) if labels is None else _rows(labels)
    size_hw = None if isinstance(size, ImageError) else size
    if size_hw is None:  # missing or broken, which the checks will report
        return ImageRecord(path, number, NO_OBJECTS, line=entry.line)
    centers, sides = rows[:, 1:3] * size_hw[::-1], rows[:, 3:5] * size_hw[::-1]
    boxes = np.concatenate((centers - sides / 2, centers + sides / 2), axis=1)
    numbers = [int(row) for row in rows[:, 0]]
    foreign.extend(dict.fromkeys(n for n in numbers if not 0 <= n < num_classes and n not in foreign))
    found = [n if 0 <= n < num_classes else ~foreign.index(n) for n in numbers]
    return ImageRecord(path, number, Objects.of(boxes, found), size_hw=size_hw, line=entry.line)


def _rows(path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The lines of a label file, float64 ``[n, 5]``."""
    rows = []
    for number, line in enumerate(read_lines(path, AnnotationError), 1):
        words = line.split()
        if not words:
            continue
        try:
            row = [float(word) for word in words]
        except ValueError:
            row = []
        if len(row) != 5 or not row[0].is_integer():
            raise AnnotationError(
                f"{path}, line {number}: {line[:60]!r}: expected a class number and four numbers: "
                "center x, center y, width, height"
            )
        rows.append(row)
    return np.array(rows, np.float64).reshape(-1, 5)

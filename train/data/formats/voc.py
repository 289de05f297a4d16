"""PASCAL VOC: an XML file per image, and a list of images."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from gfl_edge.annotations.records import Annotations, ImageRecord, Objects
from gfl_edge.errors import AnnotationError
from gfl_edge.media.images import IMAGE_SUFFIXES

CORNERS = ("xmin", "ymin", "xmax", "ymax")
FIRST_PIXEL = 1  # VOC counts from here
NAMED = 5  # how many files a message names


def read_voc(
    annotation_folder: str | Path,
    image_list: str | Path,
    image_folder: str | Path,
    class_names: Sequence[str] | None = None,
) -> Annotations:
    """Read the VOC annotations of the images in a list. Objects marked difficult are ignored, as mmdetection does.

    VOC counts pixels from 1, so 1 is subtracted from all four corners as in mmdetection (mmdet/datasets/xml_style.py),
    for numbers that compare with its. As xmax and ymax are the last pixels inside, boxes so end a pixel early: 1..width
    becomes 0..width - 1, where detectron2 (detectron2/data/datasets/pascal_voc.py) has 0..width. Parts of pixels, which
    mmdetection cuts off, are kept.

    Args:
        annotation_folder: ``<name>.xml`` for each image.
        image_list: text file, a name without suffix per line, such as ImageSets/Main/train.txt.
        image_folder: ``<name>.jpg``, or another suffix of an image.
        class_names: in the order of the labels; default those of :func:`voc_class_names`.

    Raises:
        AnnotationError: files that are missing (counted and named) or no VOC annotations.
    """
    folder, images = Path(annotation_folder), Path(image_folder)
    names = read_image_list(image_list)
    missing = [name for name in names if not (folder / f"{name}.xml").is_file()]
    if missing:
        raise AnnotationError(
            f"{image_list}: {len(missing)} of {len(names)} images have no XML file in {folder}: "
            f"{', '.join(missing[:NAMED])}. Add them, or take the names off the list"
        )
    classes = tuple(voc_class_names([folder]) if class_names is None else class_names)
    label_of = {name: index for index, name in enumerate(classes)}
    foreign: list[str] = []
    records = []
    for number, name in enumerate(names, 1):
        path = folder / f"{name}.xml"
        try:
            records.append(_record(path, number, images, label_of, foreign))
        except (AttributeError, ValueError) as error:
            raise AnnotationError(f"{path}: {error}. Expected VOC's size, object, name and bndbox") from error
    return Annotations(classes, tuple(records), images, str(image_list), tuple(foreign))


def voc_class_names(annotation_folders: Iterable[str | Path]) -> tuple[str, ...]:
    """The classes of all objects in all XML files of the folders, sorted, so that each list of a set has the same.

    Raises:
        AnnotationError: there is no object, or a file is no XML.
    """
    paths = [path for folder in dict.fromkeys(annotation_folders) for path in sorted(Path(folder).glob("*.xml"))]
    names = {_text(item, "name") for path in paths for item in _parse(path).iterfind("object")}
    if not names:
        raise AnnotationError(f"no object in {len(paths)} XML files of {', '.join(map(str, annotation_folders))}")
    return tuple(sorted(names))


def read_image_list(path: str | Path) -> list[str]:
    """The names in a list of images, one per line; the flag (-1, 0, 1) of VOC's lists per class is cut off.

    Raises:
        AnnotationError: the file cannot be read, or is empty.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise AnnotationError(f"{path} cannot be read as a list of images ({error})") from error
    names = [re.sub(r"\s+(-1|0|1)$", "", line.strip()) for line in lines if line.strip()]
    if not names:
        raise AnnotationError(f"{path} lists no images")
    return names


def _record(path: Path, number: int, image_folder: Path, label_of: dict[str, int], foreign: list[str]) -> ImageRecord:
    """The record of one XML file; names that ``label_of`` lacks are added to ``foreign``."""
    root = _parse(path)
    items = list(root.iterfind("object"))
    labels = []
    for name in (_text(item, "name") for item in items):
        if name not in label_of and name not in foreign:
            foreign.append(name)
        labels.append(label_of[name] if name in label_of else ~foreign.index(name))
    boxes = [[float(_text(item, f"bndbox/{corner}")) - FIRST_PIXEL for corner in CORNERS] for item in items]
    objects = Objects.of(boxes, labels)
    difficult = np.array([(item.findtext("difficult") or "0").strip() == "1" for item in items], np.bool_)
    image = _image_path(image_folder, path.stem, root.findtext("filename") or "")
    return ImageRecord(image, number, objects.where(~difficult), objects.where(difficult), _size(root))


def _parse(path: Path) -> Element:
    try:
        return ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError) as error:
        raise AnnotationError(f"{path} is no readable XML ({error}). Write or copy it again") from error


def _text(element: Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"<{element.tag}> without {path}")
    return text.strip()


def _size(root: Element) -> tuple[int, int] | None:
    """(height, width); None where the file does not say, or says 0 as some tools do."""
    height, width = (int(float(root.findtext(f"size/{side}") or 0)) for side in ("height", "width"))
    return (height, width) if height > 0 and width > 0 else None


def _image_path(folder: Path, stem: str, declared: str) -> Path:
    """The image of an XML file, by its name: the declared one, often left from a renaming, gives only the suffix."""
    suffixes = dict.fromkeys((Path(declared).suffix or ".jpg", *IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES)))
    candidates = [folder / f"{stem}{suffix}" for suffix in suffixes]
    return next((path for path in candidates if path.is_file()), candidates[0])

"""PASCAL VOC: an XML file per image, and a list of images."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from gfl_edge.annotations.class_names import check_class_names
from gfl_edge.annotations.image_list import Entry, locate, read_image_list
from gfl_edge.annotations.records import Annotations, ImageRecord, Objects
from gfl_edge.annotations.text import read_xml_text
from gfl_edge.errors import AnnotationError
from train.data.formats.found_files import FoundFiles, is_image_name, without_suffix

CORNERS = ("xmin", "ymin", "xmax", "ymax")
FIRST_PIXEL = 1  # VOC counts from here
NAMED = 5  # how many files a message names
FLAGGED = re.compile(r"(.*\S)\s+(?:-1|0|1)")

logger = logging.getLogger(__name__)


def read_voc(
    annotation_folder: str | Path,
    image_list: str | Path | None,
    image_folder: str | Path,
    class_names: Sequence[str] | None = None,
) -> Annotations:
    """Read the VOC annotations of the images in a list. Objects marked difficult are ignored, as mmdetection does.

    VOC counts pixels from 1, so 1 is subtracted from all four corners as in mmdetection (mmdet/datasets/xml_style.py),
    for numbers that compare with its. As xmax and ymax are the last pixels inside, boxes so end a pixel early: 1..width
    becomes 0..width - 1, where detectron2 (detectron2/data/datasets/pascal_voc.py) has 0..width. Parts of pixels, which
    mmdetection cuts off, are kept.

    Args:
        annotation_folder: ``<name>.xml`` for each image, in the same sub-folders.
        image_list: text file, an image per line with or without suffix, such as ImageSets/Main/train.txt; how paths
            are read, see :func:`gfl_edge.annotations.image_list.locate`; None: all that lie directly in the folder.
        image_folder: ``<name>.jpg``, or another suffix of an image.
        class_names: in the order of the labels; default those of :func:`voc_class_names`.

    Raises:
        AnnotationError: files that are missing (counted and named) or no VOC annotations.
        SourceError: without a list, there is no such folder, or it holds no images.
    """
    files, images = FoundFiles(Path(annotation_folder)), FoundFiles(Path(image_folder))
    if image_list is None:
        entries, names = images.all_images()
    else:
        entries, names = _located(Path(image_list), images.root, lambda name: _xml(files, name) is not None)
    paths = [_xml(files, name) for name in names]
    missing = [
        str(entry) if image_list else entry.text for entry, path in zip(entries, paths, strict=True) if path is None
    ]
    if missing:
        advice = "take the names off the list" if image_list else "list those that have one, as image_list"
        raise AnnotationError(
            f"{image_list or images.root}: {len(missing)} of {len(entries)} images have no XML file in {files.root}: "
            f"{', '.join(missing[:NAMED])}. Add them, or {advice}"
        )
    classes = tuple(voc_class_names([files.root]) if class_names is None else class_names)
    label_of = {name: index for index, name in enumerate(classes)}
    foreign: list[str] = []
    records = []
    for number, (entry, name, path) in enumerate(zip(entries, names, paths, strict=True), 1):
        assert path is not None  # see missing
        try:
            records.append(replace(_record(path, number, images, name, label_of, foreign), line=entry.line))
        except (AttributeError, ValueError) as error:
            raise _unexpected(path, error) from error
    return Annotations(classes, tuple(records), images.root, str(image_list or files.root), tuple(foreign))


def voc_class_names(annotation_folders: Iterable[str | Path]) -> tuple[str, ...]:
    """The classes of all objects in all XML files of the folders, sorted, so that each list of a set has the same.

    Raises:
        AnnotationError: there is no such folder or no object, or a file is no XML.
    """
    folders = list(dict.fromkeys(map(Path, annotation_folders)))
    if gone := [str(folder) for folder in folders if not folder.is_dir()]:
        raise AnnotationError(f"{gone[0]} is no folder: expected VOC's XML files. Check annotations, and data.root")
    paths = [
        path for folder in folders for path in sorted(Path(folder).rglob("*.xml")) if not path.name.startswith(".")
    ]
    names: set[str] = set()
    for path in paths:
        try:
            found = {_text(item, "name") for item in _parse(path).iterfind("object")}
        except ValueError as error:
            raise _unexpected(path, error) from error
        names.update(check_class_names([(name, "object") for name in sorted(found)], str(path)))
    if not names:
        raise AnnotationError(f"no object in {len(paths)} XML files of {', '.join(map(str, folders))}")
    return tuple(sorted(names))


def _located(
    image_list: Path, image_folder: Path, is_there: Callable[[str], bool]
) -> tuple[Sequence[Entry], list[str]]:
    """The entries of a list, and where they are.

    VOC's lists of a class have a flag after each name: 1, 0 or -1. A list is one if each line ends so, and no name is
    there as it is written.
    """
    entries = read_image_list(image_list)
    names, found = locate(entries, image_list, image_folder, is_there)
    flagged = [FLAGGED.fullmatch(entry.text) for entry in entries]
    if found or not all(flagged):
        return entries, names
    logger.warning("%s: each line ends in 1, 0 or -1, read as the flag of VOC's lists of a class", image_list)
    entries = [Entry(match[1], entry.line) for entry, match in zip(entries, flagged, strict=True) if match]
    return entries, locate(entries, image_list, image_folder, is_there)[0]


def _xml(files: FoundFiles, name: str) -> Path | None:
    """The XML file of an image by its path in the image folder, or anywhere; None if there is none."""
    name = PurePosixPath(name).name if name.startswith("/") else name
    return files.find(f"{name}.xml") or files.find(f"{without_suffix(name)}.xml")


def _record(
    path: Path, number: int, images: FoundFiles, name: str, label_of: dict[str, int], foreign: list[str]
) -> ImageRecord:
    """The record of one XML file; names that ``label_of`` lacks are added to ``foreign``."""
    root = _parse(path)
    items = list(root.iterfind("object"))
    labels = []
    for found in (_text(item, "name") for item in items):
        if found not in label_of and found not in foreign:
            foreign.append(found)
        labels.append(label_of[found] if found in label_of else ~foreign.index(found))
    boxes = [[float(_text(item, f"bndbox/{corner}")) - FIRST_PIXEL for corner in CORNERS] for item in items]
    objects = Objects.of(boxes, labels)
    difficult = np.array([(item.findtext("difficult") or "0").strip() == "1" for item in items], np.bool_)
    image = _image_path(images, name, root.findtext("filename") or "")
    return ImageRecord(image, number, objects.where(~difficult), objects.where(difficult), _size(root))


def _unexpected(path: Path, error: Exception) -> AnnotationError:
    return AnnotationError(f"{path}: {error}. Expected VOC's size, object, name and bndbox")


def _parse(path: Path) -> Element:
    text = read_xml_text(path, AnnotationError)
    if "<!ENTITY" in text:  # a few of which, each of the others, fill the memory
        raise AnnotationError(f"{path} declares entities, which VOC's files have none of. Write it without")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise AnnotationError(f"{path} is no readable XML ({error}). Write or copy it again") from error
    if root.tag != "annotation":
        raise AnnotationError(f"{path} is no VOC file: it begins with <{root.tag[:60]}>, expected <annotation>")
    return root


def _text(element: Element, path: str) -> str:
    text = element.findtext(path)
    if text is None or not text.strip():
        raise ValueError(f"<{element.tag}> without {path}")
    return text.strip()


def _size(root: Element) -> tuple[int, int] | None:
    """(height, width); None where the file does not say, or says 0 as some tools do."""
    height, width = (float(root.findtext(f"size/{side}") or 0) for side in ("height", "width"))
    if not (math.isfinite(height) and math.isfinite(width)):
        raise ValueError(f"<size> {width} x {height}")
    return (int(height), int(width)) if height >= 1 and width >= 1 else None


def _image_path(images: FoundFiles, name: str, declared: str) -> Path:
    """The image of an XML file, by its name: the declared one, often left from a renaming, gives only the suffix."""
    suffix = PurePosixPath(declared).suffix or ".jpg"
    expected = images.root / (name if is_image_name(name) else f"{name}{suffix}")
    found = [expected] if name.startswith("/") else images.images(name)
    if len(found) > 1:
        found = [path for path in found if path.suffix == suffix]
        if not found:
            raise ValueError(f"<filename> {declared!r} does not say which of several images {name} it is for")
    return found[0] if found else expected

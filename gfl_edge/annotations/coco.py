"""COCO's files of instances, in and out."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gfl_edge.annotations.checks import ADVICE, NAMED, OnBad
from gfl_edge.annotations.class_names import check_class_names
from gfl_edge.annotations.image_list import Entry, locate
from gfl_edge.annotations.records import Annotations, ImageRecord, Objects
from gfl_edge.annotations.text import read_text
from gfl_edge.annotations.values import Identity, to_box, to_flag, to_identity, to_name, to_number, to_pixels, value_of
from gfl_edge.errors import AnnotationError
from gfl_edge.files import is_file, write_atomically
from gfl_edge.parsing.json_text import json_text

logger = logging.getLogger(__name__)


def read_coco(annotation_file: str | Path, image_folder: str | Path, on_bad: OnBad = "error") -> Annotations:
    """Read a COCO instances file.

    Classes are in order of category id, as mmdetection and nanodet number them; ids that are text come last, in the
    order of the file. Crowds (``iscrowd``) are ignored. Ids of annotations are not looked at: many tools write them
    from 0, anew for each image, or not at all. Image ids that are all whole numbers stay; else images are numbered from
    1 in the order of the file. An ``area`` that is no positive number is that of the box.

    Args:
        annotation_file: JSON.
        image_folder: ``file_name`` is relative to it, or leads into it; how those of other machines are read, says
            :func:`gfl_edge.annotations.image_list.locate`.
        on_bad: "error" refuses entries that lack what they need; "drop" leaves them out with a warning.

    Raises:
        AnnotationError: no COCO instances file; an entry lacks what it needs; two categories or two images share an
            id; or no annotation is of a listed image.
    """
    content, origin, folder = read_instances(annotation_file), str(annotation_file), Path(image_folder)
    names, bad = _category_names(content["categories"], origin), _BadEntries(origin)
    images = _images(content["images"], Path(annotation_file), folder, bad)
    elsewhere = _fill(images, content["annotations"], bad)
    bad.refuse_or_warn(on_bad)
    _say_elsewhere(origin, elsewhere, images, len(content["annotations"]))
    used = dict.fromkeys(found.category for image in images.values() for found in image.objects)
    foreign = tuple(key for key in used if key not in names)
    label_of = {key: index for index, key in enumerate(names)} | {key: ~index for index, key in enumerate(foreign)}
    numbered = all(isinstance(key, int) and abs(key) < 2**63 for key in images)
    records = tuple(
        image.record(key if numbered and isinstance(key, int) else number, key, label_of)
        for number, (key, image) in enumerate(images.items(), 1)
    )
    unknown = tuple(f"category id {key}" for key in foreign)
    return Annotations(tuple(names.values()), records, folder, origin, unknown, tuple(names))


def read_instances(path: str | Path) -> dict[str, list[Any]]:
    """The content of a COCO instances file, with lists of images, annotations and categories.

    Raises:
        AnnotationError: it cannot be read, or is none.
    """
    try:
        content = json.loads(read_text(path, AnnotationError))
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path} is not JSON ({error}). Give a COCO instances JSON, or copy it again") from error
    needed = ("images", "annotations", "categories")
    if isinstance(content, dict) and all(isinstance(content.get(key), list) for key in needed):
        return content
    if isinstance(content, dict):
        found = ", ".join(f"{key:.40}" for key in list(content)[:NAMED]) or "nothing"
    else:
        found = "a list, as of results" if isinstance(content, list) else f"{content!r:.40}"
    raise AnnotationError(f"{path} is no COCO instances file: expected lists {', '.join(needed)}, found {found}")


def write_coco(annotations: Annotations, path: str | Path) -> None:
    """Write ``annotations`` as a COCO instances file, whole or not at all."""
    write_atomically(path, json_text(annotations.to_coco()).encode())


class _BadEntries:
    """Entries that lack what they need, named by everything by which they can be found in the file."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self._found: list[str] = []

    def add(self, kind: str, index: int, entry: Any, reason: object, image: str = "") -> None:
        """Note the entry at ``index`` of its list."""
        names = [f"id {entry['id']!r}"] if isinstance(entry, dict) and "id" in entry else []
        names += [f"image {image}"] if image else []
        named = f" ({', '.join(names)})" if names else ""
        self._found.append(f"{kind} {index}{named}: {reason}")

    def refuse_or_warn(self, on_bad: OnBad) -> None:
        """Raise AnnotationError, or say what was left out, if there is something."""
        if not self._found:
            return
        more = f"; and {len(self._found) - NAMED} more" if len(self._found) > NAMED else ""
        count = "1 entry" if len(self._found) == 1 else f"{len(self._found)} entries"
        listed = f"{'; '.join(self._found[:NAMED])}{more}"
        if on_bad == "error":
            raise AnnotationError(f"{self.origin}: {count} cannot be used: {listed}. {ADVICE}")
        logger.warning("%s: left out %s: %s", self.origin, count, listed)


@dataclass(frozen=True)
class _Object:
    """An annotation; ``box`` is x, y, width and height, ``area`` None where it is that of the box."""

    box: tuple[float, ...]
    area: float | None
    category: Identity
    crowd: bool

    @classmethod
    def of(cls, entry: Any) -> _Object:
        box = value_of(entry, "bbox", to_box)
        try:
            area = to_number(entry.get("area"))
        except ValueError:
            area = math.nan
        crowd = "iscrowd" in entry and value_of(entry, "iscrowd", to_flag)
        return cls(box, area if 0 < area < math.inf else None, value_of(entry, "category_id", to_identity), crowd)


@dataclass(frozen=True)
class _Image:
    """An image and its annotations."""

    path: Path
    size_hw: tuple[int, int] | None
    objects: list[_Object]

    def record(self, image_id: int, file_id: Identity, label_of: dict[Identity, int]) -> ImageRecord:
        """With labels by category id."""
        learned, ignored = (
            _to_objects([found for found in self.objects if found.crowd is crowd], label_of) for crowd in (False, True)
        )
        return ImageRecord(self.path, image_id, learned, ignored, self.size_hw, file_id=file_id)


def _to_objects(found: list[_Object], label_of: dict[Identity, int]) -> Objects:
    boxes = [(x, y, x + width, y + height) for x, y, width, height in (one.box for one in found)]
    objects = Objects.of(boxes, [label_of[one.category] for one in found])
    for index, one in enumerate(found):
        if one.area is not None:
            objects.areas[index] = one.area
    return objects


def _category_names(entries: list[Any], origin: str) -> dict[Identity, str]:
    """Names by id, in the order of the labels."""
    names: dict[Identity, str] = {}
    for index, entry in enumerate(entries):
        try:
            key, name = value_of(entry, "id", to_identity), value_of(entry, "name", to_name)
        except ValueError as error:
            raise AnnotationError(
                f"{origin}: category {index}: {error}. Give each category an id and a name"
            ) from error
        check_class_names([(name, f"category {index}")], origin)
        if key in names or name in names.values():
            same = f"id {key} ({names[key]!r}, {name!r})" if key in names else f"name {name!r}"
            raise AnnotationError(
                f"{origin}: two categories have the same {same}. Give each its own, or take one of them out"
            )
        names[key] = name
    order: list[Identity] = [*sorted(key for key in names if isinstance(key, int))]
    order += [key for key in names if isinstance(key, str)]
    return {key: names[key] for key in order}


def _images(entries: list[Any], annotation_file: Path, folder: Path, bad: _BadEntries) -> dict[Identity, _Image]:
    """By id. One that comes twice would leave open which image its boxes belong to."""
    found: list[tuple[Identity, tuple[int, int] | None, Entry]] = []
    for index, entry in enumerate(entries):
        try:
            height, width = (to_pixels(entry, side) for side in ("height", "width"))
            size_hw = (height, width) if height and width else None
            listed = Entry(value_of(entry, "file_name", to_name), index, "image")
            found.append((value_of(entry, "id", to_identity), size_hw, listed))
        except ValueError as error:
            bad.add("image", index, entry, error, str(entry.get("file_name") or "") if isinstance(entry, dict) else "")
    texts = [entry for *_, entry in found]
    names, _ = locate(texts, annotation_file, folder, lambda name: is_file(folder / name), elsewhere=False)
    images: dict[Identity, _Image] = {}
    for (key, size_hw, entry), name in zip(found, names, strict=True):
        image = _Image(folder / name, size_hw, [])
        if key not in images:
            images[key] = image
        elif images[key].path == image.path:
            bad.add("image", entry.line, entries[entry.line], "listed twice", image.path.name)
        else:
            raise AnnotationError(
                f"{bad.origin}: two images have the same id {key}: {images[key].path.name}, {image.path.name}. "
                "Give each its own, and their annotations with them"
            )
    return images


def _fill(images: dict[Identity, _Image], entries: list[Any], bad: _BadEntries) -> list[Identity]:
    """Put the annotations to their images; returns the image ids of those of no listed image."""
    elsewhere: list[Identity] = []
    for index, entry in enumerate(entries):
        image = None
        try:
            key = value_of(entry, "image_id", to_identity)
            if (image := images.get(key)) is None:
                elsewhere.append(key)
            else:
                image.objects.append(_Object.of(entry))
        except ValueError as error:
            bad.add("annotation", index, entry, error, "" if image is None else image.path.name)
    return elsewhere


def _say_elsewhere(origin: str, ids: list[Identity], images: dict[Identity, _Image], annotations: int) -> None:
    """Warn of annotations whose image is not listed; raises AnnotationError if that is all of them."""
    if ids and images and len(ids) == annotations:
        raise AnnotationError(
            f"{origin}: none of {annotations} annotations is of a listed image: their image_id is such as {ids[0]!r}, "
            f"the id of an image such as {next(iter(images))!r}. Give both the same ids"
        )
    if ids:
        logger.warning(
            "%s: left out %d annotations of %d images that it does not list, first image_id %r",
            *(origin, len(ids), len(set(ids)), ids[0]),
        )

"""COCO's files of instances, in and out, and the names of its 80 categories in the order of published detectors."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from gfl_edge.annotations.records import Annotations, ImageRecord, Objects
from gfl_edge.errors import AnnotationError
from gfl_edge.files import write_atomically

logger = logging.getLogger(__name__)

Entry = dict[str, Any]

_NAMES = """\
person|bicycle|car|motorcycle|airplane|bus|train|truck|boat|traffic light|fire hydrant|stop sign|
parking meter|bench|bird|cat|dog|horse|sheep|cow|elephant|bear|zebra|giraffe|backpack|umbrella|
handbag|tie|suitcase|frisbee|skis|snowboard|sports ball|kite|baseball bat|baseball glove|skateboard|
surfboard|tennis racket|bottle|wine glass|cup|fork|knife|spoon|bowl|banana|apple|sandwich|orange|
broccoli|carrot|hot dog|pizza|donut|cake|chair|couch|potted plant|bed|dining table|toilet|tv|laptop|
mouse|remote|keyboard|cell phone|microwave|oven|toaster|sink|refrigerator|book|clock|vase|scissors|
teddy bear|hair drier|toothbrush"""

COCO_CLASSES: tuple[str, ...] = tuple(_NAMES.replace("\n", "").split("|"))


def read_coco(annotation_file: str | Path, image_folder: str | Path) -> Annotations:
    """Read a COCO instances file.

    Classes are in order of category id, as mmdetection and nanodet number them. Crowds (``iscrowd``) are ignored.

    Args:
        annotation_file: JSON.
        image_folder: ``file_name`` is relative to it.

    Raises:
        AnnotationError: no COCO instances file, or an entry lacks what it needs.
    """
    content = read_instances(annotation_file)
    origin, folder = str(annotation_file), Path(image_folder)
    try:
        names = {int(entry["id"]): str(entry["name"]) for entry in content["categories"]}
        objects: dict[int, list[Entry]] = {}
        for entry in content["annotations"]:
            objects.setdefault(int(entry["image_id"]), []).append(entry)
        class_names = tuple(names[category] for category in sorted(names))
        foreign = sorted({_category(entry) for entries in objects.values() for entry in entries} - names.keys())
        label_of = {category: index for index, category in enumerate(sorted(names))}
        label_of |= {category: ~index for index, category in enumerate(foreign)}
        records = tuple(
            _record(entry, folder, objects.pop(int(entry["id"]), []), label_of) for entry in _images(content)
        )
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise AnnotationError(f"{origin}: an entry is incomplete or misshapen: {reason}") from error
    if len(set(class_names)) != len(class_names):
        raise AnnotationError(f"{origin}: two categories have the same name. Give each its own, or one id to both")
    if objects:
        count = sum(map(len, objects.values()))
        logger.warning("%s: left out %d annotations of %d images that it does not list", origin, count, len(objects))
    return Annotations(class_names, records, folder, origin, tuple(f"category id {category}" for category in foreign))


def read_instances(path: str | Path) -> dict[str, list[Entry]]:
    """The content of a COCO instances file, with lists of images, annotations and categories.

    Raises:
        AnnotationError: it cannot be read, or is none.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise AnnotationError(f"{path} cannot be read ({error.strerror}). Give a COCO instances JSON") from error
    except ValueError as error:
        raise AnnotationError(f"{path} is not JSON ({error}). Give a COCO instances JSON") from error
    needed = ("images", "annotations", "categories")
    if not isinstance(content, dict) or any(not isinstance(content.get(key), list) for key in needed):
        raise AnnotationError(f"{path} is no COCO instances file: expected lists {', '.join(needed)}")
    return content


def write_coco(annotations: Annotations, path: str | Path) -> None:
    """Write ``annotations`` as a COCO instances file, whole or not at all."""
    write_atomically(path, json.dumps(annotations.to_coco()).encode())


def _images(content: dict[str, list[Entry]]) -> list[Entry]:
    """The image entries; an id that comes twice would leave open which image its boxes belong to."""
    ids = [int(entry["id"]) for entry in content["images"]]
    if len(set(ids)) != len(ids):
        twice = next(number for number in ids if ids.count(number) > 1)
        raise ValueError(f"image id {twice} comes {ids.count(twice)} times")
    return content["images"]


def _record(entry: Entry, folder: Path, annotations: list[Entry], label_of: dict[int, int]) -> ImageRecord:
    crowds = [bool(annotation.get("iscrowd", 0)) for annotation in annotations]
    learned = [annotation for annotation, crowd in zip(annotations, crowds, strict=True) if not crowd]
    ignored = [annotation for annotation, crowd in zip(annotations, crowds, strict=True) if crowd]
    known = entry.get("height") and entry.get("width")
    size = (int(entry["height"]), int(entry["width"])) if known else None
    path = folder / str(entry["file_name"])
    return ImageRecord(path, int(entry["id"]), _objects(learned, label_of), _objects(ignored, label_of), size)


def _objects(annotations: list[Entry], label_of: dict[int, int]) -> Objects:
    boxes = []
    for annotation in annotations:
        x, y, width, height = map(float, annotation["bbox"])
        boxes.append((x, y, x + width, y + height))
    objects = Objects.of(boxes, [label_of[_category(annotation)] for annotation in annotations])
    for index, annotation in enumerate(annotations):
        objects.areas[index] = annotation.get("area", objects.areas[index])
    return objects


def _category(entry: Entry) -> int:
    return int(entry["category_id"])

"""COCO files as tools write them: the same boxes in other words, and with mistakes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from hypothesis import strategies as st

from gfl_edge.annotations.records import Annotations
from gfl_edge.evaluation.ap import Evaluator, Metrics, as_coco, average_precision

Content = dict[str, Any]

IMAGES = ("a.png", "sub/b.png", "c.png")
SIZE_HW = (96, 128)
NAMES = ("person", "traffic light", "dog")


def write_images(folder):
    """The files of ``IMAGES``."""
    for name in IMAGES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), np.zeros((*SIZE_HW, 3), np.uint8))


@st.composite
def contents(draw) -> Content:
    """A sound file: whole numbers, so that float32 is exact; at least one box to find."""
    annotations: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 12))):
        x, y = draw(st.integers(0, 100)), draw(st.integers(0, 70))
        width, height = draw(st.integers(2, SIZE_HW[1] - x)), draw(st.integers(2, SIZE_HW[0] - y))
        row = {"id": number + 1, "image_id": draw(st.sampled_from((1, 2, 3))), "bbox": [x, y, width, height]}
        crowd = int(number > 0 and draw(st.integers(0, 5)) == 0)
        category = draw(st.sampled_from((3, 7, 90)))
        annotations.append({**row, "area": width * height, "category_id": category, "iscrowd": crowd})
    height, width = SIZE_HW
    return {
        "images": [{"id": i, "file_name": n, "width": width, "height": height} for i, n in enumerate(IMAGES, 1)],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in zip((3, 7, 90), NAMES, strict=True)],
    }


def _each(kind: str, **values: Any) -> Callable[[Content], None]:
    """Set keys of all entries: what a value gives if it is called with the index and the entry."""

    def change(content: Content) -> None:
        for index, entry in enumerate(content[kind]):
            entry.update({k: v(index, entry) if callable(v) else v for k, v in values.items()})

    return change


def _without(kind: str, *keys: str) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        for entry in content[kind]:
            for key in keys:
                entry.pop(key, None)

    return change


def _both(first: Callable[[Content], None], second: Callable[[Content], None]) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        first(content)
        second(content)

    return change


def _text_ids(content: Content) -> None:
    """Image ids as CVAT and others write them, in an order that is not the file's by number."""
    _each("images", id=lambda i, e: f"img-{e['id']:03d}")(content)
    _each("annotations", image_id=lambda i, e: f"img-{int(e['image_id']):03d}")(content)


# Other words for the same
HARMLESS: dict[str, Callable[[Content], None]] = {
    "ids from 0": _each("annotations", id=lambda i, e: i),
    "one id for all": _each("annotations", id=1),
    "ids anew in each image": _each("annotations", id=lambda i, e: i % 2),
    "text as id": _each("annotations", id=lambda i, e: f"ann-{i}"),
    "null ids": _each("annotations", id=None),
    "no ids": _without("annotations", "id"),
    "no area": _without("annotations", "area"),
    "null area": _each("annotations", area=None),
    "area 0": _each("annotations", area=0),
    "area NaN": _each("annotations", area=float("nan")),
    "area as text": _each("annotations", area=lambda i, e: str(e["bbox"][2] * e["bbox"][3])),
    "crowds as bool": _each("annotations", iscrowd=lambda i, e: bool(e["iscrowd"])),
    "crowds as text": _each("annotations", iscrowd=lambda i, e: str(int(e["iscrowd"]))),
    "boxes as text": _each("annotations", bbox=lambda i, e: [str(v) for v in e["bbox"]]),
    "boxes as floats": _each("annotations", bbox=lambda i, e: [float(v) for v in e["bbox"]]),
    "image ids as text in annotations": _each("annotations", image_id=lambda i, e: str(e["image_id"])),
    "float ids": _each("annotations", image_id=lambda i, e: float(e["image_id"]), id=lambda i, e: float(i)),
    "category ids as text": _each("annotations", category_id=lambda i, e: str(e["category_id"])),
    "category ids as text in categories": _each("categories", id=lambda i, e: str(e["id"])),
    "spaces round names": _each("categories", name=lambda i, e: f" {e['name']} "),
    "large image ids": _both(
        _each("images", id=lambda i, e: int(e["id"]) + 2**62),
        _each("annotations", image_id=lambda i, e: int(e["image_id"]) + 2**62),
    ),
    "no sizes": _without("images", "width", "height"),
    "sizes 0": _each("images", width=0, height=0),
    "sizes as text": _each("images", width=str(SIZE_HW[1]), height=str(SIZE_HW[0])),
    "back slashes": _each("images", file_name=lambda i, e: e["file_name"].replace("/", "\\")),
    "absolute on Windows": _each("images", file_name=lambda i, e: "D:\\d\\" + e["file_name"].replace("/", "\\")),
    "absolute elsewhere": _each("images", file_name=lambda i, e: f"/mnt/someone/set/{e['file_name']}"),
    "dots": _each(
        "images", file_name=lambda i, e: e["file_name"] if e["file_name"][0] in "/D" else f"./{e['file_name']}"
    ),
    "info": lambda content: content.update(info={"year": 2020}, licenses=[]),
    "masks": _each("annotations", segmentation=[]),
}


def _first(kind: str, **values: Any) -> Callable[[Content], None]:
    return lambda content: content[kind][0].update(values)


def _added(kind: str, **values: Any) -> Callable[[Content], None]:
    return lambda content: content[kind].append({**content[kind][0], **values})


# Mistakes, some of which leave a file that can be used
HARMFUL: dict[str, Callable[[Content], None]] = {
    "no bbox": lambda content: content["annotations"][0].pop("bbox"),
    **{f"bbox {box}": _first("annotations", bbox=box) for box in (
        None, [], [1, 2, 3], [1, 2, 3, 4, 5], {"x": 1}, "1 2 3 4", [1, 2, None, 4], [1, 2, True, 4], ["a"] * 4,
        [float("nan")] * 4, [0, 0, float("inf"), 4], [0, 0, 1e300, 4], [0, 0, 10**400, 4], [9, 9, 0, 0], [9, 9, 5, 0],
        [50, 50, -20, -20], [-30, 0, 60, 60], [9, 9, 5000, 5000], [-0.5, 0, 20, 20], [0, 0, 0.5, 0.5], [[1, 2, 3, 4]],
    )},
    "parts of the image": _each("annotations", bbox=[0.1, 0.1, 0.5, 0.5]),
    "corners": _each("annotations", bbox=lambda i, e: [60, 50, 100 + i % 9, 90]),
    "crowds only": _each("annotations", iscrowd=1),
    "crowd 2": _first("annotations", iscrowd=2),
    "crowd with NaN": _added("annotations", iscrowd=1, bbox=[float("nan")] * 4),
    "unknown category": _first("annotations", category_id=99),
    "crowd of an unknown category": _added("annotations", iscrowd=1, category_id=99),
    "null category": _first("annotations", category_id=None),
    "image not listed": _added("annotations", image_id=999),
    "no image listed": _each("annotations", image_id="x"),
    "null image": _first("annotations", image_id=None),
    "identical boxes": lambda content: content["annotations"].extend(copy.deepcopy(content["annotations"])),
    "no annotations": lambda content: content.update(annotations=[]),
    "annotation that is none": lambda content: content["annotations"].append(7),
    "image twice": _added("images"),
    "file twice": _added("images", id=77),
    "id twice": lambda content: content["images"][1].update(id=content["images"][0]["id"]),
    "image that is none": lambda content: content["images"].append(None),
    "no file": _added("images", id=78, file_name="gone.png"),
    **{f"file {name!r}": _first("images", file_name=name) for name in (None, "", 3.5, "x" * 300, "a\0b", "..")},
    "no name": lambda content: content["images"][0].pop("file_name"),
    "no image id": lambda content: content["images"][0].pop("id"),
    "no images": lambda content: content.update(images=[]),
    "other sizes": _each("images", width=64),
    "sizes swapped": _each("images", width=SIZE_HW[0], height=SIZE_HW[1]),
    **{f"width {width!r}": _first("images", width=width) for width in ("wide", -128, float("nan"), [128])},
    "category twice": _added("categories", id=91),
    "category id twice": _added("categories", name="cow"),
    **{f"category {name!r}": _first("categories", name=name) for name in (None, "", ["person"], "Person", 7)},
    "no category id": lambda content: content["categories"][0].pop("id"),
    "no categories": lambda content: content.update(categories=[]),
    "categories null": lambda content: content.update(categories=None),
}  # fmt: skip


def spoiled(content: Content, *names: str) -> Content:
    """A copy with these changes, one after the other."""
    content = copy.deepcopy(content)
    for name in names:
        (HARMLESS | HARMFUL)[name](content)
    return content


def write(path, content: Content) -> Any:
    path.write_text(json.dumps(content))
    return path


def detections(content: Content, seed: int) -> list[dict[str, Any]]:
    """Near the boxes of a sound file, some of them, with ties of scores, and some elsewhere."""
    rng = np.random.default_rng(seed)
    found = []
    for row in content["annotations"]:
        for _ in range(rng.integers(0, 3)):
            box = np.array(row["bbox"], float) + rng.integers(-4, 5, 4)
            score = round(float(rng.random()), 1)
            found.append(
                {**{k: row[k] for k in ("image_id", "category_id")}, "bbox": box.clip(1).tolist(), "score": score}
            )
    return found


def judged(truth: Annotations, rows: list[dict[str, Any]], evaluator: Evaluator) -> Metrics:
    """Metrics of detections whose ids are those of a sound file, by annotations as they were read."""
    number = {truth_name(record.path): record.image_id for record in truth.records}
    category = dict(zip((3, 7, 90), NAMES, strict=True))
    results = [
        {**row, "image_id": number[IMAGES[row["image_id"] - 1]], "category_id": truth.class_names.index(name) + 1}
        for row in rows
        if (name := category[row["category_id"]]) in truth.class_names and IMAGES[row["image_id"] - 1] in number
    ]
    ids = [record.image_id for record in truth.records]
    return average_precision(as_coco(truth.to_coco()), results, ids, evaluator)


def truth_name(path) -> str:
    return "sub/b.png" if path.name == "b.png" else path.name

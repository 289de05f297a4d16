"""Annotations, class names and lists of images."""

from __future__ import annotations

import json
from pathlib import Path

from gfl_edge.annotations.checks import check_annotations
from gfl_edge.annotations.class_names import read_class_names
from gfl_edge.annotations.coco import read_coco
from gfl_edge.annotations.image_list import read_image_list
from tests.fuzz.reader import Reader
from tests.fuzz.readers_support import image_beside

COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 32, "height": 24}, {"id": 2, "file_name": "b.png"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [2, 3, 10.5, 11], "area": 115.5, "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 5, "bbox": [1, 1, 8, 8], "iscrowd": 1},
    ],
    "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}],
}
NAMES = b"# animals\ncat\ndog\nshort-tailed weasel\n\xe5\x90\x8d\xe5\x89\x8d\n"


def coco(path: Path) -> object:
    """As evaluation reads it, which drops what it can."""
    image_beside(path)
    return check_annotations(read_coco(path, path.parent, "drop"), "drop", "evaluation")


READERS = [
    Reader("coco", coco, [json.dumps(COCO, indent=1).encode()], ".json"),
    Reader("class-names", read_class_names, [NAMES], ".txt"),
    Reader("image-list", read_image_list, [b"a.png\nsub/b.png\r\n# c\n/abs/c.jpg\n"], ".txt"),
]

"""Annotations, class names and lists of images."""

from __future__ import annotations

import json
from pathlib import Path

from gfl_edge.annotations.checks import OnBad, Purpose, check_annotations
from gfl_edge.annotations.class_names import read_class_names
from gfl_edge.annotations.coco import read_coco
from gfl_edge.annotations.records import Annotations
from gfl_edge.annotations.text import read_text, read_xml_text
from tests.fuzz.beside import annotation_tree
from tests.fuzz.reader import Reader

COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 32, "height": 24}, {"id": 2, "file_name": "sub/b.png"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [2, 3, 10.5, 11], "area": 115.5, "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 5, "bbox": [1, 1, 8, 8], "iscrowd": 1},
    ],
    "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}],
}
NAMES_TEXT = "# animals\ncat\ndog\nshort-tailed weasel\n\N{CJK UNIFIED IDEOGRAPH-540D}\n".encode()
DATA_YAML = b"""# Ultralytics
path: ../datasets/pets
train: images/train
val: images/val
nc: 3
names: {0: cat, 1: 'dog: large', 2: "no"}
download: https://example.com/pets.zip
"""
YAML_LIST = b"names:\n  - cat\n  - &d dog\n  - 'it''s'\nnc: 3\n"
VOC = b"""<?xml version="1.0" encoding="utf-8"?>
<annotation>
 <filename>a.png</filename>
 <size><width>32</width><height>24</height><depth>3</depth></size>
 <object><name>cat</name><difficult>0</difficult>
  <bndbox><xmin>3</xmin><ymin>4.5</ymin><xmax>20</xmax><ymax>21</ymax></bndbox></object>
 <object><name>dog</name><difficult>1</difficult>
  <bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>
</annotation>
"""
VOC_OLD = VOC.replace(b"utf-8", b"gb2312").replace(b"cat", b"\xc3\xa8")


def _checked(annotations: Annotations, on_bad: OnBad, purpose: Purpose) -> object:
    """As users get it: read, checked, and written again as COCO's evaluation takes it."""
    checked, report = check_annotations(annotations, on_bad, purpose)
    return json.dumps(checked.to_coco()), report.summary(), json.dumps(report.to_dict())


def coco_for_evaluation(path: Path) -> object:
    """Strict, as ``gfl-edge eval`` reads it."""
    return _checked(read_coco(path, annotation_tree(path.parent) / "images"), "error", "evaluation")


def coco_for_training(path: Path) -> object:
    """With what is bad left out, as ``--on-bad drop`` has it."""
    return _checked(read_coco(path, annotation_tree(path.parent) / "images", "drop"), "drop", "training")


def yolo_labels(path: Path) -> object:
    """One label file of two."""
    from train.data.formats.yolo import read_yolo

    root = annotation_tree(path.parent)
    (root / "labels" / "a.txt").write_bytes(path.read_bytes())
    return _checked(read_yolo(root / "images", root / "labels", ("cat", "dog")), "drop", "training")


def yolo_list(path: Path) -> object:
    """The list of images."""
    from train.data.formats.yolo import read_yolo

    root = annotation_tree(path.parent)
    return _checked(read_yolo(root / "images", root / "labels", ("cat", "dog"), path), "drop", "evaluation")


def image_ids(path: Path) -> object:
    """The list of those that are held out."""
    from train.data.formats.image_ids import read_ids

    return sorted(read_ids(path))


def voc(path: Path) -> object:
    """One XML file of two."""
    from train.data.formats.voc import read_voc

    root = annotation_tree(path.parent)
    (root / "xml" / "a.xml").write_bytes(path.read_bytes())
    return _checked(read_voc(root / "xml", root / "voc.txt", root / "images"), "drop", "training")


def voc_list(path: Path) -> object:
    """The list of images of VOC."""
    from train.data.formats.voc import read_voc

    root = annotation_tree(path.parent)
    return _checked(read_voc(root / "xml", path, root / "images"), "error", "training")


READERS = [
    Reader(
        "coco-evaluation",
        coco_for_evaluation,
        [json.dumps(COCO, indent=1).encode(), json.dumps(COCO).encode()],
        ".json",
    ),
    Reader(
        "coco-training", coco_for_training, [json.dumps(COCO, indent=1).encode(), json.dumps(COCO).encode()], ".json"
    ),
    Reader("class-names", read_class_names, [NAMES_TEXT, b"cat\r\ndog\r\n"], ".txt"),
    Reader("class-names-yaml", read_class_names, [DATA_YAML, YAML_LIST], ".yaml"),
    Reader(
        "class-names-json",
        read_class_names,
        [b'{"names": ["cat", "dog"], "nc": 2}', b'{"names": {"0": "cat"}}'],
        ".json",
    ),
    Reader("yolo-labels", yolo_labels, [b"0 0.5 0.5 0.25 0.25\n1 0.25 0.75 .1 1e-1\n", b""], ".txt"),
    Reader("yolo-list", yolo_list, [b"a.png\nsub/b.png\n", b"./a.png\r\n/data/images/sub/b.png\r\n"], ".txt"),
    Reader("image-ids", image_ids, [b"# held out\n17\n139\n\n285\n", b"1\r\n2\r\n"], ".txt"),
    Reader("voc", voc, [VOC, VOC_OLD], ".xml"),
    Reader("voc-list", voc_list, [b"a\nsub/b\n", b"a.png 1\nsub/b -1\n"], ".txt"),
    Reader(
        "text",
        read_text,
        ["a\nb\n\N{CJK UNIFIED IDEOGRAPH-540D}\n".encode(e) for e in ("utf-8", "utf-16", "utf-32")],
        ".txt",
    ),
    Reader("xml-text", read_xml_text, [VOC, VOC_OLD, VOC.decode().encode("utf-16")], ".xml"),
]

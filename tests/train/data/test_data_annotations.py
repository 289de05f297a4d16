"""Readers of annotation formats, and the way back to COCO's."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from gfl_edge.errors import AnnotationError, SourceError
from gfl_edge.evaluation.ap import average_precision, read_annotations
from tests.support.voc import write_voc
from train.data.annotations import Annotations, ImageRecord, Objects
from train.data.formats.class_names import read_class_names
from train.data.formats.coco import read_coco, write_coco
from train.data.formats.voc import read_image_list, read_voc, voc_class_names
from train.data.formats.yolo import read_yolo

CONTENT = {
    "images": [
        {"id": 40, "file_name": "a.jpg", "width": 100, "height": 80},
        {"id": 7, "file_name": "sub/b.jpg"},
    ],
    "categories": [{"id": 9, "name": "dog"}, {"id": 3, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 40, "category_id": 9, "bbox": [10, 20, 30, 40], "area": 700.0, "iscrowd": 0},
        {"id": 2, "image_id": 40, "category_id": 3, "bbox": [1.5, 2, 3, 4]},
        {"id": 3, "image_id": 40, "category_id": 3, "bbox": [0, 0, 90, 70], "area": 5000, "iscrowd": 1},
    ],
}


def write_json(path, content):
    path.write_text(json.dumps(content))
    return path


def write_image(path, hw=(80, 100)):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((*hw, 3), np.uint8))


# COCO


def test_coco_is_read_with_its_crowds_apart(tmp_path):
    found = read_coco(write_json(tmp_path / "a.json", CONTENT), tmp_path / "images")
    assert found.class_names == ("cat", "dog")  # by category id
    first, second = found.records
    assert (first.path, first.image_id, first.size_hw) == (tmp_path / "images/a.jpg", 40, (80, 100))
    np.testing.assert_array_equal(first.boxes, np.array([[10, 20, 40, 60], [1.5, 2, 4.5, 6]], np.float32))
    assert first.boxes.dtype == np.float32
    assert first.labels.dtype == np.int64
    assert first.labels.tolist() == [1, 0]
    assert first.objects.areas.tolist() == [700, 12]  # the mask's, and the box's where there is no mask
    assert first.ignored.boxes.tolist() == [[0, 0, 90, 70]]
    assert (second.path, second.size_hw, len(second.objects)) == (tmp_path / "images/sub/b.jpg", None, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "expected lists images, annotations, categories"),
        ({"annotations": [{"image_id": 40, "category_id": 9}]}, "'bbox' is missing"),
        ({"annotations": [{"image_id": 40, "category_id": 9, "bbox": [1, 2, 3]}]}, "misshapen"),
        ({"annotations": [{"image_id": 40, "category_id": 9, "bbox": [1, 2, None, 3]}]}, "misshapen"),
        ({"images": [CONTENT["images"][0]] * 2}, "image id 40 comes 2 times"),
        ({"categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "cat"}]}, "two categories have the same name"),
    ],
)
def test_a_coco_file_that_does_not_fit_is_refused(tmp_path, change, message):
    with pytest.raises(AnnotationError, match=message):
        read_coco(write_json(tmp_path / "a.json", {**CONTENT, **change}), tmp_path)


def test_a_coco_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("[1, 2")
    with pytest.raises(AnnotationError, match="is not JSON"):
        read_coco(tmp_path / "a.json", tmp_path)
    with pytest.raises(AnnotationError, match="cannot be read"):
        read_coco(tmp_path / "none.json", tmp_path)


def test_coco_categories_and_images_that_are_not_listed(tmp_path, caplog):
    extra = [
        {"id": 5, "image_id": 40, "category_id": 77, "bbox": [1, 1, 5, 5]},
        {"id": 6, "image_id": 99, "category_id": 3, "bbox": [1, 1, 5, 5]},
    ]
    content = {**CONTENT, "annotations": CONTENT["annotations"] + extra}
    found = read_coco(write_json(tmp_path / "a.json", content), tmp_path)
    assert found.name_of(int(found.records[0].labels[-1])) == "category id 77"
    assert "left out 1 annotations of 1 images" in caplog.text


# VOC


def test_voc_counts_pixels_from_1(tmp_path):
    """1 less in every corner, as in mmdetection; a click without a drag is an empty box."""
    write_voc(tmp_path / "xml", "a", [("cat", 1, 1, 100, 80), ("dog", 11, 21, 40, 60), ("dog", 5, 6, 5, 6)])
    write_voc(tmp_path / "xml", "b", [("cow", 2, 2, 9, 9, 1)], size=None, suffix=".png")
    write_image(tmp_path / "images" / "b.png")
    (tmp_path / "train.txt").write_text("a\nb  -1\n\n")
    found = read_voc(tmp_path / "xml", tmp_path / "train.txt", tmp_path / "images")
    assert found.class_names == ("cat", "cow", "dog")
    first, second = found.records
    np.testing.assert_array_equal(first.boxes, [[0, 0, 99, 79], [10, 20, 39, 59], [4, 5, 4, 5]])
    assert first.labels.tolist() == [0, 2, 2]
    assert (first.size_hw, first.image_id, first.path.name) == ((80, 100), 1, "a.jpg")
    assert (second.size_hw, second.image_id, second.path.name) == (None, 2, "b.png")
    assert len(second.objects) == 0
    assert second.ignored.boxes.tolist() == [[1, 1, 8, 8]]  # difficult


def test_voc_classes_are_those_of_all_files_or_as_given(tmp_path):
    write_voc(tmp_path / "xml", "a", [("cat", 1, 1, 9, 9)])
    write_voc(tmp_path / "xml", "b", [("ant", 1, 1, 9, 9)])
    (tmp_path / "train.txt").write_text("a\n")
    assert read_voc(tmp_path / "xml", tmp_path / "train.txt", tmp_path).class_names == ("ant", "cat")
    given = read_voc(tmp_path / "xml", tmp_path / "train.txt", tmp_path, ["dog"])
    assert (given.class_names, given.foreign_classes) == (("dog",), ("cat",))
    assert given.records[0].labels.tolist() == [-1]
    assert given.name_of(-1) == "cat"


def test_voc_files_that_are_missing_or_broken_are_named(tmp_path):
    write_voc(tmp_path / "xml", "a", [("cat", 1, 1, 9, 9)])
    (tmp_path / "train.txt").write_text("a\nb\nc\n")
    with pytest.raises(AnnotationError, match=r"2 of 3 images have no XML file in .*: b, c\."):
        read_voc(tmp_path / "xml", tmp_path / "train.txt", tmp_path)
    (tmp_path / "train.txt").write_text("a\n")
    write_voc(tmp_path / "xml", "a", [("cat", 1, "one", 9, 9)])
    with pytest.raises(AnnotationError, match=r"a\.xml: could not convert .*'one'"):
        read_voc(tmp_path / "xml", tmp_path / "train.txt", tmp_path)
    (tmp_path / "xml" / "a.xml").write_text("<annotation><object><name>x</name></object></annotation>")
    with pytest.raises(AnnotationError, match="<object> without bndbox/xmin"):
        read_voc(tmp_path / "xml", tmp_path / "train.txt", tmp_path)
    (tmp_path / "xml" / "a.xml").write_text("<annotation>")
    with pytest.raises(AnnotationError, match="no readable XML"):
        read_voc(tmp_path / "xml", tmp_path / "train.txt", tmp_path)
    with pytest.raises(AnnotationError, match="no object in 0 XML files"):
        voc_class_names([tmp_path])
    with pytest.raises(AnnotationError, match="cannot be read as a list"):
        read_image_list(tmp_path / "none.txt")


# YOLO


@pytest.fixture
def yolo(tmp_path):
    """Two images of 100 x 80 pixels, one without labels."""
    write_image(tmp_path / "images" / "a.jpg")
    write_image(tmp_path / "images" / "b.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("1 0.5 0.5 0.2 0.25\n\n0 0.05 0.05 0.1 0.1\n")
    return tmp_path


def test_yolo_parts_become_pixels(yolo):
    found = read_yolo(yolo / "images", yolo / "labels", ["cat", "dog"])
    first, second = found.records
    np.testing.assert_allclose(first.boxes, [[40, 30, 60, 50], [0, 0, 10, 8]], atol=1e-5)
    assert first.labels.tolist() == [1, 0]
    assert first.size_hw == second.size_hw == (80, 100)
    assert len(second.objects) == 0


def test_yolo_class_numbers_without_a_name(yolo):
    (yolo / "labels" / "a.txt").write_text("7 .5 .5 .1 .1\n-1 .5 .5 .1 .1\n0 .5 .5 .1 .1\n7 .5 .5 .1 .1\n")
    found = read_yolo(yolo / "images", yolo / "labels", ["cat"])
    assert [found.name_of(label) for label in found.records[0].labels.tolist()] == [
        "class number 7",
        "class number -1",
        "cat",
        "class number 7",
    ]


def test_yolo_lists_and_missing_images(yolo):
    (yolo / "list.txt").write_text("a.jpg\ngone.jpg\n")
    found = read_yolo(yolo / "images", yolo / "labels", ["cat", "dog"], yolo / "list.txt")
    assert [record.path.name for record in found.records] == ["a.jpg", "gone.jpg"]
    assert found.records[1].size_hw is None


def test_yolo_files_that_do_not_fit_are_refused(yolo):
    (yolo / "labels" / "a.txt").write_text("0 .5 .5 .1 .1\n0 .1 .1 .2 .2 .3 .3\n")
    with pytest.raises(AnnotationError, match=r"a\.txt, line 2: .*expected a class number and four numbers"):
        read_yolo(yolo / "images", yolo / "labels", ["cat"])
    with pytest.raises(AnnotationError, match=r"none of 2 images under .* has a label file"):
        read_yolo(yolo / "images", yolo / "elsewhere", ["cat"])
    with pytest.raises(AnnotationError, match="is no folder"):
        read_yolo(yolo / "none", yolo / "labels", ["cat"])
    with pytest.raises(SourceError, match="holds no images"):
        read_yolo(yolo / "labels", yolo / "labels", ["cat"])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n.txt", "traffic light\ndog\n\ncat, small\n"),
        ("n.yaml", "nc: 3\nnames: ['traffic light', dog, \"cat, small\"]\n"),
        ("n.yaml", "names: [traffic light,\n  dog,  # barks\n  'cat, small',\n]\nother: [1, 2]\n"),
        ("n.yml", "path: x\nnames:\n  0: traffic light\n  1: dog  # barks\n  2: 'cat, small'\nval: images\n"),
        ("n.yml", "names:\n- traffic light\n- dog\n\n- 'cat, small'\nval: images\n"),
        ("n.yml", 'names:\n    - traffic light\n    - dog\n    - "cat, small"\n'),
        ("n.yaml", "names: {0: traffic light, 1: dog, 2: 'cat, small'}\n"),
    ],
)
def test_class_names(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_class_names(tmp_path / name) == ("traffic light", "dog", "cat, small")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nc: 3\n", "no entry 'names'"),
        ("names:\nnc: 3\n", "0 class names"),
        ("names: [a, b, a]\n", "3 class names, 2 of them different"),
        ("names:\n  0: a\n  2: b\n", r"numbered \[0, 2\]"),
    ],
)
def test_class_names_that_are_none(tmp_path, text, message):
    (tmp_path / "n.yaml").write_text(text)
    with pytest.raises(AnnotationError, match=message):
        read_class_names(tmp_path / "n.yaml")
    with pytest.raises(AnnotationError, match="cannot be read"):
        read_class_names(tmp_path / "none.txt")


# Classes, and back to COCO


def small_set(tmp_path, labels=(0, 1, 2, 1)):
    boxes = [[0, 0, 10 + i, 20] for i in range(len(labels))]
    record = ImageRecord(
        tmp_path / "x" / "a.jpg", 5, Objects.of(boxes, labels), Objects.of([[1, 1, 9, 9]], [2]), (80, 100)
    )
    return Annotations(("cat", "car", "truck"), (record,), tmp_path, "origin.json")


def test_select_keeps_renames_and_joins_classes(tmp_path, caplog):
    found = small_set(tmp_path).select(["vehicle"], {"car": "vehicle", "truck": "vehicle"})
    assert found.class_names == ("vehicle",)
    assert found.records[0].labels.tolist() == [0, 0, 0]
    assert found.records[0].boxes[:, 2].tolist() == [11, 12, 13]
    assert found.records[0].ignored.labels.tolist() == [0]
    assert "left out the boxes of 1 classes: cat (1)" in caplog.text
    assert found.count_by_class() == {"vehicle": 3}


def test_select_without_names_keeps_all_in_their_order(tmp_path):
    found = small_set(tmp_path).select(rename={"truck": "lorry"})
    assert found.class_names == ("cat", "car", "lorry")
    assert found.records[0].labels.tolist() == [0, 1, 2, 1]
    assert small_set(tmp_path).select(["truck", "cat"]).records[0].labels.tolist() == [1, 0]


def test_select_refuses_names_that_are_not_there(tmp_path):
    with pytest.raises(
        AnnotationError, match=r"origin.json has no class dgo, which classes names. Its classes: cat, car"
    ):
        small_set(tmp_path).select(["dgo"])
    with pytest.raises(AnnotationError, match="which rename names"):
        small_set(tmp_path).select(rename={"dgo": "dog"})


def test_the_way_to_coco_and_back(tmp_path):
    before = small_set(tmp_path)
    write_coco(before, tmp_path / "out" / "a.json")
    after = read_coco(tmp_path / "out" / "a.json", tmp_path)
    assert after.class_names == before.class_names
    for one, other in zip(after.records, before.records, strict=True):
        assert (one.path, one.image_id, one.size_hw) == (other.path, other.image_id, other.size_hw)
        for a, b in ((one.objects, other.objects), (one.ignored, other.ignored)):
            np.testing.assert_array_equal(a.boxes, b.boxes)
            np.testing.assert_array_equal(a.labels, b.labels)
            np.testing.assert_array_equal(a.areas, b.areas)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.json"]


def test_pycocotools_evaluates_what_is_written(tmp_path):
    """The boxes themselves have AP 100; a detection on the crowd is neither right nor wrong."""
    annotations = small_set(tmp_path)
    write_coco(annotations, tmp_path / "a.json")
    coco = read_annotations(tmp_path / "a.json")
    results = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
        for a in annotations.to_coco()["annotations"]
    ]
    assert average_precision(coco, results, [5])["AP"] == pytest.approx(100)
    assert average_precision(coco, results[:-2], [5])["AP"] < 100


def test_objects_of_unequal_number_are_refused():
    with pytest.raises(ValueError, match="1 boxes, 2 labels"):
        Objects.of([[0, 0, 1, 1]], [0, 1])

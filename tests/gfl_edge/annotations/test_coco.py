"""COCO files: what is read from them, what is refused, and the way back."""

from __future__ import annotations

import numpy as np
import pytest

from gfl_edge.annotations.coco import read_coco, write_coco
from gfl_edge.errors import AnnotationError
from gfl_edge.evaluation.ap import as_coco, average_precision
from gfl_edge.evaluation.truth import read_truth
from tests.support.annotation_files import small_set, write_image, write_json

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
        (
            {"annotations": [{"image_id": 40, "category_id": 9, "bbox": [1, 2, 3]}]},
            r"'bbox' is \[1, 2, 3\], expected four numbers",
        ),
        (
            {"annotations": [{"image_id": 40, "category_id": 9, "bbox": [1, 2, None, 3]}]},
            r"is \[1, 2, None, 3\], expected",
        ),
        ({"images": [CONTENT["images"][0]] * 2}, r"image 1 \(id 40, image a.jpg\): listed twice"),
        ({"categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "cat"}]}, "two categories have the same name"),
    ],
)
def test_a_coco_file_that_does_not_fit_is_refused(tmp_path, change, message):
    with pytest.raises(AnnotationError, match=message):
        read_coco(write_json(tmp_path / "a.json", {**CONTENT, **change}), tmp_path)


def test_a_coco_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("[1, 2")
    (tmp_path / "b.json").write_bytes(b'{"images":\n ["caf\xe9"]}')
    with pytest.raises(AnnotationError, match=r"b\.json, line 2: the byte 0xe9 is not UTF-8"):
        read_coco(tmp_path / "b.json", tmp_path)
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
    write_image(tmp_path / "x" / "a.jpg")
    coco = as_coco(read_truth(tmp_path / "a.json", tmp_path).to_coco())
    results = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
        for a in annotations.to_coco()["annotations"]
    ]
    results = [{**row, "image_id": 1} for row in results]  # the truth is numbered anew
    assert average_precision(coco, results, [1])["AP"] == pytest.approx(100)
    assert average_precision(coco, results[:-2], [1])["AP"] < 100

"""COCO files: what is read from them, what is refused, and the way back."""

from __future__ import annotations

import json

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
    assert found.file_category_ids == (3, 9)
    for name in ("a.jpg", "sub/b.jpg"):
        write_image(tmp_path / "images" / name)
    truth = read_truth(tmp_path / "a.json", tmp_path / "images")
    assert [(record.image_id, record.file_id) for record in truth.records] == [(1, 7), (2, 40)]


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


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"id": 7, "image_id": 40, "category_id": 9}, r"annotation 3 \(id 7, image a.jpg\): 'bbox' is missing"),
        ({"image_id": 40, "category_id": 9, "bbox": None}, r"annotation 3 \(image a.jpg\): 'bbox' is None, expected"),
        ({"id": 7, "category_id": 9, "bbox": [1, 2, 3, 4]}, r"annotation 3 \(id 7\): 'image_id' is missing"),
        ({"image_id": 40, "category_id": None, "bbox": [1, 2, 3, 4]}, "'category_id' is None, expected a whole number"),
        ({"image_id": 40, "category_id": 9, "bbox": [1, 2, 3, 4], "iscrowd": 2}, "'iscrowd' is 2, expected 0 or 1"),
        (7, "annotation 3: 7, expected an object"),
    ],
)
def test_an_entry_that_cannot_be_used_is_named_or_left_out(tmp_path, caplog, entry, message):
    path = write_json(tmp_path / "a.json", {**CONTENT, "annotations": [*CONTENT["annotations"], entry]})
    with pytest.raises(AnnotationError, match=rf"a\.json: 1 entry cannot be used: .*{message}.*on_bad = \"drop\""):
        read_coco(path, tmp_path)
    assert len(read_coco(path, tmp_path, "drop").records[0].objects) == 2
    assert "left out 1 entry: annotation 3" in caplog.text


def test_image_ids_of_text_are_numbered(tmp_path):
    images = [{"id": "img-b", "file_name": "b.jpg"}, {"id": " img-a", "file_name": "a.jpg"}]
    annotations = [{"image_id": name, "category_id": "9", "bbox": [1, 2, 3, 4]} for name in ("img-a", "img-b", "img-a")]
    content = {**CONTENT, "images": images, "annotations": annotations}
    records = read_coco(write_json(tmp_path / "a.json", content), tmp_path).records
    assert [(record.image_id, record.path.name, len(record.objects)) for record in records] == [
        (1, "b.jpg", 1),
        (2, "a.jpg", 2),
    ]
    assert [record.file_id for record in records] == ["img-b", "img-a"]


def test_category_ids_of_text_come_last_in_the_order_of_the_file(tmp_path):
    categories = [{"id": key, "name": str(key)} for key in ("z", 11, "a", "2")]
    content = {**CONTENT, "categories": categories, "annotations": []}
    assert read_coco(write_json(tmp_path / "a.json", content), tmp_path).class_names == ("2", "11", "z", "a")


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([{"id": 3, "name": "cat"}, {"id": "3", "name": "dog"}], r"the same id 3 \('cat', 'dog'\)"),
        ([{"id": 3, "name": "cat"}, {"id": 9, "name": "cat "}], "the same name 'cat'"),
        ([{"id": 3, "name": None}], "category 0: 'name' is None, expected a name"),
        ([{"name": "cat"}], "category 0: 'id' is missing"),
    ],
)
def test_categories_that_cannot_be_told_apart_are_refused(tmp_path, categories, message):
    with pytest.raises(AnnotationError, match=message):
        read_coco(write_json(tmp_path / "a.json", {**CONTENT, "categories": categories}), tmp_path, "drop")


def test_annotations_of_no_listed_image_are_refused(tmp_path):
    annotations = [{"image_id": "a.jpg", "category_id": 9, "bbox": [1, 2, 3, 4]}]
    with pytest.raises(AnnotationError, match=r"none of 1 annotations is of a listed image: .* 'a.jpg', .* such as 40"):
        read_coco(write_json(tmp_path / "a.json", {**CONTENT, "annotations": annotations}), tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_json_with_a_byte_order_mark(tmp_path, encoding):
    (tmp_path / "a.json").write_bytes(json.dumps(CONTENT).encode(encoding))
    assert read_coco(tmp_path / "a.json", tmp_path).class_names == ("cat", "dog")


@pytest.mark.parametrize("prefix", ["", "D:\\data\\set\\", "/mnt/someone/set/", "./", "images\\"])
def test_images_lie_where_they_lie_on_this_machine(tmp_path, prefix):
    names = ("a.jpg", "sub/b.jpg", "sub/a.jpg")
    for name in names:
        write_image(tmp_path / "images" / name)
    written = [prefix + (name.replace("/", "\\") if "\\" in prefix else name) for name in names]
    images = [{"id": number, "file_name": name} for number, name in enumerate(written)]
    path = write_json(tmp_path / "a.json", {**CONTENT, "images": images, "annotations": []})
    found = read_coco(path, tmp_path / "images")
    assert [record.path for record in found.records] == [tmp_path / "images" / name for name in names]


def test_files_of_coco_itself_pass(tmp_path, caplog):
    """With RLE crowds, polygons, gaps in the ids, boxes of zero area, and parts of a pixel beyond the image."""
    write_image(tmp_path / "000000000139.jpg", (426, 640))
    image = {"id": 139, "file_name": "000000000139.jpg", "height": 426, "width": 640, "coco_url": "http://x"}
    crowd = {
        "segmentation": {"counts": [272, 2, 4], "size": [426, 640]},
        "area": 2014,
        "iscrowd": 1,
        "id": 900100000139,
    }
    thing = {"segmentation": [[240.86, 211.31, 240.16, 197.19]], "area": 531.8071, "iscrowd": 0, "id": 1}
    boxes = [[236.98, 142.51, 24.7, 69.5], [296.65, 388.33, 1.03, 0.0], [600.0, 400.0, 40.02, 26.0]]
    content = {
        "info": {"year": 2017},
        "licenses": [],
        "images": [image],
        "annotations": [
            {**crowd, "image_id": 139, "category_id": 90, "bbox": [1, 2, 30, 40]},
            *({**thing, "image_id": 139, "category_id": 90, "bbox": box} for box in boxes),
        ],
        "categories": [{"supercategory": "x", "id": i, "name": f"c{i}"} for i in (*range(1, 12), *range(13, 91))],
    }
    truth = read_truth(write_json(tmp_path / "a.json", content), tmp_path)
    assert (len(truth.records[0].objects), len(truth.records[0].ignored)) == (3, 1)
    assert "1 box empty (zero area): 000000000139.jpg" in caplog.text


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

"""The readers, checks and loader on real data sets."""

from __future__ import annotations

import json

import pytest

from gfl_edge.annotations.bad_boxes import EMPTY
from gfl_edge.annotations.checks import check_annotations
from gfl_edge.annotations.coco import read_coco, write_coco
from gfl_edge.errors import AnnotationError
from gfl_edge.evaluation.ap import as_coco, average_precision
from gfl_edge.evaluation.truth import match_categories, read_truth
from train.data.config import DataConfig
from train.data.formats.voc import read_voc
from train.data.load import load_data
from train.data.loader import TrainingLoader


def bccd_files(root, image_list):
    return {
        "format": "voc",
        "images": str(root / "JPEGImages"),
        "annotations": str(root / "Annotations"),
        "image_list": str(image_list),
    }


@pytest.fixture
def bccd(data, tmp_path):
    """All of BCCD; its lists together are all images once."""
    root = data("bccd/BCCD")
    names = [(root / "ImageSets/Main" / f"{part}.txt").read_text() for part in ("train", "val", "test")]
    (tmp_path / "all.txt").write_text("".join(names))
    return read_voc(root / "Annotations", tmp_path / "all.txt", root / "JPEGImages")


def test_bccd_has_two_boxes_without_area(bccd):
    assert len(bccd) == 364
    assert bccd.count_by_class() == {"Platelets": 361, "RBC": 4155, "WBC": 372}
    with pytest.raises(
        AnnotationError, match=r"2 boxes empty .*BloodImage_00343.jpg: \[180, .*BloodImage_00338.jpg: \[503,"
    ):
        check_annotations(bccd)
    _, report = check_annotations(bccd, on_bad="drop")
    assert report.dropped == {EMPTY: 2}
    assert report.per_class == {"Platelets": 361, "RBC": 4153, "WBC": 372}
    assert (report.clipped, report.background, report.ignored) == (0, 0, 0)


def test_bccd_becomes_batches(data):
    root = data("bccd/BCCD")
    lists = root / "ImageSets/Main"
    config = DataConfig.from_dict(
        {
            "train": bccd_files(root, lists / "train.txt"),
            "val": bccd_files(root, lists / "val.txt"),
            "input_hw": [320, 320],
            "resize": "stretch",
            "augmentation": {"mosaic": 0.5, "scale": [0.6, 1.4], "translate": 0.2},
            "on_bad": "drop",
        }
    )
    loaded = load_data(config)
    assert (len(loaded.train), len(loaded.val)) == (205, 87)
    assert loaded.class_names == ("Platelets", "RBC", "WBC")
    batch = next(TrainingLoader(config, loaded.train, 16, 0).batches(0))
    assert sum(len(target.labels) for target in batch.targets) > 100


@pytest.mark.parametrize(
    ("annotations", "images", "expected"),
    [
        ("coco128/annotations/instances_train2017.json", "coco128/train2017", (128, 929, 10, 2)),
        ("coco_train971/instances_train971.json", "coco_train971/images", (971, 4361, 0, 0)),
        ("coco/instances_val2017_mix397.json", "coco/val2017_mix397", (397, 3503, 16, 1)),
    ],
)
def test_coco_sets_are_sound(data, annotations, images, expected):
    checked, report = check_annotations(read_coco(data(annotations), data(images)))
    assert (report.images, report.boxes, report.ignored, report.background) == expected
    assert len(checked.class_names) == 80
    assert checked.class_names[0] == "person"


def test_ap_on_written_annotations_is_that_on_the_originals(data, tmp_path):
    """Every seventh box moved, every fifth left out: the same twelve numbers from both files, crowds and areas too."""
    path, images = data("coco/instances_val2017_mix397.json"), data("coco/val2017_mix397")
    write_coco(read_coco(path, images), tmp_path / "a.json")
    content = json.loads(path.read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    number_of = {key: number for number, key in enumerate(sorted(image["id"] for image in content["images"]), 1)}
    metrics = []
    for file in (path, tmp_path / "a.json"):
        truth = read_truth(file, images)
        id_of = dict(zip(names, match_categories(truth, tuple(names.values())), strict=True))
        results = [
            {
                "image_id": number_of[entry["image_id"]],
                "category_id": id_of[entry["category_id"]],
                "bbox": [entry["bbox"][0] + 4 * (index % 7 == 0), *entry["bbox"][1:]],
                "score": (index * 37 % 100) / 100,
            }
            for index, entry in enumerate(content["annotations"])
            if index % 5
        ]
        metrics.append(average_precision(as_coco(truth.to_coco()), results, list(number_of.values())))
    assert metrics[0] == pytest.approx(metrics[1], abs=1e-6)
    assert 40 < metrics[0]["AP"] < 95

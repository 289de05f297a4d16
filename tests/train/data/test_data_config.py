"""Settings of the data: nothing unknown or impossible gets through, and the error names the field."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from gfl_edge.errors import AnnotationError, InputError
from tests.support.voc import write_voc
from train.data.augment.transforms import HorizontalFlip, RandomAffine
from train.data.config import Augmentation, DataConfig, DataFiles
from train.data.load import load_data
from train.data.loader import EvaluationLoader

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

COCO = {"format": "coco", "images": "images", "annotations": "a.json"}
VOC = {"format": "voc", "images": "images", "annotations": "xml", "image_list": "train.txt"}
YOLO = {"format": "yolo", "images": "images", "annotations": "labels", "class_names": ["cat"]}
VALUES = {"train": COCO, "input_hw": [320, 416], "resize": "stretch"}


def test_everything_from_plain_values():
    config = DataConfig.from_dict(
        {
            "train": VOC,
            "val": {**YOLO, "image_list": "/lists/val.txt"},
            "input_hw": [320, 416],
            "resize": "letterbox",
            "classes": ["cat", "dog"],
            "rename": {"kitten": "cat"},
            "sizes": [[320, 416], [352, 448]],
            "augmentation": {"flip": 0, "scale": [0.6, 1.4], "mosaic": 1, "mosaic_stop_epoch": 3},
            "on_bad": "drop",
        },
        root=Path("base"),
    )
    assert config.train.image_list == Path("base/train.txt")
    assert config.val.image_list == Path("/lists/val.txt")
    assert config.training_sizes == ((320, 416), (352, 448))
    assert config.augmentation.scale == (0.6, 1.4)
    assert config.augmentation.affine == RandomAffine(scale=(0.6, 1.4))
    assert config.augmentation.horizontal_flip == HorizontalFlip(0.0)
    assert [config.augmentation.mosaic_in(epoch) for epoch in (0, 2, 3)] == [1, 1, 0]


def test_the_example_of_the_documents_is_one():
    text = (Path(__file__).parents[3] / "docs" / "training.md").read_text("utf-8")
    example = tomllib.loads(text.partition("## Your data")[2].partition("```toml\n")[2].partition("```")[0])
    config = DataConfig.from_dict(example["data"], root=Path("base"))
    assert config.train == DataFiles(
        "yolo", Path("base/train/images"), Path("base/train/labels"), class_names_file=Path("base/data.yaml")
    )
    assert (config.val.annotations, config.input_hw) == (Path("base/val/labels"), (320, 320))


def test_the_least():
    config = DataConfig.from_dict(VALUES)
    assert config.train == DataFiles("coco", Path("images"), Path("a.json"))
    assert config.training_sizes == ((320, 416),)
    assert config.augmentation == Augmentation()


@pytest.mark.parametrize(
    ("fields", "sizes"),
    [
        ({"size_range": [0.8, 1.2]}, ((256, 320), (288, 384), (320, 416), (352, 448), (384, 512))),
        ({"resize": "fit", "short_long": [800, 1333]}, ((800, 1333),)),
        ({"resize": "fit", "short_long": [800, 1333], "sizes": [[480, 1333], [800, 1333]]}, ((480, 1333), (800, 1333))),
        (
            {"resize": "fit", "short_long": [96, 128], "size_range": [0.7, 1.7]},
            ((64, 128), (96, 128), (128, 128), (160, 160)),
        ),
    ],
)
def test_sizes_to_draw_from(fields, sizes):
    assert DataConfig.from_dict({**VALUES, **fields}).training_sizes == sizes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": 3}, r"^data.inputs: no such field; input_hw\?"),
        ({"train": {**COCO, "imagse": "x"}}, r"^data.train.imagse: no such field; images\?"),
        ({"train": {"format": "coco"}}, "^data.train: missing images, annotations$"),
        ({"train": "coco"}, "^data.train: 'coco': expected a table"),
        ({"train": {**COCO, "format": "csv"}}, "^data.train.format 'csv': expected one of 'coco', 'voc', 'yolo'"),
        ({"train": {**COCO, "images": 3}}, "^data.train.images 3: expected a path"),
        ({"train": {**COCO, "image_list": "x"}}, "^data.train.format 'coco' has its classes and images"),
        ({"train": {**YOLO, "class_names": []}}, "^data.train.class_names is missing"),
        ({"train": {**YOLO, "class_names_file": "x"}}, "class_names and class_names_file are both given"),
        ({"train": {**COCO, "repeat": 0}}, "^data.train.repeat 0: expected 1 or more"),
        ({"train": {**YOLO, "class_names": ["a", "a"]}}, "^data.train.class_names .*a name comes twice"),
        ({"input_hw": [320]}, r"^data.input_hw \[320\]: expected 2 values"),
        ({"input_hw": [320, 400]}, r"^data.input_hw \[320, 400\]: expected .* multiples of 32"),
        ({"input_hw": [320, 0]}, r"^data.input_hw \[320, 0\]"),
        ({"input_hw": [320.0, 416]}, r"^data.input_hw\[0\] 320.0: expected a whole number"),
        ({"resize": "crop"}, "^data.resize 'crop': expected one of 'stretch', 'letterbox', 'fit'"),
        ({"sizes": [[320, 416], [300, 300]]}, r"^data.sizes\[1\] \[300, 300\]: expected"),
        ({"sizes": [[320, 416]], "size_range": [0.5, 1.5]}, "sizes and size_range are both given"),
        ({"size_range": [1.5, 0.5]}, r"^data.size_range \[1.5, 0.5\]: expected \[low, high\]"),
        ({"short_long": [800, 1333]}, "^data.short_long goes only with resize 'fit'"),
        ({"resize": "fit", "short_long": [1333, 800]}, r"^data.short_long \[1333, 800\]: .*short first"),
        ({"classes": "cat"}, "^data.classes 'cat': expected a list"),
        ({"classes": ["cat", "cat"]}, "^data.classes .*a name comes twice"),
        ({"rename": {"a": 1}}, "^data.rename.a 1: expected a text"),
        ({"on_bad": "skip"}, "^data.on_bad 'skip': expected one of 'error', 'drop'"),
        ({"augmentation": {"flp": 0.5}}, r"^data.augmentation.flp: no such field; flip\?"),
        ({"augmentation": {"flip": 1.5}}, "^data.augmentation.flip 1.5: expected 0..1"),
        ({"augmentation": {"flip": True}}, "^data.augmentation.flip True: expected a number"),
        ({"augmentation": {"flip": float("nan")}}, "^data.augmentation.flip nan: expected a finite number"),
        ({"augmentation": {"flip": "0.5"}}, "^data.augmentation.flip '0.5': expected a number"),
        ({"augmentation": {"scale": [1.4, 0.6]}}, r"^data.augmentation.scale \[1.4, 0.6\]: .*low first"),
        ({"augmentation": {"scale": [0, 1]}}, r"^data.augmentation.scale \[0.0, 1.0\]"),
        ({"augmentation": {"translate": 0.7}}, "^data.augmentation.translate 0.7: expected 0..0.5"),
        ({"augmentation": {"paste": 2}}, "^data.augmentation.paste 2: expected 0..1"),
        ({"augmentation": {"paste_groups": [0, 2]}}, r"^data.augmentation.paste_groups \[0, 2\]"),
        ({"augmentation": {"paste_copies": [5, 2]}}, r"^data.augmentation.paste_copies \[5, 2\]: .*low first"),
        ({"augmentation": {"paste_size": [0, 0.5]}}, r"^data.augmentation.paste_size \[0.0, 0.5\]"),
        ({"augmentation": {"mosaic_stop_epoch": -1}}, "^data.augmentation.mosaic_stop_epoch -1"),
        ({"augmentation": {"mosaic_stop_epoch": 1.5}}, "^data.augmentation.mosaic_stop_epoch 1.5: expected a whole"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(InputError, match=message):
        DataConfig.from_dict({**VALUES, **change})


# From settings to annotations


@pytest.fixture
def voc(tmp_path):
    """Two images, the second in another list; each has a class that the other lacks."""
    for name, label in (("a", "cat"), ("b", "ant")):
        write_voc(tmp_path / "xml", name, [(label, 11, 11, 40, 60), ("dog", 1, 1, 100, 80)])
        (tmp_path / "images").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "images" / f"{name}.jpg"), np.zeros((80, 100, 3), np.uint8))
        (tmp_path / f"{name}.txt").write_text(f"{name}\n")
    return tmp_path


def voc_config(folder, **fields):
    sets = {role: {**VOC, "image_list": f"{name}.txt"} for role, name in (("train", "a"), ("val", "b"))}
    return DataConfig.from_dict({**VALUES, **sets, **fields}, root=folder)


def test_both_sets_have_the_same_classes(voc):
    data = load_data(voc_config(voc))
    assert data.class_names == data.train.class_names == data.val.class_names == ("ant", "cat", "dog")
    assert data.train.records[0].labels.tolist() == [1, 2]
    assert data.val.records[0].labels.tolist() == [0, 2]
    assert (data.train_report.boxes, data.val_report.boxes) == (2, 2)
    assert len(list(EvaluationLoader(voc_config(voc), data.val, 4))) == 1


def test_classes_are_chosen_for_both_sets(voc):
    data = load_data(voc_config(voc, classes=["animal"], rename={"dog": "animal", "cat": "animal"}))
    assert data.class_names == ("animal",)
    assert (data.train_report.boxes, data.val_report.boxes) == (2, 1)
    with pytest.raises(AnnotationError, match="no class cow, which classes names"):
        load_data(voc_config(voc, classes=["cow"]))


def test_several_sets_are_trained_on_as_one(voc):
    config = voc_config(voc, also=[{**VOC, "image_list": "b.txt"}])
    data = load_data(config)
    assert [record.path.name for record in data.train.records] == ["a.jpg", "b.jpg"]
    assert [record.image_id for record in data.train.records] == [1, 2]
    assert [record.labels.tolist() for record in data.train.records] == [[1, 2], [0, 2]]
    assert (data.train_report.images, data.train_report.boxes) == (2, 4)
    assert data.train_report.per_class == {"ant": 1, "cat": 1, "dog": 2}
    assert {image["file_name"] for image in data.train.to_coco()["images"]} == {"a.jpg", "b.jpg"}
    with pytest.raises(AnnotationError, match=r"1 images are in more than one of the training sets, first .*a.jpg"):
        load_data(voc_config(voc, also=[{**VOC, "image_list": "a.txt"}]))


def test_a_small_set_is_gone_through_more_often(voc):
    data = load_data(voc_config(voc, also=[{**VOC, "image_list": "b.txt", "repeat": 3}]))
    assert [record.path.name for record in data.train.records] == ["a.jpg", "b.jpg", "b.jpg", "b.jpg"]
    assert [record.image_id for record in data.train.records] == [1, 2, 3, 4]
    assert (data.train_report.images, data.train_report.boxes) == (2, 4)  # of the files
    alone = load_data(voc_config(voc, train={**VOC, "image_list": "a.txt", "repeat": 2}))
    assert [record.path.name for record in alone.train.records] == ["a.jpg", "a.jpg"]


def test_further_sets_need_the_classes_of_the_first(voc):
    also = [{**VOC, "image_list": "b.txt", "class_names": ["ant", "dog"]}]
    with pytest.raises(AnnotationError, match="has no class cat, which classes names"):
        load_data(voc_config(voc, also=also))


def test_a_set_with_given_names_has_no_others(voc):
    files = {**VOC, "image_list": "a.txt", "class_names": ["cat"]}
    with pytest.raises(AnnotationError, match=r"1 box of an unknown class: a.jpg: .* dog"):
        load_data(DataConfig.from_dict({**VALUES, "train": files}, root=voc))
    data = load_data(DataConfig.from_dict({**VALUES, "train": files, "on_bad": "drop"}, root=voc))
    assert (data.class_names, data.train_report.boxes, data.val) == (("cat",), 1, None)


def test_yolo_with_a_file_of_names(voc):
    (voc / "labels").mkdir()
    (voc / "labels" / "a.txt").write_text("1 .5 .5 .2 .2\n")
    (voc / "data.yaml").write_text("names: [cat, dog]\n")
    files = {"format": "yolo", "images": "images", "annotations": "labels", "class_names_file": "data.yaml"}
    data = load_data(DataConfig.from_dict({**VALUES, "train": files}, root=voc))
    assert (data.class_names, data.train_report.background) == (("cat", "dog"), 1)

"""Readers of VOC and YOLO."""

from __future__ import annotations

import numpy as np
import pytest

from gfl_edge.errors import AnnotationError, SourceError
from tests.support.annotation_files import write_image
from tests.support.voc import write_voc
from train.data.formats.voc import read_image_list, read_voc, voc_class_names
from train.data.formats.yolo import read_yolo

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

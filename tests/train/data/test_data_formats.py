"""Readers of VOC and YOLO."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfl_edge.annotations.image_list import read_image_list
from gfl_edge.errors import AnnotationError, SourceError
from tests.support.annotation_files import write_image
from tests.support.voc import write_voc
from train.data.formats.voc import read_voc, voc_class_names
from train.data.formats.yolo import read_yolo

# VOC


def test_voc_counts_pixels_from_1(tmp_path):
    """1 less in every corner, as in mmdetection; a click without a drag is an empty box."""
    write_voc(tmp_path / "xml", "a", [("cat", 1, 1, 100, 80), ("dog", 11, 21, 40, 60), ("dog", 5, 6, 5, 6)])
    write_voc(tmp_path / "xml", "b", [("cow", 2, 2, 9, 9, 1)], size=None, suffix=".png")
    write_image(tmp_path / "images" / "b.png")
    (tmp_path / "train.txt").write_text("a   1\nb  -1\n\n")
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
    with pytest.raises(AnnotationError, match=r"2 of 3 images have no XML file in .*: b \(line 2\), c \(line 3\)\."):
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
    (tmp_path / "empty").mkdir()
    with pytest.raises(AnnotationError, match=r"no object in 0 XML files of \S*empty$"):
        voc_class_names([tmp_path / "empty", tmp_path / "empty"])
    with pytest.raises(AnnotationError, match="gone is no folder: expected VOC's XML files"):
        voc_class_names([tmp_path / "gone"])
    with pytest.raises(AnnotationError, match=r"none\.txt cannot be read"):
        read_image_list(tmp_path / "none.txt")


def test_voc_without_a_list_takes_all_images_of_the_folder(tmp_path):
    (tmp_path / "xml").mkdir()
    for name in ("Straße 1.JPG", "b.c.png"):
        write_image(tmp_path / "images" / name)
    xml = "<annotation><filename/><size><width>100</width><height>80</height></size>{}</annotation>"
    box = "<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>31</xmax><ymax>41</ymax></bndbox>"
    (tmp_path / "xml" / "Straße 1.xml").write_text(xml.format(f"<object><name>cat</name>{box}</object>"))
    with pytest.raises(AnnotationError, match=r"1 of 2 images have no XML file in .*: b\.c\.png\. Add them, or"):
        read_voc(tmp_path / "xml", None, tmp_path / "images")
    (tmp_path / "xml" / "b.c.xml").write_text(xml.format(""))
    found = read_voc(tmp_path / "xml", None, tmp_path / "images")
    assert [record.path.name for record in found.records] == ["Straße 1.JPG", "b.c.png"]
    assert [record.boxes.tolist() for record in found.records] == [[[10, 20, 30, 40]], []]


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


@pytest.mark.parametrize(("text", "names"), [("1 .5 .5 .1 .1\n2 .5 .5 .1 .1\n", "ab"), ("1 .5 .5 .1 .1\n", "a")])
def test_yolo_class_numbers_from_1_are_refused_whatever_is_done_about_bad_boxes(yolo, text, names):
    (yolo / "labels" / "a.txt").write_text(text)
    with pytest.raises(AnnotationError, match=rf"numbers run from 1 to {len(names)}, .*: a is 0\. Subtract 1"):
        read_yolo(yolo / "images", yolo / "labels", list(names))
    (yolo / "labels" / "a.txt").write_text(f"0 .5 .5 .1 .1\n{text}")
    assert read_yolo(yolo / "images", yolo / "labels", list(names)).foreign_classes == (f"class number {len(names)}",)


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


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_yolo_label_files_in_other_encodings(yolo, encoding):
    (yolo / "labels" / "a.txt").write_bytes("1 .5 .5 .2 .25\r\n0 .1 .1 .1 .1\r\n".encode(encoding))
    assert read_yolo(yolo / "images", yolo / "labels", ["cat", "dog"]).records[0].labels.tolist() == [1, 0]


def test_yolo_label_files_that_are_no_text(yolo):
    (yolo / "labels" / "a.txt").write_bytes(b"0 .5 .5 .2 .2\n\xe9")
    with pytest.raises(AnnotationError, match=r"a\.txt, line 2: the byte 0xe9 is not UTF-8"):
        read_yolo(yolo / "images", yolo / "labels", ["cat"])


def one_voc_file(tmp_path, content):
    (tmp_path / "xml").mkdir(exist_ok=True)
    (tmp_path / "xml" / "a.xml").write_bytes(content)
    (tmp_path / "list.txt").write_text("a\n")
    return read_voc(tmp_path / "xml", tmp_path / "list.txt", tmp_path)


BOX = "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>8</xmax><ymax>9</ymax></bndbox>"


@pytest.mark.parametrize("encoding", ["gb2312", "GBK", "Shift_JIS", "big5", "utf-8", "UTF-16", "EUC-JP"])
def test_voc_in_the_encoding_that_it_declares(tmp_path, encoding):
    text = f'<?xml version="1.0" encoding="{encoding}"?><annotation><object><name>人</name>{BOX}</object></annotation>'
    assert one_voc_file(tmp_path, text.encode(encoding)).count_by_class() == {"人": 1}


def test_voc_entities_are_refused_before_they_are_expanded(tmp_path):
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 40))
    bomb = f'<!DOCTYPE annotation [<!ENTITY l0 "ha">{laughs}]><annotation><object>&l39;</object></annotation>'
    with pytest.raises(AnnotationError, match=r"a\.xml declares entities"):
        one_voc_file(tmp_path, bomb.encode())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<annotations><image id='0'/></annotations>", r"a\.xml is no VOC file: it begins with <annotations>"),
        (f"<annotation><object><name> </name>{BOX}</object></annotation>".encode(), r"a\.xml: <object> without name"),
        (b"", r"a\.xml is no readable XML"),
        (b"<annotation>&nbsp;</annotation>", r"a\.xml is no readable XML .*undefined entity"),
        (
            f"<annotation><size><width>inf</width></size><object><name>a</name>{BOX}</object></annotation>".encode(),
            r"a\.xml: <size> inf x 0",
        ),
        (
            f"<annotation><object><name>a&#10;b</name>{BOX}</object></annotation>".encode(),
            r"a\.xml, object: 'a.nb' is no",
        ),
        ("<annotation>\n<a>é</a></annotation>".encode("latin-1"), r"a\.xml, line 2: the byte 0xe9 is not UTF-8"),
    ],
)
def test_xml_that_is_no_voc(tmp_path, content, message):
    with pytest.raises(AnnotationError, match=message):
        one_voc_file(tmp_path, content)


@given(st.one_of(st.binary(max_size=60), st.text("<>/&;!?annotation\"'= \n[]", max_size=60).map(str.encode)))
def test_any_xml_is_read_or_one_error(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("any")
    message = ""
    try:
        one_voc_file(folder, b"<annotation>" + content + b"</annotation>")
    except AnnotationError as error:
        message = str(error)
    assert message.startswith((str(folder / "xml" / "a.xml"), "no object in 1 XML files"))


@given(st.one_of(st.binary(max_size=40), st.text("0123456789.-einfa_ \n\t", max_size=40).map(str.encode)))
def test_any_label_file_is_read_or_one_error(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("any")
    write_image(folder / "a.png")
    (folder / "a.txt").write_bytes(content)
    message = ""
    try:
        found = read_yolo(folder, folder, ["cat"])
    except AnnotationError as error:
        message = str(error)
    assert message.startswith(f"{folder / 'a.txt'}, line ") if message else len(found) == 1

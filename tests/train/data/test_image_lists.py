"""Lists of images as VOC, YOLO and what exports to them write them, with and without the images that they name."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfl_edge.annotations.checks import check_annotations
from gfl_edge.annotations.image_list import Entry, locate
from gfl_edge.errors import AnnotationError
from tests.support.annotation_files import write_image
from tests.support.voc import write_voc
from train.data.formats.voc import read_voc
from train.data.formats.yolo import read_yolo

SQUARE = [("cat", 11, 11, 40, 40)]


class Set:
    """A set in both formats: ``images/NAME`` with ``labels/*.txt`` and ``xml/*.xml``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, *names: str) -> Set:
        for name in names:
            image = self.root / "images" / name
            write_image(image)
            label = (self.root / "labels" / name).with_suffix(".txt")
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("0 0.5 0.5 0.2 0.2\n")
            (self.root / "xml" / name).parent.mkdir(parents=True, exist_ok=True)
            write_voc((self.root / "xml" / name).parent, image.stem, SQUARE)
        return self

    def list(self, content: str | bytes, name: str = "list.txt") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def yolo(self, content: str | bytes, name: str = "list.txt", images: str = "images", labels: str = "labels"):
        found = read_yolo(self.root / images, self.root / labels, ["cat"], self.list(content, name))
        assert all(len(record.objects) == 1 for record in found.records if record.size_hw)
        return names(found, self.root / images)

    def voc(self, content: str | bytes, name: str = "list.txt"):
        found = read_voc(self.root / "xml", self.list(content, name), self.root / "images")
        assert all(len(record.objects) == 1 for record in found.records)
        return names(found, self.root / "images")


def names(annotations, folder):
    return [os.path.relpath(record.path, folder) for record in annotations.records]


@pytest.fixture
def files(tmp_path):
    return Set(tmp_path / "data")


@pytest.mark.parametrize(
    "content",
    [
        "a.jpg\nb.PNG\n",
        "a\nb\n",
        "a.jpg\r\n\r\nb.PNG\r\n",
        "\ufeffa.jpg\nb.PNG",
        "a.jpg\nb.PNG\n".encode("utf-16"),
        "./a.jpg\n.//b.PNG\n",
        "images/a.jpg\nimages/b.PNG\n",
        "./images/a.jpg\n./images/b.PNG\n",
        "..\\data\\images\\a.jpg\n..\\data\\images\\b.PNG\n",
        "data/images/a.jpg\ndata/images/b.PNG\n",
        "/content/data/images/a.jpg\n/content/data/images/b.PNG\n",
        "C:\\Users\\me\\images\\a.jpg\nC:\\Users\\me\\images\\b.PNG\n",
        "data/obj_train_data/a.jpg\ndata/obj_train_data/b.PNG\n",
    ],
)
def test_the_ways_in_which_tools_write_paths(files, content):
    files.add("a.jpg", "b.PNG")
    assert files.yolo(content) == files.voc(content) == ["a.jpg", "b.PNG"]


def test_absolute_paths(files, tmp_path):
    files.add("a.jpg", "sub/b.jpg")
    absolute = "".join(f"{files.root}/images/{name}\n" for name in ("a.jpg", "sub/b.jpg"))
    assert files.yolo(absolute) == files.voc(absolute) == ["a.jpg", "sub/b.jpg"]
    elsewhere = Set(tmp_path / "elsewhere").add("c.jpg")
    mixed = f"{absolute}{elsewhere.root}/images/c.jpg\n"
    (elsewhere.root / "labels" / "c.txt").rename(files.root / "labels" / "c.txt")
    (elsewhere.root / "xml" / "c.xml").rename(files.root / "xml" / "c.xml")
    outside = "../../elsewhere/images/c.jpg"
    assert files.yolo(mixed) == files.voc(mixed) == ["a.jpg", "sub/b.jpg", outside]


def test_a_link_to_the_images(files, tmp_path):
    files.add("a.jpg")
    (tmp_path / "link").symlink_to(files.root)
    assert files.yolo(f"{tmp_path}/link/images/a.jpg") == files.voc(f"{tmp_path}/link/images/a.jpg") == ["a.jpg"]


def test_cvats_export_has_labels_beside_its_images(files):
    files.add("a.jpg", "b.jpg")
    (files.root / "images").rename(files.root / "obj_train_data")
    for name in "ab":
        (files.root / f"labels/{name}.txt").rename(files.root / f"obj_train_data/{name}.txt")
    for start in ("data/obj_train_data", "obj_train_data", "."):
        content = f"{start}/a.jpg\n{start}/b.jpg\n"
        assert files.yolo(content, "train.txt", "obj_train_data", "obj_train_data") == ["a.jpg", "b.jpg"]


def test_ultralytics_layout_of_subfolders(files):
    files.add("train/a.jpg", "val/a.jpg")
    assert files.yolo("./images/train/a.jpg\n") == files.voc("./images/train/a.jpg\n") == ["train/a.jpg"]
    assert files.yolo("./images/train/a.jpg\n./images/val/a.jpg\n", images=".") == [
        "images/train/a.jpg",
        "images/val/a.jpg",
    ]
    assert files.yolo("a.jpg", images="images/train", labels="labels/train") == ["a.jpg"]
    assert files.yolo("a.jpg", images="images/train") == ["a.jpg"]
    assert read_yolo(files.root / "images/val", files.root / "labels", ["cat"]).count_by_class() == {"cat": 1}


def test_lists_that_lie_in_imagesets(files):
    files.add("sub/a.jpg")
    for content in ("sub/a", "../../images/sub/a.jpg", "sub\\a"):
        assert files.voc(content, "ImageSets/Main/train.txt") == ["sub/a.jpg"]
        assert files.yolo(content, "ImageSets/Main/train.txt") == ["sub/a.jpg"]


ODD = ("a.b.jpg", "img.v2.jpg", "two words.jpg", "1.jpg", "shot 1.jpg", "人物.jpg", "50% #1.jpg", "-1.jpg")


def test_odd_names(files):
    files.add(*ODD)
    stems = [name.removesuffix(".jpg") for name in ODD]
    for content in ("\n".join(ODD), "\n".join(stems)):
        assert files.yolo(content) == files.voc(content) == list(ODD)


@pytest.mark.parametrize(("disk", "listed"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_another_normal_form(files, disk, listed):
    """macOS writes é as e and an accent into names of files, and into lists made from them."""
    files.add(unicodedata.normalize(disk, "été/café.jpg"), "cafe.jpg")
    content = unicodedata.normalize(listed, "été/café\n")
    assert files.yolo(content) == files.voc(content) == [unicodedata.normalize(disk, "été/café.jpg")]


def test_a_name_that_ends_in_a_number_stays_whole(files):
    files.add("shot.jpg", "shot 1.jpg", "scan 0.jpg", "scan -1.jpg")
    assert files.voc("shot 1\n") == files.yolo("shot 1\n") == ["shot 1.jpg"]
    assert files.voc("shot 1\nscan 0\nscan -1\n") == ["shot 1.jpg", "scan 0.jpg", "scan -1.jpg"]
    with pytest.raises(AnnotationError, match=r"1 of 2 images have no XML file .*: shot 0 \(line 2\)"):
        files.voc("shot 1\nshot 0\n")  # not shot in its place
    with pytest.raises(AnnotationError, match=r"1 of 2 images have no XML file .*: shot 0 \(line 2\)"):
        files.voc("shot\nshot 0\n")


def test_vocs_lists_of_a_class_have_flags(files, caplog):
    files.add("a.jpg", "b.jpg", "two words.jpg")
    assert files.voc("a  1\nb -1\ntwo words\t0\n") == ["a.jpg", "b.jpg", "two words.jpg"]
    assert "list.txt: each line ends in 1, 0 or -1, read as the flag of VOC's lists of a class" in caplog.text
    with pytest.raises(AnnotationError, match=r"1 of 2 images have no XML file .*: gone \(line 2\)"):
        files.voc("a 1\ngone -1\n")


def test_no_image_takes_the_place_of_another(files):
    """A list of other images, some of whose names are there as well, under another path."""
    files.add("a.jpg", "b.jpg", "val/b.jpg")
    (files.root / "xml/b.xml").unlink()
    with pytest.raises(AnnotationError, match=r"list.txt: 2 of 3 images .*: b \(line 1\), train/a \(line 2\)"):
        files.voc("b\ntrain/a\nval/b\n")
    found = read_yolo(files.root / "images", files.root / "labels", ["cat"], files.list("a.jpg\ntrain/b.jpg\n"))
    assert names(found, files.root / "images") == ["a.jpg", "train/b.jpg"]
    with pytest.raises(AnnotationError, match=r"list\.txt: 1 missing image files: .*train/b\.jpg \(line 2\)"):
        check_annotations(found)


def test_what_a_list_lacks_is_blamed_on_the_list(files):
    files.add("a.jpg")
    write_image(files.root / "images" / "a.png")
    with pytest.raises(AnnotationError, match=r"list\.txt, line 1: 'a' may be a\.jpg or a\.png"):
        files.yolo("a\n")
    with pytest.raises(AnnotationError, match=r"list\.txt: none of its 2 images is in .* line 2: 'x/gone.jpg'"):
        files.yolo("\nx/gone.jpg\nlost.jpg")
    with pytest.raises(AnnotationError, match=r"list\.txt, line 2: '../../secret.jpg' leads out of "):
        files.yolo("a.jpg\n../../secret.jpg")
    with pytest.raises(AnnotationError, match=r"list\.txt, line 2: '../../secret' leads out of "):
        files.voc("a\n../../secret")
    with pytest.raises(AnnotationError, match=r"list\.txt lists no images"):
        files.voc("\ufeff\r\n\r\n")
    with pytest.raises(AnnotationError, match=r"list\.txt, line 1: the byte 0xe9 is not UTF-8"):
        files.voc("café".encode("latin-1"))


def test_absolute_paths_that_are_not_there(files, tmp_path):
    """Those in the folder, elsewhere and of Windows are missing images as any other, which may be dropped."""
    files.add("a.jpg")
    missing = (f"{files.root}/images/gone.jpg", f"{tmp_path}/other/a.jpg", "D:\\lost\\b.jpg")
    content = "\n".join((f"{files.root}/images/a.jpg", *missing))
    found = read_yolo(files.root / "images", files.root / "labels", ["cat"], files.list(content))
    with pytest.raises(
        AnnotationError, match=r"list\.txt: 3 missing image files: .*gone\.jpg \(line 2\); .*\(line 3\)"
    ):
        check_annotations(found)
    checked, report = check_annotations(found, "drop")
    assert names(checked, files.root / "images") == ["a.jpg"]
    assert sum(report.dropped.values()) == 3


def test_names_that_begin_or_end_with_dots(files):
    files.add("..a.jpg", "b..jpg", ".../c.jpg")
    assert files.yolo("..a.jpg\nb..jpg\n.../c.jpg") == ["..a.jpg", "b..jpg", ".../c.jpg"]


def test_a_start_that_was_left_out_is_reported(files, caplog):
    files.add("a.jpg")
    files.yolo("data/obj_train_data/a.jpg\n")
    assert f"1 paths are read without 'data/obj_train_data', in {files.root / 'images'}" in caplog.text


PATHS = st.text(st.sampled_from("ab./\\ :1-é"), min_size=1, max_size=12)


@given(st.lists(PATHS, min_size=1, max_size=5), st.sets(PATHS, max_size=5))
def test_any_list_is_read_inside_the_folder(texts, there):
    folder = Path("/nowhere/images")
    entries = [Entry(text, line) for line, text in enumerate(texts, 1)]
    try:
        found, count = locate(entries, Path("/nowhere/list.txt"), folder, there.__contains__)
    except AnnotationError as error:
        found, message = None, str(error)
    if found is None:
        assert message.startswith("/nowhere/list.txt, line ")
        return
    assert len(found) == len(texts)
    assert count <= sum(name in there for name in found)
    for name in found:
        path = os.path.normpath(folder / name)
        assert path.startswith("/nowhere/images/") or not Path(path).is_file()


def test_a_path_of_a_thousand_folders_is_not_there(tmp_path):
    data = Set(tmp_path).add("a.jpg")
    with pytest.raises(AnnotationError, match="none of its 1 images is in"):
        read_yolo(tmp_path / "images", tmp_path / "labels", ("cat",), data.list("sub/" * 1000 + "b.jpg\n"))

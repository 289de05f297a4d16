"""Annotation files that somebody made to do harm, or a tool made by mistake."""

from __future__ import annotations

import json
import os

import pytest

from gfl_edge.annotations.coco import read_coco
from gfl_edge.annotations.text import read_text
from gfl_edge.errors import AnnotationError, ImageError, InputError
from gfl_edge.media.images import image_hw


def coco_file(folder, file_name="a.png", category="cat", image_id=1, **more):
    content = {
        "images": [{"id": image_id, "file_name": file_name, "width": 32, "height": 24}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 8, 8]}],
        "categories": [{"id": 1, "name": category}],
    }
    path = folder / "coco.json"
    path.write_text(json.dumps(content | more))
    return path


@pytest.mark.parametrize("special", ["/dev/zero", "pipe"])
def test_what_is_no_file_is_not_read(tmp_path, special):
    path = tmp_path / special
    if special == "pipe":
        os.mkfifo(path)
    with pytest.raises(InputError, match=r"cannot be read .it is a device or a pipe, expected a file"):
        read_text(path)
    with pytest.raises(ImageError, match="it is a device or a pipe"):
        image_hw(path)


@pytest.mark.parametrize("name", ["\ud800.png", "a\0.png", "sub/\ud800/a.png"])
def test_a_file_name_that_can_be_no_path_is_an_image_that_is_not_there(tmp_path, name):
    (record,) = read_coco(coco_file(tmp_path, name), tmp_path).records
    assert record.path == tmp_path / name


def test_a_file_name_that_is_not_utf8_is_found(tmp_path):
    """As Python writes what it finds in a folder."""
    (tmp_path / os.fsdecode(b"caf\xe9.png")).touch()
    (name,) = (path.name for path in tmp_path.iterdir())
    (record,) = read_coco(coco_file(tmp_path, name), tmp_path).records
    assert record.path.exists()


@pytest.mark.parametrize("name", ["cat\ndog", "\x1b[31mcat", "\ud800", "cat\u2028dog"])
def test_a_category_is_a_line_of_text(tmp_path, name):
    with pytest.raises(AnnotationError, match=r"category 0: .* is no class name: expected text on one line"):
        read_coco(coco_file(tmp_path, category=name), tmp_path)


def test_a_message_is_not_as_long_as_its_file(tmp_path):
    with pytest.raises(AnnotationError) as caught:
        read_coco(coco_file(tmp_path, image_id=[0] * 10_000), tmp_path)
    assert len(str(caught.value)) < 1600
    assert str(caught.value).startswith(f"{tmp_path}/coco.json: 1 entry cannot be used")
    assert str(caught.value).endswith("(--on-bad drop)")

"""Images that annotation files name as they lay on another machine."""

from __future__ import annotations

import pytest

from gfl_edge.annotations.image_paths import find_image


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "data" / "images"
    for name in ("a.jpg", "sub/a.jpg", "b c.jpg", "images/nested.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.jpg", "a.jpg"),
        ("./a.jpg", "a.jpg"),
        ("sub/a.jpg", "sub/a.jpg"),
        (r"sub\a.jpg", "sub/a.jpg"),
        (r".\sub\a.jpg", "sub/a.jpg"),
        ("images/a.jpg", "a.jpg"),
        (r"images\a.jpg", "a.jpg"),
        ("data/images/sub/a.jpg", "sub/a.jpg"),
        ("images/nested.jpg", "images/nested.jpg"),  # as it stands comes first
        (r"C:\Users\someone\set\b c.jpg", "b c.jpg"),
        (r"C:\Users\someone\sub\a.jpg", "sub/a.jpg"),  # the longest end
        (r"\\server\share\a.jpg", "a.jpg"),
        ("/home/someone/sub/a.jpg", "sub/a.jpg"),
    ],
)
def test_the_file_is_found(images, name, found):
    assert find_image(images, name).resolve() == (images / found).resolve()


@pytest.mark.parametrize(
    "name", ["other/a.jpg", "a.png", "train/sub/a.jpg", "x" * 300, "a\0.jpg", "..", r"D:\none.jpg"]
)
def test_no_other_image_takes_its_place(images, name):
    """Only an absolute name may lose folders that the image folder does not end in."""
    assert not str(find_image(images, name)).endswith("a.jpg") or not find_image(images, name).is_file()


def test_an_absolute_name_that_is_there_is_taken(images, tmp_path):
    assert find_image(tmp_path / "elsewhere", str(images / "a.jpg")) == images / "a.jpg"

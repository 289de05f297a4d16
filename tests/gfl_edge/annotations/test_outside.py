"""Names in annotation files that lead out of the image folder are refused; what is legitimate still works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gfl_edge.annotations.coco import read_coco
from gfl_edge.annotations.image_list import Entry, locate
from gfl_edge.errors import AnnotationError
from gfl_edge.files import is_file


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Images inside and outside of ``images``, and links in it that lead out."""
    for name in ("images/a.png", "images/sub/b.png", "outside/secret.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "images/link.png").symlink_to(tmp_path / "outside/secret.png")
    (tmp_path / "images/linked").symlink_to(tmp_path / "outside")
    return tmp_path


def coco_image(folder: Path, name: str) -> Path:
    """Where the only image of a COCO file is, relative to ``folder``."""
    content = {"images": [{"id": 1, "file_name": name}], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (folder / "coco.json").write_text(json.dumps(content))
    return read_coco(folder / "coco.json", folder / "images").records[0].path.relative_to(folder)


@pytest.mark.parametrize(
    "name",
    [
        *("../outside/secret.png", "sub/../../outside/secret.png", "linked/../../outside/secret.png", ".."),
        *(
            "..\\outside\\secret.png",
            "{}/outside/secret.png",
            "{}/images/../outside/secret.png",
            "/etc/passwd",
            "/dev/zero",
        ),
    ],
)
def test_names_of_coco_that_lead_out(folders: Path, name: str) -> None:
    with pytest.raises(AnnotationError, match=r"coco\.json, image 0: .* leads out of .*images"):
        coco_image(folders, name.format(folders))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", "images/a.png"),
        ("sub/../a.png", "images/a.png"),
        ("{}/images/sub/b.png", "images/sub/b.png"),
        ("{}/outside/../images/a.png", "images/a.png"),
        ("/mnt/elsewhere/set/a.png", "images/a.png"),
        ("D:\\set\\a.png", "images/a.png"),
        ("link.png", "images/link.png"),
        ("linked/secret.png", "images/linked/secret.png"),
    ],
)
def test_names_of_coco_that_lead_in(folders: Path, name: str, expected: str) -> None:
    assert coco_image(folders, name.format(folders)) == Path(expected)


def test_lists_of_ones_own_may_hold_absolute_paths(folders: Path) -> None:
    entries = [Entry(f"{folders}/outside/secret.png", 1), Entry("a.png", 2)]
    images = folders / "images"
    located, found = locate(entries, folders / "list.txt", images, lambda name: is_file(images / name))
    assert (located, found) == ([f"{folders}/outside/secret.png", "a.png"], 2)

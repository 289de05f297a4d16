"""Images that are looked at before training."""

from __future__ import annotations

import json
import os

import cv2
import numpy as np
import pytest

from gfl_edge.annotations.records import Annotations, ImageRecord, Objects
from gfl_edge.errors import AnnotationError, ImageError
from train.data import verified as module
from train.data.verified import measured, verified


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a.jpg", "b.jpg", "c.png"):
        cv2.imwrite(str(tmp_path / name), rng.integers(0, 255, (80, 100, 3), np.uint8))
    return tmp_path


def annotations(folder, *names, size=(80, 100)):
    records = [
        ImageRecord(folder / n, i, Objects.of([[1, 1, 9, 9]], [0]), size_hw=size) for i, n in enumerate(names, 1)
    ]
    return Annotations(("cat",), tuple(records), folder, "train.json")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_sizes_are_filled_in(images):
    found, left_out = verified(annotations(images, "a.jpg", "c.png", "gone.jpg", size=None))
    assert [record.size_hw for record in found.records] == [(80, 100), (80, 100), None]  # the checks report the last
    assert left_out == {}


@pytest.mark.parametrize("name", ["a.jpg", "c.png"])
def test_a_cut_image_is_refused_or_left_out(images, name, caplog):
    cut(images / name)
    files = annotations(images, "a.jpg", "b.jpg", "c.png")
    with pytest.raises(
        AnnotationError, match=rf"^train\.json: 1 images that cannot be decoded: .*{name} .*on_bad"
    ) as caught:
        verified(files)
    assert "\n" not in str(caught.value)
    found, left_out = verified(files, "drop")
    assert name not in [record.path.name for record in found.records]
    assert left_out == {"images that cannot be decoded": 1}
    assert f"{name} is" in caplog.text


def test_every_size_is_compared(images):
    files = annotations(images, "a.jpg", "b.jpg", "c.png")
    cv2.imwrite(str(images / "b.jpg"), np.zeros((100, 80, 3), np.uint8))
    with pytest.raises(AnnotationError, match=r"1 images of another size than declared: .*b\.jpg is 80 x 100 pixels"):
        verified(files)
    assert len(verified(files, "drop")[0]) == 2


def test_a_second_look_is_taken_only_at_what_changed(images, tmp_path, monkeypatch):
    monkeypatch.setenv("GFL_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "MIN_REMEMBERED", 2)
    paths = [images / name for name in ("a.jpg", "b.jpg", "c.png", "gone.jpg")]
    looked_at = []

    def noting(path, original=module.image_hw):
        looked_at.append(path.name)
        return original(path)

    monkeypatch.setattr(module, "image_hw", noting)
    first = measured(paths)
    assert first[:3] == [(80, 100)] * 3
    assert isinstance(first[3], ImageError)
    assert sorted(looked_at) == ["a.jpg", "b.jpg", "c.png", "gone.jpg"]
    looked_at.clear()
    cut(images / "b.jpg")
    changed = (images / "c.png").stat()
    os.utime(images / "c.png", ns=(changed.st_atime_ns, changed.st_mtime_ns + 1))
    again = measured(paths)
    assert sorted(looked_at) == ["b.jpg", "c.png", "gone.jpg"]
    assert (again[0], again[2], isinstance(again[1], ImageError)) == ((80, 100), (80, 100), True)
    (cache,) = (tmp_path / "cache" / "images").iterdir()
    cache.write_text("broken")
    assert measured(paths)[0] == (80, 100)


@pytest.mark.parametrize("seen", [None, 7, "x", [], [1], "state", [1, 2, 3, "4"], [1, 2, None, 4], {"a": 1}])
def test_what_a_damaged_cache_says_is_not_believed(images, tmp_path, monkeypatch, seen):
    monkeypatch.setenv("GFL_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "MIN_REMEMBERED", 1)
    path = images / "a.jpg"
    measured([path])
    (cache,) = (tmp_path / "cache" / "images").iterdir()
    content = json.loads(cache.read_text())
    state = content["images"][str(path)][:2]
    content["images"][str(path)] = state if seen == "state" else seen
    cache.write_text(json.dumps(content))
    assert measured([path]) == [(80, 100)]


def test_nothing_to_look_at():
    assert measured([]) == []

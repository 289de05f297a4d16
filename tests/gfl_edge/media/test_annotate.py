"""Detecting in image files."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from gfl_edge.errors import InputError, SourceError
from gfl_edge.filters import DetectionFilter, Region
from gfl_edge.media.annotate import detect_images
from tests.support.fake_detector import FakeDetector
from tests.support.media_files import make_image


@pytest.fixture
def detector() -> FakeDetector:
    return FakeDetector()


def test_files_and_folders_mixed(tmp_path: Path, detector: FakeDetector) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    inputs = [make_image(folder / name, hw=(60, 80)) for name in ("a.png", "b.JPG", "c.webp", "d.bmp", "e.tif")]
    (folder / "notes.txt").touch()
    alone = make_image(tmp_path / "z.jpeg", hw=(60, 80))
    before = {path: path.read_bytes() for path in (*inputs, alone)}
    summary = detect_images(detector, [str(alone), folder], output_dir=tmp_path / "new" / "out")

    assert [annotated.source for annotated in summary.images] == [alone, *inputs]
    assert [annotated.output.name for annotated in summary.images] == [path.name for path in (alone, *inputs)]
    assert summary.skipped == ()
    for annotated in summary.images:
        assert [name for _, _, name in annotated.detections] == ["person"], "the dog is below the score"
        image = cv2.imread(str(annotated.output))
        assert image.shape == (60, 80, 3)
        assert np.abs(image.astype(int) - 100).mean() > 5, "annotated"
    assert {path: path.read_bytes() for path in before} == before, "inputs are untouched"
    assert len(list((tmp_path / "new" / "out").iterdir())) == 6, "nothing temporary is left"


def test_score(tmp_path: Path, detector: FakeDetector) -> None:
    summary = detect_images(
        detector, [make_image(tmp_path / "a.png")], output_dir=tmp_path / "out", keep=DetectionFilter(score=0.1)
    )
    assert [name for _, _, name in summary.images[0].detections] == ["person", "dog"]


def test_the_score_is_what_the_model_recommends(
    tmp_path: Path, detector: FakeDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detector.spec, "shown_score", 0.15)
    summary = detect_images(detector, [make_image(tmp_path / "a.png")], output_dir=tmp_path / "out")
    assert [name for _, _, name in summary.images[0].detections] == ["person", "dog"]


def test_summary_is_plain_json(tmp_path: Path, detector: FakeDetector) -> None:
    (tmp_path / "b.png").write_bytes(b"damaged")
    paths = [make_image(tmp_path / "a.png", hw=(20, 30)), tmp_path / "b.png"]
    assert json.loads(json.dumps(detect_images(detector, paths, output_dir=tmp_path / "out").to_dict())) == {
        "pictures": [
            {
                "source": str(tmp_path / "a.png"),
                "output": str(tmp_path / "out" / "a.png"),
                "detections": [
                    {"box_xyxy": [0.0, 0.0, 15.0, 20.0], "score": 0.9, "class_id": 0, "class_name": "person"}
                ],
            }
        ],
        "skipped": [str(tmp_path / "b.png")],
        "invalid": 0,
        "files": [],
    }


def test_same_names_do_not_overwrite_each_other(tmp_path: Path, detector: FakeDetector) -> None:
    inputs = []
    for level, (folder, name) in enumerate((("one", "dog.png"), ("two", "dog.png"), ("three", "Dog.PNG"))):
        (tmp_path / folder).mkdir()
        inputs.append(make_image(tmp_path / folder / name, level=50 * level))
    summary = detect_images(detector, inputs, output_dir=tmp_path / "out", keep=DetectionFilter(score=1.0))
    assert [annotated.output.name for annotated in summary.images] == ["dog.png", "dog-2.png", "Dog-3.PNG"]
    assert [cv2.imread(str(annotated.output)).mean() for annotated in summary.images] == [0, 50, 100]


def test_inputs_are_never_overwritten(tmp_path: Path, detector: FakeDetector) -> None:
    first, second = make_image(tmp_path / "dog.png", level=10), make_image(tmp_path / "dog-2.png", level=20)
    summary = detect_images(detector, [first, second], output_dir=tmp_path / "." / "out" / "..")
    assert [annotated.output.name for annotated in summary.images] == ["dog-3.png", "dog-2-2.png"]
    assert (cv2.imread(str(first)).mean(), cv2.imread(str(second)).mean()) == (10, 20)


def test_older_outputs_are_replaced(tmp_path: Path, detector: FakeDetector) -> None:
    source = make_image(tmp_path / "dog.png", level=10)
    for _ in range(2):
        detect_images(detector, [source], output_dir=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["dog.png"]


def test_each_file_once(tmp_path: Path, detector: FakeDetector) -> None:
    source = make_image(tmp_path / "in.png")
    summary = detect_images(detector, [source, tmp_path, str(source)], output_dir=tmp_path / "out")
    assert len(summary.images) == detector.calls == 1


def test_gray_and_16_bit_files(tmp_path: Path, detector: FakeDetector) -> None:
    cv2.imwrite(str(tmp_path / "gray.png"), np.full((20, 30), 90, np.uint8))
    cv2.imwrite(str(tmp_path / "deep.tiff"), np.full((20, 30, 3), 90 * 257, np.uint16))
    summary = detect_images(detector, [tmp_path], output_dir=tmp_path / "out", keep=DetectionFilter(score=1.0))
    assert [cv2.imread(str(annotated.output), cv2.IMREAD_UNCHANGED).dtype for annotated in summary.images] == [
        np.uint8
    ] * 2
    assert [cv2.imread(str(annotated.output)).mean() for annotated in summary.images] == [90, 90]


def test_images_that_cannot_be_used_are_named_and_skipped(
    tmp_path: Path, detector: FakeDetector, caplog: pytest.LogCaptureFixture
) -> None:
    make_image(tmp_path / "a.png", hw=(1, 1))
    (tmp_path / "b.jpg").write_bytes(b"damaged")
    (tmp_path / "c.jpg").touch()
    make_image(tmp_path / "d.png")
    summary = detect_images(detector, [tmp_path], output_dir=tmp_path / "out")
    assert summary.skipped == tuple(str(tmp_path / name) for name in ("a.png", "b.jpg", "c.jpg"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["d.png"]
    assert len(caplog.records) == 3
    assert "a.png skipped: frame is uint8 [1, 1, 3]" in caplog.text


def test_none_usable(tmp_path: Path, detector: FakeDetector) -> None:
    (tmp_path / "a.jpg").write_bytes(b"damaged")
    with pytest.raises(SourceError, match=r"a\.jpg: it is no image that .* decode: 7 bytes that start with b'damaged'"):
        detect_images(detector, [tmp_path], output_dir=tmp_path / "out")


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "no images: give image files"),
        (["ok.png", "missing.png"], r"missing\.png does not exist"),
        (["clip.mp4"], r"clip\.mp4 is no image: .* use: gfl-edge camera --source clip\.mp4"),
        (["empty"], "empty holds no images"),
    ],
)
def test_paths_are_checked_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, detector: FakeDetector, paths: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make_image(tmp_path / "ok.png")
    (tmp_path / "clip.mp4").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=message):
        detect_images(detector, paths, output_dir="out")
    assert not detector.calls
    assert not (tmp_path / "out").exists()


def test_output_folder_that_is_a_file(tmp_path: Path, detector: FakeDetector) -> None:
    source = make_image(tmp_path / "a.png")
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match=r"out/a\.png cannot be written .* Choose another place"):
        detect_images(detector, [source], output_dir=tmp_path / "out")


def test_what_the_filter_names_is_checked(tmp_path: Path, detector: FakeDetector) -> None:
    keep = DetectionFilter(classes=("persons",))
    with pytest.raises(InputError, match=r"no class 'persons'; person\? Its classes: person, dog"):
        detect_images(detector, [tmp_path], output_dir=tmp_path / "out", keep=keep)
    keep = DetectionFilter(regions=(Region(((0, 0), (9, 0), (9, 9)), source=1),))
    with pytest.raises(InputError, match="source 1, but there is only one, 0"):
        detect_images(detector, [tmp_path], output_dir=tmp_path / "out", keep=keep)


def test_regions_are_drawn_and_images_beside_them_left_out(tmp_path: Path, detector: FakeDetector) -> None:
    large, small = make_image(tmp_path / "large.png", hw=(60, 80)), make_image(tmp_path / "small.png", hw=(20, 30))
    keep = DetectionFilter(score=0.1, regions=(Region(((45, 10), (70, 10), (70, 50), (45, 50))),))
    summary = detect_images(detector, [large, small], output_dir=tmp_path / "out", keep=keep)
    assert [name for _, _, name in summary.images[0].detections] == ["dog"], "the center of the person is at 20"
    assert [Path(path).name for path in summary.skipped] == ["small.png"]
    only_dogs = DetectionFilter(classes=("dog",), score=0.1)
    bare = detect_images(detector, [large], output_dir=tmp_path / "bare", keep=only_dogs)
    with_region, without = (cv2.imread(str(one.images[0].output)) for one in (summary, bare))
    assert (with_region != without).any(axis=2)[50, 45:71].all(), "the lower border of the region"

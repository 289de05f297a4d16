"""Files of results, read back by others."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gfl_edge.annotations.class_names import read_class_names
from gfl_edge.annotations.coco import read_coco
from gfl_edge.detections import Detections
from gfl_edge.errors import OutputError
from gfl_edge.evaluation.ap import as_coco, average_precision, coco_results
from gfl_edge.results.image_result import ImageResult, numbered
from gfl_edge.results.write import write_results
from gfl_edge.results.yolo import label_lines
from tests.support.media_files import make_image
from train.data.formats.yolo import read_yolo

NAMES = ("person", 'a "quoted", name', "Straße 人", "=1+1")


def found(*boxes: tuple[float, ...], classes: tuple[int, ...] | None = None) -> Detections:
    ids = np.array(classes if classes is not None else range(len(boxes)), np.int32)
    scores = np.linspace(0.9, 0.1, len(boxes), dtype=np.float32)
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), scores, ids, NAMES)


@pytest.fixture
def results(tmp_path: Path) -> list[ImageResult]:
    """An image of two objects, one of the same name in another folder without any, and one with an odd name."""
    paths = [tmp_path / "in" / name for name in ("a/dog.png", "b/dog.png", "a/dog.jpg", 'b/.x, "y"\n人 .png')]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        make_image(path, hw=(48, 64))
    detections = [
        found((1.1, 2.2, 30.3, 40.4), (0, 0, 64, 48)),
        found(),
        found((-5, -5, 80, 60), (64, 0, 70, 48), (3, 3, 3, 9)),  # reaches beyond; beside; without area
        found((10, 10, 20, 20.123456), classes=(3,)),
    ]
    return numbered((path, (48, 64), one) for path, one in zip(paths, detections, strict=True))


def test_images_are_numbered_and_named_from_their_common_folder_on(results: list[ImageResult]) -> None:
    assert [one.image_id for one in results] == [1, 2, 3, 4]
    assert [one.file_name for one in results] == ["a/dog.png", "b/dog.png", "a/dog.jpg", 'b/.x, "y"\n人 .png']


def test_csv(tmp_path: Path, results: list[ImageResult]) -> None:
    write_results(results, {"csv": tmp_path / "new" / "out.csv"}, NAMES)
    with (tmp_path / "new" / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [one.file_name for one in results for _ in range(len(one.detections))]
    assert [row["class_name"] for row in rows] == [
        one.detections.class_names[i] for one in results for i in one.detections.class_ids
    ]
    assert rows[0] == {
        **{
            "image": "a/dog.png",
            "image_id": "1",
            "width": "64",
            "height": "48",
            "class_id": "0",
            "class_name": "person",
        },
        **{"score": "0.9", "x1": "1.1", "y1": "2.2", "x2": "30.3", "y2": "40.4"},
    }
    for row, box in zip(rows, np.concatenate([one.detections.boxes for one in results]), strict=True):
        assert [np.float32(row[key]) for key in ("x1", "y1", "x2", "y2")] == box.tolist(), "nothing is lost"


def test_sigmas(tmp_path: Path) -> None:
    sure = replace(found((1, 1, 5, 5)), edge_sigma=np.array([[0.5, 1.1, 2, 3]], np.float32))
    results = numbered([(tmp_path / "a.png", (9, 9), sure), (tmp_path / "b.png", (9, 9), found())])
    write_results(results, {"csv": tmp_path / "out.csv", "coco": tmp_path / "out.json"}, NAMES)
    (row,) = csv.DictReader((tmp_path / "out.csv").open(encoding="utf-8"))
    assert [row[f"sigma_{edge}"] for edge in ("left", "top", "right", "bottom")] == ["0.5", "1.1", "2", "3"]
    (entry,) = json.loads((tmp_path / "out-results.json").read_text())
    assert entry["edge_sigma"] == pytest.approx([0.5, 1.1, 2, 3])


def test_csv_of_names_that_are_no_utf8_is_utf8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(b"caf\xe9.png"))
    write_results(numbered([(path, (9, 9), found((1, 1, 5, 5)))]), {"csv": tmp_path / "out.csv"}, NAMES)
    assert "caf\\udce9.png,1,9,9,0,person" in (tmp_path / "out.csv").read_text(encoding="utf-8")


def test_json_lines(tmp_path: Path, results: list[ImageResult]) -> None:
    write_results(results, {"jsonl": tmp_path / "out.jsonl"}, NAMES)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["image"] for line in lines] == [one.file_name for one in results]
    assert [line["detections"] for line in lines] == [one.detections.to_dicts() for one in results]
    assert {key: lines[1][key] for key in ("image_id", "width", "height")} == {"image_id": 2, "width": 64, "height": 48}


def test_coco_is_a_file_of_instances(tmp_path: Path, results: list[ImageResult]) -> None:
    write_results(results, {"coco": tmp_path / "out.json"}, NAMES)
    content = json.loads((tmp_path / "out.json").read_text())
    assert [annotation["id"] for annotation in content["annotations"]] == [1, 2, 3, 4, 5, 6]
    assert content["annotations"][0]["score"] == pytest.approx(0.9)
    read = read_coco(tmp_path / "out.json", tmp_path / "in")
    assert read.class_names == NAMES
    assert [record.path for record in read.records] == [one.path for one in results]
    for record, one in zip(read.records, results, strict=True):
        np.testing.assert_allclose(record.boxes, one.detections.boxes, atol=1e-5)
        assert record.labels.tolist() == one.detections.class_ids.tolist()


def test_coco_results_have_the_same_ap_when_they_are_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth, predicted = [], []
    for number in range(1, 21):
        corners = rng.uniform(0, 400, (10, 2))
        boxes = np.concatenate((corners, corners + rng.uniform(5, 200, (10, 2))), axis=1).astype(np.float32)
        classes = rng.integers(0, len(NAMES), 10).astype(np.int32)
        scores = np.sort(rng.uniform(size=10).astype(np.float32))[::-1]
        predicted.append((number, Detections(boxes, scores, classes, NAMES)))
        truth += [
            {"id": len(truth) + i + 1, "image_id": number, "category_id": 7 * int(c) + 3, "iscrowd": 0}
            | {"bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)], "area": float((x2 - x1) * (y2 - y1))}
            for i, ((x1, y1, x2, y2), c) in enumerate(zip(boxes + rng.normal(0, 8, (10, 4)), classes, strict=True))
        ]
    ids = [7 * index + 3 for index in range(len(NAMES))]
    images = [{"id": number, "width": 640, "height": 640, "file_name": f"{number}.jpg"} for number in range(1, 21)]
    coco = as_coco({"images": images, "annotations": truth, "categories": [{"id": i, "name": str(i)} for i in ids]})
    results = [ImageResult(Path("x.jpg"), "x.jpg", number, (640, 640), one) for number, one in predicted]
    write_results(results, {"coco": tmp_path / "coco.json"}, NAMES, dict(enumerate(ids)))
    read = json.loads((tmp_path / "coco-results.json").read_text())
    direct = [entry for number, one in predicted for entry in coco_results(one, number, tuple(ids))]
    expected = average_precision(coco, direct, list(range(1, 21)))
    assert 5 < (expected["AP"] or 0) < 95
    assert average_precision(coco, read, list(range(1, 21))) == expected
    loaded = coco.loadRes(str(tmp_path / "coco-results.json"))
    assert len(loaded.getAnnIds()) == 200


def test_yolo_is_read_back_as_a_data_set(tmp_path: Path, results: list[ImageResult]) -> None:
    write_results(results, {"yolo": tmp_path / "set"}, NAMES)
    assert read_class_names(tmp_path / "set" / "data.yaml") == NAMES
    read = read_yolo(tmp_path / "set" / "images", tmp_path / "set" / "labels", NAMES)
    by_name = {record.path.name: record for record in read.records}
    assert set(by_name) == {"dog.png", "dog-2.png", "dog-3.jpg", 'x, "y"\n人 .png'}, "labels would have one name"
    assert len(list((tmp_path / "set" / "labels").iterdir())) == 4
    np.testing.assert_allclose(by_name["dog.png"].boxes, results[0].detections.boxes, atol=1e-4)
    assert (tmp_path / "set" / "labels" / "dog-2.txt").read_bytes() == b"", "nothing was found in it"
    np.testing.assert_allclose(by_name["dog-3.jpg"].boxes, [[0, 0, 64, 48]], atol=1e-4)
    assert by_name["dog-3.jpg"].labels.tolist() == [0], "what has no area in the image is left out"
    assert all(
        record.path.read_bytes() == one.path.read_bytes()
        for record, one in zip([by_name[name] for name in ("dog.png", "dog-2.png", "dog-3.jpg")], results, strict=False)
    )


def test_the_data_set_can_be_moved_with_its_images(tmp_path: Path) -> None:
    (tmp_path / "all" / "in").mkdir(parents=True)
    image = make_image(tmp_path / "all" / "in" / "a.png", hw=(9, 9))
    write_results(numbered([(image, (9, 9), found())]), {"yolo": tmp_path / "all" / "yolo"}, NAMES)
    moved = (tmp_path / "all").rename(tmp_path / "elsewhere")
    assert (moved / "yolo" / "images" / "a.png").read_bytes() == (moved / "in" / "a.png").read_bytes()


def test_images_are_copied_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = make_image(tmp_path / "a.png", hw=(9, 9))

    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    write_results(numbered([(image, (9, 9), found())]), {"yolo": tmp_path / "yolo"}, NAMES)
    copied = tmp_path / "yolo" / "images" / "a.png"
    assert not copied.is_symlink()
    assert copied.read_bytes() == image.read_bytes()


def test_label_lines_stay_inside_the_image() -> None:
    lines = label_lines(found((0.1, 0.2, 1919.99, 1080.5)), (1080, 1920)).splitlines()
    _, x, y, width, height = map(float, lines[0].split())
    assert (x + width / 2, y + height / 2) == pytest.approx((1919.99 / 1920, 1), abs=1e-7)


def test_all_files_or_none(tmp_path: Path, results: list[ImageResult]) -> None:
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo" / "corrected.txt").touch()
    files = {"coco": tmp_path / "out.json", "csv": tmp_path / "out.csv", "yolo": tmp_path / "yolo"}
    with pytest.raises(OutputError, match="cannot be written"):
        write_results(results, files, NAMES)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "yolo"]
    assert [path.name for path in (tmp_path / "yolo").iterdir()] == ["corrected.txt"]


def test_nothing_found_in_any_image(tmp_path: Path) -> None:
    image = make_image(tmp_path / "a.png", hw=(9, 9))
    files = {kind: tmp_path / f"out.{kind}" for kind in ("coco", "csv", "jsonl", "yolo")}
    write_results(numbered([(image, (9, 9), found())]), files, NAMES)  # type: ignore[arg-type]
    assert json.loads((tmp_path / "out-results.coco").read_text()) == []
    assert len(json.loads((tmp_path / "out.coco").read_text())["images"]) == 1
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1
    assert json.loads((tmp_path / "out.jsonl").read_text())["detections"] == []
    assert (tmp_path / "out.yolo" / "labels" / "a.txt").read_text() == ""

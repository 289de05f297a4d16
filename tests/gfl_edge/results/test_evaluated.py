"""What an evaluation found, read back beside its annotations."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gfl_edge.cli.main import main
from gfl_edge.detections import Detections
from gfl_edge.detector import Inference
from gfl_edge.evaluation.ap import METRICS, evaluate
from gfl_edge.filters import DetectionFilter
from gfl_edge.results.evaluated import evaluated, file_category_ids
from gfl_edge.results.write import write_results
from tests.support.media_files import make_image

NAMES = ("dog", "cat")  # in another order than in the file
IMAGES = {40: "b/x.png", 7: "a.png", 1000: "c.png"}
CATEGORIES = {9: "dog", 3: "cat", 5: "cow"}


class spec:  # noqa: N801 # stands for an instance
    name = "moved"
    class_names = NAMES


class Moved:
    """Finds what is there, moved by a few pixels, by the size of the image; and more that is not there."""

    spec = spec

    def __init__(self, truth: dict[int, np.ndarray]) -> None:
        self.truth = truth

    def __call__(self, frame: np.ndarray) -> Detections:
        rng = np.random.default_rng(frame.shape[0])
        boxes = np.concatenate([self.truth[frame.shape[0]] + rng.normal(0, 2, (8, 4)), rng.uniform(0, 20, (4, 4))])
        boxes = np.concatenate((np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])), axis=1)
        scores = np.sort(rng.uniform(0.05, 1, 12).astype(np.float32))[::-1]
        return Detections(boxes.astype(np.float32), scores, np.arange(12, dtype=np.int32) % 2, NAMES)

    def prepare(self, frames: list[np.ndarray]) -> list[np.ndarray]:
        return frames

    def infer_all(self, prepared: Iterable[list[np.ndarray]]) -> Iterator[Inference]:
        return (Inference([self(frame) for frame in frames], {}, [0]) for frames in prepared)


@pytest.fixture
def truth(tmp_path: Path) -> tuple[Path, Moved]:
    """The annotation file, and a detector for its images."""
    rng, by_height, annotations, images = np.random.default_rng(1), {}, [], []
    for index, (image_id, name) in enumerate(IMAGES.items()):
        height = 100 + index
        (tmp_path / name).parent.mkdir(exist_ok=True)
        make_image(tmp_path / name, hw=(height, 120))
        corners = rng.uniform(0, 60, (8, 2)).round(1)
        by_height[height] = np.concatenate((corners, corners + rng.uniform(10, 40, (8, 2)).round(1)), axis=1)
        images.append({"id": image_id, "file_name": name, "width": 120, "height": height})
        for number, (x1, y1, x2, y2) in enumerate(by_height[height]):
            box = [x1, y1, x2 - x1, y2 - y1]
            entry = {"bbox": box, "area": box[2] * box[3], "iscrowd": 0, "category_id": (9, 3)[number % 2]}
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **entry})
    categories = [{"id": key, "name": name} for key, name in CATEGORIES.items()]
    path = tmp_path / "truth.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path, Moved(by_height)


def test_results_have_the_ids_of_the_annotations_and_the_same_ap(tmp_path: Path, truth: tuple[Path, Moved]) -> None:
    path, detector = truth
    result = evaluate(detector, tmp_path, path, progress=False)  # type: ignore[arg-type]
    files = {"coco": tmp_path / "coco.json", "csv": tmp_path / "found.csv"}
    write_results(evaluated(result.evidence, DetectionFilter()), files, NAMES, file_category_ids(result.evidence))  # type: ignore[arg-type]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
        run = COCOeval(coco, coco.loadRes(str(tmp_path / "coco-results.json")), "bbox")
        run.params.catIds = [3, 9]  # the model knows no cows
        run.evaluate()
        run.accumulate()
        run.summarize()
    assert 5 < (result.metrics["AP"] or 0) < 95
    assert [result.metrics[name] for name in METRICS] == [100 * v if v >= 0 else None for v in run.stats]
    content = json.loads((tmp_path / "coco.json").read_text())
    assert {image["id"]: image["file_name"] for image in content["images"]} == IMAGES
    assert content["categories"] == [{"id": 9, "name": "dog"}, {"id": 3, "name": "cat"}]
    rows = list(csv.DictReader((tmp_path / "found.csv").open()))
    assert len(rows) == 36
    assert {row["image_id"] for row in rows} == {"40", "7", "1000"}


def test_fewer_may_be_written_than_ap_is_of(tmp_path: Path, truth: tuple[Path, Moved]) -> None:
    path, detector = truth
    evidence = evaluate(detector, tmp_path, path, progress=False).evidence  # type: ignore[arg-type]
    kept = evaluated(evidence, DetectionFilter(0.5, {"cat": 0.9}))
    assert 0 < sum(len(one.detections) for one in kept) < 20
    for one in kept:
        assert (one.detections.scores >= np.array([0.5, 0.9], np.float32)[one.detections.class_ids]).all()


def test_of_chosen_classes_ids_and_numbers_stay(tmp_path: Path, truth: tuple[Path, Moved]) -> None:
    path, detector = truth
    evidence = evaluate(detector, tmp_path, path, progress=False, classes=["cat"]).evidence  # type: ignore[arg-type]
    files = {"coco": tmp_path / "coco.json", "csv": tmp_path / "found.csv"}
    write_results(evaluated(evidence, DetectionFilter()), files, NAMES, file_category_ids(evidence))  # type: ignore[arg-type]
    content = json.loads((tmp_path / "coco.json").read_text())
    assert content["categories"] == [{"id": 3, "name": "cat"}]
    assert [row["category_id"] for row in content["annotations"]] == [3] * 18
    assert {row["class_id"] for row in csv.DictReader((tmp_path / "found.csv").open())} == {"1"}, "as in detect"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "coco"], "--format writes into a folder: name it with -o DIR"),
        (["--score", "0.3"], "--score chooses what --format writes"),
        (["--format", "csv", "--format", "csv", "-o", "out"], "the format csv is given twice"),
        (["--format", "coco=evaluation.json", "-o", "out"], "is the name of two files"),
        (["--format", "csv", "-o", "out", "--score", "cat=0.3", "--classes", "dog"], "none of the classes that count"),
    ],
)
def test_what_cannot_be_written_is_said_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["eval", "--model", "none.onnx", "--images", ".", "--annotations", "none.json", *words]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

"""An evaluation in detail, against pycocotools class by class and against what is seen in three drawn images."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import get_args

import cv2
import numpy as np
import pytest

from gfl_edge.cli.main import main
from gfl_edge.detections import Detections
from gfl_edge.detector import Inference
from gfl_edge.engine.sidecar import Sidecar
from gfl_edge.engine.storing import copy_with_spec
from gfl_edge.evaluation.ap import Evaluator, average_precision, evaluate
from gfl_edge.evaluation.classes import CANDIDATES, best_score
from gfl_edge.evaluation.examination import examine
from gfl_edge.evaluation.page import HTML_NAME, write_evaluation
from gfl_edge.evaluation.sheet import MISSED, worst_images
from gfl_edge.spec import ModelSpec, read_spec
from tests.support.tiny_engine import write_engine

NAMES = ("cat", "dog", "cow")
SPEC = ModelSpec(
    name="drawn",
    family="nanodet",
    class_names=NAMES,
    input_hw=(320, 320),
    resize="letterbox",
    mean_bgr=(0.0, 0.0, 0.0),
    std_bgr=(1.0, 1.0, 1.0),
    strides=(8,),
    reg_max=7,
    point_offset=0.0,
    recommended_score=0.4,
)
# By image: class, left, top, width, height; the last one of image 2 is a crowd
BOXES = {
    1: [(0, 10, 20, 30, 40)],
    2: [(1, 5, 5, 50, 40), (0, 60, 60, 30, 30), (1, 60, 0, 50, 50)],
    3: [(1, 40, 40, 40, 40)],
}
# By image: class, left, top, width, height, score
FOUND = {
    1: [(0, 10, 20, 30, 40, 0.9), (1, 80, 60, 20, 20, 0.45)],  # right; of nothing
    2: [(1, 5, 5, 50, 25, 0.8), (1, 60, 60, 30, 30, 0.7), (1, 62, 2, 40, 40, 0.6)],  # misplaced; a cat; in the crowd
    3: [(1, 40, 40, 40, 40, 0.3)],  # right, but not shown
}


class Drawn:
    """Finds what ``FOUND`` says; the image number is painted into the corner pixel."""

    spec = SPEC
    path = None

    def __call__(self, frame):
        rows = sorted(FOUND[int(frame[0, 0, 0])], key=lambda row: -row[-1])
        boxes = np.array([[x, y, x + w, y + h] for _, x, y, w, h, _ in rows], np.float32).reshape(-1, 4)
        scores = np.array([row[-1] for row in rows], np.float32)
        return Detections(boxes, scores, np.array([row[0] for row in rows], np.int32), NAMES)

    def prepare(self, frames):
        return frames

    def infer_all(self, prepared):
        return (Inference([self(frame) for frame in frames], {}, [0]) for frames in prepared)


@pytest.fixture
def dataset(tmp_path):
    """Category ids differ from class indices, and one category is none of the model's."""
    for number in BOXES:
        image = np.full((100, 120, 3), 128, np.uint8)
        image[0, 0] = number
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
    rows = [(image, row) for image, rows in BOXES.items() for row in rows]
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 120, "height": 100} for i in BOXES],
        "categories": [{"id": n, "name": name} for n, name in ((7, "dog"), (3, "cat"), (9, "cow"), (1, "owl"))],
        "annotations": [
            {
                "id": n,
                "image_id": image,
                "category_id": (3, 7)[c],
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": int((image, box[0], box[1]) == (2, 60, 0)),
            }
            for n, (image, (c, *box)) in enumerate(rows, 1)
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def examined(dataset):
    return examine(evaluate(Drawn(), dataset, dataset / "a.json", progress=False), SPEC)


def test_only_some_classes(dataset, examined):
    """Cats are neither found nor missed, and what is found on one counts as on nothing."""
    spec = replace(SPEC, class_scores=(0.1, 0.4, 0.1))
    dogs = examine(evaluate(Drawn(), dataset, dataset / "a.json", progress=False, classes=["dog"]), spec)
    assert dogs.classes == examined.classes[1:2]
    assert dogs.shown_scores == (0.4,)
    assert dogs.confusion == {("dog", "dog"): 1, ("dog", "background"): 1, ("background", "dog"): 2}
    assert dogs.confusion != examined.confusion


def test_ap_by_class_is_that_of_pycocotools_for_it_alone(examined):
    evidence = examined.evaluation.evidence
    for result, category in zip(examined.classes, evidence.category_ids, strict=True):
        if result.name == "cow":
            assert (result.boxes, result.ap, result.best_score, result.precision) == (0, None, None, ())
            continue
        alone = average_precision(evidence.coco, evidence.results, evidence.image_ids, category_ids=[category])
        assert (result.ap, result.ap50) == (pytest.approx(alone["AP"]), pytest.approx(alone["AP50"]))
    assert np.mean([result.ap for result in examined.classes if result.boxes]) == pytest.approx(
        examined.evaluation.metrics["AP"]
    )


def test_the_best_score_of_each_class(examined):
    cat, dog, _ = examined.classes
    # 0.9 is a little less in float32
    assert (cat.boxes, cat.best_score, cat.best_f1) == (2, 0.89, pytest.approx(100 * 2 / 3))
    # From 0.3 on: 2 right of 4 shown, the one in the crowd left out, of 2 boxes; from 0.8 on 1 of 1
    assert (dog.boxes, dog.best_score, dog.best_f1) == (2, 0.8, pytest.approx(100 * 2 / 3))
    assert dog.f1[int(np.argmin(np.abs(CANDIDATES - 0.3)))] == pytest.approx(2 * 2 / (4 + 2))


def test_the_best_score_of_all_classes_is_the_peak_of_their_curve(examined):
    evidence = examined.evaluation.evidence
    found = best_score(evidence.coco, evidence.results, evidence.image_ids)
    assert found == (CANDIDATES[98 - examined.f1[::-1].argmax()], 100 * examined.f1.max())


def test_confusions_at_the_shown_scores(examined):
    assert examined.shown_scores == (0.4, 0.4, 0.4)
    assert examined.confusion == {
        ("cat", "cat"): 1,
        ("dog", "dog"): 1,
        ("cat", "dog"): 1,
        ("background", "dog"): 1,
        ("dog", "background"): 1,  # the one of score 0.3
    }
    assert examined.confused()[0] == ("background", "dog", 1)


def test_stored_scores_count_where_they_are(dataset):
    evaluation = evaluate(Drawn(), dataset, dataset / "a.json", progress=False)
    found = examine(evaluation, replace(SPEC, class_scores=(0.4, 0.2, 0.4)))
    assert found.confusion["dog", "dog"] == 2
    assert ("dog", "background") not in found.confusion


@pytest.mark.parametrize("evaluator", get_args(Evaluator))
def test_either_evaluator_gives_the_same(dataset, evaluator, examined):
    found = examine(evaluate(Drawn(), dataset, dataset / "a.json", progress=False, evaluator=evaluator), SPEC)
    assert found.to_dict() == examined.to_dict()
    assert found.faults_to_dict() == examined.faults_to_dict()
    np.testing.assert_allclose(found.precision, examined.precision)


def test_a_class_that_is_called_background(dataset, monkeypatch):
    content = json.loads((dataset / "a.json").read_text())
    content["categories"][2]["name"] = "background"
    (dataset / "a.json").write_text(json.dumps(content))
    spec = replace(SPEC, class_names=("cat", "dog", "background"))
    monkeypatch.setattr(Drawn, "spec", spec)
    found = examine(evaluate(Drawn(), dataset, dataset / "a.json", progress=False), spec)
    assert found.confusion["dog", "no object"] == 1


def test_the_faults_of_each_image(examined):
    counts = {each.image_id: (len(each.missed), len(each.false), len(each.misplaced)) for each in examined.faults}
    assert list(counts) == [2, 1, 3]  # the most first, then in order
    assert counts == {2: (1, 1, 1), 1: (0, 1, 0), 3: (1, 0, 0)}
    assert examined.faults[0].misplaced[0].bbox == (5, 5, 50, 25)


def test_nothing_at_all_is_found(dataset, monkeypatch):
    for image in FOUND:
        monkeypatch.setitem(FOUND, image, [])
    found = examine(evaluate(Drawn(), dataset, dataset / "a.json", progress=False), SPEC)
    assert [result.best_score for result in found.classes] == [None] * 3
    assert found.confusion == {("cat", "background"): 2, ("dog", "background"): 2}
    assert [len(each.missed) for each in found.faults] == [2, 1, 1]


def test_nothing_is_wrong(dataset, monkeypatch):
    for image, rows in BOXES.items():
        monkeypatch.setitem(FOUND, image, [(*row, 0.9) for row in rows if (image, row[1]) != (2, 60) or row[0] == 0])
    found = examine(evaluate(Drawn(), dataset, dataset / "a.json", progress=False), SPEC)
    assert not found.faults
    assert found.confused() == []
    assert worst_images(found) is None


def test_an_image_that_is_gone_is_not_on_the_sheet(examined, dataset):
    whole = worst_images(examined)
    assert (whole == MISSED).all(axis=-1).any()
    (dataset / "2.png").unlink()
    assert worst_images(examined).shape != whole.shape or not np.array_equal(worst_images(examined), whole)
    for number in (1, 3):
        (dataset / f"{number}.png").unlink()
    assert worst_images(examined) is None


MEASURED = {
    "model": {"file": "m.onnx", "name": "m"},
    "backend": {"name": "openvino"},
    "annotations": "a.json",
    "command": "gfl-edge eval",
}


def test_the_page_holds_everything_and_needs_nothing_else(examined, tmp_path):
    page = write_evaluation(examined, {**MEASURED, **examined.to_dict()}, tmp_path / "out")
    text = page.read_text()
    assert text.count("<figure>") == 6
    assert "data:image/jpeg;base64," in text
    assert not re.search(r'(src|href)="(?!#|data:)', re.sub(r'xmlns(:\w+)?="[^"]*"', "", text))
    for words in ("AP by class", "2.png", "found as", "m.onnx"):
        assert words in text
    names = {path.name for path in page.parent.iterdir()}
    assert names >= {HTML_NAME, "evaluation.md", "evaluation.json", "confusion.svg", "worst-images.svg", "f1-score.svg"}
    content = json.loads((page.parent / "evaluation.json").read_text())
    assert content["classes"][0] == {
        "name": "cat", "boxes": 2, "AP": pytest.approx(50.495, abs=1e-3), "AP50": pytest.approx(50.495, abs=1e-3),
        "best_score": 0.89, "best_F1": pytest.approx(66.6667), "shown_score": 0.4,
    }  # fmt: skip
    assert content["worst_images"][0] == {"image": "2.png", "missed": 1, "false": 1, "misplaced": 1}


def test_the_command_writes_the_page_and_a_copy_that_recommends(exported, data, tmp_path, capsys):
    images, annotations = data("coco/val2017_mix397"), data("coco/instances_val2017_mix397.json")
    model, copy = exported("nanodet-m-320"), tmp_path / "copy.onnx"
    words = ["--images", str(images), "--annotations", str(annotations), "--limit", "8"]
    assert main(["eval", "--model", str(model), *words, "-o", str(tmp_path), "--store-scores", str(copy)]) == 0
    printed = json.loads(capsys.readouterr().out)
    best = {row["name"]: row["best_score"] for row in printed["classes"]}
    spec, before = read_spec(copy), read_spec(model)
    assert any(score is not None for score in best.values())
    for name, score in zip(spec.class_names, spec.class_scores, strict=True):
        assert score == (before.shown_score if best[name] is None else best[name])
    assert replace(spec, class_scores=None) == before
    assert main(["eval", "--model", str(copy), *words]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["AP"] == printed["AP"]
    assert [row["shown_score"] for row in again["classes"]] == list(spec.class_scores)
    assert (tmp_path / HTML_NAME).stat().st_size > 100_000


@pytest.mark.parametrize(("option", "value"), [("-o", "file/x"), ("--store-scores", "file/x.onnx")])
def test_the_command_refuses_places_before_it_measures(exported, dataset, tmp_path, capsys, option, value):
    (tmp_path / "file").touch()
    words = ["--images", str(dataset), "--annotations", str(dataset / "a.json"), option, str(tmp_path / value)]
    assert main(["eval", "--model", str(exported("nanodet-m-320")), *words]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_a_copy_has_the_suffix_of_its_model(exported, dataset, tmp_path, capsys):
    words = ["--images", str(dataset), "--annotations", str(dataset / "a.json"), "--store-scores", str(tmp_path / "x")]
    assert main(["eval", "--model", str(exported("nanodet-m-320")), *words]) == 1
    assert "a copy of" in capsys.readouterr().err


def test_a_copy_of_an_engine_has_a_sidecar_of_its_own(tmp_path):
    sidecar = Sidecar("rtx", "1.7", ("sm75",), 1, 64 * "0", 64 * "0", SPEC, 1.0, 3, 0)
    engine, copy = write_engine(tmp_path / "m.engine", b"engine", sidecar), tmp_path / "copy.engine"
    before = Sidecar.read(engine)
    copy_with_spec(engine, copy, lambda spec: replace(spec, class_scores=(0.1,) * spec.num_classes))
    after = Sidecar.read(copy)
    assert copy.read_bytes() == engine.read_bytes()
    assert after.spec.class_scores == (0.1,) * before.spec.num_classes
    assert replace(after, spec=before.spec) == before

"""Two models side by side: matching by hand-made cases, the rest with detectors that give prepared answers."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfl_edge.cli.main import main
from gfl_edge.detections import Detections
from gfl_edge.detector import Detector, Inference
from gfl_edge.errors import AnnotationError, InputError
from gfl_edge.evaluation.agreement import Match, agree, match
from gfl_edge.evaluation.ap import METRICS, evaluate
from gfl_edge.evaluation.compare import compare, table
from gfl_edge.ops.boxes import pairwise_iou
from tests.support.tiny_spec import TINY

NAMES = TINY.class_names
BOXES = {1: [(0, 10, 20, 30, 40)], 2: [(1, 5, 5, 50, 40), (0, 60, 60, 30, 30)], 3: []}  # class, x, y, w, h


def detections(*rows):
    """From (class, x1, y1, x2, y2, score)."""
    values = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(values[:, 1:5], values[:, 5], values[:, 0].astype(np.int32), NAMES)


NOTHING = detections()


class Fake(Detector):
    """Answers with the boxes of ``BOXES``, shifted; the image number is painted into the corner pixel."""

    class Backend:
        name = "fake"

        def __init__(self, spec):
            self.spec = spec

        def describe(self):
            return {"library": "none"}

    def __init__(self, path, *, shift=0.0, score=0.9, log=None, **spec):
        path.write_bytes(bytes(100))
        self.path, self.spec = path, replace(TINY, **spec)
        self.backend = self.Backend(self.spec)
        self.shift, self.score, self.log = shift, score, log

    def __call__(self, frame):
        number = int(frame[0, 0, 0])
        if self.log is not None:
            self.log.append((self.path.stem, number))
        return detections(
            *(
                (c, x + self.shift, y + self.shift, x + w + self.shift, y + h + self.shift, self.score)
                for c, x, y, w, h in BOXES[number]
            )
        )

    def prepare(self, frames):
        return frames

    def infer(self, prepared):
        return Inference([self(frame) for frame in prepared], {}, [0])


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in BOXES:
        image = np.zeros((100, 120, 3), np.uint8)
        image[0, 0] = number
        cv2.imwrite(str(folder / f"{number}.png"), image)
    rows = [(image, row) for image, rows in BOXES.items() for row in rows]
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 120, "height": 100} for i in BOXES],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {"id": n, "image_id": i, "category_id": (3, 7)[c], "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for n, (i, (c, *box)) in enumerate(rows, 1)
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    return folder


def run(tmp_path, a=None, b=None, annotations="a.json", **options):
    first, second = Fake(tmp_path / "a.onnx", **a or {}), Fake(tmp_path / "b.onnx", **b or {})
    path = tmp_path / annotations if annotations else None
    return compare(first, second, tmp_path / "images", path, progress=False, **options)


CAT = (0, 0, 0, 10, 10, 0.9)


def shifted(by, score=0.9, class_id=0):
    return (class_id, by, 0, 10 + by, 10, score)


@pytest.mark.parametrize(
    ("reference", "candidate", "expected"),
    [
        ([], [], []),
        ([CAT], [], []),
        ([], [CAT], []),
        ([CAT], [CAT], [(0, 0)]),
        ([CAT], [shifted(0, class_id=1)], []),  # the same box of another class
        ([CAT], [(0, 0, 0, 10, 20, 0.9)], [(0, 0)]),  # IoU 0.5 exactly
        ([CAT], [(0, 0, 0, 10, 20.1, 0.9)], []),
        ([CAT], [shifted(2, 0.9), shifted(1, 0.5)], [(0, 1)]),  # overlap counts, then score
        ([CAT], [shifted(1, 0.9), shifted(1, 0.5)], [(0, 0)]),
        ([CAT], [shifted(1), shifted(-1, 0.5)], [(0, 0)]),
        (
            [CAT, shifted(1, 0.8)],
            [shifted(1)],
            [(0, 0)],
        ),  # the higher score chooses first, though the other fits better
        ([CAT, shifted(1, 0.8)], [shifted(1), shifted(2)], [(0, 0), (1, 1)]),
        ([CAT, shifted(0, 0.8, 1)], [shifted(0, 0.9, 1), shifted(0, 0.8)], [(0, 1), (1, 0)]),
    ],
)
def test_matching(reference, candidate, expected):
    found = match(detections(*reference), detections(*candidate))
    assert [(pair.reference, pair.candidate) for pair in found] == expected


def test_a_match_has_its_iou():
    assert match(detections(CAT), detections((0, 0, 0, 10, 8, 0.5))) == [Match(0, 0, pytest.approx(0.8))]


@st.composite
def found_in_an_image(draw):
    corner, side = st.integers(0, 6), st.integers(1, 6)
    row = st.tuples(st.integers(0, 1), corner, corner, side, side, st.integers(0, 10))
    rows = draw(st.lists(row, max_size=8))
    rows.sort(key=lambda row: -row[5])
    return detections(*((c, x, y, x + w, y + h, score / 10) for c, x, y, w, h, score in rows))


@given(found_in_an_image(), found_in_an_image())
def test_matches_are_one_to_one_and_none_is_left_out(reference, candidate):
    pairs = match(reference, candidate)
    taken, chosen = [p.reference for p in pairs], [p.candidate for p in pairs]
    assert len(set(taken)) == len(set(chosen)) == len(pairs)
    overlaps = pairwise_iou(reference.boxes, candidate.boxes)
    alike = reference.class_ids[:, None] == candidate.class_ids[None, :]
    for pair in pairs:
        assert alike[pair.reference, pair.candidate]
        assert pair.iou == overlaps[pair.reference, pair.candidate] >= 0.5
    free = alike & (overlaps >= 0.5)
    free[taken], free[:, chosen] = False, False
    assert not free.any()


@given(st.lists(found_in_an_image(), max_size=3))
def test_what_is_compared_with_itself_agrees(images):
    found = agree([(image, image) for image in images], score=0.0)
    assert found.matched == found.reference == found.candidate == sum(map(len, images))
    assert found.f1 == (1.0 if found.matched else None)
    if found.matched:
        assert found.mean_iou == pytest.approx(1)


def test_agreement_by_hand():
    first = (detections(CAT, shifted(50, 0.4)), detections(shifted(0, 0.8)))
    second = (
        detections(CAT, shifted(50, 0.2)),
        detections((0, 0, 0, 10, 8, 0.6), shifted(0, 0.5, 1), shifted(70, 0.3)),
    )
    found = agree([(first[0], second[0]), (first[1], second[1])], score=0.3)
    assert (found.reference, found.candidate, found.matched) == (3, 4, 2)  # 0.2 is below, 0.3 is not
    assert found.of_reference == pytest.approx(2 / 3)
    assert found.of_candidate == pytest.approx(2 / 4)
    assert found.f1 == pytest.approx(4 / 7)
    assert found.mean_iou == pytest.approx((1 + 0.8) / 2)
    assert found.mean_score_difference == pytest.approx((0 + 0.2) / 2)


def test_agreement_on_nothing_is_none():
    found = agree([(NOTHING, NOTHING)])
    assert (found.of_reference, found.of_candidate, found.f1, found.mean_iou) == (None, None, None, None)
    found = agree([(detections(CAT), NOTHING)])
    assert (found.of_reference, found.of_candidate, found.f1) == (0.0, None, 0.0)


def test_a_model_with_itself(dataset, tmp_path):
    result = run(tmp_path)
    assert result.images == 3
    assert result.reference.metrics == result.candidate.metrics
    assert result.reference.metrics["AP"] == pytest.approx(100)
    assert result.agreement.f1 == 1
    assert result.agreement.mean_iou == pytest.approx(1)
    assert result.agreement.mean_score_difference == 0
    assert result.size_ratio == 1
    assert 0 < result.reference.median_ms <= result.reference.p90_ms


def test_a_worse_model(dataset, tmp_path):
    """Every box moves by 8 pixels: the IoU of those of 30 x 40 and 30 x 30 falls below 0.5."""
    result = run(tmp_path, b={"shift": 8.0, "score": 0.5, "precision": "fp16", "quantized_layers": 7})
    assert (
        result.candidate.metrics
        == evaluate(Fake(tmp_path / "c.onnx", shift=8.0), dataset, tmp_path / "a.json", progress=False).metrics
    )
    assert result.candidate.metrics["AP"] < result.reference.metrics["AP"]
    assert (result.agreement.reference, result.agreement.candidate, result.agreement.matched) == (3, 3, 1)
    assert result.agreement.mean_score_difference == pytest.approx(0.4)
    assert result.candidate.model["quantized_layers"] == 7
    assert run(tmp_path, b={"score": 0.5}, score=0.6).agreement.candidate == 0


def test_only_some_classes(dataset, tmp_path):
    result = run(tmp_path, b={"shift": 8.0}, classes=["dog"])
    moved = Fake(tmp_path / "c.onnx", shift=8.0)
    alone = evaluate(moved, dataset, tmp_path / "a.json", progress=False, classes=["dog"])
    assert result.candidate.metrics == alone.metrics
    assert (result.agreement.reference, result.agreement.candidate, result.agreement.matched) == (1, 1, 1)
    assert result.to_dict()["only_classes"] == ["dog"]
    assert run(tmp_path, annotations=None, classes=["cat"]).agreement.reference == 2
    with pytest.raises(InputError, match="no class 'owl'"):
        run(tmp_path, classes=["owl"])


def test_the_models_take_turns_and_warm_up(dataset, tmp_path):
    log = []
    run(tmp_path, {"log": log}, {"log": log})
    assert log[:6] == [("a", 1), ("b", 1)] * 3
    assert log[6:] == [("a", 1), ("b", 1), ("b", 2), ("a", 2), ("a", 3), ("b", 3)]


def test_without_annotations_ap_is_not_measured(dataset, tmp_path):
    result = run(tmp_path, annotations=None, limit=2)
    assert result.images == 2
    assert result.reference.metrics is None
    values = result.to_dict()
    assert {values["candidate"][name] for name in METRICS} == {None}
    assert json.loads(json.dumps(values)) == values
    assert "not measured" in table(result)


def test_the_table_is_aligned(dataset, tmp_path):
    lines = table(run(tmp_path, b={"shift": 8.0})).splitlines()
    column = lines[0].index("B against A")
    for line in lines[1:]:
        assert line[column - 1 : column] in ("", " ")
    cells = {line.split("  ")[0]: line.split() for line in lines}
    assert cells["size, MB"][-2:] == ["x", "1.00"]
    assert cells["AP"][1] == "100.00"
    assert float(cells["AP"][3]) < -20
    assert any(line.endswith("F1 0.333") for line in lines)


def test_a_corrupt_image_is_left_out(dataset, tmp_path):
    (dataset / "2.png").write_bytes(b"")
    result = run(tmp_path)
    assert (result.images, result.skipped) == (2, ("2.png",))
    for number in BOXES:
        (dataset / f"{number}.png").write_bytes(b"")
    with pytest.raises(InputError, match="none of the 3 images"):
        run(tmp_path, annotations=None)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("cat", "cow"), r"a\.onnx and b\.onnx differ in classes: number 1 is 'dog' in one, 'cow' in the other"),
        (("dog", "cat"), "number 0 is 'cat' in one, 'dog' in the other"),
        (("cat", "dog", "cow"), r"differ in classes: 2 \(cat \.\.\.\) and 3 \(cat \.\.\.\)"),
    ],
)
def test_models_of_other_classes_are_refused(dataset, tmp_path, names, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path, b={"class_names": names})


def test_what_cannot_be_used_is_refused(dataset, tmp_path):
    with pytest.raises(InputError, match="--limit 0"):
        run(tmp_path, limit=0)
    with pytest.raises(InputError, match=r"--score 1\.5: expected 0\.\.1"):
        run(tmp_path, score=1.5)
    with pytest.raises(AnnotationError, match="no such annotation file"):
        run(tmp_path, annotations="none.json")
    for file in dataset.iterdir():
        file.unlink()
    with pytest.raises(InputError, match="holds no images"):
        run(tmp_path, annotations=None)
    dataset.rmdir()
    with pytest.raises(InputError, match="images: no such folder of images"):
        run(tmp_path, annotations=None)
    with pytest.raises(InputError, match=r"3 missing image files: .*/1\.png; "):
        run(tmp_path)


def test_the_command(exported, data, tmp_path, capsys):
    images, annotations = data("coco/val2017_mix397"), data("coco/instances_val2017_mix397.json")
    model, other = exported("nanodet-m-320"), exported("nanodet-m-320", "fp16")
    output = tmp_path / "out" / "compare.json"
    words = ["--images", str(images), "--annotations", str(annotations), "--limit", "8", "--json", str(output)]
    assert main(["compare", str(model), str(other), *words]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert json.loads(output.read_text()) == report
    assert {"device", "versions", "command", "annotations", "latency_ratio"} <= report.keys()
    assert report["images"] == 8
    assert report["reference"]["size_bytes"] == model.stat().st_size > 1.5 * report["candidate"]["size_bytes"]
    assert report["candidate"]["model"]["precision"] == "fp16"
    assert report["agreement"]["f1"] > 0.95
    assert report["agreement"]["mean_iou"] > 0.98
    assert "B against A" in captured.err
    assert main(["eval", "--model", str(model), *words[:-2]]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert {name: alone[name] for name in METRICS} == {name: report["reference"][name] for name in METRICS}


def test_the_command_refuses_a_file_that_is_missing(tmp_path, capsys):
    assert main(["compare", str(tmp_path / "none.onnx"), "b.onnx", "--images", str(tmp_path)]) == 1
    assert "none.onnx: no such file" in capsys.readouterr().err

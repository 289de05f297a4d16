"""Whether sigmas are as large as errors: on made-up edges whose errors are known."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest

from gfl_edge.annotations.records import ImageRecord, Objects
from gfl_edge.cli.main import main
from gfl_edge.detections import Detections
from gfl_edge.errors import InputError
from gfl_edge.evaluation.uncertainty import EDGES, EdgeErrors, learned_scale, rank_correlation, reliability
from gfl_edge.report.reliability import reliability_chart
from gfl_edge.spec import read_spec, set_spec, spec_of
from tests.support.tiny_onnx import SPEC as ONNX_SPEC
from tests.support.tiny_onnx import tiny_onnx
from tests.support.tiny_spec import TINY

HW = (1000, 1000)
NAMES = ("cat", "dog")


def record(boxes: Any, labels: Any) -> ImageRecord:
    return ImageRecord(Path("a.png"), 1, Objects.of(boxes, labels))


def found(boxes: Any, sigma: Any, classes: Any = None, scores: Any = None) -> Detections:
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    count = len(boxes)
    scores = np.full(count, 0.9) if scores is None else scores
    classes = np.zeros(count) if classes is None else classes
    sigmas = np.broadcast_to(np.asarray(sigma, np.float32), (count, 4)).copy()
    return Detections(boxes, np.asarray(scores, np.float32), np.asarray(classes, np.int32), NAMES, edge_sigma=sigmas)


def collected(*images: tuple[Detections, ImageRecord], labels: tuple[int, ...] = (0, 1)) -> EdgeErrors:
    errors = EdgeErrors(labels)
    for one, truth in images:
        errors.add(one, truth, HW)
    return errors


def normal_errors(scale: tuple[float, ...], seed: int = 0, count: int = 800) -> EdgeErrors:
    """Boxes whose edges err normally, with deviations that are the sigmas times ``scale``."""
    rng = np.random.default_rng(seed)
    errors = EdgeErrors((0, 1))
    for _ in range(count // 4):
        corner = rng.uniform(100, 120, (4, 2)) + np.array([[0, 0], [400, 0], [0, 400], [400, 400]])
        true = np.concatenate((corner, corner + 300), axis=1)
        sigma = rng.uniform(0.5, 8, (4, 4))
        own = true + rng.normal(0, 1, (4, 4)) * sigma * np.array(scale)
        errors.add(found(own, sigma), record(true, [0] * 4), HW)
    return errors


def test_right_sigmas_cover_what_they_should() -> None:
    for one in normal_errors((1, 1, 1, 1)).result().by_edge.values():
        assert one.within_1_sigma == pytest.approx(68.3, abs=4)
        assert one.within_2_sigma == pytest.approx(95.4, abs=2)
        assert one.factor == pytest.approx(1, abs=0.08)
        assert one.rank_correlation is not None
        assert 0.3 < one.rank_correlation < 0.7


def test_factors_make_them_right() -> None:
    scale = (0.5, 1, 2, 3)
    spec = dataclasses.replace(TINY, edge_sigma=True, sigma_scale=(1, 1, 10, 1))
    learned = learned_scale(normal_errors(scale).result(), spec)
    np.testing.assert_allclose(learned, np.array(scale) * (1, 1, 10, 1), rtol=0.09)
    again = EdgeErrors((0, 1))
    again._rows = [row * np.array([learned, np.ones(4), np.ones(4)]) for row in normal_errors(scale, 1).rows()]
    for name, own in zip(EDGES, (1, 1, 10, 1), strict=True):
        factor = again.result().by_edge[name].factor
        assert factor is not None
        assert factor * own == pytest.approx(1, abs=0.15)


def test_one_edge_by_hand() -> None:
    errors = collected((found([[102, 103, 299, 304]], [2, 2, 2, 2]), record([[100, 100, 300, 300]], [0])))
    result = errors.result()
    assert result.boxes == 1
    assert [result.by_edge[name].within_1_sigma for name in EDGES] == [100, 0, 100, 0]
    assert [result.by_edge[name].within_2_sigma for name in EDGES] == [100, 100, 100, 100]
    assert [result.by_edge[name].factor for name in EDGES] == [1, 1.5, 0.5, 2]
    assert result.by_edge["all"].edges == 4
    assert [one.edges for one in result.bins] == [1, 1, 1, 1]
    assert json.loads(json.dumps(result.to_dict()))["edges"]["top"]["factor"] == 1.5


@pytest.mark.parametrize(
    ("detection", "truth", "why"),
    [
        (found([[100, 100, 300, 300]], 1, classes=[1]), record([[100, 100, 300, 300]], [0]), "another class"),
        (found([[100, 100, 300, 300]], 1, scores=[0.29]), record([[100, 100, 300, 300]], [0]), "a low score"),
        (found([[100, 100, 300, 300]], 1), record([[100, 100, 200, 200]], [0]), "an IoU of 0.25"),
        (found([[100, 100, 300, 300]], 1), record([[100, 100, 300, 300]], [-1]), "a class that the model lacks"),
        (found([], 1), record([[100, 100, 300, 300]], [0]), "nothing found"),
        (found([[100, 100, 300, 300]], 1), record([], []), "nothing there"),
    ],
)
def test_what_is_no_match(detection: Detections, truth: ImageRecord, why: str) -> None:
    result = collected((detection, truth)).result()
    assert (result.boxes, result.by_edge["all"].edges, result.bins) == (0, 0, ()), why
    assert result.by_edge["all"].within_1_sigma is None


def test_labels_are_those_of_the_file() -> None:
    """Class 0 of the model is label 5 there, and others are left out."""
    truth = record([[100, 100, 300, 300], [400, 400, 600, 600]], [5, 0])
    both = found([[100, 100, 300, 300], [400, 400, 600, 600]], 1)
    assert collected((both, truth), labels=(5, 7)).result().boxes == 1


def test_edges_at_the_border_do_not_count() -> None:
    """Either one: there both are cut off."""
    detection = found([[0, 0.5, 900, 1000]], 1)
    result = collected((detection, record([[5, 40, 890, 1000]], [0]))).result()
    assert [result.by_edge[name].edges for name in EDGES] == [0, 0, 1, 0]


def test_the_best_is_matched_and_no_other() -> None:
    boxes = [[100, 100, 300, 300], [101, 100, 300, 300]]
    result = collected((found(boxes, 1, scores=[0.9, 0.8]), record([[101, 100, 300, 300]], [0]))).result()
    assert result.boxes == 1
    assert result.by_edge["left"].factor == 1


def test_rank_correlation_is_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for levels in (3, 20, 10**6):
        a, b = rng.integers(0, levels, (2, 200)).astype(float)
        assert rank_correlation(a, a + b) == pytest.approx(stats.spearmanr(a, a + b).statistic, abs=1e-12)


def test_rank_correlation_by_hand() -> None:
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([10.0, 100, 1000])) == pytest.approx(1)
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == pytest.approx(-1)
    assert rank_correlation(np.array([1.0, 1, 2]), np.array([1.0, 2, 3])) == pytest.approx(np.sqrt(0.75))
    assert rank_correlation(np.array([1.0, 1]), np.array([1.0, 2])) is None
    assert rank_correlation(np.zeros(1), np.zeros(1)) is None


def test_sure_edges() -> None:
    """A sigma of 0 is right where the error is, too; where it is not, no factor helps."""
    zeros, sides = np.zeros(4), np.full(4, 10.0)
    assert reliability(zeros, zeros, sides).within_1_sigma == 100
    wrong = reliability(zeros, np.ones(4), sides)
    assert (wrong.within_2_sigma, wrong.factor, wrong.rank_correlation) == (0, None, None)


def test_too_few_edges_to_learn_from() -> None:
    spec = dataclasses.replace(TINY, edge_sigma=True)
    with pytest.raises(InputError, match=r"^80 left edges were matched .*: expected 100 or more"):
        learned_scale(normal_errors((1, 1, 1, 1), count=80).result(), spec)


def test_the_chart() -> None:
    pytest.importorskip("matplotlib")
    chart = reliability_chart({"a": normal_errors((1, 1, 1, 1)).result(), "none": EdgeErrors((0,)).result()})
    assert chart == reliability_chart({"a": normal_errors((1, 1, 1, 1)).result(), "none": EdgeErrors((0,)).result()})
    assert b"as large as sigma" in chart
    assert b">none<" not in chart
    assert reliability_chart({}).startswith(b"<?xml")


class TestCommand:
    @pytest.fixture
    def files(self, tmp_path: Path) -> Path:
        """Images in which the tiny model finds something, annotated with boxes nearby."""
        spec = dataclasses.replace(ONNX_SPEC, edge_sigma=True, sigma_scale=(2, 2, 2, 2))
        onnx.save(tiny_onnx("graph", spec), tmp_path / "m.onnx")
        rng = np.random.default_rng(0)
        images, annotations = [], []
        for number in range(1, 241):
            cv2.imwrite(str(tmp_path / f"{number}.png"), rng.integers(0, 256, (64, 64, 3), np.uint8))
            images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 64})
            for category in (1, 2):
                box = [*rng.uniform(14, 18, 2).tolist(), *rng.uniform(28, 34, 2).tolist()]
                row = {"id": 2 * number + category, "image_id": number, "category_id": category, "bbox": box}
                annotations.append({**row, "area": box[2] * box[3], "iscrowd": 0})
        categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (tmp_path / "a.json").write_text(json.dumps(content))
        return tmp_path

    def words(self, files: Path, model: str, *more: str) -> list[str]:
        return [
            "eval",
            "--model",
            str(files / model),
            "--images",
            str(files),
            "--annotations",
            str(files / "a.json"),
            *more,
        ]

    def test_reported_drawn_and_stored(self, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("matplotlib")
        output, chart = files / "out.onnx", files / "chart.svg"
        more = ("--store-sigma-scale", str(output), "--reliability-chart", str(chart))
        assert main(self.words(files, "m.onnx", *more)) == 0
        said = capsys.readouterr()
        found = json.loads(said.out)["uncertainty"]
        assert (found["score"], found["iou"]) == (0.3, 0.5)
        assert found["boxes"] >= 100
        assert f"{output}: sigma_scale " in said.err
        assert chart.read_bytes().startswith(b"<?xml")
        stored, before = read_spec(output), read_spec(files / "m.onnx")
        assert dataclasses.replace(stored, sigma_scale=before.sigma_scale) == before
        expected = [2 * found["edges"][name]["factor"] for name in EDGES]
        np.testing.assert_allclose(stored.sigma_scale, expected, rtol=1e-3)
        graphs = [onnx.load(path).graph.SerializeToString() for path in (output, files / "m.onnx")]
        assert graphs[0] == graphs[1]
        assert main(self.words(files, "out.onnx")) == 0
        again = json.loads(capsys.readouterr().out)["uncertainty"]
        for name in EDGES:
            assert again["edges"][name]["within_1_sigma"] == pytest.approx(68.3, abs=2)

    @pytest.mark.parametrize("option", ["--store-sigma-scale", "--reliability-chart"])
    def test_a_model_without_sigmas(self, files: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
        onnx.save(tiny_onnx("none"), files / "plain.onnx")
        assert main(self.words(files, "plain.onnx", option, str(files / "out.onnx"))) == 1
        said = capsys.readouterr().err
        assert f"{option}: tiny does not give standard deviations of edges. Export it with: python exp" in said
        assert main(self.words(files, "plain.onnx")) == 0
        assert "uncertainty" not in json.loads(capsys.readouterr().out)

    def test_factors_go_into_a_file_of_the_same_kind(self, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(self.words(files, "m.onnx", "--store-sigma-scale", str(files / "out.engine"))) == 1
        assert "a copy of m.onnx is called *.onnx, too" in capsys.readouterr().err

    def test_factors_and_scores_go_into_one_file(self, files: Path) -> None:
        output = files / "both.onnx"
        assert main(self.words(files, "m.onnx", "--store-scores", str(output), "--store-sigma-scale", str(output))) == 0
        stored = read_spec(output)
        assert stored.sigma_scale != (2, 2, 2, 2)
        assert stored.class_scores is not None

    def test_too_few_images(self, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(self.words(files, "m.onnx", "--limit", "3", "--store-sigma-scale", str(files / "out.onnx"))) == 1
        said = capsys.readouterr()
        assert "expected 100 or more to learn sigma_scale from" in said.err
        assert json.loads(said.out)["images"] == 3, "what was measured is not lost"
        assert not (files / "out.onnx").exists()


def test_other_metadata_stay() -> None:
    model = tiny_onnx("none")
    model.metadata_props.add(key="gfl_edge_calibration", value="{}")
    set_spec(model, dataclasses.replace(spec_of(model, "a"), sigma_scale=(1, 2, 3, 4)))
    assert spec_of(model, "a").sigma_scale == (1, 2, 3, 4)
    assert [prop.value for prop in model.metadata_props if prop.key == "gfl_edge_calibration"] == ["{}"]

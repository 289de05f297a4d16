"""Standard deviations of edges in everything that is drawn and written, and the filter that asks for them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfl_edge import Detector, run_camera
from gfl_edge.cli.main import main
from gfl_edge.detections import Detections
from gfl_edge.errors import InputError
from gfl_edge.evaluation.ap import as_coco, average_precision, coco_results
from gfl_edge.filters import DetectionFilter
from gfl_edge.media.annotate import JOURNAL, detect_images
from gfl_edge.media.images import read_image, write_image
from tests.support.own_backend import Candidates, Unsure
from tests.support.tiny_spec import TINY

HEIGHT, WIDTH = TINY.input_hw
SIGMA = [4.0, 4.0, 6.0, 8.0]  # of frames of twice the input's size


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        write_image(folder / name, np.full((2 * HEIGHT, 2 * WIDTH, 3), 90, np.uint8))
    return folder


def test_files_of_results(images: Path, tmp_path: Path) -> None:
    found = detect_images(
        Detector(Unsure()), [images], output_dir=tmp_path, copies=False, formats=("coco", "csv", "jsonl")
    )
    assert found.to_dict()["pictures"][0]["detections"][0]["edge_sigma_px"] == SIGMA
    lines = [json.loads(line) for line in (tmp_path / "detections.jsonl").read_text().splitlines()]
    assert [line["detections"][0]["edge_sigma_px"] for line in lines] == [SIGMA] * 2
    (first, _) = list(csv.DictReader((tmp_path / "detections.csv").open()))
    assert [first[f"sigma_{edge}"] for edge in ("left", "top", "right", "bottom")] == ["4", "4", "6", "8"]
    assert json.loads((tmp_path / "coco-results.json").read_text())[0]["edge_sigma"] == SIGMA
    assert json.loads((tmp_path / "coco.json").read_text())["annotations"][1]["edge_sigma"] == SIGMA


def test_without_sigmas_nothing_is_added(images: Path, tmp_path: Path) -> None:
    detect_images(Detector(Candidates()), [images], output_dir=tmp_path, copies=False, formats=("coco", "csv", "jsonl"))
    for name in ("coco.json", "coco-results.json", "detections.csv", "detections.jsonl"):
        assert "sigma" not in (tmp_path / name).read_text()


def test_a_run_that_goes_on_keeps_them(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in the journal is as good as what is detected."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    def detect() -> None:
        detect_images(Detector(Unsure()), [images], output_dir=tmp_path, copies=False, formats=("jsonl",))

    monkeypatch.setattr("gfl_edge.media.annotate.write_results", stop)
    with pytest.raises(KeyboardInterrupt):
        detect()
    assert (tmp_path / JOURNAL).exists()
    monkeypatch.undo()
    monkeypatch.setattr(Unsure, "run", stop)
    detect()
    lines = [json.loads(line) for line in (tmp_path / "detections.jsonl").read_text().splitlines()]
    assert [line["detections"][0]["edge_sigma_px"] for line in lines] == [SIGMA] * 2


@pytest.mark.parametrize("evaluator", ["pycocotools", "faster-coco-eval"])
def test_evaluators_read_results_with_them(evaluator: Any) -> None:
    found = Detections(
        *(np.float32([[10, 10, 50, 50]]), np.float32([0.9]), np.int32([0])), ("a",), edge_sigma=np.float32([SIGMA])
    )
    row = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 40], "area": 1600, "iscrowd": 0}
    content = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "a"}], "annotations": [row]}
    metrics = average_precision(as_coco(content), coco_results(found, 1, (1,)), [1], evaluator)
    assert metrics["AP"] == pytest.approx(100)


def test_lines_of_a_camera(images: Path, tmp_path: Path) -> None:
    run_camera(Detector(Unsure()), images, show=False, json_lines=tmp_path / "lines.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert [line["detections"][0]["edge_sigma_px"] for line in lines] == [SIGMA] * 2


def shaded(image: np.ndarray) -> list[bool]:
    """Just inside and outside of the right edge, which lies in the middle, and beyond its band."""
    row, middle = image[HEIGHT], WIDTH
    return [bool((row[middle + move] != 90).any()) for move in (-8, -4, 4, 8)]


@pytest.mark.parametrize("draw_sigma", [False, True])
def test_drawn_where_it_is_asked_for(images: Path, tmp_path: Path, draw_sigma: bool) -> None:
    detect_images(Detector(Unsure()), [images], output_dir=tmp_path, draw_sigma=draw_sigma)
    assert shaded(read_image(tmp_path / "a.png")) == [False, draw_sigma, draw_sigma, False]


def test_drawn_in_a_video(images: Path, tmp_path: Path) -> None:
    drawn: list[np.ndarray] = []
    run_camera(
        Detector(Unsure()),
        images,
        show=False,
        output=tmp_path / "out.avi",
        draw_sigma=True,
        on_frame=lambda frame, _: drawn.append(frame.image),
    )
    assert len(drawn) == 2
    assert not any(shaded(drawn[0])), "the frame itself stays as it was"


@pytest.mark.parametrize("options", [{"draw_sigma": True}, {"keep": DetectionFilter(max_edge_sigma=3)}])
def test_a_model_without_sigmas_is_refused(images: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    message = r"_sigma: tiny does not give standard deviations of edges\. Export it with: python export/to_onnx.py"
    with pytest.raises(InputError, match=message):
        detect_images(Detector(Candidates()), [images], output_dir=tmp_path, **options)
    with pytest.raises(InputError, match=message):
        run_camera(Detector(Candidates()), images, show=False, **options)


@pytest.mark.parametrize(("most", "count"), [(8, 1), (7.9, 0), (0, 0), (1e5, 1), (None, 1)])
def test_the_filter_looks_at_the_most_unsure_edge(images: Path, tmp_path: Path, most: float | None, count: int) -> None:
    keep = DetectionFilter(max_edge_sigma=most)
    found = detect_images(Detector(Unsure()), [images], output_dir=tmp_path, keep=keep)
    assert [len(one.detections) for one in found.images] == [count] * 2


@pytest.mark.parametrize("most", [-1, float("nan"), 2e6, "8", True])
def test_what_cannot_be_meant(most: Any) -> None:
    with pytest.raises(InputError, match="max_edge_sigma"):
        DetectionFilter(max_edge_sigma=most)


def test_detections_without_sigmas_are_no_match_for_it() -> None:
    found = Detections(np.zeros((1, 4), np.float32), np.float32([0.9]), np.int32([0]), ("a",))
    with pytest.raises(InputError, match="max_edge_sigma is about edge_sigma, which these detections do not have"):
        DetectionFilter(max_edge_sigma=3).apply(found)


@pytest.mark.parametrize("option", ["--draw-sigma", "--max-edge-sigma=5"])
def test_the_commands(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    """Of the bundled detector, which was exported without."""
    assert main(["detect", option, "-o", str(tmp_path / "out"), str(images)]) == 1
    assert "does not give standard deviations of edges" in capsys.readouterr().err
    assert main(["camera", "--headless", "--source", str(images), option]) == 1
    assert "does not give standard deviations of edges" in capsys.readouterr().err

"""The bundled detector: there, small, and taken wherever no model is named."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

import gfl_edge
from gfl_edge.cli import main as cli
from gfl_edge.detector import Detector
from gfl_edge.errors import ModelFileError
from gfl_edge.evaluation.ap import evaluate
from gfl_edge.files import sha256
from gfl_edge.spec import read_spec
from gfl_edge.zoo import bundled
from gfl_edge.zoo.bundled import bundled_model

CHECKOUT = Path(__file__).resolve().parents[3]
MAX_BYTES = 8_000_000
RECORD = CHECKOUT / "benchmarks" / "results" / "bundled.json"


@pytest.fixture
def street(tmp_path):
    """An image of nothing."""
    path = tmp_path / "street.png"
    assert cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8))
    return path


@pytest.fixture
def clip(tmp_path):
    """A video of five frames."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (160, 128))
    for level in range(5):
        writer.write(np.full((128, 160, 3), 40 * level, np.uint8))
    writer.release()
    return path


def test_what_it_is():
    spec = read_spec(bundled_model())
    assert (spec.name, spec.family, spec.num_classes, spec.precision) == ("coco-448", "nanodet-g", 80, "fp16")
    assert (spec.input_hw, spec.resize, spec.nms, spec.quantized_layers) == ((448, 448), "letterbox", "graph", 0)
    assert (spec.class_names[0], spec.class_names[-1]) == ("person", "toothbrush")
    assert bundled_model().stat().st_size <= MAX_BYTES
    onnx.checker.check_model(onnx.load(bundled_model()), full_check=True)


@pytest.mark.parametrize("nms", ["host", "graph"])
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_it_runs_in_every_cpu_backend(backend, nms, street):
    """In the lowest versions that pyproject.toml promises, too: ``make floors``."""
    pytest.importorskip(backend)
    with Detector(backend=backend, nms=nms) as detector:
        assert detector(cv2.imread(str(street))).scores.dtype == np.float32


def test_it_is_in_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("gfl_edge/zoo/models/coco-448.onnx") == bundled_model().read_bytes()


def test_it_is_the_one_that_was_measured():
    record = json.loads(RECORD.read_text())
    assert record["model"]["sha256"] == sha256(bundled_model())
    assert record["held_out"]["best"]["score"] == pytest.approx(read_spec(bundled_model()).recommended_score, abs=0.05)


def test_an_installation_without_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(bundled, "__file__", str(tmp_path / "bundled.py"))
    with pytest.raises(ModelFileError, match=r"coco-448\.onnx: this installation of gfl_edge lacks"):
        Detector()


def test_a_detector_of_nothing_named():
    with Detector() as detector:
        assert detector.path == bundled_model()
        assert len(detector(np.zeros((240, 320, 3), np.uint8)).above(0.35)) == 0


def test_the_camera_of_nothing_named(clip):
    assert gfl_edge.run_camera(source=clip, show=False).frames == 5


class TestCommands:
    """gfl-edge without --model."""

    def test_camera(self, clip, tmp_path, capsys):
        words = ["camera", "--source", str(clip), "--headless", "--output", str(tmp_path / "out.mp4")]
        assert cli.main(words) == 0
        captured = capsys.readouterr()
        assert "no model named: taking coco-448" in captured.err
        assert json.loads(captured.out)["frames"] == 5

    def test_detect(self, street, tmp_path, capsys):
        assert cli.main(["detect", str(street), "-o", str(tmp_path / "out")]) == 0
        assert len(json.loads(capsys.readouterr().out)["pictures"]) == 1

    @pytest.mark.usefixtures("short_turns")
    def test_bench(self, tmp_path, capsys):
        assert cli.main(["bench", "--seconds", "0.02", "-o", str(tmp_path / "report")]) == 0
        report = json.loads((tmp_path / "report" / "report.json").read_text())
        assert [model["name"] for model in report["models"]] == ["coco-448"]

    def test_models_name_it(self, capsys):
        assert cli.main(["models"]) == 0
        assert "coco-448, the bundled detector (80 classes of COCO, 448x448" in capsys.readouterr().out

    def test_build(self, tmp_path, capsys, no_gpu):
        pytest.importorskip("tensorrt_rtx")
        assert cli.main(["build", "--target", "sm75", "-o", str(tmp_path)]) == 0
        captured = capsys.readouterr()
        assert captured.out.strip() == f"{tmp_path}/coco-448-fp16-rtx-sm75.engine"
        assert Path(f"{captured.out.strip()}.json").is_file()
        assert f"next, on a GPU of sm75: gfl-edge camera --model {captured.out.strip()}" in captured.err

    def test_build_refuses_before_it_reads(self, capsys):
        with pytest.raises(SystemExit):
            cli.main(["build", "--model", "none.onnx", "--max-batch", "0"])
        assert "argument --max-batch: '0': expected a whole number, 1..65536" in capsys.readouterr().err

    def test_build_of_a_file_that_is_not_there(self, capsys, no_gpu):
        pytest.importorskip("tensorrt_rtx")
        assert cli.main(["build", "--model", "none.onnx"]) == 1
        assert "none.onnx: no such file" in capsys.readouterr().err


def test_persons_are_found(data):
    """In an image of coco128 that shows one, by other people's annotations."""
    content = json.loads(data("coco128/annotations/instances_train2017.json").read_text())
    images = {image["id"]: image for image in content["images"]}
    large = [
        row for row in content["annotations"] if row["category_id"] == 1 and not row["iscrowd"] and row["area"] > 30_000
    ]
    found = 0
    with Detector() as detector:
        for row in large:
            frame = cv2.imread(str(data("coco128/train2017") / images[row["image_id"]]["file_name"]))
            x, y, w, h = row["bbox"]
            for (x1, y1, x2, y2), _, name in detector(frame).above(detector.spec.shown_score):
                inter = max(0, min(x2, x + w) - max(x1, x)) * max(0, min(y2, y + h) - max(y1, y))
                if name == "person" and inter / ((x2 - x1) * (y2 - y1) + w * h - inter) > 0.5:
                    found += 1
                    break
    assert len(large) > 10
    assert found / len(large) > 0.7


@pytest.mark.slow
def test_its_ap_is_that_of_its_card(data):
    record = json.loads(RECORD.read_text())
    with Detector(backend="openvino") as detector:
        images, annotations = data("coco/val2017_mix397"), data("coco/instances_val2017_mix397.json")
        result = evaluate(detector, images, annotations, progress=False)
    expected = record["reported"]["all"]
    assert [result.metrics[name] for name in ("AP", "AP50")] == pytest.approx(
        [expected["AP"], expected["AP50"]], abs=0.2
    )

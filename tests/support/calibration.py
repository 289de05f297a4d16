"""A small detector that can be made INT8, images to do it on, and the fixtures that make it once a session."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.support.once import once

if TYPE_CHECKING:
    from calib.arguments import CalibrationRequest
    from calib.run import Calibrated
    from gfl_edge.spec import ExportedNms, Precision

NAMES = ("a", "b", "c")
IMAGES = 16  # as few as calibration takes


def write_images(folder: Path, count: int = IMAGES, seed: int = 0) -> Path:
    """Images of rectangles."""
    import cv2

    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        image = np.full((48, 80, 3), rng.integers(0, 255, 3), np.uint8)
        for _ in range(4):
            x, y = (int(v) for v in rng.integers(0, 60, 2))
            cv2.rectangle(image, (x, y), (x + 18, y + 14), rng.integers(0, 255, 3).tolist(), -1)
        cv2.imwrite(str(folder / f"{i:03}.png"), image)
    return folder


def make_detector() -> Any:
    """A small network with random weights that answers, some of its channels much wider than others."""
    import torch
    from torch import nn

    from train.models.gfl import GFL, GFLConfig

    torch.manual_seed(0)
    config = GFLConfig(
        depth=18, base_channels=8, neck="pan", strides=(8, 16, 32), neck_channels=16, head_channels=16,
        stacked_convs=1, num_groups=4, num_classes=3, reg_max=7,
    )  # fmt: skip
    detector = GFL(config).eval()
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            if "gfl_cls.weight" in name or "gfl_reg.weight" in name:
                nn.init.normal_(parameter, std=0.3)
            if "bn1.weight" in name:
                parameter *= torch.logspace(-1, 1, len(parameter))
            if "bn2.weight" in name:
                nn.init.normal_(parameter, std=0.5)
    return detector


def write_model(path: Path, precision: Precision, nms: ExportedNms = "graph") -> None:
    """Its ONNX file."""
    from export import graph
    from train import describe

    detector = make_detector()
    spec = describe.describe(detector, input_hw=(64, 96), class_names=NAMES)
    spec = dataclasses.replace(spec, nms=nms, precision=precision, score_threshold=0.05)
    path.write_bytes(graph.build_graph(detector, spec).SerializeToString())


@pytest.fixture(scope="session")
def calib_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calib")


@pytest.fixture(scope="session")
def calib_images(calib_folder: Path) -> Path:
    return write_images(calib_folder / "images")


@pytest.fixture(scope="session")
def float_onnx(shared: Path) -> Path:
    return once(shared / "calib-tiny.onnx", lambda path: write_model(path, "fp32"))


@pytest.fixture(scope="session")
def half_onnx(shared: Path) -> Path:
    return once(shared / "calib-tiny16.onnx", lambda path: write_model(path, "fp16"))


@pytest.fixture(scope="session")
def annotations(calib_folder: Path, float_onnx: Path, calib_images: Path) -> Path:
    """What the float model finds, as if it were the truth: its own AP is 100."""
    import cv2

    from gfl_edge.detector import Detector

    images, boxes = [], []
    with Detector(float_onnx, "onnxruntime") as detector:
        for i, path in enumerate(sorted(calib_images.iterdir())):
            images.append({"id": i, "file_name": path.name, "height": 48, "width": 80})
            found = detector(cv2.imread(str(path)))
            for (x1, y1, x2, y2), class_id in list(zip(found.boxes.tolist(), found.class_ids.tolist(), strict=True))[
                :10
            ]:
                box = [x1, y1, x2 - x1, y2 - y1]
                boxes.append({"id": len(boxes) + 1, "image_id": i, "category_id": class_id + 1, "bbox": box,
                              "area": box[2] * box[3], "iscrowd": 0})  # fmt: skip
    assert len(boxes) > 50
    path = calib_folder / "truth.json"
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)]
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    return path


@pytest.fixture(scope="session")
def calibrated(calib_folder: Path, half_onnx: Path, calib_images: Path) -> tuple[Calibrated, CalibrationRequest]:
    """The half model in INT8, and its request."""
    from calib.arguments import CalibrationRequest
    from calib.run import calibrate

    output = calib_folder / "tiny.int8.onnx"
    request = CalibrationRequest(half_onnx, calib_images, output, num_images=IMAGES, probe_images=2)
    return calibrate(request), request

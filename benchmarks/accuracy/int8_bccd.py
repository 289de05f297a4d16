"""INT8 of a detector of one's own, of blood cells: calibrated on its training list, tested on the others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.accuracy.int8 import RECORDED
from benchmarks.training.training import bccd_list, read_shipped, train_seconds
from calib.arguments import CalibrationOptions
from export.engine import EngineRequest
from export.engine import build as build_engine
from gfl_edge.detector import Detector
from gfl_edge.evaluation.compare import compare
from train.checkpoint import BEST


def measure(folder: Path) -> dict[str, Any]:
    """What INT8 costs it; a detector that ``folder`` holds already is not trained again."""
    config = read_shipped("bccd_nanodet_m", folder)
    best = config.train.output / BEST
    if not best.is_file():
        train_seconds(config)
    training_json, images = bccd_list(config, "train", folder)
    calibration = folder / "bccd_train"
    calibration.mkdir(exist_ok=True)
    for image in json.loads(training_json.read_text())["images"]:
        (calibration / image["file_name"]).unlink(missing_ok=True)
        (calibration / image["file_name"]).symlink_to(images / image["file_name"])
    validation, _ = bccd_list(config, "val", folder)
    request = EngineRequest(best, "int8", folder / "bccd", ("sm75",), "rtx", calib_images=calibration)
    options = CalibrationOptions(annotations=validation, eval_images=images)
    built = build_engine(replace(request, calibration=options))
    test, _ = bccd_list(config, "test", folder)
    with Detector(built.float_onnx, "onnxruntime") as half, Detector(built.onnx, "onnxruntime") as int8:
        found = compare(half, int8, images, test)
    assert built.calibration is not None
    record = built.calibration.to_dict()
    return {
        "validation": record["measured"],
        "test_before": found.reference.metrics,
        "test": found.candidate.metrics,
        "agreement_f1": found.agreement.f1,
        **{key: record[key] for key in RECORDED},
        "bytes": built.onnx.stat().st_size,
        "bytes_before": built.float_onnx.stat().st_size,
        "engine_bytes": built.engine.stat().st_size,
    }

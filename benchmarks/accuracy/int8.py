"""INT8: what it costs in AP, what it saves, and the engines that come of it; calibrated on coco128 only.

Which layers stay float is chosen on images that AP is not reported on.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.accuracy import processors
from benchmarks.artifacts.engines import TARGETS, build
from benchmarks.artifacts.gfl_engines import random_weights
from benchmarks.kept import kept
from benchmarks.models import ANNOTATIONS, IMAGES, export
from calib.arguments import CalibrationRequest, Target
from calib.candidates import PRECISION_FOR
from calib.gauge import MEASURED_ON, Gauge
from calib.record import CalibrationRecord, QuantizedAccuracy
from calib.run import calibrate
from export.arguments import ExportRequest
from export.to_onnx import export_onnx
from gfl_edge.detector import Detector
from gfl_edge.evaluation.compare import compare
from gfl_edge.evaluation.truth import read_truth
from gfl_edge.files import sha256
from gfl_edge.spec import load_onnx
from train.weights.find import data_folder

logger = logging.getLogger(__name__)

CALIBRATION = "coco128/train2017"
CHOICE, CHOICE_IMAGES = "coco_train971/instances_train971.json", "coco_train971/images"
PUBLISHED = ("nanodet-plus-m-416", "nanodet-m-416", "nanodet-g-416")
GFL = ("gfl-r50-1x", "gfl-r101-dcn-2x", "gfl-x101-dcn-2x")
GFL_IMAGES = 16  # of 800x1344, since their weights are random anyway
TIMED_IMAGES = 100
RECORDED = ("method", "snr_db", "calibration_images", "quantized", "convolutions", "float_layers")


def measure(folder: Path) -> dict[str, Any]:
    """AP, sizes and CPU times of the published models, and INT8 engines; ``folder`` takes the files.

    INT8 files of an earlier run that are there already are not made again, nor is their AP measured.
    """
    data = data_folder()
    models: dict[str, Any] = {}
    for name in PUBLISHED:
        models[name] = {}
        for target in ("trt", "cpu"):
            models[name][target] = kept(
                folder / f"{name}-{target}.json", partial(published, name, target, folder, data)
            )
        onnx = folder / f"{name}-trt.int8.onnx"
        models[name]["engines"] = [build(onnx, "int8", sm, folder).row(name) for sm in TARGETS]
        models[name]["on this CPU"] = _cpu_times(name, folder, data)
        models[name]["processors"] = processors.measure(folder / f"{name}-cpu.int8.onnx", data / CALIBRATION)
    return {
        "annotations": ANNOTATIONS,
        "calibrated_on": CALIBRATION,
        "chosen_on": CHOICE,
        "models": models,
        "gfl": {"weights": "random", "rows": [row for name in GFL for row in _gfl(name, folder, data)]},
    }


def published(name: str, target: Target, folder: Path, data: Path) -> dict[str, Any]:
    """A published model in INT8: AP, size and what stays float. It is made unless it is there."""
    return quantized(source(name, target, folder), target, folder / f"{name}-{target}.int8.onnx", data)


def quantized(float_model: Path, target: Target, output: Path, data: Path) -> dict[str, Any]:
    """A model in INT8: AP, size and what stays float. It is made unless it is there."""
    request = CalibrationRequest(
        float_model,
        data / CALIBRATION,
        output,
        target=target,
        annotations=data / CHOICE,
        eval_images=data / CHOICE_IMAGES,
        on_bad="drop",
    )
    start, found_there = time.perf_counter(), request.output.is_file()
    record = _calibrated(request)
    seconds = None if found_there else round(time.perf_counter() - start, 1)
    return {
        "chosen_by": record["measured"],
        "measured": asdict(held_out(float_model, request.output, target, data)),
        "calibration_seconds": seconds,
        "int8_share": round(record["quantized"] / record["convolutions"], 3),
        **{key: record[key] for key in RECORDED},
        "bytes": request.output.stat().st_size,
        "bytes_before": float_model.stat().st_size,
    }


def held_out(before: Path, after: Path, target: Target, data: Path) -> QuantizedAccuracy:
    """What INT8 costs on images that nothing was chosen on."""
    gauge = Gauge(read_truth(data / ANNOTATIONS, data / IMAGES), MEASURED_ON[target], 0.0)
    reference, found = (gauge.measure(load_onnx(path)) for path in (before, after))
    return gauge.comparison(found, reference)


def source(name: str, target: Target, folder: Path) -> Path:
    """The float model, exported unless it is there."""
    path = folder / f"{name}-{target}.onnx"
    return path if path.is_file() else export(name, folder, PRECISION_FOR[target]).replace(path)


def _calibrated(request: CalibrationRequest) -> dict[str, Any]:
    """The record of an INT8 model, which is made unless it is there."""
    if request.output.is_file():
        metadata = {prop.key: prop.value for prop in load_onnx(request.output).metadata_props}
        record = CalibrationRecord.from_metadata(metadata)
        if record.model_sha256 == sha256(request.onnx):
            return record.to_dict()
    logger.info("== %s", request.output.name)
    return calibrate(request).record.to_dict()


def _cpu_times(name: str, folder: Path, data: Path) -> dict[str, Any]:
    """Milliseconds per frame in OpenVINO, float32 and INT8 in turn."""
    with Detector(source(name, "cpu", folder)) as before, Detector(folder / f"{name}-cpu.int8.onnx") as after:
        found = compare(before, after, data / IMAGES, limit=TIMED_IMAGES)
    return {
        "backend": found.candidate.backend["name"],
        "images": found.images,
        "fp32_median_ms": round(found.reference.median_ms, 3),
        "int8_median_ms": round(found.candidate.median_ms, 3),
        "int8_over_fp32": round(found.candidate.median_ms / found.reference.median_ms, 3),
    }


def _gfl(name: str, folder: Path, data: Path) -> list[dict[str, Any]]:
    onnx = folder / f"{name}.onnx"
    if not onnx.is_file():
        logger.info("== %s", name)
        export_onnx(ExportRequest(random_weights(name, folder), precision="fp16"), onnx)
    request = CalibrationRequest(onnx, data / CALIBRATION, folder / f"{name}.int8.onnx", num_images=GFL_IMAGES)
    _calibrated(replace(request, method="entropy", probe_images=1))
    rows = []
    for sm in TARGETS:
        built = build(request.output, "int8", sm, folder)
        rows.append(built.row(name))
        built.result.engine.unlink()  # 100 MB and more each
    return rows

"""Are sigmas of edges as large as their errors, with and without learned factors, and what do they cost on a CPU?"""

from __future__ import annotations

import gc
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models import ANNOTATIONS, IMAGES
from export.arguments import ExportRequest
from export.to_onnx import export_onnx
from gfl_edge.annotations.records import Annotations
from gfl_edge.backends.base import Backend
from gfl_edge.backends.select import CpuBackendName, open_onnx_backend
from gfl_edge.detector import Detector
from gfl_edge.evaluation.ap import Frames, infer_frames
from gfl_edge.evaluation.truth import match_categories, read_truth
from gfl_edge.evaluation.uncertainty import (
    EdgeErrors,
    Reals,
    Uncertainty,
    learned_scale,
    rank_correlation,
)
from gfl_edge.media.images import read_image
from gfl_edge.progress import track
from gfl_edge.report.reliability import reliability_chart
from gfl_edge.spec import ModelSpec, load_contract
from train.weights.find import CHECKPOINTS, data_folder

MODELS = ("nanodet-plus-m-416", "nanodet-m-416", "nanodet-g-416")
LEARNED_ON, LEARNED_IMAGES = "coco_more", 1000  # no image of it is among those that are judged
LIBRARIES: tuple[CpuBackendName, ...] = ("openvino", "onnxruntime")
TIMED_IMAGES, TIMED_ROUNDS = 60, 5
FIFTHS = 5


def measure(folder: Path) -> dict[str, Any]:
    """Reliability and cost of every model; ``folder`` takes the exported files."""
    return {
        "annotations": ANNOTATIONS,
        "learned_on": f"the first {LEARNED_IMAGES} images of {LEARNED_ON}",
        "models": {name: measure_model(name, folder) for name in MODELS},
    }


def measure_model(name: str, folder: Path, limit: int | None = None, timed: int = TIMED_IMAGES) -> dict[str, Any]:
    """Of one model; ``limit`` and ``timed`` images, for a trial."""
    data = data_folder()
    plain, sure = (export(name, folder, sigma) for sigma in (False, True))
    learned = read_truth(data / LEARNED_ON / "instances.json", data / LEARNED_ON / "images", limit or LEARNED_IMAGES)
    truth = read_truth(data / ANNOTATIONS, data / IMAGES, limit)
    spec = load_contract(sure)[1]
    scale = learned_scale(errors_of(sure, spec, learned)[0].result(), spec)
    before, _ = errors_of(sure, spec, truth)
    after, scores = errors_of(sure, replace(spec, sigma_scale=scale), truth)
    return {
        "sigma_scale": scale,
        "unscaled": before.result().to_dict(),
        "scaled": after.result().to_dict(),
        **ranking(after.rows(), scores),
        "cost": {library: cost(plain, sure, library, timed) for library in LIBRARIES},
    }


def export(name: str, folder: Path, sigma: bool) -> Path:
    """A published model in FP32, with or without sigmas."""
    path = folder / f"{name}{'-sigma' if sigma else ''}.onnx"
    export_onnx(ExportRequest(data_folder() / CHECKPOINTS[name], model=name, uncertainty=sigma), path)
    return path


def errors_of(path: Path, spec: ModelSpec, truth: Annotations) -> tuple[EdgeErrors, Reals]:
    """What a model errs by, with the sigmas as ``spec`` scales them; and the score of each matched box."""
    model, _ = load_contract(path)
    labels = [number - 1 for number in match_categories(truth, spec.class_names)]
    errors, records, scores = EdgeErrors(labels), {one.image_id: one for one in truth.records}, []
    backend = open_onnx_backend(model, spec, performance="throughput")
    with Detector(backend) as detector:
        for image_id, found in infer_frames(detector, Frames.of(truth, f"errors of {spec.name}")):
            record = records[image_id]
            size_hw = record.size_hw or read_image(record.path).shape[:2]
            scores += errors.add(found, record, (size_hw[0], size_hw[1]))
    return errors, np.array(scores)


def ranking(rows: Reals, scores: Reals) -> dict[str, Any]:
    """How well sigmas rank the errors, beside what scores do, and the errors by fifths of the sigmas."""
    sigmas, errors, sides = np.moveaxis(rows, 1, 0).reshape(3, -1)
    own = np.repeat(scores, 4)
    use = ~np.isnan(sigmas) & (sides > 0)
    sigmas, errors, sides, own = sigmas[use], errors[use], sides[use], own[use]
    fifths = np.array_split(np.argsort(sigmas, kind="stable"), FIFTHS)
    return {
        "relative_rank_correlation_of_scores": round(rank_correlation(-own, errors / sides) or 0.0, 3),
        "relative_rank_correlation_of_sigmas": round(rank_correlation(sigmas / sides, errors / sides) or 0.0, 3),
        "median_error_px_by_fifths_of_sigma": [round(float(np.median(errors[part])), 2) for part in fifths],
        "median_relative_error_percent_by_fifths_of_relative_sigma": [
            round(100 * float(np.median((errors / sides)[part])), 2)
            for part in np.array_split(np.argsort(sigmas / sides, kind="stable"), FIFTHS)
        ],
    }


def cost(plain: Path, sure: Path, library: CpuBackendName, images: int) -> dict[str, Any]:
    """Milliseconds of a frame from image to detections, both models in turns on the same frames."""
    files = sorted((data_folder() / IMAGES).iterdir())[:images]
    detectors = [Detector(_opened(path, library)) for path in (plain, sure)]
    times: list[list[float]] = [[], []]
    differences: list[float] = []
    gc.disable()
    try:
        for turn in range(TIMED_ROUNDS):
            for number, file in enumerate(track(files, f"{sure.stem}, {library}", len(files))):
                frame, pair = read_image(file), [0.0, 0.0]
                for place in (0, 1) if (turn + number) % 2 else (1, 0):
                    detector = detectors[place]
                    pair[place] = sum(detector.infer(detector.prepare([frame])).ms.values())
                    if turn:  # the first is warm-up
                        times[place].append(pair[place])
                if turn:
                    differences.append(pair[1] - pair[0])
    finally:
        gc.enable()
    for detector in detectors:
        detector.close()
    without, with_sigmas = (statistics.median(one) for one in times)
    return {
        "images": len(files),
        "median_ms_without": round(without, 3),
        "median_ms_with": round(with_sigmas, 3),
        "ratio_of_medians": round(with_sigmas / without, 4),
        "median_difference_percent": round(100 * statistics.median(differences) / without, 2),
    }


def _opened(path: Path, library: CpuBackendName) -> Backend:
    model, spec = load_contract(path)
    return open_onnx_backend(model, spec, library)


def draw(result: dict[str, Any]) -> bytes:
    """Errors over sigmas of every model, with its factors."""
    found = {name: Uncertainty.from_dict(row["scaled"]) for name, row in result["models"].items()}
    return reliability_chart(found)

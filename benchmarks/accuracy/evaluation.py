"""What computing COCO's twelve numbers costs for 5000 images, by pycocotools and by faster-coco-eval."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any, get_args

from benchmarks.models import ANNOTATIONS, IMAGES, export
from gfl_edge.annotations.records import Annotations
from gfl_edge.detector import Detector
from gfl_edge.evaluation.ap import (
    Evaluator,
    Frames,
    Metrics,
    as_coco,
    average_precision,
    coco_results,
    rounded,
)
from gfl_edge.evaluation.truth import match_categories, read_truth
from train.weights.find import data_folder

MODEL = "nanodet-plus-m-416"
IMAGES_WANTED = 5000  # as many as val2017 has; those at hand are counted again and again
ROUNDS = 3


def measure(folder: Path) -> dict[str, Any]:
    """Seconds and numbers of both; ``folder`` takes the exported file."""
    truth = read_truth(data_folder() / ANNOTATIONS, data_folder() / IMAGES)
    content, results = _repeated(truth.to_coco(), _detect(truth, folder))
    many = as_coco(content)
    ids = sorted(many.getImgIds())
    found: dict[str, Metrics] = {}
    seconds: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for evaluator in get_args(Evaluator):
            start = time.perf_counter()
            found[evaluator] = average_precision(many, copy.deepcopy(results), ids, evaluator)
            seconds.setdefault(evaluator, []).append(time.perf_counter() - start)
    one, other = found.values()
    return {
        "images": len(ids),
        "detections": len(results),
        "boxes": len(content["annotations"]),
        "of": f"{ANNOTATIONS}, repeated; {MODEL}",
        "seconds": {name: round(min(times), 2) for name, times in seconds.items()},
        "largest_difference_of_the_twelve_numbers": max(abs((one[name] or 0) - (other[name] or 0)) for name in one),
        "metrics": {name: rounded(metrics, 6) for name, metrics in found.items()},
    }


def _detect(truth: Annotations, folder: Path) -> list[dict[str, Any]]:
    frames = Frames.of(truth, f"detecting with {MODEL}")
    results = []
    with Detector(export(MODEL, folder)) as detector:
        categories = match_categories(truth, detector.spec.class_names)
        for image_id, frame in frames:
            results += coco_results(detector(frame), image_id, categories)
    return results


def _repeated(content: dict[str, Any], results: list[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The same images under new ids until there are enough, with their boxes and detections."""
    images = sorted(content["images"], key=lambda image: int(image["id"]))
    many: dict[str, Any] = {**content, "images": [], "annotations": []}
    detections: list[dict[str, Any]] = []
    for _ in range(-(-IMAGES_WANTED // len(images))):
        chosen = images[: IMAGES_WANTED - len(many["images"])]
        new_id = {image["id"]: len(many["images"]) + index for index, image in enumerate(chosen, 1)}
        many["images"] += [{**image, "id": new_id[image["id"]]} for image in chosen]
        for row in content["annotations"]:
            if row["image_id"] in new_id:
                number = len(many["annotations"]) + 1
                many["annotations"].append({**row, "id": number, "image_id": new_id[row["image_id"]]})
        detections += [{**row, "image_id": new_id[row["image_id"]]} for row in results if row["image_id"] in new_id]
    return many, detections

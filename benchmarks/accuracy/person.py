"""The bundled person detector: AP on the people in 397 COCO images that it was not trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.models import ANNOTATIONS, IMAGES, export
from gfl_edge.backends.select import BackendName
from gfl_edge.detector import Detector
from gfl_edge.evaluation.ap import Frames, as_coco, average_precision, coco_results, rounded
from gfl_edge.evaluation.truth import match_categories, read_truth
from gfl_edge.zoo.bundled import bundled_model
from train.weights.find import data_folder

PERSON = "person"
CONFIG = "train/configs/person.toml"
BACKENDS: tuple[BackendName, ...] = ("openvino", "onnxruntime")
# For comparison: trained on all of COCO's train2017, 80 classes
OTHERS = ("nanodet-m-320", "nanodet-plus-m-320", "nanodet-plus-m-416")
CROWDS = {"1 person": (1, 1), "2 to 4 people": (2, 4), "5 people or more": (5, 10_000)}


class People:
    """The images and the people in them."""

    def __init__(self) -> None:
        self._truth = read_truth(data_folder() / ANNOTATIONS, data_folder() / IMAGES)
        self._coco = as_coco(self._truth.to_coco())
        (self._category,) = match_categories(self._truth, (PERSON,))
        rows = self._coco.dataset["annotations"]
        self.boxes = Counter(r["image_id"] for r in rows if r["category_id"] == self._category and not r["iscrowd"])

    def detect(self, detector: Detector) -> list[dict[str, Any]]:
        """The people that a detector finds, in COCO's result format; other classes are left out."""
        number = detector.spec.class_names.index(PERSON)
        ids = tuple(self._category if i == number else -1 for i in range(detector.spec.num_classes))
        frames = Frames.of(self._truth, f"evaluating {detector.spec.name}")
        found = [row for image_id, frame in frames for row in coco_results(detector(frame), image_id, ids)]
        return [row for row in found if row["category_id"] == self._category]

    def accuracy(self, found: list[dict[str, Any]], image_ids: Iterable[int] | None = None) -> dict[str, Any]:
        """COCO's numbers over all images, or these."""
        chosen = sorted(self._coco.getImgIds() if image_ids is None else image_ids)
        metrics = average_precision(self._coco, found, chosen, category_ids=(self._category,))
        return {
            "images": len(chosen),
            "people": sum(self.boxes[i] for i in chosen),
            **rounded(metrics, 2),
        }


def measure(folder: Path) -> dict[str, Any]:
    """AP of the bundled person detector by backend and by people in the image, and that of other detectors."""
    people = People()
    found = {}
    for backend in BACKENDS:
        with Detector(backend=backend) as detector:
            described = detector.describe()["model"]
            found[backend] = people.detect(detector)
    by_crowd, others = {}, {}
    for label, (least, most) in CROWDS.items():
        ids = [image_id for image_id, count in people.boxes.items() if least <= count <= most]
        by_crowd[label] = people.accuracy(found[BACKENDS[0]], ids)
    for name in OTHERS:
        with Detector(export(name, folder)) as detector:
            others[name] = people.accuracy(people.detect(detector))
    return {
        "annotations": ANNOTATIONS,
        "config": CONFIG,
        "model": {**described, "bytes": bundled_model().stat().st_size},
        "accuracy": {backend: people.accuracy(rows) for backend, rows in found.items()},
        "by_people_in_the_image": by_crowd,
        "trained_on_all_of_coco": others,
    }

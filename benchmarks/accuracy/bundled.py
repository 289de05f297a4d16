"""The bundled detector: AP on images that it was not trained on, by class and size, and in INT8; and speed on a CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.accuracy.int8 import CALIBRATION, CHOICE, quantized
from benchmarks.kept import kept
from benchmarks.models import ANNOTATIONS, IMAGES, export
from benchmarks.training.training import read_shipped
from calib.arguments import Target
from gfl_edge.annotations.records import Annotations
from gfl_edge.bench.report import BenchRequest, bench
from gfl_edge.detector import Detector
from gfl_edge.evaluation.ap import Frames, as_coco, average_precision, coco_results, infer_frames, rounded
from gfl_edge.evaluation.classes import best_score
from gfl_edge.evaluation.truth import match_categories, read_truth
from gfl_edge.spec import read_spec
from gfl_edge.zoo.bundled import bundled_model
from train.data.load import load_data
from train.weights.find import data_folder

RECIPE, START = "coco", "nanodet-g-416"
PERSON = "person"
TARGETS: tuple[Target, ...] = ("trt", "cpu")
SEVERAL = 8  # images at once, for the throughput
CROWDS = {"1 person": (1, 1), "2 to 4 people": (2, 4), "5 people or more": (5, 10_000)}

Rows = list[dict[str, Any]]  # detections, in COCO's result format


class Judge:
    """Annotated images, and what detections in them are worth."""

    def __init__(self, truth: Annotations) -> None:
        self._truth, self._coco = truth, as_coco(truth.to_coco())
        self._rows = [row for row in self._coco.dataset["annotations"] if not row["iscrowd"]]
        self.category = {entry["name"]: entry["id"] for entry in self._coco.dataset["categories"]}

    def detect(self, detector: Detector) -> Rows:
        """What a detector finds in all images."""
        ids = match_categories(self._truth, detector.spec.class_names)
        frames = Frames.of(self._truth, f"evaluating {detector.spec.name}")
        return [row for image_id, found in infer_frames(detector, frames) for row in coco_results(found, image_id, ids)]

    def boxes(self, name: str) -> Counter[int]:
        """How many objects of a class there are, by image."""
        return Counter(row["image_id"] for row in self._rows if row["category_id"] == self.category[name])

    def accuracy(
        self, found: Rows, names: Collection[str] | None = None, image_ids: Iterable[int] | None = None
    ) -> dict[str, Any]:
        """COCO's numbers over all images and classes, or these."""
        chosen = sorted(self._coco.getImgIds() if image_ids is None else image_ids)
        within = set(chosen)
        categories = None if names is None else {self.category[name] for name in names}
        rows = [row for row in found if categories is None or row["category_id"] in categories]
        metrics = average_precision(self._coco, rows, chosen, category_ids=categories)
        counted = [row for row in self._rows if categories is None or row["category_id"] in categories]
        boxes = sum(row["image_id"] in within for row in counted)
        return {"images": len(chosen), "boxes": boxes, **rounded(metrics, 2)}

    def best_score(self, found: Rows) -> dict[str, float] | None:
        """From which on detections have the highest F1, see :func:`gfl_edge.evaluation.classes.best_score`."""
        best = best_score(self._coco, found, self._coco.getImgIds())
        return None if best is None else {"score": best[0], "F1": round(best[1], 2)}


def measure(folder: Path) -> dict[str, Any]:
    """AP of the bundled detector by class, size of objects and people in the image, and what INT8 costs.

    And that of the weights that its training started from, at the same size of the input. Every choice was made on the
    images that were held out. What ``folder`` has already is not made again.
    """
    with Detector() as detector:
        described = detector.describe()["model"]
    judges = {"held_out": _held_out(), "reported": _judge()}
    return {
        "annotations": ANNOTATIONS,
        "config": f"train/configs/{RECIPE}.toml",
        "model": {**described, "bytes": bundled_model().stat().st_size},
        "reported": kept(folder / "reported.json", _reported),
        "held_out": kept(folder / "held_out.json", lambda: judged(judges["held_out"], bundled_model())),
        "start": {
            name: kept(folder / f"start_{name}.json", partial(_start, judge, folder)) for name, judge in judges.items()
        },
        "int8": {
            "calibrated_on": CALIBRATION,
            "chosen_on": CHOICE,
            **{target: kept(folder / f"{target}.json", partial(int8, target, folder)) for target in TARGETS},
        },
        "speed": _speed({"FP16": bundled_model(), "INT8": _int8_file("cpu", folder)}),
    }


def _held_out() -> Judge:
    """The images of the recipe that nothing was trained on."""
    truth = load_data(read_shipped(RECIPE, Path()).data).val
    assert truth is not None
    return Judge(truth)


def _judge() -> Judge:
    """The images that AP is reported on."""
    return Judge(read_truth(data_folder() / ANNOTATIONS, data_folder() / IMAGES))


def _reported() -> dict[str, Any]:
    """All that is reported of the file."""
    judge = _judge()
    with Detector(backend="openvino", performance="throughput") as detector:
        rows = judge.detect(detector)
    people = judge.boxes(PERSON)
    crowds = {
        label: [image for image, count in people.items() if least <= count <= most]
        for label, (least, most) in CROWDS.items()
    }
    return {
        "all": judge.accuracy(rows),
        PERSON: judge.accuracy(rows, (PERSON,)),
        "by_people_in_the_image": {name: judge.accuracy(rows, (PERSON,), ids) for name, ids in crowds.items()},
        "by_class": {name: judge.accuracy(rows, (name,)) for name in judge.category},
    }


def judged(judge: Judge, model: Path) -> dict[str, Any]:
    """Of all classes, of people, and from which score on detections are best."""
    with Detector(model, "openvino", performance="throughput") as detector:
        rows = judge.detect(detector)
    return {"all": judge.accuracy(rows), PERSON: judge.accuracy(rows, (PERSON,)), "best": judge.best_score(rows)}


def _start(judge: Judge, folder: Path) -> dict[str, Any]:
    """The weights that training started from, at the same size of the input."""
    return judged(judge, export(START, folder, input_hw=read_spec(bundled_model()).input_hw))


def int8(target: Target, folder: Path) -> dict[str, Any]:
    """The file in INT8: AP, and what stays float."""
    found = quantized(bundled_model(), target, _int8_file(target, folder), data_folder())
    return {name: value for name, value in found.items() if name != "calibration_seconds"}


def _int8_file(target: Target, folder: Path) -> Path:
    return folder / f"bundled-{target}.int8.onnx"


def _speed(files: dict[str, Path]) -> dict[str, Any]:
    """Frames in turn from the decoded image to its detections, and several under way, on this machine."""
    request = BenchRequest(tuple(files.values()), batches=(SEVERAL,), images=data_folder() / IMAGES, seconds=20)
    report = bench(request, ["python", "benchmarks/run.py", "bundled"])
    names = {model.id: name for model, name in zip(report.models, files, strict=True)}
    found: dict[str, Any] = {name: {} for name in files}
    for run in report.runs:
        found[names[run.model]][run.protocol] = {"p50_ms": run.latency.p50_ms, "fps": run.latency.fps}
    return found

"""COCO AP through the very pipeline that runs on the device."""

from __future__ import annotations

import contextlib
import io
import logging
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gfl_edge import optional
from gfl_edge.annotations.checks import NAMED, OnBad, size_mismatch
from gfl_edge.annotations.records import Annotations
from gfl_edge.detections import Detections
from gfl_edge.detector import Detector, Prepared
from gfl_edge.errors import AnnotationError, ImageError, InputError
from gfl_edge.evaluation.truth import match_categories, read_truth
from gfl_edge.evaluation.uncertainty import EdgeErrors, Uncertainty
from gfl_edge.filters.detection_filter import DetectionFilter
from gfl_edge.media.images import read_image
from gfl_edge.ops.preprocess import Image
from gfl_edge.progress import track

logger = logging.getLogger(__name__)

Evaluator = Literal["pycocotools", "faster-coco-eval"]

# the twelve numbers of pycocotools' COCOeval.summarize, in its order
Metrics = dict[str, float | None]  # in percent, by the names of METRICS; None where there is no box to find
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@dataclass(frozen=True, eq=False)
class Evidence:
    """What an evaluation was computed from, for :mod:`gfl_edge.evaluation.examination`.

    Attributes:
        truth: the annotations.
        coco: the same as ``pycocotools.coco.COCO``.
        results: all detections, as by :func:`coco_results`.
        image_ids: of the images that were evaluated.
        found: the detections of each of them, in the same order.
        sizes_hw: their sizes in pixels, by image id.
        class_ids: of the model's classes, those that were evaluated, in their order.
        category_ids: of the same, in the same order.
        precision: COCOeval's array ``[T, R, K, A, M]``, with the classes in order of category.
    """

    truth: Annotations
    coco: Any
    results: list[dict[str, Any]]
    image_ids: list[int]
    found: list[Detections]
    sizes_hw: dict[int, tuple[int, int]]
    class_ids: tuple[int, ...]
    category_ids: tuple[int, ...]
    precision: NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """AP of a detector on an image set.

    Attributes:
        metrics: the twelve COCO numbers in percent, by the names of ``METRICS``; None without boxes of that size.
        images: how many images were evaluated.
        skipped: names of images that could not be read and so were left out.
        left_out: names of the annotations' categories that the model does not know, over which nothing is averaged.
        images_per_second: from the first image to the last, reading included, with as many under way as the detector
            runs at once.
        evidence: what it was computed from.
        uncertainty: whether the sigmas of edges are as large as the errors; None where the model gives none.
        only_classes: names of the classes that were chosen; empty: all that the model knows.
    """

    metrics: Metrics
    images: int
    skipped: tuple[str, ...]
    left_out: tuple[str, ...]
    images_per_second: float
    evidence: Evidence
    uncertainty: Uncertainty | None = None
    only_classes: tuple[str, ...] = ()

    def percent(self, name: str) -> float:
        """One of the metrics of all sizes, which every evaluation has, such as "AP"."""
        value = self.metrics[name]
        if value is None:
            raise ValueError(f"{name}: there is no box of that size")
        return value

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, the metrics at the top level."""
        return {
            **rounded(self.metrics),
            "images": self.images,
            "skipped": list(self.skipped),
            "left_out": list(self.left_out),
            **({"only_classes": list(self.only_classes)} if self.only_classes else {}),
            "images_per_second": round(self.images_per_second, 3),
            **({} if self.uncertainty is None else {"uncertainty": self.uncertainty.to_dict()}),
        }


def evaluate(
    detector: Detector,
    images: str | Path,
    annotations: str | Path,
    limit: int | None = None,
    progress: bool = True,
    evaluator: Evaluator = "pycocotools",
    on_bad: OnBad = "error",
    classes: Sequence[str] = (),
) -> Evaluation:
    """Run ``detector`` over a COCO data set and compute AP, over the classes that it knows.

    Args:
        detector: classes are matched to the annotation file's categories by name. Fastest with
            ``performance="throughput"``.
        images: folder of the annotation file's ``file_name`` entries.
        annotations: COCO instances JSON.
        limit: only the first so many images, in order of id.
        progress: draw a progress line on stderr.
        evaluator: what computes AP; see :func:`average_precision`.
        on_bad: see :func:`gfl_edge.annotations.checks.check_annotations`.
        classes: names of those of the model's classes that are evaluated; empty: all.

    Raises:
        AnnotationError: see :func:`gfl_edge.evaluation.truth.read_truth`, and :func:`evaluate_on`.
        InputError: no image could be read, ``limit`` is not positive, or the model has no such class.
        MissingDependencyError: the evaluator is not installed.
    """
    keep = DetectionFilter(classes=tuple(classes))
    keep.check_classes(detector.spec.class_names)
    return evaluate_on(read_truth(annotations, images, limit, on_bad), detector, progress, evaluator, keep.classes)


def evaluate_on(
    truth: Annotations,
    detector: Detector,
    progress: bool = True,
    evaluator: Evaluator = "pycocotools",
    classes: tuple[str, ...] = (),
) -> Evaluation:
    """Likewise, on annotations that :func:`gfl_edge.evaluation.truth.read_truth` gave.

    Raises:
        AnnotationError: classes that are no category; an image of another size than its annotations are for; or no
            image that could be read has a box of the classes.
        InputError: no image could be read, or the model has no such class.
        MissingDependencyError: the evaluator is not installed.
    """
    category_of, keep = judged(truth, detector.spec.class_names, classes)
    coco, frames = as_coco(truth.to_coco()), Frames.of(truth, f"evaluating {detector.spec.name}", progress)
    results: list[dict[str, Any]] = []
    evaluated: list[int] = []
    detections: list[Detections] = []
    errors = EdgeErrors([category_of.get(class_id, 0) - 1 for class_id in range(len(detector.spec.class_names))])
    sizes_hw: dict[int, tuple[int, int]] = {}
    records = {record.image_id: record for record in truth.records}
    start = time.perf_counter()
    for image_id, all_found in infer_frames(detector, _measured(frames, sizes_hw)):
        found = keep.apply(all_found)
        evaluated.append(image_id)
        detections.append(found)
        results.extend(coco_results(found, image_id, category_of))
        if found.edge_sigma is not None:
            errors.add(found, records[image_id], sizes_hw[image_id])
    seconds = time.perf_counter() - start
    scored = accumulate(coco, results, evaluated, evaluator, category_of.values())
    metrics = metrics_of(scored)
    if metrics["AP"] is None:
        raise AnnotationError(
            f"{truth.origin}: no box of the classes in the {len(evaluated)} images that could be read, so AP "
            f"cannot be computed. Copy the others again: {', '.join(frames.skipped[:NAMED])}"
        )
    left_out = tuple(name for name in truth.class_names if name not in detector.spec.class_names)
    uncertainty = errors.result() if errors.images else None
    rate = len(evaluated) / seconds
    ids = tuple(category_of), tuple(category_of.values())
    evidence = Evidence(truth, coco, results, evaluated, detections, sizes_hw, *ids, scored.eval["precision"])
    return Evaluation(metrics, len(evaluated), tuple(frames.skipped), left_out, rate, evidence, uncertainty, classes)


def judged(
    truth: Annotations, class_names: tuple[str, ...], classes: Sequence[str] = ()
) -> tuple[dict[int, int], DetectionFilter]:
    """The category of each class that is judged, by its number in the model, and what lets their detections pass.

    Args:
        truth: the annotations.
        class_names: of the model.
        classes: those of them that are judged; empty: all.

    Raises:
        AnnotationError: see :func:`gfl_edge.evaluation.truth.match_categories`.
        InputError: the model has no such class.
    """
    keep = DetectionFilter(classes=tuple(classes))
    keep.check_classes(class_names)
    chosen = [class_id for class_id, name in enumerate(class_names) if not keep.classes or name in keep.classes]
    categories = match_categories(truth, tuple(class_names[class_id] for class_id in chosen))
    return dict(zip(chosen, categories, strict=True)), keep


def _measured(frames: Iterable[tuple[int, Image]], sizes_hw: dict[int, tuple[int, int]]) -> Iterator[tuple[int, Image]]:
    """The frames, whose sizes go into ``sizes_hw``."""
    for image_id, frame in frames:
        sizes_hw[image_id] = frame.shape[0], frame.shape[1]
        yield image_id, frame


def rounded(metrics: Metrics, digits: int = 3) -> Metrics:
    """The metrics with so many digits after the point."""
    return {name: None if value is None else round(value, digits) for name, value in metrics.items()}


class Frames:
    """Reads image files one after the other, with a progress line on stderr.

    Args:
        files: paths by image id.
        folder: where they lie, for messages.
        label: of the progress line.
        progress: whether to draw it.
        sizes_hw: by image id, what annotations say; images without are taken as they are.

    Attributes:
        skipped: names of the files so far that could not be read.
    """

    def __init__(
        self,
        files: Mapping[int, Path],
        folder: str | Path,
        label: str,
        progress: bool = True,
        sizes_hw: Mapping[int, tuple[int, int]] | None = None,
    ) -> None:
        self.skipped: list[str] = []
        self._files, self._folder, self._label, self._progress = files, folder, label, progress
        self._sizes_hw = sizes_hw or {}

    @classmethod
    def of(cls, truth: Annotations, label: str, progress: bool = True) -> Frames:
        """The images of checked annotations."""
        sizes = {record.image_id: record.size_hw for record in truth.records if record.size_hw is not None}
        files = {record.image_id: record.path for record in truth.records}
        return cls(files, truth.image_folder, label, progress, sizes)

    def __iter__(self) -> Iterator[tuple[int, Image]]:
        """Yield id and frame of every file that can be read.

        Raises:
            AnnotationError: an image has another size than its annotations are for.
            InputError: at the end, if none could be read.
        """
        reasons: list[str] = []
        for image_id, path in track(self._files.items(), self._label, len(self._files), self._progress):
            try:
                frame = read_image(path)
            except ImageError as error:
                reasons.append(str(error))
                logger.warning("left out: %s", error)
                self.skipped.append(path.name)
                continue
            found, declared = (frame.shape[0], frame.shape[1]), self._sizes_hw.get(image_id)
            if declared is not None and declared != found:
                raise AnnotationError(size_mismatch(path, declared, found))
            yield image_id, frame
        if len(self.skipped) == len(self._files):
            raise InputError(f"none of the {len(self._files)} images under {self._folder} can be used: {reasons[0]}")


def infer_frames(detector: Detector, frames: Iterable[tuple[int, Image]]) -> Iterator[tuple[int, Detections]]:
    """What a detector finds in frames, by their ids, in order, with as many under way as it runs at once."""
    ids: deque[int] = deque()

    def prepared() -> Iterator[Prepared]:
        for image_id, frame in frames:
            ids.append(image_id)
            yield detector.prepare([frame])

    for inference in detector.infer_all(prepared()):
        yield ids.popleft(), inference.detections[0]


def timed(detector: Detector, frame: Image) -> tuple[Detections, float]:
    """What ``detector`` finds in a frame, and the milliseconds from the frame to its detections."""
    start = time.perf_counter()
    found = detector(frame)
    return found, 1000 * (time.perf_counter() - start)


def as_coco(content: dict[str, Any]) -> Any:
    """The content of a COCO instances file as ``pycocotools.coco.COCO``."""
    with silent():
        coco = optional.load("pycocotools.coco").COCO()
        coco.dataset = content
        coco.createIndex()
    return coco


def coco_results(
    found: Detections, image_id: int, category_ids: Sequence[int] | Mapping[int, int]
) -> list[dict[str, Any]]:
    """Detections of one image in COCO's result format, boxes as x, y, width, height; ``category_ids`` by class.

    With sigmas there is one more field, "edge_sigma": of left, top, right and bottom in pixels.
    """
    sigmas = (
        [{}] * len(found) if found.edge_sigma is None else [{"edge_sigma": row} for row in found.edge_sigma.tolist()]
    )
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[class_id],
            "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
            "score": float(score),
            **sigma,
        }
        for (x1, y1, x2, y2), score, class_id, sigma in zip(
            found.boxes, found.scores, found.class_ids, sigmas, strict=True
        )
    ]


def average_precision(
    coco: Any,
    results: list[dict[str, Any]],
    image_ids: list[int],
    evaluator: Evaluator = "pycocotools",
    category_ids: Collection[int] | None = None,
) -> Metrics:
    """The twelve COCO numbers in percent over ``image_ids``: 0 where nothing was detected, None without a box to find.

    Args:
        coco: ``pycocotools.coco.COCO`` of :meth:`gfl_edge.annotations.records.Annotations.to_coco`.
        results: as by :func:`coco_results`.
        image_ids: which images count.
        evaluator: "pycocotools", or "faster-coco-eval", which gives the same numbers in less time
            (benchmarks/results/evaluation.json).
        category_ids: over which is averaged; None: all.

    Raises:
        MissingDependencyError: the evaluator is not installed.
    """
    return metrics_of(accumulate(coco, results, image_ids, evaluator, category_ids))


def accumulate(
    coco: Any,
    results: list[dict[str, Any]],
    image_ids: list[int],
    evaluator: Evaluator = "pycocotools",
    category_ids: Collection[int] | None = None,
) -> Any:
    """The COCOeval that has computed everything; arguments as above."""
    with silent():
        run = open_evaluator(coco, results, evaluator)
        run.params.imgIds = image_ids
        if category_ids is not None:
            run.params.catIds = sorted(category_ids)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run


def metrics_of(run: Any) -> Metrics:
    """The twelve numbers of a COCOeval, see :func:`average_precision`."""
    stats = run.stats[: len(METRICS)]  # faster-coco-eval adds numbers of its own
    return {name: 100 * float(value) if value >= 0 else None for name, value in zip(METRICS, stats, strict=True)}


def open_evaluator(coco: Any, results: list[dict[str, Any]], evaluator: Evaluator) -> Any:
    """The COCOeval of ``results`` against ``coco``, for boxes, with its own parameters; it has computed nothing yet."""
    nothing = {**coco.dataset, "annotations": []}  # what loadRes cannot make of an empty list
    if evaluator == "pycocotools":
        found = coco.loadRes(results) if results else as_coco(nothing)
        return optional.load("pycocotools.cocoeval").COCOeval(coco, found, "bbox")
    library = optional.load("faster_coco_eval")
    truth = library.COCO(coco.dataset)
    found = truth.loadRes(results) if results else library.COCO(nothing)
    return library.COCOeval_faster(truth, found, "bbox")


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keep pycocotools from printing."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield

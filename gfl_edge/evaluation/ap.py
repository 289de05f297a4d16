"""COCO AP through the very pipeline that runs on the device."""

from __future__ import annotations

import contextlib
import io
import logging
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gfl_edge import optional
from gfl_edge.annotations.coco import read_instances
from gfl_edge.detections import Detections
from gfl_edge.detector import Detector
from gfl_edge.errors import AnnotationError, ImageError, InputError
from gfl_edge.media.images import read_image
from gfl_edge.ops.preprocess import Image
from gfl_edge.progress import track

logger = logging.getLogger(__name__)

Evaluator = Literal["pycocotools", "faster-coco-eval"]

# the twelve numbers of pycocotools' COCOeval.summarize, in its order
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@dataclass(frozen=True)
class Evaluation:
    """AP of a detector on an image set.

    Attributes:
        metrics: the twelve COCO numbers in percent, by the names of ``METRICS``; -1 where there is no box of that size.
        images: how many images were evaluated.
        skipped: names of images that could not be read and so were left out.
        left_out: names of the annotations' categories that the model does not know, over which nothing is averaged.
        ms_per_image: mean milliseconds of pre-processing, network and post-processing, without reading the file.
    """

    metrics: dict[str, float]
    images: int
    skipped: tuple[str, ...]
    left_out: tuple[str, ...]
    ms_per_image: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, the metrics at the top level."""
        rounded = {name: round(value, 3) for name, value in self.metrics.items()}
        return {
            **rounded,
            "images": self.images,
            "skipped": list(self.skipped),
            "left_out": list(self.left_out),
            "ms_per_image": round(self.ms_per_image, 3),
        }


def evaluate(
    detector: Detector,
    images: str | Path,
    annotations: str | Path,
    limit: int | None = None,
    progress: bool = True,
    evaluator: Evaluator = "pycocotools",
) -> Evaluation:
    """Run ``detector`` over a COCO data set and compute AP, over the classes that it knows.

    Args:
        detector: classes are matched to the annotation file's categories by name.
        images: folder of the annotation file's ``file_name`` entries.
        annotations: COCO instances JSON.
        limit: only the first so many images, in order of id.
        progress: draw a progress line on stderr.
        evaluator: what computes AP; see :func:`average_precision`.

    Raises:
        AnnotationError: unreadable or foreign annotation file, or one without a category of the model's classes.
        InputError: no image could be read, or ``limit`` is not positive.
        MissingDependencyError: the evaluator is not installed.
    """
    check_limit(limit)
    coco = read_annotations(annotations)
    category_ids = match_categories(coco, detector.spec.class_names, annotations)
    frames = Frames(annotated_files(coco, images, limit), images, f"evaluating {detector.spec.name}", progress)
    results: list[dict[str, Any]] = []
    evaluated, total_ms = [], 0.0
    for image_id, frame in frames:
        found, milliseconds = timed(detector, frame)
        total_ms += milliseconds
        evaluated.append(image_id)
        results.extend(coco_results(found, image_id, category_ids))
    metrics = average_precision(coco, results, evaluated, evaluator, category_ids)
    left_out = tuple(c["name"] for c in coco.dataset["categories"] if c["id"] not in category_ids)
    return Evaluation(metrics, len(evaluated), tuple(frames.skipped), left_out, total_ms / len(evaluated))


class Frames:
    """Reads image files one after the other, with a progress line on stderr.

    Args:
        files: paths by image id.
        folder: where they lie, for messages.
        label: of the progress line.
        progress: whether to draw it.

    Attributes:
        skipped: names of the files so far that could not be read.
    """

    def __init__(self, files: Mapping[int, Path], folder: str | Path, label: str, progress: bool = True) -> None:
        self.skipped: list[str] = []
        self._files, self._folder, self._label, self._progress = files, folder, label, progress

    def __iter__(self) -> Iterator[tuple[int, Image]]:
        """Yield id and frame of every file that can be read; raises InputError at the end if there was none."""
        reasons: list[str] = []
        for image_id, path in track(self._files.items(), self._label, len(self._files), self._progress):
            try:
                frame = read_image(path)
            except ImageError as error:
                reasons.append(str(error))
                logger.warning("left out: %s", error)
                self.skipped.append(path.name)
            else:
                yield image_id, frame
        if len(self.skipped) == len(self._files):
            raise InputError(f"none of the {len(self._files)} images under {self._folder} can be used: {reasons[0]}")


def timed(detector: Detector, frame: Image) -> tuple[Detections, float]:
    """What ``detector`` finds in a frame, and the milliseconds from the frame to its detections."""
    start = time.perf_counter()
    found = detector(frame)
    return found, 1000 * (time.perf_counter() - start)


def check_limit(limit: int | None) -> None:
    """Raise InputError where a limit leaves no image."""
    if limit is not None and limit < 1:
        raise InputError(f"--limit {limit}: expected at least 1 image")


def read_annotations(path: str | Path) -> Any:
    """A COCO instances file as ``pycocotools.coco.COCO``; raises AnnotationError if it is none."""
    path = Path(path)
    if not path.is_file():
        raise AnnotationError(f"{path}: no such annotation file. Give a COCO instances JSON with --annotations")
    content = read_instances(path)
    if not content["images"]:
        raise AnnotationError(f"{path} lists no images: nothing to evaluate")
    return as_coco(content)


def as_coco(content: dict[str, Any]) -> Any:
    """The content of a COCO instances file as ``pycocotools.coco.COCO``."""
    with _silent():
        coco = optional.load("pycocotools.coco").COCO()
        coco.dataset = content
        coco.createIndex()
    return coco


def match_categories(coco: Any, class_names: tuple[str, ...], origin: str | Path) -> tuple[int, ...]:
    """Category id per class of the model, by name; logs it if the model does not know all categories.

    Raises:
        AnnotationError: classes that are no category; lists them.
    """
    by_name = {category["name"]: int(category["id"]) for category in coco.dataset["categories"]}
    unknown = [name for name in class_names if name not in by_name]
    if unknown:
        raise AnnotationError(
            f"{origin} has no category for {len(unknown)} of the model's {len(class_names)} classes: "
            f"{', '.join(unknown[:5])}. Its categories: {', '.join(list(by_name)[:5])} ... "
            "Use the annotations of the model's own data set, or export it with --classes"
        )
    if len(class_names) < len(by_name):
        logger.info("AP is that of %d of %d categories, those that the model knows", len(class_names), len(by_name))
    return tuple(by_name[name] for name in class_names)


def coco_results(found: Detections, image_id: int, category_ids: tuple[int, ...]) -> list[dict[str, Any]]:
    """Detections of one image in COCO's result format, boxes as x, y, width, height."""
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[class_id],
            "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
            "score": float(score),
        }
        for (x1, y1, x2, y2), score, class_id in zip(found.boxes, found.scores, found.class_ids, strict=True)
    ]


def average_precision(
    coco: Any,
    results: list[dict[str, Any]],
    image_ids: list[int],
    evaluator: Evaluator = "pycocotools",
    category_ids: Collection[int] | None = None,
) -> dict[str, float]:
    """The twelve COCO numbers in percent over ``image_ids``; all 0 where nothing was detected.

    Args:
        coco: ``pycocotools.coco.COCO``.
        results: as by :func:`coco_results`.
        image_ids: which images count.
        evaluator: "pycocotools", or "faster-coco-eval", which gives the same numbers in less time
            (benchmarks/results/evaluation.json).
        category_ids: over which is averaged; None: all.

    Raises:
        MissingDependencyError: the evaluator is not installed.
    """
    if not results:
        return dict.fromkeys(METRICS, 0.0)
    with _silent():
        run = _coco_eval(coco, results, evaluator)
        run.params.imgIds = image_ids
        if category_ids is not None:
            run.params.catIds = sorted(category_ids)
        run.evaluate()
        run.accumulate()
        run.summarize()
    stats = run.stats[: len(METRICS)]  # faster-coco-eval adds numbers of its own
    return {name: 100 * float(value) if value >= 0 else -1.0 for name, value in zip(METRICS, stats, strict=True)}


def _coco_eval(coco: Any, results: list[dict[str, Any]], evaluator: Evaluator) -> Any:
    if evaluator == "pycocotools":
        return optional.load("pycocotools.cocoeval").COCOeval(coco, coco.loadRes(results), "bbox")
    library = optional.load("faster_coco_eval")
    truth = library.COCO(coco.dataset)
    return library.COCOeval_faster(truth, truth.loadRes(results), "bbox")


def annotated_files(coco: Any, images: str | Path, limit: int | None = None) -> dict[int, Path]:
    """Paths by image id of an annotation file's first ``limit`` images, in order of id.

    Raises:
        InputError: one of them is not in the folder ``images``.
    """
    chosen = sorted(coco.getImgIds())[:limit]
    files = {image_id: Path(images) / coco.imgs[image_id]["file_name"] for image_id in chosen}
    missing = [path.name for path in files.values() if not path.is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(files)} images are not under {images}, first {missing[0]}. "
            "Give the folder of the annotation file's images with --images"
        )
    return files


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep pycocotools from printing."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield

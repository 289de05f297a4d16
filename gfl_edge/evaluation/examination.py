"""An evaluation in detail: by class, by score, what is taken for what, and where the detector errs most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfl_edge.evaluation.ap import Evaluation, Evidence
from gfl_edge.evaluation.classes import ClassResult, class_results, f1_curve
from gfl_edge.evaluation.faults import ImageFaults, Pair, confusion, image_faults
from gfl_edge.evaluation.matches import match_boxes
from gfl_edge.spec import ModelSpec

MAX_LISTED = 100  # confusions and images, in JSON
BACKGROUND_NAMES = ("background", "no object", "no object at all")  # the first that is no class

Curve = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Examination:
    """What :func:`examine` found.

    Attributes:
        evaluation: what was examined.
        classes: one result per class that was evaluated, in their order.
        precision: mean over the classes with boxes, by IoU threshold (0.5 to 0.95) and recall (0 to 1): ``[T, R]``.
        f1: of all classes together, from each of :data:`gfl_edge.evaluation.classes.CANDIDATES` on.
        shown_scores: of each class, from which on detections count in the next two.
        background: what stands for no box, or no detection, in a confusion.
        confusion: (name of the box's class, of the detection's) and how often.
        faults: of each image that has some, the one with the most first.
    """

    evaluation: Evaluation
    classes: tuple[ClassResult, ...]
    precision: Curve
    f1: Curve
    shown_scores: tuple[float, ...]
    background: str
    confusion: dict[tuple[str, str], int]
    faults: tuple[ImageFaults, ...]

    def file_name(self, image_id: int) -> str:
        """Of an image, for people."""
        records = self.evaluation.evidence.truth.records
        return next(record.path.name for record in records if record.image_id == image_id)

    def confused(self) -> list[tuple[str, str, int]]:
        """What was taken for what, the most frequent first; what was right is left out."""
        wrong = [(box, found, count) for (box, found), count in self.confusion.items() if box != found]
        return sorted(wrong, key=lambda row: (-row[2], row[:2]))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: of each class."""
        pairs = zip(self.classes, self.shown_scores, strict=True)
        return {"classes": [{**result.to_dict(), "shown_score": shown} for result, shown in pairs]}

    def faults_to_dict(self) -> dict[str, Any]:
        """Likewise: of confusions and images the first ``MAX_LISTED``."""
        return {
            "confusion": [
                {"box": box, "found": found, "count": count}
                for box, found, count in [
                    *((name, name, self.confusion.get((name, name), 0)) for name in self._right()),
                    *self.confused()[:MAX_LISTED],
                ]
            ],
            "worst_images": [
                {
                    "image": self.file_name(faults.image_id),
                    "missed": len(faults.missed),
                    "false": len(faults.false),
                    "misplaced": len(faults.misplaced),
                }
                for faults in self.faults[:MAX_LISTED]
            ],
        }

    def _right(self) -> list[str]:
        """The classes that were found at least once."""
        return [result.name for result in self.classes if self.confusion.get((result.name, result.name))]


def examine(evaluation: Evaluation, spec: ModelSpec) -> Examination:
    """Look into what an evaluation found.

    Args:
        evaluation: of a detector.
        spec: that detector's; confusions and faults are those of the detections that it recommends to show.

    Raises:
        MissingDependencyError: pycocotools is not installed.
    """
    evidence = evaluation.evidence
    names = [spec.class_names[class_id] for class_id in evidence.class_ids]
    where = (evidence.coco, evidence.results, evidence.image_ids, evidence.category_ids)
    matches = match_boxes(*where)
    shown_scores = tuple(spec.shown_scores[class_id] for class_id in evidence.class_ids)
    shown = _shown(evidence, shown_scores)
    found = (evidence.coco, shown, evidence.image_ids, evidence.category_ids)
    background = next(name for name in (*BACKGROUND_NAMES, f"none of {len(names)}") if name not in names)
    name_of = dict(zip(evidence.category_ids, names, strict=True))

    def named(pair: Pair) -> tuple[str, str]:
        box, detection = (background if category is None else name_of[category] for category in pair)
        return box, detection

    return Examination(
        evaluation=evaluation,
        classes=class_results(evidence.precision, matches, names, evidence.category_ids),
        precision=_mean_precision(evidence.precision),
        f1=f1_curve(matches),
        shown_scores=shown_scores,
        background=background,
        confusion={named(pair): count for pair, count in confusion(*found).items()},
        faults=tuple(image_faults(*found)),
    )


def _shown(evidence: Evidence, shown_scores: tuple[float, ...]) -> list[dict[str, Any]]:
    """Copies, since pycocotools writes into the rows that it is given, of the detections that count."""
    least = dict(zip(evidence.category_ids, shown_scores, strict=True))
    keys = ("image_id", "category_id", "bbox", "score")
    return [{key: row[key] for key in keys} for row in evidence.results if row["score"] >= least[row["category_id"]]]


def _mean_precision(precision: NDArray[np.float64]) -> Curve:
    """Of boxes of all sizes and the most detections, over the classes with boxes ``[T, R]``."""
    of_class = precision[:, :, :, 0, -1]
    with_boxes = (of_class >= 0).all(axis=(0, 1))
    mean: Curve = of_class[:, :, with_boxes].mean(axis=2)
    return mean

"""How good a detector is at each class: AP, precision by recall, and the score from which on it is worth showing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfl_edge.evaluation.matches import Matched, Matches, match_boxes

RECALLS = 101  # points of a curve of precision, from recall 0 to 1
CANDIDATES = np.arange(1, 100) / 100  # scores that are tried
DIGITS = 4


@dataclass(frozen=True)
class ClassResult:
    """Of one class; None where there is no box of it, or nothing right.

    Attributes:
        name: of the class.
        boxes: to find, crowds left out.
        ap: over IoU 0.5 to 0.95, percent.
        ap50: at IoU 0.5, percent.
        best_score: from which on detections have the highest F1 at IoU 0.5, in hundredths; of equals the highest.
        best_f1: that F1, percent.
        precision: at IoU 0.5 and the recalls 0, 0.01 ... 1, shares; empty without boxes.
        f1: at IoU 0.5 from the scores of ``CANDIDATES`` on, shares; empty without boxes.
    """

    name: str
    boxes: int
    ap: float | None
    ap50: float | None
    best_score: float | None
    best_f1: float | None
    precision: tuple[float, ...]
    f1: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the curves."""
        percents = {"AP": self.ap, "AP50": self.ap50, "best_score": self.best_score, "best_F1": self.best_f1}
        rounded = {name: None if value is None else round(value, DIGITS) for name, value in percents.items()}
        return {"name": self.name, "boxes": self.boxes, **rounded}


def class_results(
    precision: NDArray[np.float64], matches: Matches, names: Sequence[str], category_ids: Sequence[int]
) -> tuple[ClassResult, ...]:
    """One result per class, in their order.

    Args:
        precision: COCOeval's array ``[T, R, K, A, M]``, of the IoUs 0.5 to 0.95, with the classes in order of category.
        matches: at IoU 0.5 of all detections, by class.
        names: of the classes.
        category_ids: of the same.
    """
    by_category: dict[int, list[Matched]] = {category: [] for category in category_ids}
    for entry in matches:
        by_category[entry.category_id].append(entry)
    places = {category: place for place, category in enumerate(sorted(category_ids))}
    return tuple(
        _class_result(name, precision[:, :, places[category], 0, -1], by_category[category])
        for name, category in zip(names, category_ids, strict=True)
    )


def _class_result(name: str, precision: NDArray[np.float64], entries: list[Matched]) -> ClassResult:
    """``precision`` is ``[T, R]``."""
    boxes = sum(len(entry.box_ids) for entry in entries)
    if not boxes:
        return ClassResult(name, 0, None, None, None, None, (), ())
    curve = f1_curve(entries)
    score, f1 = _best(curve) or (None, None)
    ap, ap50 = 100 * float(precision.mean()), 100 * float(precision[0].mean())
    return ClassResult(name, boxes, ap, ap50, score, f1, tuple(precision[0].tolist()), tuple(curve.tolist()))


def best_score(coco: Any, results: list[dict[str, Any]], image_ids: list[int]) -> tuple[float, float] | None:
    """The score from which on detections have the highest F1, in hundredths, and that F1 in percent.

    Detections and boxes of all classes count alike. Right is what pycocotools matches at an IoU of 0.5; what lies in a
    crowd is neither right nor wrong. None where there is no box to find, or nothing right.

    Args:
        coco, results, image_ids: see :func:`gfl_edge.evaluation.ap.average_precision`.

    Raises:
        MissingDependencyError: pycocotools is not installed.
    """
    return _best(f1_curve(match_boxes(coco, results, image_ids, coco.getCatIds())))


def _best(curve: NDArray[np.float64]) -> tuple[float, float] | None:
    """The candidate of the highest F1, of equals the highest one, and that F1 in percent; None where all are 0."""
    best = len(curve) - 1 - int(curve[::-1].argmax())
    return (float(CANDIDATES[best]), 100 * float(curve[best])) if curve.any() else None


def f1_curve(entries: Iterable[Matched]) -> NDArray[np.float64]:
    """F1 of the detections from each of ``CANDIDATES`` on, at the first IoU threshold; 0 where there is no box."""
    rows = list(entries)
    boxes = sum(len(entry.box_ids) for entry in rows)
    scores = np.concatenate([entry.scores[~entry.ignored[0]] for entry in rows] or [np.zeros(0)])
    right = np.concatenate([entry.boxes_of[0][~entry.ignored[0]] > 0 for entry in rows] or [np.zeros(0, bool)])
    shown = scores >= CANDIDATES[:, None]
    curve: NDArray[np.float64] = 2 * (shown & right).sum(axis=1) / np.maximum(1, shown.sum(axis=1) + boxes)
    return curve

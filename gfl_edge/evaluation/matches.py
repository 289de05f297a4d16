"""What pycocotools says of single boxes: which detections it takes for which boxes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfl_edge.evaluation.ap import open_evaluator, silent

SAME = 0.5  # IoU from which on a detection is of a box
WELL = 0.75  # ... and well placed

Flags = NDArray[np.bool_]
Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Matched:
    """Detections and boxes of one image, of one class or, where classes do not matter, of all.

    Attributes:
        image_id: of COCO.
        category_id: likewise; -1 where classes do not matter.
        scores: of the detections ``[D]``, falling.
        boxes_of: the annotation that each detection was taken for, by IoU threshold, 0 for none: ``[T, D]``.
        ignored: by IoU threshold, whether a detection counts as neither right nor wrong, as in a crowd: ``[T, D]``.
        detection_ids: of the results ``[D]``.
        box_ids: the annotations that are to be found ``[G]``, crowds left out.
        found: by IoU threshold, whether they were: ``[T, G]``.
    """

    image_id: int
    category_id: int
    scores: NDArray[np.float64]
    boxes_of: Ids
    ignored: Flags
    detection_ids: Ids
    box_ids: Ids
    found: Flags


@dataclass(frozen=True, eq=False)
class Matches:
    """All of them, and what the ids stand for: rows of COCO files by id.

    Attributes:
        entries: one for each image and class with detections or boxes.
        boxes: annotations.
        detections: results.
    """

    entries: tuple[Matched, ...]
    boxes: dict[int, dict[str, Any]]
    detections: dict[int, dict[str, Any]]

    def __iter__(self) -> Iterator[Matched]:
        return iter(self.entries)


def match_boxes(
    coco: Any,
    results: list[dict[str, Any]],
    image_ids: list[int],
    category_ids: Collection[int],
    ious: tuple[float, ...] = (SAME,),
    by_class: bool = True,
) -> Matches:
    """Match as COCO's evaluation does: in order of falling score, each detection with the free box that overlaps most.

    Args:
        coco, results, image_ids, category_ids: see :func:`gfl_edge.evaluation.ap.average_precision`.
        ious: what detections have to overlap a box by.
        by_class: only with boxes of their own class.

    Raises:
        MissingDependencyError: pycocotools is not installed.
    """
    with silent():
        run = open_evaluator(coco, results, "pycocotools")
        run.params.imgIds, run.params.catIds, run.params.iouThrs = image_ids, sorted(category_ids), np.array(ious)
        run.params.areaRng, run.params.areaRngLbl = run.params.areaRng[:1], run.params.areaRngLbl[:1]
        run.params.useCats = int(by_class)
        if not by_class:  # of all classes together there are more
            run.params.maxDets = [max(run.params.maxDets[-1], len(results))]
        run.evaluate()
    entries = tuple(_matched(entry) for entry in run.evalImgs if entry is not None)
    return Matches(entries, run.cocoGt.anns, run.cocoDt.anns)


def _matched(entry: dict[str, Any]) -> Matched:
    counts = np.asarray(entry["gtIgnore"]) == 0
    return Matched(
        image_id=entry["image_id"],
        category_id=entry["category_id"],
        scores=np.asarray(entry["dtScores"], np.float64),
        boxes_of=np.asarray(entry["dtMatches"]).astype(np.int64),
        ignored=np.asarray(entry["dtIgnore"]) != 0,
        detection_ids=np.asarray(entry["dtIds"], np.int64),
        box_ids=np.asarray(entry["gtIds"], np.int64)[counts],
        found=(np.asarray(entry["gtMatches"]) > 0)[:, counts],
    )

"""What a detector does wrong: what it takes for what, and in which images it errs most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from gfl_edge.evaluation.matches import SAME, WELL, Matched, Matches, match_boxes

BACKGROUND = None  # in a confusion: no box, or no detection

Xywh = tuple[float, float, float, float]
Pair = tuple[int | None, int | None]


@dataclass(frozen=True)
class Fault:
    """A box that was missed, a detection of nothing, or one that is badly placed.

    Attributes:
        category_id: of the class.
        bbox: x, y, width and height in pixels: of the box where it was missed, else of the detection.
        score: of the detection; None where a box was missed.
    """

    category_id: int
    bbox: Xywh
    score: float | None = None


@dataclass(frozen=True)
class ImageFaults:
    """Those of one image.

    Attributes:
        image_id: of COCO.
        missed: boxes without a detection of their class at IoU 0.5.
        false: detections without a box of their class at IoU 0.5.
        misplaced: detections whose box overlaps them by 0.5, but not by 0.75.
    """

    image_id: int
    missed: tuple[Fault, ...]
    false: tuple[Fault, ...]
    misplaced: tuple[Fault, ...]

    def __len__(self) -> int:
        return len(self.missed) + len(self.false) + len(self.misplaced)


def confusion(
    coco: Any, shown: list[dict[str, Any]], image_ids: list[int], category_ids: Collection[int]
) -> Counter[Pair]:
    """How often a box of one class was taken for another: counts by (category of the box, of the detection).

    A detection is matched with the box that overlaps it most, by 0.5 at least, whatever their classes. ``BACKGROUND``
    stands for the box of a detection without one, and for the detection of a box without one.

    Args:
        coco, image_ids, category_ids: see :func:`gfl_edge.evaluation.ap.average_precision`.
        shown: the detections that count, as by :func:`gfl_edge.evaluation.ap.coco_results`.
    """
    matches = match_boxes(coco, shown, image_ids, category_ids, by_class=False)
    counts: Counter[Pair] = Counter()
    for entry in matches:
        for detection_id, box_id, ignored in zip(entry.detection_ids, entry.boxes_of[0], entry.ignored[0], strict=True):
            if not ignored:
                taken = matches.boxes[int(box_id)]["category_id"] if box_id else BACKGROUND
                counts[taken, matches.detections[int(detection_id)]["category_id"]] += 1
        for box_id in entry.box_ids[~entry.found[0]]:
            counts[matches.boxes[int(box_id)]["category_id"], BACKGROUND] += 1
    return counts


def image_faults(
    coco: Any, shown: list[dict[str, Any]], image_ids: list[int], category_ids: Collection[int]
) -> list[ImageFaults]:
    """The faults in each image that has some, the image with the most first; arguments as above."""
    matches = match_boxes(coco, shown, image_ids, category_ids, (SAME, WELL))
    by_image: dict[int, list[Matched]] = {}
    for entry in matches:
        by_image.setdefault(entry.image_id, []).append(entry)
    faults = [_faults(image_id, entries, matches) for image_id, entries in by_image.items()]
    return sorted((each for each in faults if len(each)), key=lambda each: (-len(each), each.image_id))


def _faults(image_id: int, entries: Iterable[Matched], matches: Matches) -> ImageFaults:
    missed: list[Fault] = []
    false: list[Fault] = []
    misplaced: list[Fault] = []
    for entry in entries:
        rows = (matches.boxes[int(box_id)] for box_id in entry.box_ids[~entry.found[0]])
        missed += (Fault(row["category_id"], tuple(row["bbox"])) for row in rows)
        same, well = entry.boxes_of > 0
        for kind, chosen in ((false, ~same), (misplaced, same & ~well)):
            for detection_id in entry.detection_ids[chosen & ~entry.ignored[0]]:
                row = matches.detections[int(detection_id)]
                kind.append(Fault(row["category_id"], tuple(row["bbox"]), row["score"]))
    return ImageFaults(image_id, tuple(missed), tuple(false), tuple(misplaced))

"""Boxes that cannot be right, by their numbers and the sizes of their images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gfl_edge.annotations.records import ImageRecord, Objects
from gfl_edge.errors import AnnotationError

OVERSHOOT_PX = 1.0  # a box may end so far outside its image: annotation tools count pixels from 0 or from 1
PARTS_SHARE = 0.01  # of a set's boxes; fewer than these within their image's first pixel are slivers that do exist
MIN_SIDE_PX = 8  # of an image for which a box within its first pixel means something
MISREAD_SHARE = 0.95  # of a set's boxes that lie inside as corners, where they were given as corners

# Kinds of bad boxes, in the order of testing: a box counts once
NOT_FINITE = "with NaN or infinity"
FOREIGN = "of an unknown class"
PARTS = "within 0..1, as in parts of the image instead of pixels"
INVERTED = "inverted (x2 < x1 or y2 < y1)"
OUTSIDE = f"more than {OVERSHOOT_PX:g} px outside the image"
EMPTY = "empty (zero area)"
BOX_KINDS = (NOT_FINITE, FOREIGN, PARTS, INVERTED, OUTSIDE, EMPTY)


def bad_boxes(objects: Objects, size_hw: tuple[int, int] | None, in_parts: bool) -> dict[str, NDArray[np.bool_]]:
    """Masks ``[n]`` of bad boxes by kind; a box is in one of them at most."""
    height, width = size_hw or (np.inf, np.inf)
    limit = np.array((width, height), np.float32)
    x1y1, x2y2 = objects.boxes[:, :2], objects.boxes[:, 2:]
    with np.errstate(invalid="ignore"):  # infinity less infinity
        sides = x2y2 - x1y1
    outside = (np.minimum(x1y1, x2y2) < -OVERSHOOT_PX) | (np.maximum(x1y1, x2y2) > limit + OVERSHOOT_PX)
    found: dict[str, NDArray[np.bool_]] = {
        NOT_FINITE: _any(~np.isfinite(objects.boxes)),
        FOREIGN: objects.labels < 0,
        PARTS: _first_pixel(objects, size_hw) & in_parts,
        INVERTED: _any(sides < 0),
        OUTSIDE: _any(outside),
        EMPTY: _any(np.minimum(x2y2, limit) <= np.maximum(x1y1, 0)),  # also after clipping
    }
    taken = np.zeros(len(objects), np.bool_)
    for kind, mask in found.items():
        found[kind] = mask & ~taken
        taken |= mask
    return found


def are_parts(records: list[ImageRecord]) -> bool:
    """Whether so many boxes are within 0..1 that they are in parts of their images."""
    found = sum(int(_first_pixel(record.objects, record.size_hw).sum()) for record in records)
    return found > PARTS_SHARE * sum(len(record.objects) for record in records)


def check_corners(origin: str, records: list[ImageRecord]) -> None:
    """Raise AnnotationError where boxes are outside that x1, y1, x2, y2 would all be inside, if those were given."""
    boxes = np.concatenate([record.boxes for record in records] or [np.empty((0, 4), np.float32)])
    sizes = [(*(record.size_hw or (np.inf, np.inf))[::-1],) for record in records for _ in range(len(record.objects))]
    limits = np.array(sizes, np.float32).reshape(-1, 2) + np.float32(OVERSHOOT_PX)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        ends = boxes[:, 2:] - boxes[:, :2]  # the last two numbers, taken as corners
    outside = _any(boxes[:, 2:] > limits)
    inside = ((boxes[:, :2] >= -OVERSHOOT_PX) & (ends > boxes[:, :2]) & (ends <= limits)).all(axis=1)
    if outside.sum() >= 2 and inside.mean() >= MISREAD_SHARE:
        raise AnnotationError(
            f"{origin}: {outside.sum()} of {len(boxes)} boxes end outside of their images, and as x1, y1, x2, y2 "
            f"{inside.sum()} would be inside. Write x, y, width, height, as COCO has them"
        )


def _first_pixel(objects: Objects, size_hw: tuple[int, int] | None) -> NDArray[np.bool_]:
    """Which boxes ``[n]`` are within 0..1 of an image of more than a few pixels."""
    if size_hw is not None and min(size_hw) < MIN_SIDE_PX:
        return np.zeros(len(objects), np.bool_)
    with np.errstate(invalid="ignore"):
        sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
    inside: NDArray[np.bool_] = (abs(objects.boxes[:, :2]) <= 1) & (sides > 0) & (sides <= 1)
    return np.asarray(inside.all(axis=1), np.bool_)


def _any(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether any of a row ``[n, m]`` holds, ``[n]``."""
    return np.asarray(mask.any(axis=1), np.bool_)

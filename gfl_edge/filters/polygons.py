"""Polygons in NumPy: whether points lie in one, what share of a box does, and whether its border crosses itself.

A polygon is float64 ``[k, 2]``, its corners x, y in the order round the border, in either direction. What lies on the
border lies inside.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]


def inside(points: Doubles, polygon: Doubles) -> Mask:
    """Which of the points ``[n, 2]`` lie in the polygon ``[n]``: by how many edges are right of each."""
    start, end = polygon, np.roll(polygon, -1, axis=0)
    x, y = points[:, :1], points[:, 1:]
    # The half-open rule counts an edge at its lower end only, so that a ray through a corner meets one of its two
    passes = (start[:, 1] > y) != (end[:, 1] > y)
    side = _cross(end - start, np.stack((x - start[:, 0], y - start[:, 1]), axis=-1))
    right = np.where(end[:, 1] > start[:, 1], side > 0, side < 0)
    low, high = np.minimum(start, end), np.maximum(start, end)
    on = (side == 0) & (low[:, 0] <= x) & (x <= high[:, 0]) & (low[:, 1] <= y) & (y <= high[:, 1])
    return np.asarray(((passes & right).sum(axis=1) % 2 == 1) | on.any(axis=1))


def share_inside(boxes: Doubles, polygon: Doubles) -> Doubles:
    """What share of the area of each box ``[n, 4]`` xyxy lies in a simple polygon ``[n]``, 0..1.

    Of a box without area it is 1 where its center lies inside, else 0.
    """
    whole = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    empty = whole <= 0
    shares = np.abs(_signed_overlaps(boxes, polygon)) / np.where(empty, 1, whole)
    shares[empty] = inside((boxes[empty, :2] + boxes[empty, 2:]) / 2, polygon)
    return np.minimum(shares, 1)


def _signed_overlaps(boxes: Doubles, polygon: Doubles) -> Doubles:
    """The area of each box within the polygon ``[n]``, negative where the polygon turns the other way.

    By Green's theorem: of each edge, what lies between it, where it is cut back to the box, and the upper side of the
    box. Left and right of the box an edge counts for nothing, above and below as if it ran along the side of the box.
    """
    left, top, right, bottom = (boxes[:, i, None] for i in range(4))
    start, end = polygon, np.roll(polygon, -1, axis=0)
    x1, x2 = np.clip(start[:, 0], left, right), np.clip(end[:, 0], left, right)
    width = np.where(start[:, 0] == end[:, 0], 1, end[:, 0] - start[:, 0])
    slope = (end[:, 1] - start[:, 1]) / width
    y1, y2 = start[:, 1] + slope * (x1 - start[:, 0]), start[:, 1] + slope * (x2 - start[:, 0])
    # Between its ends the edge may enter and leave the box: up to three straight pieces
    height = np.where(y1 == y2, 1, y2 - y1)
    bends = [np.where(y1 == y2, 0, np.clip((side - y1) / height, 0, 1)) for side in (top, bottom)]
    first, second = np.minimum(*bends), np.maximum(*bends)
    shares = np.stack((np.zeros_like(first), first, second, np.ones_like(first)))
    heights = np.clip(y1 + shares * (y2 - y1), top, bottom) - top
    means = (heights[:-1] + heights[1:]) / 2
    areas: Doubles = (np.diff(shares, axis=0) * means).sum(axis=0) * (x2 - x1)
    return np.asarray(areas.sum(axis=1))


def signed_area(polygon: Doubles) -> float:
    """The area of a polygon, negative in one of the two directions."""
    around = polygon - polygon[0]  # fewer digits are lost
    return float(_cross(around, np.roll(around, -1, axis=0)).sum() / 2)


def crossing(polygon: Doubles) -> tuple[int, int] | None:
    """The first two edges that touch or cross where they should not, by the numbers of their first corners; else None.

    Neighbors share a corner, and may do no more than that.
    """
    k = len(polygon)
    start, end = polygon, np.roll(polygon, -1, axis=0)
    i, j = np.triu_indices(k, 1)
    beside = (j == i + 1) | ((i == 0) & (j == k - 1))
    met = np.where(beside, _fold_back(start, end, i, j), _meet(start[i], end[i], start[j], end[j]))
    return None if not met.any() else (int(i[met.argmax()]), int(j[met.argmax()]))


def _meet(a: Doubles, b: Doubles, c: Doubles, d: Doubles) -> Mask:
    """Whether the line from a to b has a point of that from c to d ``[n]``, each ``[n, 2]``."""
    sides = [np.sign(_cross(b - a, p - a)) for p in (c, d)] + [np.sign(_cross(d - c, p - c)) for p in (a, b)]
    apart = (np.minimum(a, b) > np.maximum(c, d)).any(axis=1) | (np.minimum(c, d) > np.maximum(a, b)).any(axis=1)
    return np.asarray((sides[0] * sides[1] <= 0) & (sides[2] * sides[3] <= 0) & ~apart)


def _fold_back(start: Doubles, end: Doubles, i: NDArray[np.intp], j: NDArray[np.intp]) -> Mask:
    """Whether one of two neighbors runs back along the other."""
    one, other = end[i] - start[i], end[j] - start[j]
    return np.asarray((_cross(one, other) == 0) & ((one * other).sum(axis=1) < 0))


def _cross(a: Doubles, b: Doubles) -> Doubles:
    """The cross product of vectors ``[..., 2]``."""
    return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])

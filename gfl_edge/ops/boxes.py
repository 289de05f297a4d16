"""Box maths in NumPy: the readable reference that graphs and kernels are compared with.

Boxes are float32 ``[..., 4]`` xyxy in pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

MAX_COORDINATE = np.float32(2**20)  # pixels; beyond, boxes are no boxes: their areas and shifts would lose their digits
TINY = np.float32(1e-9)  # square pixels; keeps 0 / 0 of empty boxes at IoU 0, as torchvision's NaN compares


def areas(boxes: Floats) -> Floats:
    """Areas ``[...]`` of boxes ``[..., 4]``; negative sides count as they are."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def sound(boxes: Floats, scores: Floats) -> NDArray[np.bool_]:
    """Which of boxes ``[n, 4]`` with scores ``[n]`` can be detections ``[n]``: the rule of the host, graph and kernels.

    The score is 0..1, the corners are numbers of at most ``MAX_COORDINATE`` pixels, and the second is not left of or
    above the first. A box without area is sound: clipping leaves one of what lies at the border.
    """
    with np.errstate(invalid="ignore"):  # of NaN every comparison is False
        within = (np.abs(boxes) <= MAX_COORDINATE).all(axis=-1) & (scores >= 0) & (scores <= 1)
        return np.asarray(within & (boxes[..., :2] <= boxes[..., 2:]).all(axis=-1))


def sound_sigmas(sigmas: Floats) -> NDArray[np.bool_]:
    """Which of the standard deviations ``[n, 4]`` of edges are numbers of 0 to ``MAX_COORDINATE`` pixels ``[n]``.

    Those that are decoded from a :func:`sound` box are; those that a foreign model gives need not be.
    """
    with np.errstate(invalid="ignore"):
        return np.asarray(((sigmas >= 0) & (sigmas <= MAX_COORDINATE)).all(axis=-1))


def pairwise_iou(a: Floats, b: Floats) -> Floats:
    """Intersection over union ``[n, m]`` of boxes ``[n, 4]`` and ``[m, 4]``; 0 where both are empty."""
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = np.maximum(bottom_right - top_left, np.float32(0))
    intersection = sides[..., 0] * sides[..., 1]
    union = areas(a)[:, None] + areas(b)[None, :] - intersection
    return np.asarray(intersection / np.maximum(union, TINY), np.float32)


def greedy_nms(boxes: Floats, iou_threshold: float) -> NDArray[np.bool_]:
    """Greedy non-maximum suppression over boxes ``[n, 4]`` that are already in order of falling score.

    A box is dropped if its IoU with an earlier kept box is strictly above ``iou_threshold`` (torchvision's rule).
    Returns the kept mask ``[n]``.
    """
    overlaps = pairwise_iou(boxes, boxes) > np.float32(iou_threshold)
    keep = np.ones(len(boxes), np.bool_)
    for i in range(len(boxes)):
        if keep[i]:
            keep[i + 1 :] &= ~overlaps[i, i + 1 :]
    return keep


def multiclass_nms(
    boxes: Floats,
    scores: Floats,
    *,
    score_threshold: float,
    iou_threshold: float,
    max_candidates: int,
    max_detections: int,
) -> tuple[Floats, Floats, NDArray[np.int32]]:
    """Class-wise greedy NMS over every (anchor, class) pair.

    Pairs strictly above ``score_threshold`` are ordered by falling score, equal scores by lower ``anchor * C + class``;
    the first ``max_candidates`` enter NMS, the first ``max_detections`` survivors are returned. Candidates that are
    not :func:`sound` neither survive nor suppress others.

    Args:
        boxes: ``[A, 4]``.
        scores: ``[A, C]``, 0..1; NaN counts as 0.

    Returns:
        boxes ``[n, 4]``, scores ``[n]``, class indices int32 ``[n]``, in order of falling score.
    """
    num_classes = scores.shape[1]
    flat = scores.reshape(-1)
    (pairs,) = np.nonzero(flat > np.float32(score_threshold))
    order = np.argsort(-flat[pairs], kind="stable")[:max_candidates]
    pairs = pairs[order]
    pairs = pairs[sound(boxes[pairs // num_classes], flat[pairs])]
    anchors, classes = np.divmod(pairs, num_classes)
    kept = classwise_nms(boxes[anchors], classes, iou_threshold)[:max_detections]
    return boxes[anchors[kept]], flat[pairs[kept]], classes[kept].astype(np.int32)


def classwise_nms(boxes: Floats, classes: Indices, iou_threshold: float) -> Indices:
    """Greedy NMS in which only boxes of the same class suppress each other.

    Args:
        boxes: ``[n, 4]``, in order of falling score.
        classes: ``[n]``.

    Returns:
        The indices of the kept boxes, rising.
    """
    keep = np.zeros(len(boxes), np.bool_)
    for class_index in np.unique(classes):
        (members,) = np.nonzero(classes == class_index)
        keep[members] = greedy_nms(boxes[members], iou_threshold)
    return np.nonzero(keep)[0]

"""What the standard deviations of edges must be, by the textbook and not by the project's own decode."""

from __future__ import annotations

import numpy as np

from gfl_edge.ops.boxes import multiclass_nms
from gfl_edge.ops.decode import decode
from gfl_edge.spec import ModelSpec

RULE = ("score_threshold", "iou_threshold", "max_candidates", "max_detections")


def deviations(logits: np.ndarray) -> np.ndarray:
    """``[..., 4 * bins]`` -> ``[..., 4]`` in strides: sqrt(E[i^2] - E[i]^2), float64."""
    rows = logits.astype(np.float64).reshape(*logits.shape[:-1], 4, -1)
    with np.errstate(invalid="ignore", over="ignore"):
        chances = np.exp(rows - rows.max(axis=-1, keepdims=True))
        chances /= chances.sum(axis=-1, keepdims=True)
        bins = np.arange(rows.shape[-1], dtype=np.float64)
        return np.sqrt(np.maximum((chances * bins**2).sum(axis=-1) - (chances * bins).sum(axis=-1) ** 2, 0))


def sigmas_of_points(reg_logits: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """``[A, 4]`` in pixels of the input, float32."""
    height, width = spec.input_hw
    strides = np.concatenate([np.full(-(-height // s) * -(-width // s), s) for s in spec.strides])
    return (deviations(reg_logits) * strides[:, None]).astype(np.float32)


def expected(cls_logits: np.ndarray, reg_logits: np.ndarray, spec: ModelSpec) -> tuple[np.ndarray, ...]:
    """Boxes, scores, classes and sigmas that are to be found in one image."""
    cls, reg = cls_logits.astype(np.float32), reg_logits.astype(np.float32)
    boxes = decode(reg, spec.input_hw, spec.strides, spec.point_offset)
    with np.errstate(over="ignore"):
        scores = (1 / (1 + np.exp(-cls))).astype(np.float32)
    found = multiclass_nms(boxes, scores, **{name: getattr(spec, name) for name in RULE})
    return *found, sigmas_of_points(reg, spec)[anchors_of(*found, boxes, scores)]


def anchors_of(found_boxes, found_scores, found_classes, boxes, scores) -> list[int]:
    """Of which point each detection is; of several that are alike, the first that no detection before is of."""
    anchors: list[int] = []
    taken: set[tuple[int, int]] = set()
    for box, score, label in zip(found_boxes, found_scores, found_classes, strict=True):
        alike = np.flatnonzero((boxes == box).all(axis=1) & (scores[:, label] == score))
        anchor = next(int(it) for it in alike if (int(it), int(label)) not in taken)
        taken.add((anchor, int(label)))
        anchors.append(anchor)
    return anchors

"""From a model's outputs to detections on the host, whatever the model left undone."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfl_edge import optional
from gfl_edge.ops import decode
from gfl_edge.ops.boxes import Floats, Indices, areas
from gfl_edge.spec import ModelSpec

_points = functools.lru_cache(maxsize=16)(decode.points)  # a model of dynamic size sees a few sizes

CHUNK = 200  # candidates; 100 to 400 take within 10 % as long, all of them at once 1.6 times as long

Outputs = dict[str, NDArray[np.generic]]  # of a model, by output name, see gfl_edge.spec
Found = tuple[Floats, Floats, NDArray[np.int32]]  # boxes [n, 4], scores [n], classes [n], by falling score


def detections(outputs: Outputs, index: int, spec: ModelSpec, input_hw: tuple[int, int]) -> Found:
    """The detections of one image of a batch; the arrays may be views on ``outputs``.

    Args:
        outputs: of a backend, see :meth:`gfl_edge.backends.base.Backend.run`.
        index: of the image.
        spec: the model's description.
        input_hw: the size that the model was run at, in pixels.
    """
    if "num_dets" in outputs:
        count = int(np.asarray(outputs["num_dets"])[index, 0])
        boxes, scores, classes = (outputs[name][index, :count] for name in ("det_boxes", "det_scores", "det_classes"))
        return np.asarray(boxes, np.float32), np.asarray(scores, np.float32), np.asarray(classes, np.int32)
    if spec.nms == "raw":
        return detections_from_raw(outputs["cls_logits"][index], outputs["reg_logits"][index], spec, input_hw)
    return detections_from_scores(outputs["boxes"][index], outputs["scores"][index], spec)


def detections_from_scores(boxes: NDArray[Any], scores: NDArray[Any], spec: ModelSpec) -> Found:
    """What :func:`gfl_edge.ops.boxes.multiclass_nms` gives, with :func:`kept_boxes`.

    Args:
        boxes: float32 or float16 ``[A, 4]`` xyxy in pixels of the input.
        scores: the same ``[A, C]``, 0..1; NaN counts as 0.
        spec: thresholds.
    """
    flat = np.asarray(scores, np.float32).reshape(-1)
    pairs = np.flatnonzero(flat > np.float32(spec.score_threshold))
    pairs = pairs[np.argsort(-flat[pairs], kind="stable")[: spec.max_candidates]]
    anchors, classes = np.divmod(pairs, scores.shape[1])
    candidates = np.asarray(boxes[anchors], np.float32)
    kept = kept_boxes(candidates, classes, spec.iou_threshold, spec.max_detections)
    return candidates[kept], flat[pairs[kept]], classes[kept].astype(np.int32)


def detections_from_raw(
    cls_logits: NDArray[Any], reg_logits: NDArray[Any], spec: ModelSpec, input_hw: tuple[int, int]
) -> Found:
    """What :func:`gfl_edge.ops.boxes.multiclass_nms` gives for the decoded maps, decoding only the survivors.

    Args:
        cls_logits: float32 or float16 ``[A, C]``; NaN counts as score 0.
        reg_logits: the same ``[A, 4 * (reg_max + 1)]``.
        spec: thresholds, strides and point offset.
        input_hw: the size that the model was run at, in pixels.
    """
    flat = np.asarray(cls_logits).reshape(-1)
    pairs = np.flatnonzero(flat > _cutoff(spec.score_threshold, flat.dtype))
    scores = sigmoid(flat[pairs])
    # The cut-off lets a little more through than the threshold, so that rounding decides as it does without it
    (confident,) = np.nonzero(scores > np.float32(spec.score_threshold))
    order = confident[np.argsort(-scores[confident], kind="stable")[: spec.max_candidates]]
    scores = scores[order]
    anchors, classes = np.divmod(pairs[order], cls_logits.shape[1])
    centers, cell_strides = _points(input_hw, spec.strides, spec.point_offset)
    distances = decode.integral(np.asarray(np.asarray(reg_logits)[anchors], np.float32)) * cell_strides[anchors, None]
    boxes = decode.boxes_from_distances(distances, centers[anchors], input_hw)
    kept = kept_boxes(boxes, classes, spec.iou_threshold, spec.max_detections)
    return boxes[kept], scores[kept], classes[kept].astype(np.int32)


def kept_boxes(boxes: Floats, classes: Indices, iou_threshold: float, most: int) -> Indices:
    """The first ``most`` boxes that :func:`gfl_edge.ops.boxes.classwise_nms` keeps, by OpenCV, about ten times faster.

    OpenCV's IoU is rounded once more: pairs within 1e-7 of the threshold may fall on the other side of it.

    Args:
        boxes: ``[n, 4]`` xyxy in order of falling score, with coordinates from 0 on.
        classes: ``[n]``.
        iou_threshold: 0..1.
        most: how many at most.

    Returns:
        Their indices, rising.
    """
    suppress = optional.load("cv2").dnn.NMSBoxes
    (empty,) = np.nonzero(areas(boxes) <= 0)
    apart = boxes.astype(np.float64)
    apart[:, 2:] -= apart[:, :2]
    apart[:, :2] += (classes * (2.0 * (1 + boxes.max(initial=0))))[:, None]  # classes side by side never overlap
    apart[empty] = 1  # empty boxes overlap with nothing, yet in OpenCV all with each other: unit squares in a row
    apart[empty, 0] = -2 * np.arange(1, 1 + len(empty))
    falling = np.arange(len(boxes), 0, -1, dtype=np.float32)  # of the scores only their order matters
    kept = np.empty(0, np.int64)
    for start in range(0, len(boxes), CHUNK):  # a box depends only on those before it: mostly the first few suffice
        tried = np.concatenate((kept, np.arange(start, min(start + CHUNK, len(boxes)))))
        kept = tried[np.asarray(suppress(apart[tried], falling[tried], 0.0, iou_threshold), np.int64)]
        if len(kept) >= most:
            break
    return kept[:most]


def sigmoid(logits: NDArray[Any]) -> Floats:
    """Logits -> scores 0..1, float32."""
    with np.errstate(over="ignore"):  # exp of a large number is infinite, and the score 0
        return np.asarray(1 / (1 + np.exp(-np.asarray(logits, np.float32))), np.float32)


def _cutoff(score_threshold: float, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A logit that is just below every one whose score is above the threshold, in the type of the logits."""
    below = score_threshold * (1 - 1e-5)
    logit = math.log(below / (1 - below)) if below > 0 else -math.inf
    return np.asarray(np.nextafter(np.array(logit, dtype), np.array(-math.inf, dtype)))

"""Input for the CUDA kernels, and what they must make of it, in NumPy."""

from __future__ import annotations

import numpy as np

from benchmarks.kernels.library import NmsCall, nms_params
from gfl_edge.ops.boxes import greedy_nms, sound
from gfl_edge.spec import INVALID_CLASS, PADDING_CLASS

INVALID_ARGUMENT, CUDA_ERROR = 1, 2
LEVELS = {"strides": (8, 16, 32, 64), "input_hw": (72, 104)}
LEVEL_ANCHORS = (9 * 13, 5 * 7, 3 * 4, 2 * 2)  # their number is odd times odd: no level begins at 16 bytes
ORDERS = [("forward", 0), ("reverse", 0), ("random", 1), ("random", 2)]


def random_boxes(rng, anchors, batch=1, size=400):
    corner = rng.uniform(0, size, (batch, anchors, 2))
    return np.concatenate((corner, corner + rng.exponential(size / 8, corner.shape)), axis=2).astype(np.float32)


def few_high_scores(rng, shape):
    """Nearly all are near 0, as a detector's are."""
    return (rng.uniform(0, 1, shape) ** 12).astype(np.float32)


def reference(boxes, scores, params, lists=None):
    """NMS of one image, boxes [A, 4] and scores [A, C], in NumPy; ``lists`` are the numbers of anchors per list.

    Returns boxes, scores, classes, and how many candidates were left out, those of NaN after all others.
    """
    invalid = 0
    flat = scores.reshape(-1)
    pairs = []
    begin = 0
    for anchors in lists or [len(scores)]:
        end = begin + anchors * scores.shape[1]
        (above,) = np.nonzero(flat[begin:end] > np.float32(params.score_threshold))
        pairs.append(begin + above[np.argsort(-flat[begin + above], kind="stable")[: params.max_candidates]])
        invalid += min(np.count_nonzero(np.isnan(flat[begin:end])), params.max_candidates - len(pairs[-1]))
        begin = end
    pairs = np.sort(np.concatenate(pairs))
    pairs = pairs[np.argsort(-flat[pairs], kind="stable")]
    chosen = sound(boxes[pairs // scores.shape[1]], flat[pairs])
    invalid += np.count_nonzero(~chosen)
    pairs = pairs[chosen]
    anchors, classes = np.divmod(pairs, scores.shape[1])
    groups = np.zeros_like(classes) if params.class_agnostic else classes
    keep = np.zeros(len(pairs), bool)
    for group in np.unique(groups):
        (members,) = np.nonzero(groups == group)
        keep[members] = greedy_nms(boxes[anchors[members]], params.iou_threshold)
    kept = np.nonzero(keep)[0][: params.max_detections]
    return boxes[anchors[kept]], flat[pairs[kept]], classes[kept], invalid


def assert_detections(found, expected):
    """Bit-exact, and padded; ``expected`` has (boxes, scores, classes, invalid) per image."""
    for i, (boxes, scores, classes, invalid) in enumerate(expected):
        count = len(scores)
        assert found["num_dets"][i, 0] == count
        for name, values in (("boxes", boxes), ("scores", scores), ("classes", classes)):
            np.testing.assert_array_equal(found[f"det_{name}"][i, :count], values)
        assert not found["det_boxes"][i, count:].any()
        assert not found["det_scores"][i, count:].any()
        rest = np.arange(found["det_classes"].shape[1] - count)
        wanted = np.where(rest < invalid, INVALID_CLASS, PADDING_CLASS)
        np.testing.assert_array_equal(found["det_classes"][i, count:], wanted)


def assert_equals_reference(library, boxes, scores, lists=None, strides=(), input_hw=(0, 0), **fields):
    params = nms_params(scores, strides=strides, input_hw=input_hw, **fields)
    found = library.nms(params, scores=scores, boxes=boxes)
    with np.errstate(all="ignore"):
        expected = [reference(b, s.astype(np.float32), params, lists) for b, s in zip(boxes, scores, strict=True)]
    assert_detections(found, expected)
    return found


def small_call(library, memory, **fields):
    scores = np.zeros((1, sum(LEVEL_ANCHORS), 2), np.float32)
    params = nms_params(scores, **LEVELS, **fields)
    return NmsCall(library, memory, params, scores=scores, boxes=np.zeros((1, sum(LEVEL_ANCHORS), 4), np.float32))

"""NumPy NMS against a slow, obvious one, at the edges that torchvision's test_ops.py aims at."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfl_edge.ops.boxes import areas, greedy_nms, multiclass_nms, pairwise_iou

RULE = {"score_threshold": 0.05, "iou_threshold": 0.6, "max_candidates": 1000, "max_detections": 100}


def slow_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union if union > 0 else 0.0


def slow_nms(boxes, scores, rule):
    """One candidate after the other, best first, in Python floats."""
    pairs = [(-scores[a, c], a, c) for a in range(len(boxes)) for c in range(scores.shape[1])]
    pairs = sorted(p for p in pairs if -p[0] > np.float32(rule["score_threshold"]))[: rule["max_candidates"]]
    kept = []
    for _, anchor, class_id in pairs:
        if all(k != class_id or slow_iou(boxes[anchor], boxes[b]) <= rule["iou_threshold"] for b, k in kept):
            kept.append((anchor, class_id))
    return kept[: rule["max_detections"]]


def grid_boxes(rng, count, size=8):
    """Boxes with small integer corners, so that IoUs are simple fractions and ties are many."""
    corner = rng.integers(0, size, (count, 2))
    return np.concatenate((corner, corner + rng.integers(0, size, (count, 2))), axis=1).astype(np.float32)


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 30), classes=st.integers(1, 3), levels=st.integers(1, 20))
@settings(max_examples=150, deadline=None)
def test_equals_the_slow_version_on_random_and_tied_input(seed, count, classes, levels):
    rng = np.random.default_rng(seed)
    boxes = grid_boxes(rng, count)
    scores = (rng.integers(0, levels + 1, (count, classes)) / levels).astype(np.float32)
    found_boxes, found_scores, found_classes = multiclass_nms(boxes, scores, **RULE)
    expected = slow_nms(boxes.astype(float), scores, RULE)
    np.testing.assert_array_equal(found_classes, [c for _, c in expected])
    np.testing.assert_array_equal(found_scores, [scores[a, c] for a, c in expected])
    np.testing.assert_array_equal(found_boxes.reshape(-1, 4), boxes[[a for a, _ in expected]].reshape(-1, 4))


def test_iou_exactly_at_the_threshold_is_kept():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 6]], np.float32)  # IoU 0.6 in real numbers
    iou = pairwise_iou(boxes, boxes)[0, 1]
    assert greedy_nms(boxes, float(iou)).tolist() == [True, True]
    assert greedy_nms(boxes, float(np.nextafter(iou, np.float32(0)))).tolist() == [True, False]


def test_score_exactly_at_the_threshold_is_dropped():
    boxes = np.array([[0, 0, 10, 10]], np.float32)
    threshold = np.float32(RULE["score_threshold"])
    assert len(multiclass_nms(boxes, np.array([[threshold]]), **RULE)[1]) == 0
    assert len(multiclass_nms(boxes, np.array([[np.nextafter(threshold, np.float32(1))]]), **RULE)[1]) == 1


def test_equal_scores_keep_the_lower_index():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9]], np.float32)
    found, _, _ = multiclass_nms(boxes, np.array([[0.5], [0.5]], np.float32), **RULE)
    np.testing.assert_array_equal(found, boxes[:1])


def test_classes_do_not_suppress_each_other():
    boxes = np.array([[0, 0, 10, 10]], np.float32)
    _, _, classes = multiclass_nms(boxes, np.array([[0.9, 0.8]], np.float32), **RULE)
    assert classes.tolist() == [0, 1]


@pytest.mark.parametrize("value", [0.0, 0.01, np.nan])
def test_nothing_above_the_threshold_gives_nothing(value):
    found = multiclass_nms(np.zeros((5, 4), np.float32), np.full((5, 2), value, np.float32), **RULE)
    assert [part.shape for part in found] == [(0, 4), (0,), (0,)]


def test_limits_on_candidates_and_detections():
    boxes = np.array([[20 * i, 0, 20 * i + 10, 10] for i in range(9)], np.float32)
    scores = np.linspace(0.9, 0.1, 9, dtype=np.float32)[:, None]
    limits = {**RULE, "max_candidates": 5}
    assert len(multiclass_nms(boxes, scores, **limits)[1]) == 5
    assert len(multiclass_nms(boxes, scores, **{**limits, "max_detections": 3})[1]) == 3


@pytest.mark.parametrize("side", [0.001, 1.0, 1000.0])
def test_a_box_overlaps_itself_wholly_however_small_it_is(side):
    boxes = np.array([[0, 0, side, side], [0, 0, side / 2, side]], np.float32)
    np.testing.assert_allclose(pairwise_iou(boxes, boxes), [[1, 0.5], [0.5, 1]], rtol=1e-6)


def test_types_of_what_comes_out():
    boxes = np.array([[0, 0, 10, 10]])
    assert pairwise_iou(boxes, boxes.astype(np.float64)).dtype == np.float32
    found = multiclass_nms(boxes.astype(np.float32), np.array([[0.5]], np.float32), **RULE)
    assert [part.dtype for part in found] == [np.float32, np.float32, np.int32]


def test_empty_boxes_overlap_nothing():
    boxes = np.array([[5, 5, 5, 5], [5, 5, 5, 5], [0, 0, 10, 10]], np.float32)
    assert greedy_nms(boxes, 0.6).all()
    assert areas(boxes).tolist() == [0, 0, 100]

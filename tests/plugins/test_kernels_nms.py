"""The CUDA kernels on given boxes and scores, emulated and on a GPU: bit-exact against NumPy and ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.kernels.library import nms_params
from gfl_edge.ops.boxes import multiclass_nms, pairwise_iou
from gfl_edge.spec import INVALID_CLASS
from tests.support import nms_graph
from tests.support.kernel_cases import (
    LEVEL_ANCHORS,
    LEVELS,
    ORDERS,
    assert_detections,
    assert_equals_reference,
    few_high_scores,
    random_boxes,
    reference,
)


def test_the_reference_is_multiclass_nms():
    rng = np.random.default_rng(0)
    boxes, scores = random_boxes(rng, 500)[0], few_high_scores(rng, (500, 3))
    params = nms_params(scores[None])
    rule = {"score_threshold": 0.05, "iou_threshold": 0.6, "max_candidates": 1000, "max_detections": 100}
    for own, want in zip(reference(boxes, scores, params)[:3], multiclass_nms(boxes, scores, **rule), strict=True):
        np.testing.assert_array_equal(own, want)


@pytest.mark.parametrize(("order", "seed"), ORDERS)
@pytest.mark.parametrize("fields", [{}, {"class_agnostic": 1}, {"max_detections": 700, "max_candidates": 3000}])
def test_random_input_in_any_order_of_threads(emulated, order, seed, fields):
    emulated.order(order, seed)
    rng = np.random.default_rng(1)
    assert_equals_reference(emulated, random_boxes(rng, 1801, 2), few_high_scores(rng, (2, 1801, 7)), **fields)


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 90), st.integers(1, 5)),
    gray_levels=st.integers(1, 30),
    size=st.integers(2, 12),
    rule=st.fixed_dictionaries(
        {
            "max_candidates": st.integers(1, 600),
            "max_detections": st.integers(1, 600),
            "class_agnostic": st.integers(0, 1),
            "score_threshold": st.sampled_from([0.0, 0.05, 0.5, 1.0]),
            "iou_threshold": st.sampled_from([0.0, 0.25, 0.5, 1.0]),
        }
    ),
    dtype=st.sampled_from([np.float32, np.float16]),
)
@settings(max_examples=60, deadline=None)
def test_ties(library, seed, shape, gray_levels, size, rule, dtype):
    """Few values of scores and coordinates: equal scores, equal boxes, empty ones, IoUs at the threshold."""
    rng = np.random.default_rng(seed)
    scores = (rng.integers(0, gray_levels + 1, shape) / gray_levels).astype(dtype)
    corner = rng.integers(0, size, (*shape[:2], 2))
    boxes = np.concatenate((corner, corner + rng.integers(0, size, corner.shape)), axis=2).astype(np.float32)
    assert_equals_reference(library, boxes, scores, **rule)


ODD_NUMBERS = [-np.inf, -1.0, -0.0, 0.0, 1e-30, 1.0, 7.0, 3e38, np.inf, np.nan]


@given(seed=st.integers(0, 2**32 - 1), iou_threshold=st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=40, deadline=None)
def test_odd_boxes_and_scores(library, seed, iou_threshold):
    """NaN, infinite, inverted and huge boxes and scores are left out and counted."""
    rng = np.random.default_rng(seed)
    boxes = rng.choice(np.array(ODD_NUMBERS, np.float32), (2, 40, 4))
    scores = rng.choice(np.array([*ODD_NUMBERS, 0.5, 0.9], np.float32), (2, 40, 2))
    assert_equals_reference(library, boxes, scores, iou_threshold=iou_threshold)
    assert_equals_reference(library, boxes, scores, max_candidates=20, max_detections=9, class_agnostic=1)


def test_one_bad_box_leaves_the_others(library):
    rng = np.random.default_rng(6)
    boxes, scores = random_boxes(rng, 700), rng.uniform(0.1, 0.8, (1, 700, 2)).astype(np.float32)
    before = assert_equals_reference(library, boxes, scores, max_candidates=2000, max_detections=2000)
    count = before["num_dets"][0, 0]
    boxes, scores = np.append(boxes, boxes[:, :3], axis=1), np.append(scores, np.full((1, 3, 2), 0.9), axis=1)
    boxes[0, 700], boxes[0, 701, 2], boxes[0, 702, 0] = np.nan, np.inf, 1e9
    scores = scores.astype(np.float32)
    after = assert_equals_reference(library, boxes, scores, max_candidates=2000, max_detections=2000)
    np.testing.assert_array_equal(after["det_boxes"][:, :count], before["det_boxes"][:, :count])
    assert np.count_nonzero(after["det_classes"] == INVALID_CLASS) == 6


@pytest.mark.parametrize("kind", ["scores", "boxes"])
def test_nothing_but_nan(library, kind):
    """As after a network with NaN in its weights: nothing is found, and everything is counted."""
    boxes, scores = np.zeros((2, 999, 4), np.float32), np.full((2, 999, 3), 0.5, np.float32)
    (scores if kind == "scores" else boxes)[...] = -np.float32(np.nan)
    found = assert_equals_reference(library, boxes, scores)
    assert (found["det_classes"] == INVALID_CLASS).all()


@pytest.mark.parametrize("value", [0.0, 0.05, -1.0, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_nothing_above_the_threshold(library, value, dtype):
    threshold = float(dtype(0.05))
    scores = np.full((2, 999, 3), threshold if value == 0.05 else value, dtype)
    found = assert_equals_reference(
        library, random_boxes(np.random.default_rng(0), 999, 2), scores, score_threshold=0.05
    )
    assert not found["num_dets"].any() or (dtype == np.float16 and value == 0.05 and threshold > 0.05)


def test_the_score_threshold_is_strict(library):
    threshold = np.float32(0.3)
    scores = np.array([threshold, np.nextafter(threshold, np.float32(1))], np.float32).reshape(1, 2, 1)
    found = assert_equals_reference(library, random_boxes(np.random.default_rng(0), 2), scores, score_threshold=0.3)
    assert found["num_dets"].tolist() == [[1]]


def test_one_image_empty_and_the_others_not(library):
    rng = np.random.default_rng(2)
    scores = few_high_scores(rng, (3, 333, 5))
    scores[1] = 0
    assert_equals_reference(library, random_boxes(rng, 333, 3), scores)


@pytest.mark.parametrize(("classes", "agnostic", "kept"), [(3, 0, 3), (3, 1, 1), (1, 0, 1)])
def test_equal_boxes_leave_the_best_of_a_class(library, classes, agnostic, kept):
    boxes = np.tile(np.array([3, 3, 20, 20], np.float32), (1, 700, 1))
    scores = np.full((1, 700, classes), 0.5, np.float32)
    found = assert_equals_reference(library, boxes, scores, class_agnostic=agnostic, max_candidates=2100)
    assert found["num_dets"].tolist() == [[kept]]


def test_iou_exactly_at_the_threshold_is_kept(library):
    boxes = np.array([[[0, 0, 10, 10], [0, 0, 10, 6]]], np.float32)
    scores = np.array([[[0.9], [0.8]]], np.float32)
    iou = pairwise_iou(boxes[0, :1], boxes[0, 1:])[0, 0]
    for threshold, kept in ((iou, 2), (np.nextafter(iou, np.float32(0)), 1)):
        found = assert_equals_reference(library, boxes, scores, iou_threshold=float(threshold))
        assert found["num_dets"].tolist() == [[kept]]


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_iou_is_rounded_as_in_numpy(library, seed):
    """The threshold is the IoU of a pair, or its neighbor below: a fused product would decide otherwise."""
    rng = np.random.default_rng(seed)
    boxes = random_boxes(rng, 2, size=3)
    iou = pairwise_iou(boxes[0, :1], boxes[0, 1:])[0, 0]
    for threshold in (iou, np.nextafter(iou, np.float32(0))):
        scores = np.array([[[0.9], [0.8]]], np.float32)
        assert_equals_reference(library, boxes, scores, iou_threshold=float(max(threshold, 0)))


def test_tiny_boxes_do_not_overlap(library):
    """NumPy's smallest union is 1e-9: equal boxes of 1e-10 square pixels have an IoU of 0.1."""
    boxes = np.tile(np.array([0, 0, 1e-5, 1e-5], np.float32), (1, 5, 1))
    scores = np.linspace(0.9, 0.5, 5, dtype=np.float32).reshape(1, 5, 1)
    assert assert_equals_reference(library, boxes, scores)["num_dets"].tolist() == [[5]]


@pytest.mark.parametrize("kind", ["continuous", "tied", "all equal"])
def test_300000_pairs_above_the_threshold(library, kind):
    rng = np.random.default_rng(3)
    scores = rng.uniform(0.001, 1, (1, 3750, 80)).astype(np.float32)
    if kind == "tied":
        scores = np.ceil(scores * 20) / np.float32(20)
    if kind == "all equal":
        scores[...] = 0.25
    assert_equals_reference(library, random_boxes(rng, 3750), scores, score_threshold=0.0)


@pytest.mark.parametrize("pairs", [1, 63, 64, 65, 1000, 2047, 2048, 2049, 4096, 5000])
def test_list_lengths_around_powers_of_two(library, pairs):
    rng = np.random.default_rng(pairs)
    scores = rng.permutation(np.linspace(0.1, 1, pairs)).astype(np.float32).reshape(1, -1, 1)
    for max_candidates in (1, 1000, 4096):
        fields = {"max_candidates": max_candidates, "iou_threshold": 1.0 if max_candidates < 4096 else 0.5}
        assert_equals_reference(library, random_boxes(rng, pairs), scores, max_detections=4096, **fields)


def test_detections_beyond_a_word(library):
    """Hundreds are kept, so that later words meet many; none, some and all of a word are suppressed by them."""
    rng = np.random.default_rng(4)
    boxes = np.concatenate([random_boxes(rng, 300, size=9000)] * 3, axis=1)
    boxes = np.concatenate((boxes, random_boxes(rng, 300, size=9000)), axis=1)
    scores = np.linspace(0.9, 0.1, 1200, dtype=np.float32).reshape(1, -1, 1)
    for max_detections in (100, 256, 257, 2000):
        assert_equals_reference(library, boxes, scores, max_candidates=1200, max_detections=max_detections)


def test_a_long_chain_of_suppression(library):
    """Every box overlaps only its neighbors: whether one is kept depends on all before it."""
    boxes = np.array([[2 * i, 0, 2 * i + 10, 10] for i in range(1000)], np.float32)[None]
    scores = np.linspace(0.9, 0.1, 1000, dtype=np.float32).reshape(1, -1, 1)
    found = assert_equals_reference(library, boxes, scores, max_detections=1000)
    assert found["num_dets"].tolist() == [[500]]


@pytest.mark.parametrize(("order", "seed"), ORDERS)
def test_candidates_level_by_level(emulated, order, seed):
    emulated.order(order, seed)
    check_levels(emulated, np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_candidates_level_by_level_in_both_types(library, dtype):
    check_levels(library, dtype)


def check_levels(library, dtype):
    rng = np.random.default_rng(5)
    anchors = sum(LEVEL_ANCHORS)
    boxes, scores = random_boxes(rng, anchors, 3), rng.uniform(0, 1, (3, anchors, 5)).astype(dtype)
    scores[1, : LEVEL_ANCHORS[0]] = 0  # a level without candidates
    for max_candidates in (1, 10, 50, 4096):
        for agnostic in (0, 1):
            rule = {"per_level": 1, "max_candidates": max_candidates, "class_agnostic": agnostic}
            assert_equals_reference(library, boxes, scores, LEVEL_ANCHORS, **LEVELS, **rule)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 1), (3, 7, 3), (2, 4095, 1), (2, 4097, 3)])
def test_shapes_that_end_inside_of_16_bytes(library, shape, dtype):
    rng = np.random.default_rng(6)
    assert_equals_reference(library, random_boxes(rng, shape[1], shape[0]), rng.uniform(0.1, 1, shape).astype(dtype))


TWO_LEVELS = {"strides": (2, 4), "input_hw": (72, 104), "per_level": 1}
TWO_LEVEL_ANCHORS = (36 * 52, 18 * 26)


@pytest.mark.parametrize(("agnostic", "max_detections"), [(0, 4096), (1, 4096), (0, 700)])
def test_more_candidates_than_are_near(library, agnostic, max_detections):
    """Those of two long lists together; some of the last are kept, some suppressed, some no boxes."""
    rng = np.random.default_rng(12)
    anchors = sum(TWO_LEVEL_ANCHORS)
    boxes, scores = random_boxes(rng, anchors, size=150), rng.uniform(0.1, 1, (1, anchors, 3)).astype(np.float32)
    boxes[0, ::50] = np.nan
    rule = {**TWO_LEVELS, "max_candidates": 4096, "class_agnostic": agnostic, "max_detections": max_detections}
    found = assert_equals_reference(library, boxes, scores, TWO_LEVEL_ANCHORS, iou_threshold=0.5, **rule)
    assert found["num_dets"][0, 0] == max_detections or (found["det_scores"] > 0).sum() > 100


@pytest.mark.parametrize("gray_levels", [1, 3])
def test_ties_in_lists_too_long_to_be_ranked(library, gray_levels):
    rng = np.random.default_rng(13)
    anchors = sum(TWO_LEVEL_ANCHORS)
    scores = (rng.integers(1, gray_levels + 1, (2, anchors, 3)) / gray_levels).astype(np.float32)
    for max_candidates in (1, 10, 900):
        rule = {**TWO_LEVELS, "max_candidates": max_candidates}
        assert_equals_reference(library, random_boxes(rng, anchors, 2), scores, TWO_LEVEL_ANCHORS, **rule)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("anchors", [13500, pytest.param(85001, marks=pytest.mark.slow)])
def test_segments_of_several_tiles(library, anchors, dtype):
    rng = np.random.default_rng(14)
    scores = np.zeros((1, anchors, 100), dtype)
    scores.reshape(-1)[rng.choice(scores.size, 6000, replace=False)] = rng.uniform(0, 1, 6000)
    assert_equals_reference(library, random_boxes(rng, anchors), scores)


def test_quality_is_a_factor(library):
    rng = np.random.default_rng(7)
    boxes, scores = random_boxes(rng, 501, 2), rng.uniform(0, 1, (2, 501, 3)).astype(np.float32)
    quality = rng.uniform(0, 1, (2, 501)).astype(np.float32)
    quality[0, :5] = [0, 1, np.nan, 0.05, 1e-30]
    params = nms_params(scores, score_threshold=0.4)
    found = library.nms(params, scores=scores, quality=quality, boxes=boxes)
    product = scores * quality[..., None]
    assert_detections(found, [reference(b, s, params) for b, s in zip(boxes, product, strict=True)])


def test_same_as_the_onnx_function(library):
    rng = np.random.default_rng(8)
    for _ in range(20):
        boxes = nms_graph.random_boxes(rng, size=int(rng.integers(2, 12)))
        scores = rng.integers(0, 10, (*boxes.shape[:2], 3)).astype(np.float32) / 10
        found, graph = (
            library.nms(nms_params(scores, **nms_graph.RULE), scores=scores, boxes=boxes),
            nms_graph.run(boxes, scores),
        )
        for name, values in graph.items():
            np.testing.assert_array_equal(found[name], values)

"""The model-local function GflNms, run by ONNX Runtime, against greedy NMS and Cluster-NMS of as many rounds."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfl_edge.ops.boxes import multiclass_nms, pairwise_iou, sound
from gfl_edge.ops.nms_graph import ROUNDS, nms_function
from gfl_edge.ops.onnx_limits import DOMAIN, NMS_OP
from gfl_edge.spec import DETECTION_NAMES, INVALID_CLASS, PADDING_CLASS
from tests.support.nms_graph import ANCHORS, CLASSES, RULE, SPEC, graph, random_boxes, run, spoil


def assert_equals_greedy(boxes, scores):
    """Both images of a batch, kept part and padding."""
    found = run(boxes, scores)
    for i in range(len(boxes)):
        count = found["num_dets"][i, 0]
        expected = multiclass_nms(boxes[i], scores[i], **RULE)
        for name, want in zip(DETECTION_NAMES[1:], expected, strict=True):
            np.testing.assert_array_equal(found[name][i, :count], want)
        assert not found["det_boxes"][i, count:].any()
        assert not found["det_scores"][i, count:].any()
        invalid = np.isnan(scores[i]).any() or not sound(boxes[i], np.zeros(ANCHORS)).all() or (scores[i] > 1).any()
        assert np.isin(found["det_classes"][i, count:], (PADDING_CLASS, *([INVALID_CLASS] if invalid else []))).all()


@given(seed=st.integers(0, 2**32 - 1), levels=st.integers(1, 30), size=st.integers(2, 12))
@settings(max_examples=120, deadline=None)
def test_random_and_tied_input(seed, levels, size):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels + 1, (2, ANCHORS, CLASSES)).astype(np.float32) / levels
    assert_equals_greedy(random_boxes(rng, size=size), scores)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_continuous_input(seed):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 30, (2, ANCHORS, 2))
    boxes = np.concatenate((corner, corner + rng.exponential(15, corner.shape)), axis=2).astype(np.float32)
    assert_equals_greedy(boxes, rng.uniform(0, 1, (2, ANCHORS, CLASSES)).astype(np.float32) ** 3)


@given(seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.02, 0.3, 1.0]))
@settings(max_examples=60, deadline=None)
def test_odd_boxes_and_scores(seed, share):
    """NaN, infinite, inverted and huge ones neither survive nor suppress."""
    rng = np.random.default_rng(seed)
    boxes, scores = random_boxes(rng), rng.uniform(0, 1, (2, ANCHORS, CLASSES)).astype(np.float32)
    spoil(rng, share, boxes, scores)
    assert_equals_greedy(boxes, scores)


@pytest.mark.parametrize("value", [0.0, SPEC.score_threshold, np.nan, -1.0])
def test_empty(value):
    scores = np.full((2, ANCHORS, CLASSES), value, np.float32)
    found = run(random_boxes(np.random.default_rng(0)), scores)
    assert not found["num_dets"].any()
    assert_equals_greedy(random_boxes(np.random.default_rng(0)), scores)


def test_one_image_empty_and_the_other_not():
    scores = np.zeros((2, ANCHORS, CLASSES), np.float32)
    scores[1, 4, 2] = 0.9
    found = run(random_boxes(np.random.default_rng(1)), scores)
    assert found["num_dets"].tolist() == [[0], [1]]
    assert found["det_classes"][1, 0] == 2


def test_all_overlapping_leaves_one_per_class():
    boxes = np.tile(np.array([3, 3, 20, 20], np.float32), (2, ANCHORS, 1))
    scores = np.random.default_rng(2).uniform(0.1, 1, (2, ANCHORS, CLASSES)).astype(np.float32)
    assert_equals_greedy(boxes, scores)
    assert run(boxes, scores)["num_dets"].tolist() == [[CLASSES], [CLASSES]]


def test_all_equal_keeps_the_lowest_anchor():
    boxes = np.tile(np.array([3, 3, 20, 20], np.float32), (2, ANCHORS, 1))
    scores = np.full((2, ANCHORS, CLASSES), 0.5, np.float32)
    assert_equals_greedy(boxes, scores)


def test_iou_exactly_at_the_threshold_is_kept():
    boxes = np.zeros((1, ANCHORS, 4), np.float32)
    boxes[0, :2] = [[0, 0, 10, 10], [0, 0, 10, 6]]
    scores = np.zeros((1, ANCHORS, CLASSES), np.float32)
    scores[0, :2, 0] = [0.9, 0.8]
    iou = float(pairwise_iou(boxes[0, :1], boxes[0, 1:2])[0, 0])
    at = dataclasses.replace(SPEC, iou_threshold=iou)
    below = dataclasses.replace(SPEC, iou_threshold=float(np.nextafter(np.float32(iou), np.float32(0))))
    assert run(boxes, scores, at)["num_dets"].tolist() == [[2]]
    assert run(boxes, scores, below)["num_dets"].tolist() == [[1]]


def chain(length):
    """Boxes, in order of falling score, that overlap only their neighbors above 0.6: the worst case for rounds."""
    boxes = np.zeros((1, ANCHORS, 4), np.float32)
    for i in range(length):
        boxes[0, i] = [2 * i, 0, 2 * i + 10, 10]  # neighbors 2/3, next but one 3/7
    scores = np.zeros((1, ANCHORS, CLASSES), np.float32)
    scores[0, :length, 1] = np.linspace(0.9, 0.5, length)
    return boxes, scores


def cluster_nms(boxes, scores, rounds):
    """Which of the boxes, in order of falling score, survive so many rounds."""
    hits = np.triu(pairwise_iou(boxes, boxes) > SPEC.iou_threshold, 1)
    keep = np.ones(len(boxes), bool)
    for _ in range(rounds):
        keep = ~(hits & keep[:, None]).any(axis=0)
    return int(keep.sum())


@pytest.mark.parametrize("rounds", [1, 2, 3, 6])
def test_a_chain_longer_than_the_rounds_gives_cluster_nms(rounds):
    boxes, scores = chain(12)
    found = run(boxes, scores, rounds=rounds)
    assert found["num_dets"][0, 0] == cluster_nms(boxes[0, :12], scores[0, :12, 1], rounds)


def test_a_chain_as_long_as_the_rounds_is_exact():
    boxes, scores = chain(16)
    assert ROUNDS >= 16
    assert_equals_greedy(boxes, scores)
    assert run(boxes, scores)["num_dets"].tolist() == [[8]]
    assert run(boxes, scores, rounds=3)["num_dets"].tolist() != [[8]]  # the test can fail


def test_fewer_pairs_than_candidates():
    spec = dataclasses.replace(SPEC, class_names=("a",), max_candidates=1000, max_detections=100)
    rng = np.random.default_rng(3)
    found = run(random_boxes(rng, 1), rng.uniform(0.1, 1, (1, ANCHORS, 1)).astype(np.float32), spec)
    assert found["det_scores"].shape == (1, ANCHORS)


def test_the_function_is_self_contained():
    function = nms_function(SPEC.max_candidates, SPEC.max_detections)
    assert (function.domain, function.name) == (DOMAIN, NMS_OP)
    assert {node.domain for node in function.node} == {""}
    assert "MatMul" not in {node.op_type for node in function.node}  # TensorRT-RTX has no FP32 MatMul on sm75


def test_the_sizes_of_topk_are_tensors():
    """ONNX Runtime before 1.25 takes no attribute and no list for them: "K input must be a one-dimensional tensor"."""
    (function,) = graph().functions
    assert set(function.attribute) == {"score_threshold", "iou_threshold"}
    constants = {node.output[0]: node.attribute[0] for node in function.node if node.op_type == "Constant"}
    sizes = [constants[node.input[1]] for node in function.node if node.op_type == "TopK"]
    assert [size.name for size in sizes] == ["value", "value"]
    assert [onnx.numpy_helper.to_array(size.t).tolist() for size in sizes] == [
        [SPEC.max_candidates],
        [SPEC.max_detections],
    ]

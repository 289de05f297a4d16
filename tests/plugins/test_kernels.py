"""The CUDA kernels, emulated on the host and, where there is one, on a GPU, against NumPy, ONNX Runtime and OpenCV."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.kernels.library import (
    DeviceLibrary,
    HostMemory,
    KernelError,
    NmsCall,
    build_for_gpu,
    nms_params,
)
from gfl_edge.cuda import open_device
from gfl_edge.cuda.kernels import NmsParams, ResizeParams
from gfl_edge.ops.boxes import greedy_nms, multiclass_nms, pairwise_iou
from gfl_edge.ops.decode import decode
from gfl_edge.ops.preprocess import PADDING_BGR, place, resize_into
from tests.support import emulated_kernels

INVALID_ARGUMENT, CUDA_ERROR = 1, 2
BGR, RGB, NV12 = 0, 1, 2
LEVELS = {"strides": (8, 16, 32, 64), "input_hw": (72, 104)}
LEVEL_ANCHORS = (9 * 13, 5 * 7, 3 * 4, 2 * 2)  # their number is odd times odd: no level begins at 16 bytes
ORDERS = [("forward", 0), ("reverse", 0), ("random", 1), ("random", 2)]


@pytest.fixture(scope="module", params=["emulation", pytest.param("gpu", marks=pytest.mark.gpu)])
def library(request, tmp_path_factory):
    """The kernels as they run here. Emulated threads go on in random order, unless a test says otherwise."""
    if request.param == "gpu":
        if shutil.which("nvcc") is None:
            pytest.skip("no nvcc on PATH; install the CUDA toolkit")
        return DeviceLibrary(build_for_gpu(tmp_path_factory.mktemp("gpu")), open_device())
    emulated = emulated_kernels.library()
    emulated.order("random", 0)
    return emulated


@pytest.fixture
def emulated():
    """The emulation; its switches are put back."""
    emulation = emulated_kernels.library()
    yield emulation
    emulation.order("random", 0)
    emulation.functions.gfl_emulate_failure(-1, 0)


def random_boxes(rng, anchors, batch=1, size=400):
    corner = rng.uniform(0, size, (batch, anchors, 2))
    return np.concatenate((corner, corner + rng.exponential(size / 8, corner.shape)), axis=2).astype(np.float32)


def few_high_scores(rng, shape):
    """Most are near 0, as a detector's are."""
    return (rng.uniform(0, 1, shape) ** 12).astype(np.float32)


def reference(boxes, scores, params, lists=None):
    """NMS of one image, boxes [A, 4] and scores [A, C], in NumPy; ``lists`` are the numbers of anchors per list."""
    flat = scores.reshape(-1)
    pairs = []
    begin = 0
    for anchors in lists or [len(scores)]:
        end = begin + anchors * scores.shape[1]
        (above,) = np.nonzero(flat[begin:end] > np.float32(params.score_threshold))
        pairs.append(begin + above[np.argsort(-flat[begin + above], kind="stable")[: params.max_candidates]])
        begin = end
    pairs = np.sort(np.concatenate(pairs))
    pairs = pairs[np.argsort(-flat[pairs], kind="stable")]
    anchors, classes = np.divmod(pairs, scores.shape[1])
    groups = np.zeros_like(classes) if params.class_agnostic else classes
    keep = np.zeros(len(pairs), bool)
    for group in np.unique(groups):
        (members,) = np.nonzero(groups == group)
        keep[members] = greedy_nms(boxes[anchors[members]], params.iou_threshold)
    kept = np.nonzero(keep)[0][: params.max_detections]
    return boxes[anchors[kept]], flat[pairs[kept]], classes[kept]


def assert_detections(found, expected):
    """Bit-exact, and padded; ``expected`` has (boxes, scores, classes) per image."""
    for i, (boxes, scores, classes) in enumerate(expected):
        count = len(scores)
        assert found["num_dets"][i, 0] == count
        for name, values, padding in (("boxes", boxes, 0), ("scores", scores, 0), ("classes", classes, -1)):
            np.testing.assert_array_equal(found[f"det_{name}"][i, :count], values)
            assert (found[f"det_{name}"][i, count:] == padding).all()


def assert_equals_reference(library, boxes, scores, lists=None, strides=(), input_hw=(0, 0), **fields):
    params = nms_params(scores, strides=strides, input_hw=input_hw, **fields)
    found = library.nms(params, scores=scores, boxes=boxes)
    with np.errstate(all="ignore"):
        expected = [reference(b, s.astype(np.float32), params, lists) for b, s in zip(boxes, scores, strict=True)]
    assert_detections(found, expected)
    return found


# ---- Boxes and scores that are given: bit-exact ----


def test_the_reference_is_multiclass_nms():
    rng = np.random.default_rng(0)
    boxes, scores = random_boxes(rng, 500)[0], few_high_scores(rng, (500, 3))
    params = nms_params(scores[None])
    rule = {"score_threshold": 0.05, "iou_threshold": 0.6, "max_candidates": 1000, "max_detections": 100}
    for own, want in zip(reference(boxes, scores, params), multiclass_nms(boxes, scores, **rule), strict=True):
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
    grey_levels=st.integers(1, 30),
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
@settings(max_examples=150, deadline=None)
def test_ties(library, seed, shape, grey_levels, size, rule, dtype):
    """Few values of scores and coordinates: equal scores, equal boxes, empty ones, IoUs at the threshold."""
    rng = np.random.default_rng(seed)
    scores = (rng.integers(0, grey_levels + 1, shape) / grey_levels).astype(dtype)
    corner = rng.integers(0, size, (*shape[:2], 2))
    boxes = np.concatenate((corner, corner + rng.integers(0, size, corner.shape)), axis=2).astype(np.float32)
    assert_equals_reference(library, boxes, scores, **rule)


ODD_NUMBERS = [-np.inf, -1.0, -0.0, 0.0, 1e-30, 1.0, 7.0, 3e38, np.inf, np.nan]


@given(seed=st.integers(0, 2**32 - 1), iou_threshold=st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=100, deadline=None)
def test_odd_boxes_and_scores(library, seed, iou_threshold):
    """NaN, infinite, inverted and huge boxes are treated as NumPy treats them."""
    rng = np.random.default_rng(seed)
    boxes = rng.choice(np.array(ODD_NUMBERS, np.float32), (2, 40, 4))
    scores = rng.choice(np.array([*ODD_NUMBERS, 0.5, 0.9], np.float32), (2, 40, 2))
    assert_equals_reference(library, boxes, scores, iou_threshold=iou_threshold)


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
@settings(max_examples=60, deadline=None)
def test_iou_is_rounded_as_in_numpy(library, seed):
    """The threshold is the IoU of a pair, or its neighbour below: a fused product would decide otherwise."""
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
    for most in (1, 1000, 4096):
        fields = {"max_candidates": most, "max_detections": 4096, "iou_threshold": 1.0 if most < 4096 else 0.5}
        assert_equals_reference(library, random_boxes(rng, pairs), scores, **fields)


def test_detections_beyond_a_chunk(library):
    """Hundreds are kept, so that later chunks meet many; none, some and all of a chunk are suppressed by them."""
    rng = np.random.default_rng(4)
    boxes = np.concatenate([random_boxes(rng, 300, size=9000)] * 3, axis=1)
    boxes = np.concatenate((boxes, random_boxes(rng, 300, size=9000)), axis=1)
    scores = np.linspace(0.9, 0.1, 1200, dtype=np.float32).reshape(1, -1, 1)
    for most in (100, 256, 257, 2000):
        assert_equals_reference(library, boxes, scores, max_candidates=1200, max_detections=most)


def test_a_long_chain_of_suppression(library):
    """Every box overlaps its neighbours alone: whether one is kept depends on all before it."""
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
    for most in (1, 10, 50, 4096):
        for agnostic in (0, 1):
            rule = {"per_level": 1, "max_candidates": most, "class_agnostic": agnostic}
            assert_equals_reference(library, boxes, scores, LEVEL_ANCHORS, **LEVELS, **rule)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 1), (3, 7, 3), (2, 4095, 1), (2, 4097, 3)])
def test_shapes_that_end_inside_of_16_bytes(library, shape, dtype):
    rng = np.random.default_rng(6)
    assert_equals_reference(library, random_boxes(rng, shape[1], shape[0]), rng.uniform(0.1, 1, shape).astype(dtype))


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
    from tests.export.test_nms_graph import RULE, run
    from tests.export.test_nms_graph import random_boxes as boxes_of_the_graph

    rng = np.random.default_rng(8)
    for _ in range(20):
        boxes = boxes_of_the_graph(rng, size=int(rng.integers(2, 12)))
        scores = rng.integers(0, 10, (*boxes.shape[:2], 3)).astype(np.float32) / 10
        found, graph = library.nms(nms_params(scores, **RULE), scores=scores, boxes=boxes), run(boxes, scores)
        for name, values in graph.items():
            np.testing.assert_array_equal(found[name], values)


# ---- Logits: decoded and squashed here ----


def sigmoid(logits):
    with np.errstate(over="ignore"):
        return (1 / (1 + np.exp(-logits.astype(np.float32)))).astype(np.float32)


def distant(rng, shape, low=-8.0, high=4.0):
    """Logits in random order that are far enough apart for their sigmoids to be in the same order everywhere."""
    count = int(np.prod(shape))
    return rng.permutation(np.linspace(low, high, count)).astype(np.float32).reshape(shape)


def assert_close(found, expected):
    for i, (boxes, scores, classes) in enumerate(expected):
        count = len(scores)
        assert found["num_dets"][i, 0] == count
        np.testing.assert_array_equal(found["det_classes"][i, :count], classes)
        np.testing.assert_allclose(found["det_scores"][i, :count], scores, rtol=0, atol=1e-6)
        np.testing.assert_allclose(found["det_boxes"][i, :count], boxes, rtol=0, atol=1e-3)
        assert not found["det_boxes"][i, count:].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("reg_max", [1, 7, 16, 32])
@pytest.mark.parametrize(("per_level", "point_offset"), [(0, 0.0), (1, 0.5)])
def test_decode(library, dtype, reg_max, per_level, point_offset):
    rng = np.random.default_rng(reg_max)
    anchors = sum(LEVEL_ANCHORS)
    reg = rng.normal(0, 3, (2, anchors, 4 * (reg_max + 1))).astype(dtype)
    logits = distant(rng, (2, anchors, 2)) if dtype == np.float32 else rng.normal(-2, 2, (2, anchors, 2)).astype(dtype)
    rule = {"score_kind": 1, "reg_max": reg_max, "point_offset": point_offset, "per_level": per_level}
    params = nms_params(logits, **LEVELS, **rule, max_candidates=60, max_detections=200, score_threshold=0.05)
    found = library.nms(params, scores=logits, reg_logits=reg)
    boxes = decode(reg.astype(np.float32), LEVELS["input_hw"], LEVELS["strides"], point_offset)
    lists = LEVEL_ANCHORS if per_level else None
    scores = sigmoid(logits)
    assert_close(found, [reference(b, s, params, lists) for b, s in zip(boxes, scores, strict=True)])


def test_odd_distributions(library):
    """Logits that are huge or not finite: what NumPy's softmax makes of them, NaN boxes among them."""
    rng = np.random.default_rng(9)
    anchors = sum(LEVEL_ANCHORS)
    reg = rng.choice(np.array([-np.inf, -1e4, 0, 1e4, 1e30], np.float32), (1, anchors, 32))
    reg[0, ::3] = rng.choice(np.array([0, np.inf, np.nan], np.float32), reg[0, ::3].shape, p=[0.9, 0.05, 0.05])
    reg[0, 5] = -np.inf
    logits = distant(rng, (1, anchors, 1), 0, 4)
    rule = {"score_kind": 1, "reg_max": 7, "iou_threshold": 1.0, "max_detections": anchors}
    params = nms_params(logits, **LEVELS, **rule)
    found = library.nms(params, scores=logits, reg_logits=reg)
    with np.errstate(all="ignore"):
        boxes = decode(reg, LEVELS["input_hw"], LEVELS["strides"], 0.0)
        assert_close(found, [reference(boxes[0], sigmoid(logits[0]), params)])
    assert np.isnan(found["det_boxes"]).any()


@pytest.mark.parametrize(
    "threshold", [0.0, 1e-38, 1e-6, 0.05, 0.5, 0.999, float(np.float32(1) - np.float32(2**-24)), 1.0]
)
def test_the_cheap_test_of_logits_drops_none(library, threshold):
    """Just around the threshold, and at the ends of the sigmoid: the decision is that of the float32 score."""
    bits = np.arange(-200, 200)
    with np.errstate(all="ignore"):
        middle = np.float32(np.log(threshold) - np.log1p(-threshold))
        middle = np.clip(middle, np.float32(-100), np.float32(17))
    near = (np.array(middle).view(np.int32) + bits).astype(np.int32).view(np.float32)
    ends = np.array([-np.inf, np.inf, np.nan, -104, -103, -88.5, -87, 16, 17, 18, 88, 1e30, -1e30], np.float32)
    logits = np.concatenate((near, ends, np.linspace(-20, 20, 301, dtype=np.float32))).reshape(1, -1, 1)
    boxes = np.zeros((1, logits.shape[1], 4), np.float32)
    params = nms_params(
        logits, score_kind=1, score_threshold=threshold, iou_threshold=1.0, max_candidates=4096, max_detections=4096
    )
    found = library.nms(params, scores=logits, boxes=boxes)
    scores = found["det_scores"][0, : found["num_dets"][0, 0]]
    assert (scores > np.float32(threshold)).all()
    # exp may be off by its last bits, so that only scores a little further up must be there
    expected = sigmoid(logits)
    clear = np.count_nonzero(expected > np.float32(threshold) * np.float32(1 + 1e-6))
    loose = np.count_nonzero(expected > np.float32(threshold) * np.float32(1 - 1e-6))
    assert clear <= len(scores) <= loose
    assert np.count_nonzero(scores == 1) >= (4 if threshold < 1 else 0)  # of 18, 88, 1e30 and infinity


def test_quality_of_logits_in_half(library):
    rng = np.random.default_rng(10)
    logits = rng.permutation(np.linspace(-3, 3, 300)).astype(np.float16).reshape(1, -1, 1)
    quality = np.full((1, 300), 0.5, np.float16)
    boxes = random_boxes(rng, 300)
    params = nms_params(logits, score_kind=1, score_threshold=0.2, max_detections=300)
    found = library.nms(params, scores=logits, quality=quality, boxes=boxes)
    assert_close(found, [reference(boxes[0], sigmoid(logits[0]) * np.float32(0.5), params)])


# ---- Arguments ----


def small_call(library, memory, **fields):
    scores = np.zeros((1, sum(LEVEL_ANCHORS), 2), np.float32)
    params = nms_params(scores, **LEVELS, **fields)
    return NmsCall(library, memory, params, scores=scores, boxes=np.zeros((1, sum(LEVEL_ANCHORS), 4), np.float32))


BAD_FIELDS = [
    ("batch", 0, "batch is 0, expected 1..65535"),
    ("batch", 65536, "batch is 65536"),
    ("num_anchors", 0, "num_anchors is 0"),
    ("num_anchors", -5, "num_anchors is -5"),
    ("num_classes", 0, "num_classes is 0"),
    ("num_classes", 2**30, "num_anchors * num_classes is 180388626432"),
    ("dtype", 2, "dtype is 2, expected 0..1"),
    ("score_kind", -1, "score_kind is -1"),
    ("class_agnostic", 2, "class_agnostic is 2"),
    ("per_level", 2, "per_level is 2"),
    ("max_candidates", 0, "max_candidates is 0, expected 1..4096"),
    ("max_candidates", 4097, "max_candidates is 4097"),
    ("max_detections", 0, "max_detections is 0"),
    ("max_detections", 4097, "max_detections is 4097"),
    ("score_threshold", -0.1, "score_threshold is -0.1, expected 0..1"),
    ("score_threshold", float("nan"), "score_threshold is"),
    ("iou_threshold", 1.5, "iou_threshold is 1.5"),
    ("iou_threshold", float("nan"), "iou_threshold is"),
]
BAD_LEVELS = [
    ("num_levels", 0, "num_levels is 0, expected 1..8"),
    ("num_levels", 9, "num_levels is 9"),
    ("num_levels", 3, "num_anchors is 168, but an input of 72 x 104 pixels has 164 anchors at the 3 strides given"),
    ("input_height", 0, "input_height is 0"),
    ("input_width", -1, "input_width is -1"),
    ("input_width", 112, "num_anchors is 168, but"),
    ("strides", (ctypes.c_int32 * 8)(8, 0, 32, 64), "strides[1] is 0, expected 1.."),
]
BAD_DECODE = [
    ("reg_max", 0, "reg_max is 0, expected 1..32"),
    ("reg_max", 33, "reg_max is 33"),
    ("point_offset", float("inf"), "point_offset is inf, expected a finite number"),
]


def assert_refused(library, call, message, status=INVALID_ARGUMENT):
    with pytest.raises(KernelError) as caught:
        call.queue()
    assert message in str(caught.value)
    assert caught.value.status == status


@pytest.mark.parametrize(("field", "value", "message"), BAD_FIELDS)
def test_impossible_parameters(emulated, field, value, message):
    with emulated.memory() as memory:
        call = small_call(emulated, memory)
        setattr(call.params, field, value)
        assert_refused(emulated, call, message)
        assert emulated.workspace_size(call.params) == 0
        assert message in emulated.last_error()


@pytest.mark.parametrize(("field", "value", "message"), BAD_LEVELS)
def test_impossible_levels(emulated, field, value, message):
    with emulated.memory() as memory:
        call = small_call(emulated, memory)
        setattr(call.params, field, value)
        call.queue()  # not needed, so not looked at
        call.params.per_level = 1
        assert_refused(emulated, call, message)
        call.params.per_level = 0
        call.inputs.reg_logits, call.inputs.boxes, call.params.reg_max = call.inputs.boxes, None, 7
        assert_refused(emulated, call, message)


@pytest.mark.parametrize(("field", "value", "message"), BAD_DECODE)
def test_impossible_distributions(emulated, field, value, message):
    with emulated.memory() as memory:
        call = small_call(emulated, memory, **{"reg_max": 7, field: value})
        call.inputs.reg_logits, call.inputs.boxes = call.inputs.boxes, None
        assert_refused(emulated, call, message)


def test_impossible_pointers(emulated):
    with emulated.memory() as memory:
        for part, names in (("inputs", ["scores", "boxes"]), ("outputs", ["num_dets", "det_boxes", "det_scores"])):
            for name in names:
                call = small_call(emulated, memory)
                address = getattr(getattr(call, part), name)
                setattr(getattr(call, part), name, address + 4)
                assert_refused(emulated, call, f"{part}.{name} is at 0x")
                if name != "boxes":
                    setattr(getattr(call, part), name, None)
                    assert_refused(emulated, call, f"{part}.{name} is NULL, expected device memory")
        call = small_call(emulated, memory)
        call.inputs.quality = call.inputs.boxes + 4
        assert_refused(emulated, call, "inputs.quality is at")
        call.inputs.quality = None
        call.outputs.det_classes = None
        assert_refused(emulated, call, "outputs.det_classes is NULL")


def test_boxes_or_distributions_not_both(emulated):
    with emulated.memory() as memory:
        call = small_call(emulated, memory)
        call.inputs.reg_logits = call.inputs.boxes
        assert_refused(emulated, call, "each of reg_logits and boxes is given: pass exactly one of them")
        call.inputs.reg_logits = call.inputs.boxes = None
        assert_refused(emulated, call, "none of reg_logits and boxes is given")
        call.inputs.reg_logits = call.inputs.scores + 4
        assert_refused(emulated, call, "inputs.reg_logits is at")


def test_a_workspace_that_is_not_enough(emulated):
    with emulated.memory() as memory:
        call = small_call(emulated, memory)
        whole = call.workspace_size
        call.workspace_size -= 1
        assert_refused(emulated, call, f"workspace_size is {whole - 1}, expected {whole} bytes or more")
        call.workspace_size = whole
        call.workspace += 16
        assert_refused(emulated, call, "workspace is at 0x")
        call.workspace = None
        assert_refused(emulated, call, "workspace is NULL")


def test_no_structures(emulated):
    call_with = emulated.functions.gfl_nms
    params, part = ctypes.byref(nms_params(np.zeros((1, 1, 1), np.float32))), None
    with emulated.memory() as memory:
        call = small_call(emulated, memory)
        inputs = ctypes.byref(call.inputs)
        for arguments, name in (
            ((None, None, None), "params"),
            ((params, None, None), "inputs"),
            ((params, inputs, None), "outputs"),
        ):
            assert call_with(*arguments, part, 0, None) == INVALID_ARGUMENT
            assert emulated.last_error() == f"{name} is NULL"
    assert emulated.functions.gfl_nms_workspace_size(None) == 0
    assert emulated.functions.gfl_resize(None, None, None, None, None) == INVALID_ARGUMENT


CUDA_CALLS = ["clearing the workspace", *(f"gfl_{name}_kernel" for name in ("filter", "select", "merge", "nms"))]


@pytest.mark.parametrize(("number", "what"), list(enumerate(CUDA_CALLS)))
def test_failures_of_cuda(emulated, number, what):
    with emulated.memory() as memory:
        call = small_call(emulated, memory, per_level=1)
        emulated.functions.gfl_emulate_failure(number, 209)
        assert_refused(emulated, call, f"{what} failed: no kernel image is available", CUDA_ERROR)
        assert "nvcc -arch=native" in emulated.last_error()
        call.queue()
        assert emulated.last_error() == ""


# ---- The launch plan, and the emulation itself ----


def launch(emulated, name, grid, block, shared, *arguments):
    """As cuLaunchKernel: structures by value, addresses as pointers."""
    values = [a if isinstance(a, ctypes.Structure) else ctypes.c_void_p(a) for a in arguments]
    pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(value) for value in values])
    sizes = [(ctypes.c_uint * 3)(*size, *[1] * (3 - len(size))) for size in (grid, block)]
    return emulated.functions.gfl_emulate_launch(name.encode(), *sizes, ctypes.c_size_t(shared), pointers)


@pytest.mark.parametrize("filter_blocks", [1, 3, 7, 100])
def test_kernels_launched_one_by_one(emulated, filter_blocks):
    """By the plan in gfl_kernels.cuh; any number of blocks of the filter will do."""
    rng = np.random.default_rng(11)
    anchors, most = sum(LEVEL_ANCHORS), 40
    scores, boxes = rng.uniform(0, 1, (2, anchors, 60)).astype(np.float32), random_boxes(rng, anchors, 2)
    params = nms_params(scores, **LEVELS, per_level=1, max_candidates=most)
    with emulated.memory() as memory:
        call = NmsCall(emulated, memory, params, scores=scores, boxes=boxes)
        sizes = [2 * 4 * 4, 2 * 4 * most * 8, 2 * 4 * most * 8, 2 * anchors * 60 * 8]
        padded = [-(-size // 256) * 256 for size in sizes]
        assert call.workspace_size == sum(padded)
        counts, top, merged, keys = (call.workspace + sum(padded[:i]) for i in range(4))
        ctypes.memset(counts, 0, sizes[0])
        given, out = call.inputs, [getattr(call.outputs, name) for name, _ in call.outputs._fields_]
        for name, grid, block, shared, arguments in (
            ("filter", (filter_blocks, 2), (256,), 0, (given.scores, given.quality, counts, keys)),
            ("select", (4, 2), (1024,), 2048 * 8, (counts, keys, top)),
            ("merge", (1, 2), (256,), 0, (counts, top, merged)),
            ("nms", (2,), (512,), 0, (counts, merged, given.reg_logits, given.boxes, *out)),
        ):
            assert launch(emulated, f"gfl_{name}_kernel", grid, block, shared, params, *arguments) == 0
        found = call.results()
    assert_detections(found, [reference(b, s, params, LEVEL_ANCHORS) for b, s in zip(boxes, scores, strict=True)])


def test_the_emulation_refuses_what_a_gpu_would(emulated):
    fault = emulated.functions.gfl_emulate_fault
    assert launch(emulated, "gfl_no_kernel", (1,), (32,), 0) != 0
    assert fault() == b"there is no kernel gfl_no_kernel"
    for grid, block, shared in (((1,), (2048,), 0), ((0,), (32,), 0), ((1,), (32,), 1 << 20)):
        assert launch(emulated, "gfl_merge_kernel", grid, block, shared) != 0
        assert b"is not possible" in fault()


def test_the_emulation_notices_a_partial_warp(emulated):
    """A filter with 40 threads: its second warp cannot vote with all of its lanes."""
    with emulated.memory() as memory:
        call = small_call(emulated, memory)
        ones = memory.put(np.ones((1, sum(LEVEL_ANCHORS), 2), np.float32))
        counts, keys = memory.empty(256), memory.empty(8 * 2 * sum(LEVEL_ANCHORS))
        assert launch(emulated, "gfl_filter_kernel", (1,), (40,), 0, call.params, ones, None, counts, keys) != 0
        assert emulated.functions.gfl_emulate_fault() == b"a warp operation without all 32 lanes"


def test_guards_are_checked():
    memory = HostMemory()
    address = memory.empty(10)
    ctypes.memset(address, 0, 10)
    memory.close()
    address = memory.empty(10)
    ctypes.memset(address, 0, 11)
    with pytest.raises(AssertionError, match="behind the end"):
        memory.close()


def test_params_have_the_size_of_the_launch_plan():
    assert ctypes.sizeof(NmsParams) == 96


def test_under_the_address_sanitizer():
    """The same kernels on some of the cases above, in a process that has the sanitizer loaded."""
    emulated_kernels.library()  # skips without a compiler
    words = [os.environ.get("CXX", "g++"), "-print-file-name=libasan.so"]
    sanitizer = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(sanitizer).exists():
        pytest.skip("the compiler has no AddressSanitizer (libasan.so)")
    environment = {
        **os.environ,
        "LD_PRELOAD": sanitizer,
        "ASAN_OPTIONS": "detect_leaks=0,detect_stack_use_after_return=0",
        "GFL_EDGE_EMULATION": "sanitize",
        "GFL_EDGE_REQUIRE_DATA": "0",
    }
    cases = [
        "test_shapes_that_end_inside_of_16_bytes",
        "test_kernels_launched_one_by_one[3]",
        "test_300000_pairs_above_the_threshold[emulation-tied]",
        "test_decode[emulation-1-0.5-16-float16]",
        "test_quality_is_a_factor[emulation]",
        "test_nv12[emulation-letterbox]",
        "test_rgb_rows_with_padding_stretch[emulation]",
    ]
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *(f"{__file__}::{c}" for c in cases)]
    result = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]


# ---- Resize ----


def resize_params(frame_hw, out_hw, rule, picture_format=BGR, short_long=None, pitch=0, uv_pitch=0):
    """The parameters for a rule of resize_into."""
    limit = None
    if short_long:
        limit = short_long if frame_hw[0] <= frame_hw[1] else short_long[::-1]
    placed = place(frame_hw, out_hw, rule, limit)
    step_x, step_y = (1 / scale for scale in placed.scale_xy)
    centred = rule != "letterbox"  # cv2.resize puts pixel edges upon each other, cv2.warpAffine pixel centres
    content = out_hw
    if rule == "fit":
        content = tuple(round(side * scale) for side, scale in zip(frame_hw, placed.scale_xy[::-1], strict=True))
    return ResizeParams(
        format=picture_format,
        frame_height=frame_hw[0],
        frame_width=frame_hw[1],
        pitch=pitch or frame_hw[1] * (1 if picture_format == NV12 else 3),
        uv_pitch=uv_pitch,
        out_height=out_hw[0],
        out_width=out_hw[1],
        content_height=content[0],
        content_width=content[1],
        step_x=step_x,
        step_y=step_y,
        start_x=step_x / 2 - 0.5 if centred else -placed.offset_xy[0] * step_x,
        start_y=step_y / 2 - 0.5 if centred else -placed.offset_xy[1] * step_y,
        black_border=int(rule == "letterbox"),
        padding_bgr=(ctypes.c_uint8 * 4)(*PADDING_BGR) if rule == "fit" else (ctypes.c_uint8 * 4)(),
    )


def assert_resized(found, frame, rule, short_long=None):
    want = np.empty_like(found)
    resize_into(frame, want, rule, short_long)
    difference = np.abs(found.astype(int) - want)
    if (
        rule == "letterbox"
    ):  # coordinates are rounded to 1/32 pixel, those of few rows and columns to the neighbouring one
        apart = (difference > 1).any(axis=2)
        assert apart.sum() <= max(0.01 * apart.size, 2 * max(apart.shape))
        assert difference.max() <= 2 + 255 / 32
    else:
        assert difference.max() <= 1


SIZES = st.tuples(st.integers(2, 90), st.integers(2, 90))


@pytest.mark.parametrize("rule", ["stretch", "letterbox", "fit"])
def test_resize(library, rule):
    @given(frame_hw=SIZES, out_hw=SIZES, seed=st.integers(0, 2**32 - 1))
    @settings(max_examples=60, deadline=None)
    def check(frame_hw, out_hw, seed):
        frame = np.random.default_rng(seed).integers(0, 256, (*frame_hw, 3), np.uint8)
        assert_resized(library.resize(resize_params(frame_hw, out_hw, rule), frame), frame, rule)

    check()


@pytest.mark.parametrize("rule", ["stretch", "letterbox", "fit"])
def test_resize_of_a_camera_frame(library, rule):
    frame = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), np.uint8)
    assert_resized(library.resize(resize_params((1080, 1920), (416, 416), rule), frame), frame, rule)


def test_fit_within_a_limit(library):
    frame = np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)
    found = library.resize(resize_params((120, 160), (96, 128), "fit", short_long=(60, 100)), frame)
    assert_resized(found, frame, "fit", (60, 100))
    assert (found[60:] == PADDING_BGR).all()


def test_rgb_rows_with_padding_stretch(library):
    rows = np.random.default_rng(2).integers(0, 256, (40, 200), np.uint8)
    frame = rows[:, :180].reshape(40, 60, 3)[..., ::-1].copy()
    found = library.resize(resize_params((40, 60), (33, 77), "stretch", RGB, pitch=200), rows)
    assert_resized(found, frame, "stretch")


@pytest.mark.parametrize("rule", ["stretch", "letterbox", "fit"])
def test_nv12(library, rule):
    rng = np.random.default_rng(3)
    luma, chroma = rng.integers(0, 256, (48, 64), np.uint8), rng.integers(0, 256, (24, 64), np.uint8)
    frame = cv2.cvtColor(np.concatenate((luma, chroma)), cv2.COLOR_YUV2BGR_NV12)
    padded = [np.pad(plane, ((0, 0), (0, extra))) for plane, extra in ((luma, 16), (chroma, 32))]
    for out_hw in ((48, 64), (31, 33), (100, 90)):
        params = resize_params((48, 64), out_hw, rule, NV12, pitch=80, uv_pitch=96)
        assert_resized(library.resize(params, *padded), frame, rule)


def test_every_colour_of_nv12(library):
    values = np.arange(0, 256, 3, dtype=np.uint8)[:84]
    luma = np.repeat(np.repeat(values[:, None], 84, 1), 1, 0)
    chroma = np.stack([values[:42], values[:42][::-1]], axis=1).reshape(1, 84).repeat(42, 0)
    chroma = ((chroma.astype(int) + 3 * np.arange(42)[:, None]) % 256).astype(np.uint8)
    frame = cv2.cvtColor(np.concatenate((luma, chroma)), cv2.COLOR_YUV2BGR_NV12)
    params = resize_params((84, 84), (84, 84), "stretch", NV12, uv_pitch=84)
    np.testing.assert_array_equal(library.resize(params, luma, chroma), frame)


def test_far_outside_is_black_or_the_edge(library):
    frame = np.full((4, 4, 3), 77, np.uint8)
    for far in (-1e9, 1e9, 3e38):
        params = resize_params((4, 4), (8, 8), "letterbox")
        params.start_x = far
        assert not library.resize(params, frame).any()
        params.black_border = 0
        assert (library.resize(params, frame) == 77).all()


BAD_RESIZE = [
    ("format", 3, "format is 3, expected 0..2"),
    ("frame_height", 0, "frame_height is 0, expected 1..65535"),
    ("frame_width", 70000, "frame_width is 70000"),
    ("pitch", 100, "pitch is 100, expected 192..2147483647"),
    ("out_height", 0, "out_height is 0"),
    ("out_width", -1, "out_width is -1"),
    ("content_height", 33, "content_height is 33, expected 0..32"),
    ("content_width", -1, "content_width is -1"),
    ("black_border", 2, "black_border is 2"),
    ("step_x", float("nan"), "step_x is"),
    ("step_y", float("inf"), "step_y is inf"),
    ("start_x", float("-inf"), "start_x is -inf, expected a finite number"),
    ("start_y", float("nan"), "start_y is"),
]


@pytest.mark.parametrize(("field", "value", "message"), BAD_RESIZE)
def test_impossible_resize(emulated, field, value, message):
    params = resize_params((48, 64), (32, 32), "stretch")
    setattr(params, field, value)
    with pytest.raises(KernelError) as caught:
        emulated.resize(params, np.zeros((48, 64, 3), np.uint8))
    assert message in str(caught.value)


def test_impossible_planes(emulated):
    plane = np.zeros((48, 64), np.uint8)
    packed = resize_params((48, 64), (32, 32), "stretch")
    with pytest.raises(KernelError, match="uv is given for a packed format"):
        emulated.resize(packed, np.zeros((48, 64, 3), np.uint8), plane)
    with pytest.raises(KernelError, match="uv is NULL"):
        emulated.resize(resize_params((48, 64), (32, 32), "stretch", NV12, uv_pitch=64), plane)
    with pytest.raises(KernelError, match="uv_pitch is 63, expected 64"):
        emulated.resize(resize_params((48, 64), (32, 32), "stretch", NV12, uv_pitch=63), plane, plane)
    with pytest.raises(KernelError, match="47 x 64 pixels, expected even sides"):
        emulated.resize(resize_params((47, 64), (32, 32), "stretch", NV12, uv_pitch=64), plane, plane)
    params = ctypes.byref(packed)
    for arguments, name in (
        ((params, None, None, plane.ctypes.data), "frame"),
        ((params, plane.ctypes.data, None, None), "out"),
    ):
        assert emulated.functions.gfl_resize(*arguments, None) == INVALID_ARGUMENT
        assert emulated.last_error() == f"{name} is NULL, expected device memory"


def test_a_launch_of_resize_that_fails(emulated):
    emulated.functions.gfl_emulate_failure(0, 719)
    with pytest.raises(KernelError, match="gfl_resize_kernel failed: unspecified launch failure"):
        emulated.resize(resize_params((48, 64), (32, 32), "stretch"), np.zeros((48, 64, 3), np.uint8))

"""The CUDA kernels on logits, which they decode and squash themselves, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.kernels.inputs import real
from benchmarks.kernels.library import nms_params
from gfl_edge.ops.decode import decode
from gfl_edge.spec import INVALID_CLASS
from tests.support.kernel_cases import LEVEL_ANCHORS, LEVELS, random_boxes, reference


def sigmoid(logits):
    with np.errstate(over="ignore"):
        return (1 / (1 + np.exp(-logits.astype(np.float32)))).astype(np.float32)


def distant(rng, shape, low=-8.0, high=4.0):
    """Logits in random order that are far enough apart for their sigmoids to be in the same order everywhere."""
    count = int(np.prod(shape))
    return rng.permutation(np.linspace(low, high, count)).astype(np.float32).reshape(shape)


def assert_close(found, expected):
    for i, (boxes, scores, classes, invalid) in enumerate(expected):
        count = len(scores)
        assert found["num_dets"][i, 0] == count
        np.testing.assert_array_equal(found["det_classes"][i, :count], classes)
        np.testing.assert_allclose(found["det_scores"][i, :count], scores, rtol=0, atol=1e-6)
        np.testing.assert_allclose(found["det_boxes"][i, :count], boxes, rtol=0, atol=1e-3)
        assert not found["det_boxes"][i, count:].any()
        rest = found["det_classes"].shape[1] - count
        assert np.count_nonzero(found["det_classes"][i] == INVALID_CLASS) == min(rest, invalid)


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


@pytest.mark.parametrize("one", list(real()), ids=lambda one: f"{one.named['input']} at {one.named['score_threshold']}")
def test_real_head_outputs(library, one):
    found = library.nms(one.params, **one.arrays)
    strides = tuple(one.params.strides[: one.params.num_levels])
    boxes = decode(one.arrays["reg_logits"].astype(np.float32), (448, 448), strides, 0.5)
    assert_close(found, [reference(boxes[0], sigmoid(one.arrays["scores"])[0], one.params)])
    assert found["num_dets"][0, 0] > 5


def test_odd_distributions(library):
    """Logits that are huge or not finite: what NumPy's softmax makes of them, NaN boxes among them, is left out."""
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
    assert np.isnan(boxes).any()
    assert (found["det_classes"] == INVALID_CLASS).any()


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

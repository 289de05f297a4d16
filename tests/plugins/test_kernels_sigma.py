"""The kernel that finds the standard deviations of the detections' edges, against the textbook."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.kernels.inputs import real
from benchmarks.kernels.library import KernelError, nms_params
from gfl_edge.ops.decode import decode
from tests.support.kernel_cases import INVALID_ARGUMENT, LEVEL_ANCHORS, LEVELS, random_boxes, reference, small_call
from tests.support.sigma_oracle import anchors_of, expected, sigmas_of_points
from tests.support.tiny_spec import TINY

ANCHORS = sum(LEVEL_ANCHORS)


def spec_for(reg_max, **changes):
    rule = {"class_names": ("a", "b"), "max_candidates": 120, "max_detections": 70, "point_offset": 0.5}
    return replace(TINY, reg_max=reg_max, nms="raw", edge_sigma=True, **LEVELS, **rule, **changes)


def params_for(spec, logits):
    names = ("reg_max", "point_offset", "max_candidates", "max_detections", "score_threshold", "iou_threshold")
    return nms_params(logits, **LEVELS, score_kind=1, **{name: getattr(spec, name) for name in names})


def assert_sigmas(found, index, wanted):
    boxes, scores, _, sigmas = wanted
    count = len(scores)
    assert 0 < count == found["num_dets"][index, 0]
    np.testing.assert_allclose(found["det_boxes"][index, :count], boxes, atol=1e-3)
    np.testing.assert_allclose(found["det_sigmas"][index, :count], sigmas, rtol=1e-4, atol=1e-3)
    assert not found["det_sigmas"][index, count:].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("reg_max", [1, 7, 16, 32])
def test_of_distributions(library, dtype, reg_max):
    rng = np.random.default_rng(reg_max)
    spec = spec_for(reg_max)
    reg = rng.normal(0, 3, (2, ANCHORS, 4 * (reg_max + 1))).astype(dtype)
    # In float16 many scores are equal
    logits = rng.permutation(np.linspace(-8, 4, 4 * ANCHORS)).reshape(2, ANCHORS, 2).astype(dtype)
    found = library.nms(params_for(spec, logits), True, scores=logits, reg_logits=reg)
    if dtype == np.float32:
        for index in range(2):
            assert_sigmas(found, index, expected(logits[index], reg[index], spec))
        return
    assert_consistent(found, logits, reg, spec)


def assert_consistent(found, logits, reg, spec):
    """Each detection has the sigmas of a point of its box: equal scores may come in another order than in NumPy."""
    for index in range(len(logits)):
        boxes = decode(reg[index].astype(np.float32), spec.input_hw, spec.strides, spec.point_offset)
        pairs = np.concatenate((boxes, sigmas_of_points(reg[index], spec)), axis=1)
        count = found["num_dets"][index, 0]
        assert count >= 5
        got = np.concatenate((found["det_boxes"][index, :count], found["det_sigmas"][index, :count]), axis=1)
        apart = np.abs(got[:, None] - pairs).max(axis=2).min(axis=1)
        assert apart.max() < 2e-3


def test_of_given_boxes_in_the_exact_order(library):
    """Bit by bit, also where scores are equal; quality counts among them."""
    rng = np.random.default_rng(3)
    scores = np.round(rng.uniform(0, 1, (2, ANCHORS, 5)) ** 3, 1).astype(np.float32)
    boxes = random_boxes(rng, ANCHORS, 2)
    sigmas = rng.uniform(0, 30, boxes.shape).astype(np.float32)
    params = nms_params(scores, max_candidates=300, max_detections=90)
    found = library.nms(params, scores=scores, boxes=boxes, sigmas=sigmas)
    for index in range(2):
        *wanted, _ = reference(boxes[index], scores[index], params)
        anchors = anchors_of(*wanted, boxes[index], scores[index])
        assert len(anchors) > 40
        np.testing.assert_array_equal(found["det_sigmas"][index, : len(anchors)], sigmas[index, anchors])


@pytest.mark.parametrize("alike", ["without area", "threshold of 1"])
def test_twins_are_told_apart_by_their_points(library, alike):
    """All have one box, score and class, and all are kept: the first detection is of the first point."""
    boxes = np.full((1, 80, 4), 7, np.float32)
    if alike == "threshold of 1":
        boxes[..., 2:] = 9
    scores = np.full((1, 80, 1), 0.5, np.float32)
    boxes[0, 5], scores[0, 9] = (0, 0, 3, 3), 0.9
    sigmas = np.arange(320, dtype=np.float32).reshape(1, 80, 4)
    params = nms_params(scores, iou_threshold=1.0, max_detections=60)
    found = library.nms(params, scores=scores, boxes=boxes, sigmas=sigmas)
    assert found["num_dets"][0, 0] == 60
    order = [9, *(anchor for anchor in range(80) if anchor != 9)][:60]
    np.testing.assert_array_equal(found["det_sigmas"][0], sigmas[0, order])


@pytest.mark.parametrize(
    "one", list(real())[:2], ids=lambda one: f"{one.named['input']} {one.named['score_threshold']}"
)
def test_real_head_outputs(library, one):
    strides = tuple(one.params.strides[: one.params.num_levels])
    rule = {name: getattr(one.params, name) for name in ("max_candidates", "max_detections", "reg_max")}
    spec = replace(TINY, class_names=("a",), input_hw=(448, 448), strides=strides, nms="raw", edge_sigma=True, **rule)
    spec = replace(spec, score_threshold=round(one.params.score_threshold, 6), iou_threshold=one.params.iou_threshold)
    found = library.nms(one.params, True, **one.arrays)
    assert_consistent(found, one.arrays["scores"], one.arrays["reg_logits"], spec)


def test_more_pairs_than_a_segment(library):
    """Several segments, of which one has all the keys of a bin."""
    rng = np.random.default_rng(4)
    scores = np.zeros((1, 3000, 2), np.float32)
    scores[0, 1000:1400] = np.round(rng.uniform(0.5, 0.6, (400, 2)), 3)
    boxes = random_boxes(rng, 3000)
    sigmas = rng.uniform(0, 30, boxes.shape).astype(np.float32)
    params = nms_params(scores)
    found = library.nms(params, scores=scores, boxes=boxes, sigmas=sigmas)
    *wanted, _ = reference(boxes[0], scores[0], params)
    anchors = anchors_of(*wanted, boxes[0], scores[0])
    np.testing.assert_array_equal(found["det_sigmas"][0, : len(anchors)], sigmas[0, anchors])


def test_nobody_asks(library):
    """The kernel is not launched."""
    rng = np.random.default_rng(5)
    scores, boxes = rng.uniform(0, 1, (1, 50, 1)).astype(np.float32), random_boxes(rng, 50)
    assert "det_sigmas" not in library.nms(nms_params(scores), scores=scores, boxes=boxes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda call: setattr(call.outputs, "det_sigmas", call.outputs.det_boxes),
            "inputs.sigmas is NULL: pass them ex",
        ),
        (
            lambda call: setattr(call.inputs, "sigmas", call.inputs.boxes),
            "inputs.sigmas is given: pass them exactly wi",
        ),
        (lambda call: setattr(call.outputs, "det_sigmas", call.outputs.det_boxes + 4), "outputs.det_sigmas is at"),
    ],
)
def test_what_does_not_go_together(emulated, change, message):
    with emulated.memory() as memory:
        call = small_call(emulated, memory)
        change(call)
        with pytest.raises(KernelError, match=message) as caught:
            call.queue()
    assert caught.value.status == INVALID_ARGUMENT

"""Detections from raw maps against decoding everything, and what is made of each kind of outputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfl_edge.ops import decode
from gfl_edge.ops.boxes import classwise_nms, multiclass_nms
from gfl_edge.ops.postprocess import detections, detections_from_raw, kept_boxes, sigmoid
from tests.support.raw_maps import SPEC, random_maps


def expected(cls, reg, spec=SPEC):
    """Everything decoded, then the reference."""
    return multiclass_nms(
        decode.decode(reg.astype(np.float32), spec.input_hw, spec.strides, spec.point_offset),
        sigmoid(cls),
        score_threshold=spec.score_threshold,
        iou_threshold=spec.iou_threshold,
        max_candidates=spec.max_candidates,
        max_detections=spec.max_detections,
    )


def assert_equal(cls, reg, spec=SPEC):
    found, wanted = detections_from_raw(cls, reg, spec, spec.input_hw), expected(cls, reg, spec)
    for got, want in zip(found[:3], wanted, strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
    return len(wanted[1])


@given(
    seed=st.integers(0, 2**32 - 1),
    threshold=st.sampled_from([0.0, 1e-6, 0.05, 0.5, 0.999, 0.9999999, 1.0]) | st.floats(0, 1),
    dtype=st.sampled_from([np.float32, np.float16]),
    spread=st.sampled_from([0.0, 1.0, 3.0, 40.0]),
)
@settings(max_examples=200, deadline=None)
def test_equals_decoding_everything(seed, threshold, dtype, spread):
    cls, reg = random_maps(seed, dtype=dtype, spread=spread)
    assert_equal(cls, reg, replace(SPEC, score_threshold=threshold))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.97])
def test_scores_around_the_threshold_fall_on_the_same_side(threshold, dtype):
    """Every representable logit for a while on both sides."""
    spec = replace(SPEC, score_threshold=threshold, max_candidates=10_000, max_detections=10_000, iou_threshold=1.0)
    center = np.array(np.log(threshold / (1 - threshold)), dtype)
    steps = np.arange(SPEC.num_anchors * SPEC.num_classes) - SPEC.num_anchors
    cls = (center + steps * np.spacing(center)).astype(dtype).reshape(-1, SPEC.num_classes)
    assert 0 < assert_equal(cls, random_maps(0, dtype=dtype)[1], spec) < cls.size


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 700),
    iou=st.sampled_from([0.0, 0.3, 0.5, 0.6, 0.9, 1.0]),
    most=st.sampled_from([1, 25, 10_000]),
)
@settings(max_examples=200, deadline=None)
def test_kept_boxes_are_those_of_the_reference(seed, count, iou, most):
    """Whole coordinates: ties at the threshold, equal and empty boxes come up."""
    rng = np.random.default_rng(seed)
    corner, sides = rng.integers(0, 20, (count, 2)), rng.integers(0, 12, (count, 2))
    boxes = np.concatenate((corner, corner + sides), axis=1).astype(np.float32)
    classes = rng.integers(0, 3, count)
    np.testing.assert_array_equal(kept_boxes(boxes, classes, iou, most), classwise_nms(boxes, classes, iou)[:most])


@pytest.mark.parametrize("iou", [0.3, 0.45, 0.5, 0.6, 0.65, 0.7])
def test_a_pair_just_above_and_just_below_the_threshold(iou):
    for wide, count in ((iou + 1e-4, 1), (iou - 1e-4, 2)):
        pair = np.array([[0, 0, 100, 100], [0, 0, 100 * wide, 100]], np.float32)
        assert len(kept_boxes(pair, np.zeros(2, np.int64), iou, 9)) == count
        assert len(kept_boxes(pair, np.array([0, 1]), iou, 9)) == 2


def test_ties_of_scores_that_differ_as_logits():
    """Beyond 17 every float32 score is 1: the order is that of the pairs, not of the logits."""
    cls, reg = random_maps(1)
    cls[:20, 0] = np.linspace(18, 40, 20)
    assert assert_equal(cls, reg) == SPEC.max_detections


@pytest.mark.parametrize("value", [-np.inf, -100.0, np.nan])
def test_nothing(value):
    cls, reg = random_maps(2)
    cls[:] = value
    boxes, scores, classes, invalid = detections_from_raw(cls, reg, SPEC, SPEC.input_hw)[:4]
    assert invalid == (cls.size if np.isnan(value) else 0)
    assert boxes.shape == (0, 4)
    assert scores.shape == classes.shape == (0,)


def test_another_size_of_the_input():
    spec = replace(SPEC, input_hw=(64, 128))
    cls, reg = random_maps(3, spec)
    found = detections_from_raw(cls, reg, SPEC, (64, 128))
    for got, want in zip(found[:3], expected(cls, reg, spec), strict=True):
        np.testing.assert_array_equal(got, want)


def test_every_kind_of_outputs_gives_the_same():
    cls, reg = random_maps(4)
    boxes = decode.decode(reg, SPEC.input_hw, SPEC.strides, SPEC.point_offset)
    want = expected(cls, reg)
    count, room = len(want[1]), SPEC.max_detections
    padded = [np.zeros((2, room, *array.shape[1:]), array.dtype) for array in want]
    for array, value in zip(padded, want, strict=True):
        array[1, :count] = value
    outputs = {
        "num_dets": np.array([[0], [count]], np.int32),
        **dict(zip(("det_boxes", "det_scores", "det_classes"), padded, strict=True)),
        "cls_logits": np.stack((cls * 0, cls)),
        "reg_logits": np.stack((reg * 0, reg)),
        "boxes": np.stack((boxes * 0, boxes)),
        "scores": np.stack((cls * 0, sigmoid(cls))),
    }
    for place in ("graph", "plugin", "none", "raw"):
        spec = replace(SPEC, nms=place)
        found = detections({name: outputs[name] for name in spec.output_names}, 1, spec, SPEC.input_hw)
        for got, value in zip(found[:3], want, strict=True):
            np.testing.assert_array_equal(got, value)

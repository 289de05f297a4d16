"""What can be no detection: it is left out and counted, and leaves the rest of its frame alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfl_edge.ops import decode
from gfl_edge.ops.boxes import MAX_COORDINATE, classwise_nms, multiclass_nms, sound
from gfl_edge.ops.postprocess import detections, detections_from_raw, detections_from_scores, kept_boxes, sigmoid
from gfl_edge.spec import INVALID_CLASS
from tests.support.raw_maps import SPEC as RAW_SPEC
from tests.support.raw_maps import random_maps
from tests.support.tiny_spec import TINY

ODD = np.array(
    [-np.inf, -1e30, -1.0, -0.0, 0.0, 1e-30, 0.5, 1.0, 7.0, 65504, 2.0**20, 3e38, np.inf, np.nan], np.float32
)
RULE = {"score_threshold": 0.05, "iou_threshold": 0.6, "max_candidates": 1000, "max_detections": 100}
SPEC = replace(TINY, nms="none")
GOOD = np.float32([[1, 1, 9, 9], [20, 20, 40, 40], [21, 20, 41, 40], [50, 5, 60, 9]])


@pytest.mark.parametrize(
    ("box", "score"),
    [
        ((np.nan, 1, 5, 5), 0.9),
        ((1, np.nan, np.nan, np.nan), 0.9),
        ((-np.inf, 0, np.inf, 9), 0.9),
        ((0, 0, np.inf, 9), 0.9),
        ((0, 0, 1e30, 1e30), 0.9),
        ((-(2.0**20) - 1, 0, 9, 9), 0.9),
        ((9, 1, 5, 5), 0.9),
        ((1, 9, 5, 5), 0.9),
        ((9, 9, 5, 5), 0.9),  # inside out twice: its area is positive
        ((1, 1, 5, 5), 1.5),
        ((1, 1, 5, 5), np.inf),
        ((1, 1, 5, 5), np.nan),
    ],
)
def test_one_bad_candidate_leaves_the_others(box, score):
    """A single box of NaN once erased every other detection of its frame."""
    boxes = np.insert(np.zeros((SPEC.num_anchors, 4), np.float32), 2, 0, axis=0)[: SPEC.num_anchors]
    scores = np.zeros((SPEC.num_anchors, 2), np.float32)
    boxes[:4], scores[:4, 1] = GOOD, (0.9, 0.8, 0.7, 0.6)
    want = detections_from_scores(boxes, scores, SPEC)
    assert want.scores.tolist() == np.float32([0.9, 0.8, 0.6]).tolist()
    boxes[7], scores[7, 1] = box, score
    found = detections_from_scores(boxes, scores, SPEC)
    for got, value in zip(found[:3], want[:3], strict=True):
        np.testing.assert_array_equal(got, value)
    assert (want.invalid, found.invalid) == (0, 1)


@given(seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.02, 0.3, 1.0]))
@settings(max_examples=150, deadline=None)
def test_the_fast_way_is_the_reference_on_odd_values(seed, share):
    rng = np.random.default_rng(seed)
    corner = rng.integers(-8, 8, (SPEC.num_anchors, 2))
    boxes = np.concatenate((corner, corner + rng.integers(0, 8, corner.shape)), axis=1).astype(np.float32)
    scores = (rng.integers(0, 9, (SPEC.num_anchors, 2)) / 8).astype(np.float32)
    for array in (boxes, scores):
        odd = rng.random(array.shape) < share
        array[odd] = rng.choice(ODD, np.count_nonzero(odd))
    found = detections_from_scores(boxes, scores, SPEC)
    for got, want in zip(found[:3], multiclass_nms(boxes, scores, **RULE), strict=True):
        np.testing.assert_array_equal(got, want)
    assert sound(found.boxes, found.scores).all()
    bad = ~sound(boxes[:, None], scores) & ~(scores <= np.float32(0.05))
    assert found.invalid == np.count_nonzero(bad)


@given(seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from([np.float32, np.float16]))
@settings(max_examples=60, deadline=None)
def test_raw_maps_with_odd_values(seed, dtype):
    cls, reg = random_maps(seed, dtype=dtype)
    rng = np.random.default_rng(seed)
    for array in (cls, reg):
        odd = rng.random(array.shape) < 0.05
        with np.errstate(over="ignore"):
            array[odd] = rng.choice(ODD, np.count_nonzero(odd)).astype(dtype)
    found = detections_from_raw(cls, reg, RAW_SPEC, RAW_SPEC.input_hw)
    boxes = decode.decode(reg.astype(np.float32), RAW_SPEC.input_hw, RAW_SPEC.strides, RAW_SPEC.point_offset)
    rule = {key: getattr(RAW_SPEC, key) for key in RULE}
    for got, want in zip(found[:3], multiclass_nms(boxes, sigmoid(cls), **rule), strict=True):
        np.testing.assert_array_equal(got, want)
    assert sound(found.boxes, found.scores).all()
    assert found.invalid >= np.count_nonzero(np.isnan(cls))


@given(seed=st.integers(0, 2**32 - 1), iou=st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=60, deadline=None)
def test_negative_and_large_coordinates_keep_the_classes_apart(seed, iou):
    """The lowest coordinate counts for the distance between classes as the highest does."""
    rng = np.random.default_rng(seed)
    corner = rng.choice([-(2**20), -900, -5, 0, 3, 800, 2**20 - 40], (80, 2))
    boxes = np.concatenate((corner, corner + rng.integers(0, 40, corner.shape)), axis=1).astype(np.float32)
    classes = rng.integers(0, 40, 80)
    np.testing.assert_array_equal(kept_boxes(boxes, classes, iou, 99), classwise_nms(boxes, classes, iou))


@pytest.mark.parametrize("count", [-5, 0, 3, 99])
def test_outputs_of_a_graph_that_let_anything_pass(count):
    rows = 5
    outputs = {
        "num_dets": np.array([[count]], np.int32),
        "det_boxes": np.zeros((1, rows, 4), np.float32),
        "det_scores": np.full((1, rows), 0.5, np.float32),
        "det_classes": np.array([[0, 7, -3, 1, INVALID_CLASS]], np.int32),
    }
    outputs["det_boxes"][0, 3, 2] = np.nan
    found = detections(outputs, 0, replace(TINY, nms="graph"), TINY.input_hw)
    want = {-5: ([], 1), 0: ([], 1), 3: ([0], 3), 99: ([0], 4)}[count]
    assert (found.classes.tolist(), found.invalid) == want


def test_scores_of_0_and_1_are_sound():
    scores = np.float32([0, 1, -1e-30, np.nextafter(np.float32(1), np.float32(2))])
    assert sound(np.zeros((4, 4), np.float32), scores).tolist() == [True, True, False, False]


def test_the_limit_of_coordinates_is_sound():
    limit = float(MAX_COORDINATE)
    boxes = np.float32([[-limit, -limit, limit, limit], [0, 0, np.nextafter(MAX_COORDINATE, np.float32(np.inf)), 1]])
    assert sound(boxes, np.float32([1, 0])).tolist() == [True, False]

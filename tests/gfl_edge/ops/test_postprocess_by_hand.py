"""What comes out of small outputs that can be followed by hand: order, ties, limits, types, counts."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from gfl_edge.ops.postprocess import (
    CHUNK,
    Found,
    _cutoff,
    detections,
    detections_from_raw,
    detections_from_scores,
    kept_boxes,
    sigmoid,
)
from gfl_edge.spec import INVALID_CLASS, PADDING_CLASS
from tests.support.tiny_spec import TINY

# Two levels of one and two cells: centers (16, 16); (8, 8) and (24, 8)
SPEC = replace(TINY, nms="raw", input_hw=(32, 32), strides=(16, 32), point_offset=0.5, reg_max=3)
CELLS = 2 * 2 + 1
BOXES = np.float32([[0, 0, 8, 8], [16, 16, 24, 24], [0, 0, 8, 7], [4, 4, 4, 9]])


def scores(*rows):
    return np.float32(rows)


def certain(*distances):
    """Distribution logits of an edge each, all on one bin."""
    logits = np.full((len(distances), 4), -1e4, np.float32)
    logits[np.arange(len(distances)), distances] = 1e4
    return logits.reshape(-1)


# --- scores ----------------------------------------------------------------------------------------------------------


def test_scores_are_ordered_and_overlaps_of_a_class_suppressed():
    found = detections_from_scores(BOXES, scores([0.5, 0.1], [0.9, 0], [0.6, 0.2], [0, 0.3]), replace(SPEC, nms="none"))
    # Of class 0 the box of 0.5 has an IoU of 7 / 8 with that of 0.6; of class 1 that of 0.1 with that of 0.2
    assert found.scores.tolist() == np.float32([0.9, 0.6, 0.3, 0.2]).tolist()
    assert found.classes.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(found.boxes, BOXES[[1, 2, 3, 2]])
    assert found.invalid == 0
    assert [part.dtype for part in found[:3]] == [np.float32, np.float32, np.int32]


def test_limits_of_scores_candidates_and_detections():
    all_scores = scores([0.05, 0.06], [0.9, 0.4], [0.3, 0.2], [0.8, 0.7])
    spec = replace(SPEC, nms="none", iou_threshold=1.0)

    def found(**change):
        return detections_from_scores(BOXES, all_scores, replace(spec, **change)).scores.round(2).tolist()

    assert found() == np.float32([0.9, 0.8, 0.7, 0.4, 0.3, 0.2, 0.06]).round(2).tolist()  # 0.05 is not above 0.05
    assert len(found(score_threshold=0.3)) == 4
    assert len(found(max_candidates=5, max_detections=5)) == 5
    assert len(found(max_detections=3)) == 3
    assert len(found(iou_threshold=0.6)) == 6
    # Candidates are counted before boxes are suppressed; the fifth, of 0.3, overlaps with none before it
    assert len(found(iou_threshold=0.6, max_candidates=5, max_detections=5)) == 5


def test_equal_scores_come_in_the_order_of_cells_and_then_of_classes():
    found = detections_from_scores(BOXES[[1, 0]], scores([0.5, 0.5], [0.5, 0.5]), replace(SPEC, nms="none"))
    assert found.classes.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(found.boxes, BOXES[[1, 1, 0, 0]])


@pytest.mark.filterwarnings("error")
def test_candidates_that_can_be_none_are_counted_and_left_out():
    boxes = BOXES.copy()
    boxes[0, 1] = np.nan
    all_scores = scores([0.9, 0.8], [np.nan, 0.7], [0, np.nan], [0.01, 1.5])
    found = detections_from_scores(boxes, all_scores, replace(SPEC, nms="none"))
    assert found.scores.tolist() == np.float32([0.7]).tolist()
    assert found.invalid == 2 + 2 + 1  # of the bad box, without a number, above 1
    assert type(found.invalid) is int


def test_half_precision_is_taken():
    half = scores([0.5, 0.1], [0.9, 0], [0.6, 0.2], [0, 0.3]).astype(np.float16)
    found = detections_from_scores(BOXES.astype(np.float16), half, replace(SPEC, nms="none"))
    np.testing.assert_array_equal(found.boxes, BOXES[[1, 2, 3, 2]])
    assert [part.dtype for part in found[:3]] == [np.float32, np.float32, np.int32]


# --- raw maps --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.filterwarnings("error")
def test_raw_maps_by_hand(dtype):
    cls = np.full((CELLS, 2), -np.inf, np.float32)
    cls[1, 1], cls[4, 0], cls[2, 0], cls[3, 1] = 0, math.log(3), np.nan, math.log(0.05 / 0.95) - 1e-2
    reg = np.zeros((CELLS, 16), np.float32)
    reg[1] = certain(1, 0, 0, 1)  # center (24, 8), stride 16
    found = detections_from_raw(cls.astype(dtype), reg.clip(-6e4, 6e4).astype(dtype), SPEC, (32, 32))
    np.testing.assert_allclose(found.scores, [0.75, 0.5], rtol=1e-3)
    assert found.classes.tolist() == [0, 1]
    np.testing.assert_allclose(found.boxes, [[0, 0, 32, 32], [8, 8, 24, 24]])  # 1.5 strides of 32 around (16, 16)
    assert found.invalid == 1
    assert [part.dtype for part in found[:3]] == [np.float32, np.float32, np.int32]


@pytest.mark.filterwarnings("error")
def test_sigmoid():
    logits = np.float16([-np.inf, -200, 0, 200, np.inf])
    assert sigmoid(logits).tolist() == [0, 0, 0.5, 1, 1]
    assert sigmoid(logits).dtype == np.float32
    assert math.isnan(sigmoid(np.float32([np.nan]))[0])
    np.testing.assert_allclose(sigmoid(np.float32([math.log(3), -math.log(3)])), [0.75, 0.25])


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_thresholds_at_the_ends_and_in_the_middle(threshold):
    cls = np.full((CELLS, 2), -np.inf, np.float32)
    cls[:, 0] = [-50, np.nextafter(np.float32(0), np.float32(-1)), 0, 1e-3, 50]
    spec = replace(SPEC, score_threshold=threshold, iou_threshold=1.0)
    found = detections_from_raw(cls, np.zeros((CELLS, 16), np.float32), spec, (32, 32))
    assert len(found.scores) == {0.0: 5, 0.5: 2, 1.0: 0}[threshold]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("threshold", [1e-4, 0.05, 0.5, 0.97])
def test_the_cut_of_logits_is_just_below_that_of_scores(threshold, dtype):
    """What passes it is computed further: a cut that is much lower costs time, a higher one detections."""
    logit, cut = math.log(threshold / (1 - threshold)), _cutoff(threshold, np.dtype(dtype))
    assert cut.dtype == dtype
    rounding = 2 * np.spacing(np.abs(np.array(logit, dtype)) + np.finfo(dtype).tiny)
    assert 0 < logit - float(cut) < 1e-3 + float(rounding)
    assert _cutoff(0.0, np.dtype(dtype)) == -np.inf


# --- whatever the model left undone ----------------------------------------------------------------------------------


def test_outputs_are_taken_by_what_the_model_left_undone():
    cls, reg = np.full((2, CELLS, 2), -np.inf, np.float32), np.zeros((2, CELLS, 16), np.float32)
    cls[1, 4, 0] = 0
    raw = {"cls_logits": cls, "reg_logits": reg}
    decoded = {
        "boxes": np.stack((BOXES * 0, BOXES)),
        "scores": scores([[0, 0]] * 4, [[0, 0.9], [0, 0], [0, 0], [0, 0]]),
    }
    found = detections(raw, 1, SPEC, (32, 32)), detections(decoded, 1, replace(SPEC, nms="none"), (32, 32))
    assert [(one.boxes.tolist(), one.classes.tolist()) for one in found] == [
        ([[0, 0, 32, 32]], [0]),
        ([[0, 0, 8, 8]], [1]),
    ]
    assert len(detections(raw, 0, SPEC, (32, 32)).scores) == 0


# --- detections that a graph found -----------------------------------------------------------------------------------


def test_detections_of_a_graph_are_taken_as_they_are():
    outputs = {
        "num_dets": np.array([[0], [2]], np.int64),
        "det_boxes": np.stack((BOXES, BOXES)),
        "det_scores": scores([0, 0, 0, 0], [0.9, 0.8, 0.7, 0]),
        "det_classes": np.array([[PADDING_CLASS] * 4, [1, 0, INVALID_CLASS, PADDING_CLASS]], np.int64),
    }
    found = detections(outputs, 1, replace(SPEC, nms="graph"), (32, 32))
    np.testing.assert_array_equal(found.boxes, BOXES[:2])
    assert found.scores.tolist() == np.float32([0.9, 0.8]).tolist()
    assert (found.classes.tolist(), found.invalid) == ([1, 0], 1)
    assert [part.dtype for part in found[:3]] == [np.float32, np.float32, np.int32]
    assert type(found.invalid) is int
    nothing = detections(outputs, 0, replace(SPEC, nms="graph"), (32, 32))
    assert (len(nothing.boxes), len(nothing.scores), nothing.invalid) == (0, 0, 0)


def test_detections_of_a_graph_in_half_precision():
    outputs = {
        "num_dets": np.array([[2]]),
        "det_boxes": BOXES[None].astype(np.float16),
        "det_scores": scores([0.75, 0.5, 0, 0]).astype(np.float16),
        "det_classes": np.array([[1, 0, 0, 0]]),
    }
    found = detections(outputs, 0, replace(SPEC, nms="graph"), (32, 32))
    assert [part.dtype for part in found[:3]] == [np.float32, np.float32, np.int32]
    np.testing.assert_array_equal(found.boxes, BOXES[:2])


def test_nothing_is_invalid_unless_it_is_said():
    assert Found(BOXES, np.ones(4, np.float32), np.zeros(4, np.int32)).invalid == 0


def test_detections_of_a_class_that_there_is_not():
    outputs = {
        "num_dets": np.array([[4]]),
        "det_boxes": BOXES[None],
        "det_scores": scores([0.9, 0.8, 0.7, 0.6]),
        "det_classes": np.array([[2, 1, 0, -1]]),
    }
    found = detections(outputs, 0, replace(SPEC, nms="plugin"), (32, 32))
    assert (found.classes.tolist(), found.invalid) == ([1, 0], 2)


# --- NMS -------------------------------------------------------------------------------------------------------------


def test_empty_boxes_are_kept_beside_anything():
    boxes = np.float32([[4, 4, 4, 9], [4, 4, 4, 9], [0, 0, 8, 8], [4, 4, 4, 4], [0, 0, 8, 8]])
    assert kept_boxes(boxes, np.zeros(5, np.int64), 0.5, 9).tolist() == [0, 1, 2, 3]


def test_small_boxes_have_an_overlap():
    boxes = np.float32([[0, 0, 0.01, 0.01], [0, 0, 0.01, 0.009], [1, 1, 1.01, 1.01]])
    assert kept_boxes(boxes, np.zeros(3, np.int64), 0.5, 9).tolist() == [0, 2]


@pytest.mark.parametrize("low", [-100, 0, 50])
def test_boxes_of_neighboring_classes_never_overlap(low):
    """Wherever they lie: those of the highest corner of a class beside those of the lowest of the next."""
    boxes = np.float32([[low, low, low + 60, low + 60], [low + 1, low, low + 60, low + 60]])
    for classes in ([0, 1], [1, 0], [0, 79], [79, 78]):
        assert kept_boxes(boxes, np.array(classes), 0.1, 9).tolist() == [0, 1]
    assert kept_boxes(boxes, np.array([5, 5]), 0.1, 9).tolist() == [0]


def test_boxes_after_the_first_chunk_are_suppressed_by_those_in_it():
    apart = np.float32([[10 * i, 0, 10 * i + 8, 8] for i in range(CHUNK)])
    boxes = np.concatenate((apart, apart[:1], apart[-1:] + np.float32([0, 50, 0, 50])))
    classes = np.zeros(len(boxes), np.int64)
    every = [*range(CHUNK), CHUNK + 1]
    assert kept_boxes(boxes, classes, 0.5, 9999).tolist() == every
    for most in (1, CHUNK - 1, CHUNK, CHUNK + 1):
        assert kept_boxes(boxes, classes, 0.5, most).tolist() == every[:most]
    nothing = kept_boxes(boxes[:0], classes[:0], 0.5, 9)
    assert (nothing.tolist(), nothing.dtype) == ([], np.int64)

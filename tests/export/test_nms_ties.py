"""Equal scores and invalid candidates: the host, ONNX Runtime, OpenVINO and the emulated kernels find the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.kernels.library import nms_params
from gfl_edge.ops.boxes import multiclass_nms
from gfl_edge.ops.postprocess import detections
from gfl_edge.spec import DETECTION_NAMES
from tests.support import emulated_kernels
from tests.support.nms_graph import ANCHORS, CLASSES, RULE, SPEC, random_boxes, run, run_openvino, spoil

HOST = dataclasses.replace(SPEC, nms="none")


@pytest.fixture(scope="module")
def emulated():
    return emulated_kernels.library()


def assert_all_alike(boxes, scores, emulated, spec=SPEC):
    rule = {key: getattr(spec, key) for key in RULE}
    found = {
        "ONNX Runtime": run(boxes, scores, spec),
        "OpenVINO": run_openvino(boxes, scores, spec),
        "kernels": emulated.nms(nms_params(scores, **rule), scores=scores, boxes=boxes),
        "host": {"boxes": boxes, "scores": scores},
    }
    for index in range(len(boxes)):
        expected = multiclass_nms(boxes[index], scores[index], **rule)
        for place, outputs in found.items():
            own = dataclasses.replace(spec, nms="none") if place == "host" else spec
            parts = detections(outputs, index, own, spec.input_hw)[:3]
            for name, got, want in zip(DETECTION_NAMES[1:], parts, expected, strict=True):
                np.testing.assert_array_equal(got, want, err_msg=f"{place}, {name}")


@given(
    seed=st.integers(0, 2**32 - 1),
    levels=st.integers(1, 30),
    size=st.integers(2, 12),
    share=st.sampled_from([0.0, 0.0, 0.02, 0.3]),
    zeros=st.sampled_from([0.0, 0.5, 0.9]),
)
@settings(max_examples=20, deadline=None)
def test_few_values_of_scores(emulated, seed, levels, size, share, zeros):
    """Of 183 such cases OpenVINO's own TopK gave 77 in another order, and some with another number of boxes."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels + 1, (2, ANCHORS, CLASSES)).astype(np.float32) / np.float32(levels)
    scores[rng.random(scores.shape) < zeros] = 0
    boxes = random_boxes(rng, size=size)
    spoil(rng, share, boxes, scores)
    assert_all_alike(boxes, scores, emulated)


@pytest.mark.parametrize(("candidates", "kept"), [(1, 1), (2, 1), (47, 20), (48, 48), (1000, 100)])
def test_as_many_candidates_as_there_are_pairs_and_fewer(emulated, candidates, kept):
    spec = dataclasses.replace(SPEC, max_candidates=candidates, max_detections=kept, iou_threshold=1.0)
    rng = np.random.default_rng(0)
    for scores in (np.full((2, ANCHORS, CLASSES), 0.5), rng.integers(0, 3, (2, ANCHORS, CLASSES)) / 2):
        assert_all_alike(random_boxes(rng), scores.astype(np.float32), emulated, spec)


@pytest.mark.parametrize("levels", [1, 3, 100])
def test_more_pairs_than_a_block_of_memory_holds(emulated, levels):
    """1000 of 20,480 pairs, hundreds of which are equal to the last one that enters."""
    spec = dataclasses.replace(SPEC, input_hw=(512, 512), class_names=tuple("abcde"), max_candidates=1000)
    rng = np.random.default_rng(levels)
    corner = rng.integers(0, 400, (1, spec.num_anchors, 2))
    boxes = np.concatenate((corner, corner + rng.integers(0, 90, corner.shape)), axis=2).astype(np.float32)
    scores = rng.integers(0, levels + 1, (1, spec.num_anchors, spec.num_classes)).astype(np.float32) / levels
    assert_all_alike(boxes, scores.astype(np.float32), emulated, spec)

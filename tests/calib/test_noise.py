"""The measure of what rounding does: the same for every export of a network."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from calib import placement
from calib.images import choose_images
from calib.noise import MAX_DB, Decoded, signal_to_noise
from calib.observed import Observed, observe
from calib.sensitivity import Probe
from gfl_edge.ops.onnx_graph import without_nms
from gfl_edge.spec import load_contract
from tests.support.calibration import IMAGES, write_model

BOXES = np.float32([[[0, 0, 20, 10], [5, 5, 6, 6]]])
SCORES = np.float32([[[0.5, 0.5], [0, 0]]])


def db(boxes=BOXES, scores=SCORES, reference=(BOXES, SCORES)):
    return signal_to_noise([Decoded(*reference)], [Decoded(boxes, scores)])


def test_scores_count_in_power():
    assert db(scores=SCORES * np.float32(1.1)) == pytest.approx(-10 * np.log10(0.1**2 / 2), abs=1e-3)


def test_edges_count_by_the_size_of_their_box():
    moved = BOXES + np.float32(1.5) * (SCORES.max(axis=-1, keepdims=True) > 0)
    assert db(boxes=moved) == pytest.approx(-10 * np.log10(0.1**2 / 2), abs=1e-3)  # of half of 20 + 10


def test_boxes_without_a_score_do_not_count():
    moved = BOXES + np.float32([[[0], [50]]])
    assert db(boxes=moved) == MAX_DB


def test_nothing_to_see():
    nothing = np.zeros_like(SCORES)
    assert db(scores=nothing, reference=(BOXES, nothing)) == MAX_DB
    assert db(scores=SCORES, reference=(BOXES, nothing)) == 0.0


@pytest.mark.usefixtures("one_thread")
def test_noise_stays_where_it_is_when_the_export_changes(float_onnx, calib_images, tmp_path):
    write_model(tmp_path / "raw.onnx", "fp32", "raw")
    found = []
    for path in (float_onnx, tmp_path / "raw.onnx"):
        model, spec = load_contract(path)
        if spec.nms == "graph":
            spec = without_nms(model, spec)
        inputs = list(itertools.islice(choose_images(calib_images, IMAGES).inputs(spec), 2))
        graph = placement.place(model, for_cpu=True)
        seen = observe(model, graph.activations(), graph.conv_inputs(), inputs, 2, progress=False)
        observed = Observed({}, *seen, "m", "i", ())
        quantized = graph.quantized(observed.clipped("max"), observed.channel_means)
        found.append(Probe(model, spec, inputs).snr_db(quantized))
    assert 10 < found[0] < 60
    assert found[1] == pytest.approx(found[0], abs=0.1)

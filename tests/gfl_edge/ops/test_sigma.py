"""Standard deviations of edges on the host: from the distributions to detections in pixels of the frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfl_edge import Detector
from gfl_edge.detections import Detections
from gfl_edge.errors import BackendError, InputError
from gfl_edge.ops import decode
from gfl_edge.ops.postprocess import detections, sigmoid
from gfl_edge.ops.preprocess import Placement
from gfl_edge.spec import ModelSpec
from tests.support.own_backend import Candidates, Unsure
from tests.support.raw_maps import SPEC as RAW_SPEC
from tests.support.raw_maps import random_maps
from tests.support.sigma_oracle import deviations, expected, sigmas_of_points
from tests.support.tiny_spec import TINY

SPEC = replace(RAW_SPEC, edge_sigma=True)


@given(seed=st.integers(0, 2**32 - 1), bins=st.integers(2, 33), spread=st.sampled_from([0.01, 1.0, 10.0, 1000.0]))
@settings(max_examples=80, deadline=None)
def test_it_is_the_deviation_of_the_distribution(seed: int, bins: int, spread: float) -> None:
    logits = np.random.default_rng(seed).normal(0, spread, (5, 4 * bins)).astype(np.float32)
    np.testing.assert_allclose(decode.deviation(logits), deviations(logits), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("logits", "sigma"),
    [
        ([0, -np.inf, -np.inf, -np.inf], 0),
        ([-np.inf, -np.inf, -np.inf, 5], 0),
        ([7, -np.inf, -np.inf, 7], 1.5),
        ([0, 0, 0, 0], np.sqrt(1.25)),
        ([1e30, 0, 0, 1e30], 1.5),
        ([-3e38, -3e38, -3e38, 3e38], 0),
        ([np.nan, 0, 0, 0], np.nan),
        ([np.inf, 0, 0, 0], np.nan),
        ([-np.inf] * 4, np.nan),
    ],
)
def test_extreme_distributions(logits: list[float], sigma: float) -> None:
    """NaN exactly where the edge is."""
    row = np.tile(np.float32(logits), 4)
    np.testing.assert_allclose(decode.deviation(row), sigma, rtol=1e-6)
    assert np.isnan(decode.integral(row)).all() == np.isnan(sigma)


def test_a_sure_edge_keeps_its_digits() -> None:
    """All but a millionth in the last of 33 bins: the mean square less the square of the mean has none of it."""
    row = np.full(33, -np.inf, np.float32)
    row[31:] = np.float32(np.log([1e-6, 1 - 1e-6]))
    np.testing.assert_allclose(decode.deviation(np.tile(row, 4)), 1e-3, rtol=1e-3)


def outputs_of(
    spec: ModelSpec, seed: int, dtype: type = np.float32
) -> tuple[dict[str, np.ndarray], tuple[np.ndarray, ...]]:
    """Of a model of that form, two images; and what is to be found in the second."""
    maps = [random_maps(seed + i, spec, dtype) for i in range(2)]
    cls, reg = (np.stack(arrays) for arrays in zip(*maps, strict=True))
    wanted = expected(cls[1], reg[1], spec)
    if spec.nms == "raw":
        return {"cls_logits": cls, "reg_logits": reg}, wanted
    boxes = decode.decode(reg.astype(np.float32), spec.input_hw, spec.strides, spec.point_offset)
    sigmas = np.stack([sigmas_of_points(one, spec) for one in reg])
    return {"boxes": boxes, "scores": sigmoid(cls), "sigmas": sigmas}, wanted


@given(
    seed=st.integers(0, 2**32 - 1),
    nms=st.sampled_from(["raw", "none"]),
    dtype=st.sampled_from([np.float32, np.float16]),
)
@settings(max_examples=60, deadline=None)
def test_detections_have_those_of_their_points(seed: int, nms: str, dtype: type) -> None:
    spec = replace(SPEC, nms=nms)
    outputs, (boxes, scores, classes, sigmas) = outputs_of(spec, seed, dtype)
    found = detections(outputs, 1, spec, spec.input_hw)
    np.testing.assert_array_equal(found.boxes, boxes)
    np.testing.assert_array_equal(found.classes, classes)
    np.testing.assert_allclose(found.sigmas, sigmas, rtol=1e-4, atol=1e-3)
    without = detections(outputs, 1, replace(spec, edge_sigma=False), spec.input_hw)
    assert without.sigmas is None
    np.testing.assert_array_equal(without.scores, scores)


def test_each_edge_has_a_factor_of_its_own() -> None:
    outputs, (_, _, _, sigmas) = outputs_of(SPEC, 5)
    scaled = replace(SPEC, sigma_scale=(0.5, 1, 2, 10))
    found = detections(outputs, 1, scaled, SPEC.input_hw)
    np.testing.assert_allclose(found.sigmas, sigmas * np.float32([0.5, 1, 2, 10]), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0, 2.0**21])
@pytest.mark.parametrize("nms", ["none", "graph"])
def test_a_sigma_that_is_no_number_is_left_out_and_counted(bad: float, nms: str) -> None:
    """Only somebody else's model gives one with a sound box."""
    spec = replace(SPEC, nms=nms)
    outputs, _ = outputs_of(replace(SPEC, nms="none"), 3)
    whole = detections(outputs, 1, replace(SPEC, nms="none"), SPEC.input_hw)
    if nms == "graph":
        count = len(whole.scores)
        outputs = {
            "num_dets": np.int32([[0], [count]]),
            "det_boxes": np.stack([whole.boxes] * 2),
            "det_scores": np.stack([whole.scores] * 2),
            "det_classes": np.stack([whole.classes] * 2),
            "det_sigmas": np.stack([whole.sigmas] * 2),
        }
        outputs["det_sigmas"][1, 2, 3] = bad
    else:
        (anchor,) = np.flatnonzero((outputs["boxes"][1] == whole.boxes[2]).all(axis=1))
        outputs["sigmas"][1, anchor, 3] = bad
    found = detections(outputs, 1, spec, SPEC.input_hw)
    assert found.invalid == 1
    np.testing.assert_array_equal(found.scores, np.delete(whole.scores, 2))
    np.testing.assert_array_equal(found.sigmas, np.delete(whole.sigmas, 2, axis=0))


def test_pixels_of_the_frame() -> None:
    placement = Placement((100, 400), (0.25, 0.5), (3.0, 7.0))
    np.testing.assert_array_equal(placement.sigmas_to_frame(np.float32([[1, 2, 3, 4]])), [[4, 4, 12, 8]])


def test_a_detector_gives_them_in_its_frame() -> None:
    (height, width) = TINY.input_hw
    found = Detector(Unsure())(np.zeros((2 * height, 3 * width, 3), np.uint8))
    assert found.edge_sigma is not None
    assert found.edge_sigma.dtype == np.float32
    np.testing.assert_allclose(found.edge_sigma, [[6, 4, 9, 8]], rtol=1e-6)
    assert found.to_dicts()[0]["edge_sigma_px"] == [6.0, 4.0, 9.0, 8.0]
    assert Detector(Candidates())(np.zeros((9, 9, 3), np.uint8)).edge_sigma is None


def test_a_backend_that_owes_them_is_told() -> None:
    with pytest.raises(BackendError, match=r"candidates gave NoneType as sigmas of tiny for 1 images: expected floats"):
        Detector(Unsure(sigmas=False))(np.zeros((9, 9, 3), np.uint8))


BOXES, SCORES, CLASSES = np.float32([[0, 0, 9, 9], [1, 1, 5, 5]]), np.float32([0.9, 0.3]), np.int32([0, 0])


def test_they_stay_with_their_boxes() -> None:
    found = Detections(BOXES, SCORES, CLASSES, ("a",), edge_sigma=np.float32([[1, 2, 3, 4], [5.126, 6, 7, 0]]))
    for chosen in (found[1:], found[np.array([False, True])], found[[1]]):
        assert chosen.to_dicts()[0]["edge_sigma_px"] == [5.13, 6.0, 7.0, 0.0]
    kept = found.above(0.5).edge_sigma
    assert kept is not None
    assert kept.tolist() == [[1, 2, 3, 4]]
    assert found[:0].to_dicts() == []
    assert found[:0].edge_sigma is not None
    assert "edge_sigma_px" not in Detections(BOXES, SCORES, CLASSES, ("a",)).to_dicts()[0]


@pytest.mark.parametrize(
    ("sigma", "message"),
    [
        (np.zeros((2, 3), np.float32), r"edge_sigma \(2, 3\): expected \(2, 4\), one for each edge of each box"),
        (np.zeros((1, 4), np.float32), r"edge_sigma \(1, 4\): expected \(2, 4\)"),
        (
            np.float32([[0, 0, 0, 0], [0, np.nan, 0, 0]]),
            r"detection 1 has the edge_sigma \[0\.0, nan, 0\.0, 0\.0\]: exp",
        ),
        (
            np.float32([[0, 0, 0, -1], [0, 0, 0, 0]]),
            r"detection 0 has the edge_sigma .*: expected 0 to 1.04858e\+06 pix",
        ),
        (np.float32([[0, 0, 0, np.inf], [0, 0, 0, 0]]), r"detection 0 has the edge_sigma"),
    ],
)
def test_a_container_takes_no_other(sigma: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Detections(BOXES, SCORES, CLASSES, ("a",), edge_sigma=sigma)

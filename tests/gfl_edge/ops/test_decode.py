from __future__ import annotations

import numpy as np
import pytest

from gfl_edge.ops import decode


def test_integral_is_the_expectation_of_the_softmax():
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    logits = np.random.default_rng(0).normal(0, 3, (5, 7, 32)).astype(np.float32)
    bins = torch.from_numpy(logits).reshape(5, 7, 4, 8).softmax(-1)
    expected = bins @ torch.arange(8.0)
    np.testing.assert_allclose(decode.integral(logits), expected.numpy(), rtol=1e-5)


def test_integral_of_a_certain_edge_is_its_bin_and_stays_finite():
    logits = np.full((1, 32), -1e4, np.float32)
    logits[0, [3, 8 + 7, 16, 24 + 5]] = 1e4
    np.testing.assert_allclose(decode.integral(logits), [[3, 7, 0, 5]])


@pytest.mark.filterwarnings("error")
def test_an_edge_without_a_distribution_has_no_distance():
    logits = np.zeros((3, 32), np.float32)
    logits[[0, 1], [9, 10]] = np.inf, np.nan  # of the second edge
    logits[2, 9] = -np.inf  # a bin that is never taken
    distances = decode.integral(logits)
    assert np.isnan(distances[:2]).tolist() == [[False, True, False, False]] * 2
    np.testing.assert_allclose(distances[2], [3.5, (28 - 1) / 7, 3.5, 3.5], rtol=1e-6)


def test_points_follow_ceil_of_size_and_the_offset():
    centers, strides = decode.points((416, 416), (8, 16, 32, 64), 0.0)
    assert len(centers) == 52**2 + 26**2 + 13**2 + 7**2 == 3598
    np.testing.assert_array_equal(centers[1], [8, 0])  # along the row first
    np.testing.assert_array_equal(centers[-1], [6 * 64, 6 * 64])
    assert strides[0] == 8
    assert strides[-1] == 64
    centers, _ = decode.points((64, 96), (32,), 0.5)
    np.testing.assert_array_equal(centers, [[16, 16], [48, 16], [80, 16], [16, 48], [48, 48], [80, 48]])


def test_points_are_float32():
    centers, strides = decode.points((64, 96), (32,), 0.5)
    assert (centers.dtype, strides.dtype) == (np.float32, np.float32)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_distances_are_float32_whatever_the_logits_are(dtype):
    logits = np.random.default_rng(0).normal(0, 3, (5, 32)).astype(dtype)
    distances = decode.integral(logits)
    assert distances.dtype == np.float32
    np.testing.assert_allclose(distances, decode.integral(logits.astype(np.float32)), rtol=5e-3)


def test_every_distance_moves_its_own_edge():
    boxes = decode.boxes_from_distances(
        np.array([[1, 2, 4, 8]], np.float32), np.array([[50, 20]], np.float32), (32, 64)
    )
    np.testing.assert_array_equal(boxes, [[49, 18, 54, 28]])


def test_boxes_are_clipped_to_the_input():
    centers = np.array([[5, 5], [60, 30]], np.float32)
    boxes = decode.boxes_from_distances(np.full((1, 2, 4), 10, np.float32), centers, (32, 64))
    np.testing.assert_array_equal(boxes, [[[0, 0, 15, 15], [50, 20, 64, 32]]])


def test_decode_scales_by_the_stride():
    logits = np.full((1, 4, 32), -1e4, np.float32)
    logits[:, :, [1, 9, 17, 25]] = 1e4  # one stride to every side
    boxes = decode.decode(logits, (64, 64), (32,), 0.5)
    np.testing.assert_allclose(boxes[0, 0], [0, 0, 48, 48])


def test_no_points_have_no_boxes():
    distances = decode.integral(np.empty((2, 0, 4 * 8), np.float32))
    boxes = decode.boxes_from_distances(distances, np.empty((0, 2), np.float32), (64, 96))
    assert (boxes.shape, boxes.dtype) == ((2, 0, 4), np.float32)

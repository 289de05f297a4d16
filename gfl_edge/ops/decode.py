"""The integral decode of Generalized Focal Loss in NumPy: the oracle for graphs and kernels.

An edge's distance is the expectation of its distribution, sum_i i * p_i with p = softmax(logits), in units of the
stride (Li et al., NeurIPS 2020, eq. 5). How unsure the model is of it is the distribution's standard deviation,
sqrt(sum_i (i - sum_j j * p_j)^2 * p_i), in the same units.
"""

from __future__ import annotations

import numpy as np

from gfl_edge.ops.boxes import Floats


def points(input_hw: tuple[int, int], strides: tuple[int, ...], point_offset: float) -> tuple[Floats, Floats]:
    """Centers ``[A, 2]`` xy in input pixels and strides ``[A]`` of all cells, level by level, row by row.

    A level of stride s has ``ceil(H / s) * ceil(W / s)`` cells; cell i lies at ``(i + point_offset) * s``.
    """
    centers, cell_strides = [], []
    height, width = input_hw
    for stride in strides:
        ys, xs = np.mgrid[0 : -(-height // stride), 0 : -(-width // stride)].astype(np.float32)
        cells = np.stack((xs, ys), axis=-1).reshape(-1, 2)
        centers.append((cells + np.float32(point_offset)) * np.float32(stride))
        cell_strides.append(np.full(len(cells), stride, np.float32))
    return np.concatenate(centers), np.concatenate(cell_strides)


def integral(logits: Floats) -> Floats:
    """Distribution logits ``[..., 4 * (reg_max + 1)]`` -> expected distances ``[..., 4]`` in strides (l, t, r, b).

    Those of an edge with a logit that is NaN or infinite upwards are NaN.
    """
    weights = _distributions(logits)
    return np.asarray((weights * np.arange(weights.shape[-1], dtype=np.float32)).sum(axis=-1), np.float32)


def deviation(logits: Floats) -> Floats:
    """Distribution logits ``[..., 4 * (reg_max + 1)]`` -> standard deviations ``[..., 4]`` in strides (l, t, r, b).

    Those of an edge whose expected distance is NaN are NaN. Taken from the mean, as the difference of the mean square
    and the square of the mean would lose the digits of a sure edge.
    """
    weights = _distributions(logits)
    bins = np.arange(weights.shape[-1], dtype=np.float32)
    means = (weights * bins).sum(axis=-1, keepdims=True)
    return np.asarray(np.sqrt((weights * (bins - means) ** 2).sum(axis=-1)), np.float32)


def _distributions(logits: Floats) -> Floats:
    """``[..., 4 * (reg_max + 1)]`` -> the probability of each bin ``[..., 4, reg_max + 1]``."""
    bins = logits.reshape(*logits.shape[:-1], 4, logits.shape[-1] // 4)
    with np.errstate(invalid="ignore", over="ignore"):  # infinite logits make NaN
        weights = np.exp(bins - bins.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
    return np.asarray(weights)


def boxes_from_distances(distances: Floats, centers: Floats, input_hw: tuple[int, int]) -> Floats:
    """Distances ``[..., A, 4]`` in pixels from ``centers`` ``[A, 2]`` -> boxes xyxy, clipped to the input."""
    height, width = input_hw
    corners = np.concatenate((centers - distances[..., :2], centers + distances[..., 2:]), axis=-1)
    return np.clip(corners, np.float32(0), np.array((width, height, width, height), np.float32))


def decode(reg_logits: Floats, input_hw: tuple[int, int], strides: tuple[int, ...], point_offset: float) -> Floats:
    """Distribution logits ``[..., A, 4 * (reg_max + 1)]`` of all levels -> boxes ``[..., A, 4]`` xyxy, input pixels."""
    centers, cell_strides = points(input_hw, strides, point_offset)
    return boxes_from_distances(integral(reg_logits) * cell_strides[:, None], centers, input_hw)

"""A clip of detections whose identities are known: boxes that move, cross, hide each other, and are missed at times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gfl_edge.detections import Detections

WIDTH_HEIGHT = (1280, 720)
TURN_PX, SPEED_PX = 0.3, 4.0  # of the velocity, a frame
MISSED_SHARE, FALSE_A_FRAME = 0.15, 0.5
HIDDEN_SHARE = 0.6  # of an object, behind others: then it is not detected
SIGMA_SPREAD = 0.6  # of the logarithm, among edges


@dataclass(frozen=True, eq=False)
class ClipFrame:
    """What a detector would find, and of whom: ``owners`` ``[n]``, -1 of what is nobody."""

    found: Detections
    owners: NDArray[np.int64]


def clip(seed: int, frames: int, objects: int, noise: float) -> Iterator[ClipFrame]:
    """The frames of a clip.

    Args:
        seed: of the clip.
        frames: how many.
        objects: that move about; they appear one by one in its first third, and never leave.
        noise: standard deviation of an edge, as a share of the object's side, on average.
    """
    rng = np.random.default_rng(seed)
    height = rng.uniform(30, 120, objects)
    sides = np.stack((height * rng.uniform(0.4, 1.2, objects), height), axis=1)
    centers, speeds = rng.uniform((0, 0), WIDTH_HEIGHT, (objects, 2)), rng.normal(0, SPEED_PX, (objects, 2))
    appear = rng.integers(0, max(1, frames // 3), objects)
    for time in range(frames):
        speeds += rng.normal(0, TURN_PX, speeds.shape)
        centers += speeds
        outside = (centers < 0) | (centers > WIDTH_HEIGHT)
        speeds[outside] *= -1
        centers = np.clip(centers, 0, WIDTH_HEIGHT)
        boxes = np.concatenate((centers - sides / 2, centers + sides / 2), axis=1)
        seen = _visible(boxes, appear <= time) & (rng.random(objects) > MISSED_SHARE)
        sigmas = noise * np.tile(sides, 2) * np.exp(rng.normal(0, SIGMA_SPREAD, boxes.shape))
        measured = boxes + rng.normal(0, 1, boxes.shape) * sigmas
        scores = np.clip(rng.normal(0.65, 0.15, objects), 0.36, 1)
        yield _frame(rng, measured[seen], sigmas[seen], scores[seen], np.flatnonzero(seen))


def _visible(boxes: NDArray[np.float64], there: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which objects ``[n]`` are there and not hidden by an earlier one."""
    corner = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    common = np.prod(np.maximum(np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - corner, 0), axis=-1)
    hidden = common > HIDDEN_SHARE * np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)[:, None]
    return np.asarray(there & ~(np.tril(hidden, -1) & there).any(axis=1))


def _frame(
    rng: np.random.Generator,
    boxes: NDArray[np.float64],
    sigmas: NDArray[np.float64],
    scores: NDArray[np.float64],
    owners: NDArray[np.int64],
) -> ClipFrame:
    """With boxes of nobody among them, in order of falling score."""
    count = rng.poisson(FALSE_A_FRAME)
    middles, half = rng.uniform((0, 0), WIDTH_HEIGHT, (count, 2)), rng.uniform(10, 50, (count, 1))
    boxes = np.concatenate((boxes, np.concatenate((middles - half, middles + half), axis=1)))
    sigmas = np.concatenate((sigmas, np.full((count, 4), 8.0)))
    scores = np.concatenate((scores, rng.uniform(0.36, 0.5, count)))
    owners = np.concatenate((owners, np.full(count, -1)))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    order = np.argsort(-scores, kind="stable")
    arrays = boxes[order].astype(np.float32), scores[order].astype(np.float32), np.zeros(len(order), np.int32)
    return ClipFrame(Detections(*arrays, ("object",), edge_sigma=sigmas[order].astype(np.float32)), owners[order])

"""What rounding does to a detector's scores and boxes, in decibels.

Measured after the decode, where every export of a network gives the same numbers: outputs of convolutions that are not
decoded yet are split, merged and scaled as the export likes. A score's error counts against the scores, a box's against
its size, and boxes count by the square of their best score, so that those where nothing is do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfl_edge.ops.boxes import Floats
from gfl_edge.ops.decode import decode
from gfl_edge.ops.postprocess import sigmoid
from gfl_edge.spec import ModelSpec

MAX_DB = 140.0  # what float32 itself rounds


@dataclass(frozen=True)
class Decoded:
    """What a network says of images of one size.

    Attributes:
        boxes: xyxy in pixels of the input, ``[N, A, 4]``.
        scores: ``[N, A, C]``.
    """

    boxes: Floats
    scores: Floats

    @classmethod
    def of(cls, outputs: Mapping[str, NDArray[Any]], spec: ModelSpec, input_hw: tuple[int, int]) -> Decoded:
        """From the outputs of a graph without NMS.

        Args:
            outputs: boxes and scores, or raw maps.
            spec: of the graph.
            input_hw: size of the images.
        """
        if spec.nms != "raw":
            return cls(outputs["boxes"], outputs["scores"])
        boxes = decode(outputs["reg_logits"], input_hw, spec.strides, spec.point_offset)
        return cls(boxes, sigmoid(outputs["cls_logits"]))


def signal_to_noise(reference: Sequence[Decoded], found: Sequence[Decoded]) -> float:
    """Decibels between what two forms of a network say of the same images; low is bad, ``MAX_DB`` the same.

    The noise is the mean of two: of the scores, in power relative to the scores', and of the edges of boxes, relative
    to half of width + height and weighted by the square of the best score.
    """
    score_noise = score_power = edge_noise = weight = 0.0
    for before, after in zip(reference, found, strict=True):
        score_power += float(np.square(before.scores, dtype=np.float64).sum())
        score_noise += float(np.square(after.scores - before.scores, dtype=np.float64).sum())
        weights = np.square(before.scores.max(axis=-1), dtype=np.float64)
        edges = np.square((after.boxes - before.boxes) / _sizes(before.boxes), dtype=np.float64).mean(axis=-1)
        edge_noise, weight = edge_noise + float((weights * edges).sum()), weight + float(weights.sum())
    if score_power == 0.0:
        return MAX_DB if score_noise == 0.0 else 0.0
    mean = (score_noise / score_power + edge_noise / weight) / 2
    return min(MAX_DB, -10 * float(np.log10(mean))) if mean > 0 else MAX_DB


def _sizes(boxes: Floats) -> Floats:
    """Half of width + height, at least a pixel, ``[..., 4]`` -> ``[..., 1]``."""
    return np.asarray(np.maximum((boxes[..., 2:] - boxes[..., :2]).mean(axis=-1, keepdims=True), 1), np.float32)

"""A backend that is not the package's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gfl_edge.spec import ModelSpec
from tests.support.tiny_spec import TINY


class Candidates:
    """Finds a dog in the left half of its input."""

    name = "candidates"
    max_batch: int | None = None

    def __init__(self) -> None:
        self.spec: ModelSpec = replace(TINY, nms="none")
        self.closed = 0

    def run(self, images: np.ndarray) -> dict[str, Any]:
        boxes = np.zeros((len(images), self.spec.num_anchors, 4), np.float32)
        scores = np.zeros((len(images), self.spec.num_anchors, 2), np.float32)
        boxes[:, 0] = 0, 0, images.shape[2] / 2, images.shape[1]
        scores[:, 0, 1] = 0.75
        return {"boxes": boxes, "scores": scores}

    def describe(self) -> dict[str, str]:
        return {"library": "none", "device": "CPU"}

    def close(self) -> None:
        self.closed += 1


class Unsure(Candidates):
    """Says how sure it is of each edge of its dog: 2, 2, 3 and 4 pixels of its input.

    Args:
        sigmas: whether it keeps its promise to say so.
    """

    def __init__(self, sigmas: bool = True) -> None:
        super().__init__()
        self.spec, self._sigmas = replace(self.spec, edge_sigma=True, sigma_scale=(2, 1, 1, 1)), sigmas

    def run(self, images: np.ndarray) -> dict[str, Any]:
        found = super().run(images)
        if self._sigmas:
            found["sigmas"] = np.zeros_like(found["boxes"])
            found["sigmas"][:, 0] = 1, 2, 3, 4
        return found

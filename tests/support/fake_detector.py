"""Detectors that find the same things in every frame, and what makes a stage slow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from gfl_edge.detections import Detections
from gfl_edge.detector import Inference
from gfl_edge.errors import InputError
from gfl_edge.ops.preprocess import check_frame


class FakeDetector:
    """Finds a person (0.9) in the left half of every frame and a dog (0.2) in the right half."""

    class Backend:
        name = "fake"
        max_batch: int | None = None

    class Spec:
        name = "fake"
        class_names = ("person", "dog")
        shown_score = 0.35
        class_scores: tuple[float, ...] | None = None

        def require_sigmas(self, what: str) -> None:
            raise InputError(f"{what}: the fake has none")

    in_flight, spec = 1, Spec()

    def __init__(self) -> None:
        self.backend = self.Backend()
        self.calls = self.closed = 0

    def __call__(self, frame: np.ndarray) -> Detections:
        height, width = check_frame(frame).shape[:2]
        self.calls += 1
        boxes = np.array([[0, 0, width / 2, height], [width / 2, 0, width, height]], np.float32)
        return Detections(boxes, np.array([0.9, 0.2], np.float32), np.array([0, 1], np.int32), ("person", "dog"))

    def prepare(self, frames: list[np.ndarray]) -> list[np.ndarray]:
        return [check_frame(frame) for frame in frames]

    def infer(self, prepared: list[np.ndarray]) -> Inference:
        ms = {"preprocess": 1.0, "network": 20.0, "postprocess": 0.5}
        return Inference([self(frame) for frame in prepared], ms, [0] * len(prepared))

    def infer_all(self, prepared: Iterable[list[np.ndarray]]) -> Iterator[Inference]:
        return map(self.infer, prepared)

    def describe(self) -> dict[str, dict[str, Any]]:
        return {"model": {"name": "fake"}, "backend": {"name": "fake"}}

    def close(self) -> None:
        self.closed += 1

    def __enter__(self) -> FakeDetector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SlowDetector(FakeDetector):
    """Takes so many seconds to resize a batch, and to find what is in it."""

    def __init__(self, prepare_s: float = 0.0, infer_s: float = 0.0) -> None:
        super().__init__()
        self.prepare_s, self.infer_s = prepare_s, infer_s

    def prepare(self, frames: list[np.ndarray]) -> list[np.ndarray]:
        time.sleep(self.prepare_s)
        return super().prepare(frames)

    def infer(self, prepared: list[np.ndarray]) -> Inference:
        time.sleep(self.infer_s)
        return super().infer(prepared)


def slowed(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        time.sleep(seconds)
        return function(*args, **kwargs)

    return call

"""Which detections the page draws, by the score that a viewer chooses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gfl_edge.detections import Detections
from gfl_edge.filters import DetectionFilter
from gfl_edge.web import images
from gfl_edge.web.images import Kind, annotated
from gfl_edge.web.live import LiveFrame, Run
from tests.support.tiny_spec import TINY

NAMES = TINY.class_names[:2]
FOUND = Detections(
    np.array([[5, 5, 30, 30], [40, 5, 70, 30]], np.float32),
    np.array([0.6, 0.5], np.float32),
    np.arange(2, dtype=np.int32),
    NAMES,
)


def drawn(monkeypatch: pytest.MonkeyPatch, asked: DetectionFilter, score: float | None) -> list[int]:
    """The classes that are drawn of ``FOUND``, where the model recommends 0.55 for the second class."""
    spec: Any = SimpleNamespace(class_names=NAMES, shown_score=0.3, class_scores=(0.3, 0.55))
    seen: list[Detections] = []

    def draw(image: Any, found: Detections, **_: Any) -> Any:
        seen.append(found)
        return np.array(image)

    monkeypatch.setattr(images, "draw_detections", draw)
    keep = asked.for_model(spec)
    frame = LiveFrame(1, np.zeros((48, 80, 3), np.uint8), FOUND, keep.apply(FOUND, (48, 80)), 0.0)
    backend: Any = None
    annotated(frame, Run(keep, asked, backend, False, lambda: None), Kind(0, score, "full"))  # type: ignore[arg-type,return-value]
    return [int(class_id) for class_id in seen[0].class_ids]


def test_a_viewers_score_counts_instead_of_those_that_the_model_recommends(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {score: drawn(monkeypatch, DetectionFilter(), score) for score in (None, 0.1, 0.5, 0.57, 0.9)}
    assert shown == {None: [0], 0.1: [0, 1], 0.5: [0, 1], 0.57: [0], 0.9: []}


def test_scores_that_were_given_for_single_classes_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = DetectionFilter(class_scores={NAMES[0]: 0.7})
    shown = {score: drawn(monkeypatch, asked, score) for score in (None, 0.1, 0.9)}
    assert shown == {None: [], 0.1: [1], 0.9: []}

"""Which detections count."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gfl_edge.detections import Detections
from gfl_edge.errors import InputError
from gfl_edge.filters import DetectionFilter, Region
from tests.support.fake_detector import FakeDetector

NAMES = ("person", "car", "traffic light")
# 10 pixels wide and 20 high, each 20 right of the one before
BOXES = np.array([[20 * i, 0, 20 * i + 10, 20] for i in range(4)], np.float32)
FOUND = Detections(BOXES, np.array([0.9, 0.6, 0.5, 0.3], np.float32), np.array([0, 1, 0, 2], np.int32), NAMES)
LEFT = Region(((0, 0), (25, 0), (25, 40), (0, 40)))  # all of the first box, half of the second with its center
RIGHT = Region(((60, 0), (99, 0), (99, 40), (60, 40)))  # the last


def kept(keep: DetectionFilter, found: Detections = FOUND, **frame: Any) -> list[float]:
    return [round(float(score), 2) for score in keep.apply(found, **frame).scores]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (DetectionFilter(), [0.9, 0.6, 0.5, 0.3]),
        (DetectionFilter(score=0.5), [0.9, 0.6, 0.5]),
        (DetectionFilter(classes=("person",)), [0.9, 0.5]),
        (DetectionFilter(classes=("person", "traffic light")), [0.9, 0.5, 0.3]),
        (DetectionFilter(class_scores={"person": 0.6}), [0.9, 0.6, 0.3]),
        (DetectionFilter(score=0.5, class_scores={"traffic light": 0.3, "car": 0.7}), [0.9, 0.5, 0.3]),
        (DetectionFilter(classes=("car",), class_scores={"car": 0.7}), []),
        (DetectionFilter(regions=(LEFT,)), [0.9, 0.6]),
        (DetectionFilter(regions=(LEFT, RIGHT)), [0.9, 0.6, 0.3]),
        (DetectionFilter(excluded=(LEFT,)), [0.5, 0.3]),
        (DetectionFilter(excluded=(LEFT, RIGHT)), [0.5]),
        (DetectionFilter(regions=(LEFT,), excluded=(Region(((0, 0), (12, 0), (12, 40), (0, 40))),)), [0.6]),
        (DetectionFilter(regions=(LEFT,), region_by=0.5), [0.9, 0.6]),
        (DetectionFilter(regions=(LEFT,), region_by=0.51), [0.9]),
        (DetectionFilter(regions=(LEFT,), region_by=1), [0.9]),
        (DetectionFilter(excluded=(LEFT,), region_by=0.51), [0.6, 0.5, 0.3]),
        (DetectionFilter(min_size=(10, 20)), [0.9, 0.6, 0.5, 0.3]),
        (DetectionFilter(min_size=(10.01, 0)), []),
        (DetectionFilter(min_size=(0, 20.01)), []),
    ],
)
def test_conditions(keep: DetectionFilter, expected: list[float]) -> None:
    assert kept(keep) == expected


def test_edges_that_the_model_is_sure_of() -> None:
    sigmas = np.array([[1, 1, 1, 1], [1, 1, 2.5, 1], [0, 0, 0, 0], [9, 9, 9, 9]], np.float32)
    found = replace(FOUND, edge_sigma=sigmas)
    assert kept(DetectionFilter(max_edge_sigma=2.5), found) == [0.9, 0.6, 0.5]
    assert kept(DetectionFilter(max_edge_sigma=2.4), found) == [0.9, 0.5]
    chosen = DetectionFilter(max_edge_sigma=0).apply(found)
    assert chosen.edge_sigma is not None
    assert chosen.edge_sigma.tolist() == [[0, 0, 0, 0]]
    for use in (lambda keep: keep.apply(FOUND), lambda keep: keep.for_model(FakeDetector.Spec())):
        with pytest.raises(InputError, match="max_edge_sigma"):
            use(DetectionFilter(max_edge_sigma=2.0))


def test_the_middle_of_the_lower_edge() -> None:
    ground = Region(((0, 15), (99, 15), (99, 40), (0, 40)))
    assert kept(DetectionFilter(regions=(ground,))) == []
    assert kept(DetectionFilter(regions=(ground,), region_by="bottom")) == [0.9, 0.6, 0.5, 0.3]


def test_shares_of_the_frame() -> None:
    keep = DetectionFilter(regions=(Region(((0, 0), (0.5, 0), (0.5, 1), (0, 1))),))
    assert kept(keep, frame_hw=(100, 100)) == [0.9, 0.6, 0.5]
    assert kept(keep, frame_hw=(100, 60)) == [0.9, 0.6]
    with pytest.raises(InputError, match="give frame_hw"):
        kept(keep)


def test_regions_of_one_source() -> None:
    keep = DetectionFilter(regions=(Region(LEFT.points, 1),), excluded=(Region(RIGHT.points, 0),))
    assert kept(keep, source=0) == [0.9, 0.6, 0.5], "no region is for it, so that its whole frame counts"
    assert kept(keep, source=1) == [0.9, 0.6]
    keep.check_sources(2)
    with pytest.raises(InputError, match="source 1, but there is only one, 0"):
        keep.check_sources(1)


def test_a_score_is_compared_as_above_does() -> None:
    scores = np.linspace(0, 1, 11, dtype=np.float32)[::-1]
    found = Detections(np.zeros((11, 4), np.float32), scores, np.zeros(11, np.int32), NAMES)
    for score in (0.1, 0.3, 0.35, 0.7, 1, 0):
        assert kept(DetectionFilter(score=score), found) == kept(DetectionFilter(), found.above(score))


def test_nothing_found() -> None:
    nothing = FOUND[:0]
    keep = DetectionFilter(0.3, {"car": 0.5}, (), (LEFT,), (RIGHT,), 0.5, (3, 3))
    assert len(keep.apply(nothing, (50, 100))) == 0


def test_a_region_beside_the_frame() -> None:
    keep = DetectionFilter(excluded=(RIGHT,))
    keep.check_frame((40, 61))
    with pytest.raises(InputError, match="outside of the frame of 60x40"):
        keep.check_frame((40, 60))
    with pytest.raises(InputError, match="outside of the frame of 60x40"):
        keep.apply(FOUND, (40, 60))


def test_what_the_model_recommends() -> None:
    spec = FakeDetector.Spec()
    assert DetectionFilter().for_model(spec).score == 0.35
    assert DetectionFilter(class_scores={"dog": 0.1}).for_model(spec).class_scores == {"dog": 0.1}
    assert DetectionFilter(0.2).for_model(spec).score == 0.2


def test_scores_that_the_model_has_stored_for_its_classes() -> None:
    spec = FakeDetector.Spec()
    spec.class_scores = (0.6, 0.1)
    assert DetectionFilter().for_model(spec).class_scores == {"person": 0.6, "dog": 0.1}
    assert DetectionFilter(class_scores={"dog": 0.2}).for_model(spec).class_scores == {"person": 0.6, "dog": 0.2}
    assert DetectionFilter(classes=("dog",)).for_model(spec).class_scores == {"dog": 0.1}
    assert DetectionFilter(0.3).for_model(spec).class_scores == {}  # a score that is asked for is that of all classes


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (DetectionFilter(classes=("Person",)), r"no class 'Person'; person\? Its classes: person, car, traffic light"),
        (DetectionFilter(class_scores={"trafic light": 0.5}), r"no class 'trafic light'; traffic light\?"),
        (DetectionFilter(classes=("xylophone",)), r"no class 'xylophone'\. Its classes"),
        (DetectionFilter(classes=("",)), r"no class ''\. Its classes"),
        (DetectionFilter(classes=("x" * 10000,)), r"no class 'xxx"),
    ],
)
def test_unknown_classes(keep: DetectionFilter, message: str) -> None:
    with pytest.raises(InputError, match=message):
        keep.apply(FOUND)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score": 1.5}, r"score 1\.5: expected 0\.\.1"),
        ({"class_scores": {"car": -1}}, r"score of 'car' -1: expected 0\.\.1"),
        ({"class_scores": [("car", 1)]}, "expected scores by name"),
        ({"classes": "person"}, r"classes 'person': expected a tuple of names, as \('person', 'car'\)"),
        ({"classes": (1,)}, "expected a tuple of names"),
        (
            {"classes": ("car",), "class_scores": {"person": 0.5}},
            "'person', which is none of the classes that count: car",
        ),
        ({"regions": LEFT}, "expected a tuple of gfl_edge.filters.Region"),
        ({"excluded": (LEFT.points,)}, "excluded .* expected a tuple"),
        ({"region_by": "middle"}, "region_by 'middle': expected 'center', 'bottom', or the share"),
        ({"region_by": 0}, "region_by 0: expected"),
        ({"region_by": 1.1}, r"region_by 1\.1: expected"),
        ({"max_edge_sigma": -1}, "max_edge_sigma -1: expected"),
        ({"min_size": 20}, "min_size 20: expected width and height"),
        ({"min_size": (1, 2, 3)}, "expected width and height"),
        ({"min_size": (-1, 2)}, "min_size -1: expected"),
        ({"min_size": (float("nan"), 2)}, "min_size nan"),
    ],
)
def test_what_cannot_be_meant(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DetectionFilter(**settings)

"""Objects that are followed from frame to frame."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from gfl_edge.detections import Detections
from gfl_edge.errors import InputError
from gfl_edge.tracking.tracker import FIRST_FRAMES, MEMORY_FRAMES, ObjectTracker

pytest.importorskip("norfair")

NAMES = ("person", "dog")


def frame(*boxes: tuple[float, float, float, float], classes: tuple[int, ...] | None = None) -> Detections:
    ids = np.array(classes or [0] * len(boxes), np.int32)
    scores = np.linspace(0.9, 0.5, len(boxes), dtype=np.float32)
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), scores, ids, NAMES)


def box(x: float, y: float = 50, side: float = 40) -> tuple[float, float, float, float]:
    return x, y, x + side, y + side


def tracks(tracker: ObjectTracker, found: Detections, time_s: float | None = None) -> list[int]:
    followed = tracker.update(found, time_s)
    np.testing.assert_array_equal(followed.boxes, found.boxes)
    assert followed.track_ids is not None
    assert followed.track_ids.dtype == np.int64
    return followed.track_ids.tolist()


def settled(tracker: ObjectTracker, *boxes: tuple[float, float, float, float]) -> list[int]:
    """Identities of objects that stand still."""
    for _ in range(FIRST_FRAMES):
        found = tracks(tracker, frame(*boxes))
    return found


def test_an_object_has_its_identity_from_the_third_frame_on() -> None:
    tracker = ObjectTracker()
    found = [tracks(tracker, frame(box(10 + 5 * i), box(300 - 5 * i))) for i in range(6)]
    assert found[:2] == [[-1, -1], [-1, -1]]
    assert sorted(found[2]) == [1, 2]
    assert found[2:] == [found[2]] * 4
    assert tracks(tracker, frame(box(270), box(40))) == found[2][::-1], "in another order"


def test_objects_that_cross_keep_their_identities() -> None:
    tracker = ObjectTracker()
    for i in range(60):
        there, back = box(5 * i, y=50), box(300 - 5 * i, y=70)
        found = tracks(tracker, frame(there, back))
    assert sorted(found) == [1, 2]
    first = ObjectTracker()
    for i in range(4):
        start = tracks(first, frame(box(5 * i, y=50), box(300 - 5 * i, y=70)))
    assert found == start


def test_out_of_sight_for_a_while_and_for_good() -> None:
    tracker = ObjectTracker()
    assert settled(tracker, box(10)) == [1]
    for _ in range(MEMORY_FRAMES - 1):
        assert tracks(tracker, frame()) == []
    assert tracks(tracker, frame(box(10))) == [1]
    for _ in range(MEMORY_FRAMES + 2):
        tracks(tracker, frame())
    assert settled(tracker, box(10)) == [2], "an identity is never given again"
    short = ObjectTracker(memory_frames=1)
    assert settled(short, box(10)) == [1]


def test_an_identity_is_of_one_class() -> None:
    tracker = ObjectTracker()
    settled(tracker, box(10))
    assert tracks(tracker, frame(box(10), classes=(1,))) == [-1]
    assert tracks(tracker, frame(box(10))) == [1]


def test_after_a_gap_nobody_is_known() -> None:
    tracker = ObjectTracker()
    for time_s in (0.0, 1.0, 2.0, 3.9, 4.9):
        found = tracks(tracker, frame(box(10)), time_s)
    assert found == [1]
    assert tracks(tracker, frame(box(10)), 8.0) == [-1]
    for time_s in (8.1, 8.2):
        found = tracks(tracker, frame(box(10)), time_s)
    assert found == [2]


def test_frames_that_come_rarely_are_no_gap() -> None:
    """As of a time-lapse, or of a large model on a small CPU."""
    tracker = ObjectTracker()
    found = [tracks(tracker, frame(box(10)), 5.0 * i) for i in range(6)]
    assert found[3:] == [[1]] * 3
    assert tracks(tracker, frame(box(10)), 25.0 + 15.5) == [-1]


def test_trackers_know_nothing_of_each_other() -> None:
    first, second = ObjectTracker(), ObjectTracker()
    assert settled(first, box(10), box(200)) == [1, 2] or settled(first, box(10), box(200)) == [2, 1]
    assert settled(second, box(10)) == [1]


def test_odd_boxes_are_followed_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    tracker = ObjectTracker()
    flat, same = (5.0, 5.0, 5.0, 60.0), box(100)
    with caplog.at_level(logging.DEBUG):
        for i in range(8):
            shrinking = (200.0, 200.0, max(200.0, 240.0 - 10 * i), max(200.0, 240.0 - 10 * i))
            found = tracks(tracker, frame(flat, same, same, shrinking, (-9, -9, 1e6, 1e6)))
    assert len({track for track in found if track > 0}) == len([track for track in found if track > 0])
    assert not caplog.records


def test_a_sure_edge_counts_for_more() -> None:
    """Where an object is expected after a jump depends on the sigma that came with it."""
    reached = []
    for sigma in (0.1, 200.0):
        tracker = ObjectTracker()
        steady = replace(frame(box(10)), edge_sigma=np.full((1, 4), 5, np.float32))
        for _ in range(6):
            tracker.update(steady)
        jumped = replace(frame(box(30)), edge_sigma=np.full((1, 4), sigma, np.float32))
        assert tracker.update(jumped).edge_sigma is not None
        reached.append(float(tracker._norfair.tracked_objects[0].estimate[0, 0]))
    sure, unsure = reached
    assert sure > 25
    assert unsure < 15


@pytest.mark.parametrize("value", [0, -1, 1.5, None, True])
def test_what_is_no_memory(value: object) -> None:
    with pytest.raises(InputError, match="memory_frames"):
        ObjectTracker(value)  # type: ignore[arg-type]

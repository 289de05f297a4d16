"""The container of detections, and its way to supervision and back."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from gfl_edge.detections import Detections
from gfl_edge.errors import InputError

NAMES = ("person", "traffic light")
BOXES = np.array([[1, 2, 30.5, 40], [5, 5, 5, 9]], np.float32)
FOUND = Detections(BOXES, np.array([0.9, 0.25], np.float32), np.array([1, 0], np.int32), NAMES)
UNSURE = Detections(
    FOUND.boxes, FOUND.scores, FOUND.class_ids, NAMES, edge_sigma=np.arange(8, dtype=np.float32).reshape(2, 4)
)
FOLLOWED = Detections(FOUND.boxes, FOUND.scores, FOUND.class_ids, NAMES, track_ids=np.array([7, -1]))


def test_identities_go_where_their_objects_go() -> None:
    assert FOLLOWED[::-1].track_ids.tolist() == [-1, 7]  # type: ignore[union-attr]
    assert FOLLOWED.above(0.5).track_ids.tolist() == [7]  # type: ignore[union-attr]
    assert [one["track_id"] for one in FOLLOWED.to_dicts()] == [7, None]
    assert "track_id" not in FOUND.to_dicts()[0]
    with pytest.raises(InputError, match=r"track_ids \(1,\): expected \(2,\)"):
        Detections(FOUND.boxes, FOUND.scores, FOUND.class_ids, NAMES, track_ids=np.array([7]))


def test_what_is_printed_is_short() -> None:
    assert str(FOUND) == "<Detections: traffic light 0.90 [1, 2, 30, 40], person 0.25 [5, 5, 5, 9]>"
    assert str(FOUND.above(1)) == "<Detections: none>"
    assert str(FOUND[[0] * 7]).endswith("[1, 2, 30, 40], 2 more>")


def test_one_of_them_is_detections_too() -> None:
    assert list(FOUND[1].boxes[0]) == list(BOXES[1])
    assert FOLLOWED[np.int64(0)].to_dicts() == FOLLOWED.to_dicts()[:1]
    with pytest.raises(IndexError):
        FOUND[2]


def test_to_supervision_and_back() -> None:
    supervision = pytest.importorskip("supervision")
    for found in (FOUND, FOLLOWED, UNSURE, FOUND[:0], FOLLOWED[:0], UNSURE[:0]):
        there = found.to_supervision()
        assert isinstance(there, supervision.Detections)
        assert there.data["class_name"].tolist() == [NAMES[i] for i in found.class_ids]
        back = Detections.from_supervision(there, NAMES)
        for name in ("boxes", "scores", "class_ids", "track_ids", "edge_sigma"):
            before, after = getattr(found, name), getattr(back, name)
            assert (before is None) == (after is None)
            if before is not None:
                np.testing.assert_array_equal(after, before)
                assert after.dtype == before.dtype
        assert back.class_names == NAMES
    there = FOUND.to_supervision()
    there.xyxy += 5
    there.confidence[:] = 0
    np.testing.assert_array_equal(FOUND.boxes, BOXES)


def test_what_supervision_may_lack() -> None:
    supervision = pytest.importorskip("supervision")
    bare = supervision.Detections(xyxy=BOXES.astype(np.float64))
    found = Detections.from_supervision(bare, ("thing",))
    assert (found.scores.tolist(), found.class_ids.tolist(), found.track_ids) == ([1, 1], [0, 0], None)
    with pytest.raises(InputError, match="no class_id, and there are 2 classes"):
        Detections.from_supervision(bare, NAMES)
    assert len(Detections.from_supervision(supervision.Detections.empty(), NAMES)) == 0
    rising = supervision.Detections(
        xyxy=BOXES, confidence=np.array([0.25, 0.9]), class_id=np.array([0, 1]), tracker_id=np.array([3, 4])
    )
    found = Detections.from_supervision(rising, NAMES)
    assert found.scores.tolist() == pytest.approx([0.9, 0.25])
    assert found.track_ids is not None
    assert (found.class_ids.tolist(), found.track_ids.tolist(), found.boxes[0, 0]) == ([1, 0], [4, 3], 5)
    with pytest.raises(InputError, match=r"class_ids outside 0\.\.0"):
        Detections.from_supervision(rising, ("thing",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_id": np.array([0, 1.5])}, r"class_id \[0.0, 1.5\]: expected a whole number for each box"),
        ({"tracker_id": np.array([3, np.nan])}, "tracker_id .*nan.*: expected a whole number"),
        ({"tracker_id": np.array([3, None])}, "tracker_id .*None.*: expected a whole number"),
    ],
)
def test_what_supervision_may_have_and_we_do_not(changes: dict[str, np.ndarray], message: str) -> None:
    supervision = pytest.importorskip("supervision")
    odd = supervision.Detections(xyxy=BOXES.copy(), **{"class_id": np.array([0, 1]), **changes})
    with pytest.raises(InputError, match=message):
        Detections.from_supervision(odd, NAMES)
    with pytest.raises(InputError, match="class_names 'thing': expected the names of all classes"):
        Detections.from_supervision(supervision.Detections(xyxy=BOXES.copy(), class_id=np.zeros(2, int)), "thing")


def test_supervision_is_imported_only_when_it_is_used() -> None:
    words = "import sys, gfl_edge.detections, gfl_edge.camera.run; sys.exit('supervision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", words], check=False).returncode == 0
